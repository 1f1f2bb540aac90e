"""A native model as tensors and plain functions of them, and the whole forward pass made of these.

Everything here reads the module's own parameters as they are at the moment of the call; only the joined q, k and v
weights are a copy, and the weights of a layer with an adapter that is not merged are the sum of both.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional
from transformer_lens.model_bridge.sources.native import NativeModel
from transformer_lens.model_bridge.sources.native.model import NativeAttention, NativeBlock, NativeMLP

from cotinterp.models.adapters import full_weight
from cotinterp.models.build import THOUGHT, AlibiAttention, Bridge, ThinkingModel, has_thoughts

Map = Callable[[Tensor], Tensor]
"""A function of the last axis: a norm, an activation."""


@dataclass(frozen=True, eq=False)
class Mlp:
    """The MLP of one block: `out(act(in(norm(resid_mid))))`."""

    norm: Map
    w_in: Float[Tensor, "d_mlp d_model"]
    b_in: Float[Tensor, " d_mlp"]
    act: Map
    w_out: Float[Tensor, "d_model d_mlp"]
    b_out: Float[Tensor, " d_model"]

    def __call__(self, resid_mid: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows d_model"]:
        """`mlp_out`."""
        hidden = self.act(functional.linear(self.norm(resid_mid), self.w_in, self.b_in))
        return functional.linear(hidden, self.w_out, self.b_out)


@dataclass(frozen=True, eq=False)
class Block:
    """One block. `w_qkv` holds q, k and v below each other; `mlp` is None in a model that has attention alone."""

    norm: Map
    w_qkv: Float[Tensor, "qkv d_model"]
    b_qkv: Float[Tensor, " qkv"]
    w_o: Float[Tensor, "d_model z"]
    b_o: Float[Tensor, " d_model"]
    mlp: Mlp | None

    def after_attention(
        self, resid_pre: Float[Tensor, "*rows d_model"], attn_out: Float[Tensor, "*rows d_model"]
    ) -> Float[Tensor, "*rows d_model"]:
        """`resid_post`, given what attention wrote."""
        resid_mid = resid_pre + attn_out
        return resid_mid if self.mlp is None else resid_mid + self.mlp(resid_mid)


@dataclass(frozen=True, eq=False)
class NativeParts:
    """The pieces of a native model, and how they work.

    Attributes:
        w_pos: Position vectors; None for rotary positions, whose `cos` and `sin` are then there.
        slopes: Of ALiBi, by head (`key_bias`); else None.
        causal: Whether no position looks at a later one; the only models with which the fast paths work.
        scale: What attention scores are divided by.
        thought: Token at which the input is the last state of the place before it (`build.ThinkingModel`); else None.
    """

    w_e: Float[Tensor, "d_vocab d_model"]
    w_pos: Float[Tensor, "n_ctx d_model"] | None
    cos: Float[Tensor, "n_ctx d_rotary"] | None
    sin: Float[Tensor, "n_ctx d_rotary"] | None
    blocks: tuple[Block, ...]
    norm: Map
    w_u: Float[Tensor, "d_vocab_out d_model"]
    n_heads: int
    slopes: Float[Tensor, " head"] | None
    causal: bool
    scale: float
    n_ctx: int
    thought: int | None = None

    def embed(self, tokens: Int[Tensor, "*rows"], positions: Int[Tensor, "*#rows"]) -> Float[Tensor, "*rows d_model"]:
        """`resid_pre` of the first block. `positions` count from 0 in each sequence and broadcast over rows."""
        embedded = functional.embedding(tokens, self.w_e)
        return embedded if self.w_pos is None else embedded + functional.embedding(positions, self.w_pos)

    def qkv(
        self, block: Block, resid_pre: Float[Tensor, "*rows d_model"], positions: Int[Tensor, "*#rows"]
    ) -> Float[Tensor, "*rows three head d_head"]:
        """Queries, keys and values (in this order on axis -3) of every row, rotary positions applied."""
        return self.projections(block, resid_pre, positions, slice(0, 3))

    def projections(
        self, block: Block, resid_pre: Float[Tensor, "*rows d_model"], positions: Int[Tensor, "*#rows"], which: slice
    ) -> Float[Tensor, "*rows some head d_head"]:
        """Some of queries, keys and values: `slice(0, 1)` is queries alone, `slice(1, 3)` keys and values."""
        width = len(block.b_qkv) // 3
        chosen = slice(which.start * width, which.stop * width)
        joined = functional.linear(block.norm(resid_pre), block.w_qkv[chosen], block.b_qkv[chosen])
        split: Tensor = rearrange(
            joined, "... (some head d) -> ... some head d", d=width // self.n_heads, head=self.n_heads
        )
        turned = max(0, 2 - which.start)
        if self.cos is None or self.sin is None or not turned:
            return split
        cos, sin = self.cos[positions][..., None, None, :], self.sin[positions][..., None, None, :]
        return torch.cat([_rotated(split[..., :turned, :, :], cos, sin), split[..., turned:, :, :]], dim=-3)

    def rotated(
        self, x: Float[Tensor, "*rows head d_head"], positions: Int[Tensor, "*#rows"]
    ) -> Float[Tensor, "*rows head d_head"]:
        """Queries or keys as scores see them: rotary positions applied, where the model has such."""
        if self.cos is None or self.sin is None:
            return x
        return _rotated(x[..., None, :, :], *(table[positions][..., None, None, :] for table in (self.cos, self.sin)))[
            ..., 0, :, :
        ]

    def attn_out(self, block: Block, z: Float[Tensor, "*rows head d_head"]) -> Float[Tensor, "*rows d_model"]:
        """What the heads write into the residual stream, `b_o` included."""
        return functional.linear(z.flatten(-2), block.w_o, block.b_o)

    def logits(self, resid_post: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows d_vocab_out"]:
        """Final norm and unembedding."""
        return functional.linear(self.norm(resid_post), self.w_u)


def future_keys(positions: Int[Tensor, "*#rows query"], n_keys: int) -> Bool[Tensor, "*#rows 1 query key"]:
    """Which of the keys at positions 0, 1, ... stand after each query: those that it must not see, in every head."""
    return torch.arange(n_keys, device=positions.device) > positions[..., None, :, None]


def attend(
    q: Float[Tensor, "batch query head d_head"],
    k: Float[Tensor, "batch key head d_head"],
    v: Float[Tensor, "batch key head d_head"],
    future: Bool[Tensor, "... query key"],
    *,
    slopes: Float[Tensor, " head"] | None,
    scale: float,
) -> tuple[Float[Tensor, "batch query head d_head"], Float[Tensor, "batch head query key"]]:
    """z and pattern of causal attention. `future` (of `future_keys`) is masked out; keys stand at positions 0, 1, ...

    Keys and values may lie in memory in any order of the axes; by head is fastest. Two callers have another form of the
    same attention, because this one would cost them time: `resume` adds its mask within the product of queries and
    keys, and training without padding has a backward pass of its own.
    """
    scores = (q.transpose(1, 2) @ k.permute(0, 2, 3, 1)).div_(scale)
    if slopes is not None:
        scores += key_bias(slopes, k.shape[1])
    pattern = scores.masked_fill_(future, -torch.inf).softmax(dim=-1)
    return (pattern @ v.transpose(1, 2)).transpose(1, 2), pattern


def key_bias(slopes: Float[Tensor, " head"], n_keys: int) -> Float[Tensor, "head 1 key"]:
    """ALiBi as what is added to the scores of each head and key: slope times position, which counts from 0.

    A softmax is the same where all scores of a query move together, so that -slope * (query - key) may be
    slope * key: then it does not matter which query asks.
    """
    return slopes[:, None, None] * torch.arange(n_keys, device=slopes.device)


def native_parts(model: object, *, causal: bool = True, thoughts: bool = False) -> NativeParts | None:
    """The parts of a raw native module, or of a bridge around one; None where `why_not_native` has a reason.

    Of a bidirectional model only for those who ask for it with `causal=False`, and see to its padding; of one with
    continuous thoughts only for those who ask for it with `thoughts=True`, and feed its states back.

    No gradient is cut off: use `torch.no_grad` around what is only read.
    """
    module = _module_of(model)
    if module is None or why_not_native(model, causal=causal, thoughts=thoughts) is not None:
        return None
    first = _raw(_raw(module.layers[0]).attn) if len(module.layers) else None
    rotary = module.rotary
    return NativeParts(
        w_e=_raw(module.tok_embed).weight,
        w_pos=None if module.pos is None else _raw(module.pos).weight,
        cos=None if rotary is None else rotary.cos_cached,
        sin=None if rotary is None else rotary.sin_cached,
        blocks=tuple(_block(_raw(layer)) for layer in module.layers),
        norm=_raw(module.ln_out),
        w_u=_raw(module.head).weight,
        n_heads=int(module.cfg.n_heads),
        slopes=first.slopes if isinstance(first, AlibiAttention) else None,
        causal=module.cfg.attention_dir == "causal",
        scale=1.0 if first is None else float(first.scale),
        n_ctx=int(module.cfg.n_ctx),
        thought=THOUGHT if has_thoughts(model) else None,
    )


def why_not_native(model: object, *, causal: bool = True, thoughts: bool = False) -> str | None:
    """Why a model must be run by its own forward pass; None where its parts do the same.

    It is another architecture, or a native one with something that the parts do not spell out: attention of a class of
    its own, grouped keys, a gated MLP, soft caps, folded weights, hooks that somebody attached and that must go on
    firing.
    """
    module = _module_of(model)
    if module is None:
        return f"{type(model).__name__} is no native TransformerLens model"
    if has_thoughts(model) and not thoughts:
        return "its last states are fed back as continuous thoughts"
    if isinstance(model, Bridge):
        if model.compatibility_mode:
            return "its weights were folded by enable_compatibility_mode"
        if any(point.fwd_hooks for point in model.hook_dict.values()):
            return "hooks are attached to it"
    if any(part._forward_hooks or part._forward_pre_hooks for part in module.modules() if type(part) in _PLAIN):
        return "torch hooks are attached to its modules"
    cfg = module.cfg
    if causal and cfg.attention_dir != "causal":
        return "its attention is not causal"
    if float(cfg.attn_scores_soft_cap) > 0 or float(cfg.output_logits_soft_cap) > 0:
        return "it caps scores or logits"
    for number, layer in enumerate(module.layers):
        block = _raw(layer)
        attn = _raw(block.attn) if isinstance(block, NativeBlock) else None
        if attn is None or type(attn) not in (NativeAttention, AlibiAttention) or attn.kv_repeats != 1:
            return f"the attention of layer {number} is {type(attn).__name__} or has grouped keys"
        mlp = None if cfg.attn_only else _raw(block.mlp)
        if mlp is not None and (type(mlp) is not NativeMLP or mlp.ln is not None):
            return f"the MLP of layer {number} is {type(mlp).__name__} or has a norm of its own"
    return None


_PLAIN = (
    *(nn.Linear, nn.Embedding, nn.LayerNorm, NativeModel, ThinkingModel, NativeBlock),
    *(NativeAttention, AlibiAttention, NativeMLP),
)


def _module_of(model: object) -> NativeModel | None:
    inner = model.original_model if isinstance(model, Bridge) else model
    return inner if isinstance(inner, NativeModel) and type(inner) in (NativeModel, ThinkingModel) else None


def _raw(module: Any) -> Any:
    """The plain module inside what a bridge may have put in its place."""
    return getattr(module, "_original_component", None) or module


def _block(block: Any) -> Block:
    attn = _raw(block.attn)
    q, k, v, o = (_raw(part) for part in (attn.q, attn.k, attn.v, attn.o))
    return Block(
        norm=_raw(block.ln1),
        w_qkv=torch.cat([full_weight(part) for part in (q, k, v)]),
        b_qkv=torch.cat([q.bias, k.bias, v.bias]),
        w_o=full_weight(o),
        b_o=o.bias,
        mlp=None if block.cfg.attn_only else _mlp(_raw(block.ln2), _raw(block.mlp)),
    )


def _mlp(norm: Any, mlp: Any) -> Mlp:
    inner, outer = _raw(mlp.fc_in), _raw(mlp.fc_out)
    return Mlp(norm, full_weight(inner), inner.bias, mlp.act, full_weight(outer), outer.bias)


def _rotated(
    x: Float[Tensor, "*rows turned head d_head"],
    cos: Float[Tensor, "*#rows 1 1 d_rotary"],
    sin: Float[Tensor, "*#rows 1 1 d_rotary"],
) -> Float[Tensor, "*rows turned head d_head"]:
    """Adjacent pairs of the first `d_rotary` dimensions turned by their position's angle."""
    turned, kept = x[..., : cos.shape[-1]], x[..., cos.shape[-1] :]
    pairs = rearrange(turned, "... (pair two) -> ... pair two", two=2)
    swapped: Tensor = rearrange(torch.stack([-pairs[..., 1], pairs[..., 0]], dim=-1), "... pair two -> ... (pair two)")
    return torch.cat([turned * cos + swapped * sin, kept], dim=-1)


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
    future = future_keys(positions[None], n)
    stream = parts.embed(tokens, positions[None]) if resid is None else resid
    states = []
    for block in parts.blocks:
        q, k, v = parts.qkv(block, stream, positions[None]).unbind(dim=2)
        z, pattern = attend(q, k, v, future, slopes=parts.slopes, scale=parts.scale)
        attn_out = parts.attn_out(block, z)
        resid_mid = stream + attn_out
        mlp_out = None if block.mlp is None else block.mlp(resid_mid)
        resid_post = resid_mid if mlp_out is None else resid_mid + mlp_out
        states.append(LayerState(stream, q, k, v, pattern, z, attn_out, mlp_out, resid_post))
        stream = resid_post
    return parts.logits(stream), tuple(states)
