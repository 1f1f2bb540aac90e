"""The whole forward pass, and everything that instruments read of it."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cotinterp.models.native.parts import NativeParts, attend


@dataclass(frozen=True, eq=False)
class LayerState:
    """What one block holds: its input, queries, keys, values, pattern, heads, and what attention and MLP wrote.

    Queries and keys are those of the scores: rotary positions are applied (the hooks of a bridge show them before).
    """

    resid_pre: Float[Tensor, "batch pos d_model"]
    q: Float[Tensor, "batch pos head d_head"]
    k: Float[Tensor, "batch pos head d_head"]
    v: Float[Tensor, "batch pos head d_head"]
    pattern: Float[Tensor, "batch head pos pos"]
    z: Float[Tensor, "batch pos head d_head"]
    attn_out: Float[Tensor, "batch pos d_model"]
    mlp_out: Float[Tensor, "batch pos d_model"] | None
    resid_post: Float[Tensor, "batch pos d_model"]


def forward(
    parts: NativeParts, tokens: Int[Tensor, "batch pos"], *, resid: Float[Tensor, "batch pos d_model"] | None = None
) -> tuple[Float[Tensor, "batch pos d_vocab_out"], tuple[LayerState, ...]]:
    """Logits, and what every block held. `resid` replaces the first block's input, whatever the tokens say.

    ValueError for sequences longer than the context.
    """
    n = tokens.shape[1]
    if n > parts.n_ctx:
        raise ValueError(f"sequences of {n} tokens in a context of {parts.n_ctx}: cut them, or use a model with more.")
    positions = torch.arange(n, device=tokens.device)
    stream = parts.embed(tokens, positions[None]) if resid is None else resid
    states = []
    for block in parts.blocks:
        q, k, v = parts.qkv(block, stream, positions[None]).unbind(dim=2)
        z, pattern = attend(q, k, v, scale=parts.scale)
        attn_out = parts.attn_out(block, z)
        resid_mid = stream + attn_out
        mlp_out = None if block.mlp is None else block.mlp(resid_mid)
        resid_post = resid_mid if mlp_out is None else resid_mid + mlp_out
        states.append(LayerState(stream, q, k, v, pattern, z, attn_out, mlp_out, resid_post))
        stream = resid_post
    return parts.logits(stream), tuple(states)
