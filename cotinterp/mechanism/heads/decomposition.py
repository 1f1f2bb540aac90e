"""The final residual stream as a sum of named parts: embeddings, heads, attention biases, MLPs.

Every block of a pre-norm transformer only adds to the residual stream, so at any position the last `resid_post` is a
sum over everything written so far (Elhage et al. 2021, transformer-circuits.pub/2021/framework). A part is given by
the number that it adds to one readout, never as a vector: that is all that attribution needs, and small.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor

from cotinterp.mechanism.activations import run_and_read
from cotinterp.mechanism.heads.readout import Readout, weight
from cotinterp.mechanism.model import HookedModel
from cotinterp.mechanism.sites import Site

ComponentKind = Literal["token_embedding", "position_embedding", "head", "attention_bias", "mlp_out", "final_bias"]


@dataclass(frozen=True)
class Component:
    """A part of the model that adds to the residual stream at the readout: `Component("head", 1, 3)`, printed L1H3.

    `attention_bias` is a layer's b_O, which belongs to none of its heads. `final_bias` is the bias of the final norm
    and of the unembedding: it stands in no residual stream but is part of the logits.
    """

    kind: ComponentKind
    layer: int | None = None
    head: int | None = None

    @property
    def label(self) -> str:
        """Short name: token_embedding, L1H3, L1.b_O, L1.mlp_out, final_bias."""
        match self.kind:
            case "head":
                return f"L{self.layer}H{self.head}"
            case "attention_bias":
                return f"L{self.layer}.b_O"
            case "mlp_out":
                return f"L{self.layer}.mlp_out"
            case _:
                return self.kind


Part = tuple[Component, Float[Tensor, " batch"]]


@dataclass(frozen=True)
class StreamParts:
    """What passes through one position of each example, as far as its decomposition needs it.

    `embedding`, `first`, `last`: the token embedding, the stream into the first block, the stream out of the last.
    `z`, `mlp_out`: one tensor for each layer; `mlp_out` is empty for a model without MLPs.
    """

    embedding: Float[Tensor, "batch d_model"]
    first: Float[Tensor, "batch d_model"]
    last: Float[Tensor, "batch d_model"]
    z: tuple[Float[Tensor, "batch head d_head"], ...]
    mlp_out: tuple[Float[Tensor, "batch d_model"], ...]


def stream_parts(
    model: HookedModel,
    tokens: Int[Tensor, "batch pos"],
    at: Int[Tensor, " batch"],
    *,
    batch_size: int | None = None,
) -> tuple[Float[Tensor, "batch pos d_vocab"], StreamParts]:
    """Logits, and everything that adds to the residual stream at position `at` of each example, of one forward pass."""
    layers = range(model.cfg.n_layers)
    first, last = Site("resid_pre", 0), Site("resid_post", model.cfg.n_layers - 1)
    z = [Site("z", layer) for layer in layers]
    mlp_out = [] if getattr(model.cfg, "attn_only", False) else [Site("mlp_out", layer) for layer in layers]
    logits, found = run_and_read(model, tokens, [first, last, *z, *mlp_out], positions=at, batch_size=batch_size)
    parts = StreamParts(
        embedding=_token_embedding(model, tokens, at),
        first=found[first],
        last=found[last],
        z=tuple(found[site] for site in z),
        mlp_out=tuple(found[site] for site in mlp_out),
    )
    return logits, parts


def parts_in(model: HookedModel, stream: StreamParts, readout: Readout) -> Iterator[Part]:
    """Each component with what it adds to the readout, in the order in which the model writes it.

    The position embedding is whatever enters the first block beside the token embedding; a model where that is exactly
    zero (rotary, ALiBi, no positions) has no such component, and one whose attention adds no bias (Llama) no b_O.
    """
    yield Component("token_embedding"), readout.of(stream.embedding)
    positions = stream.first.double() - stream.embedding.double()
    if bool(positions.any()):
        yield Component("position_embedding"), readout.of(positions)
    output_weights, output_biases = weight(model, "W_O"), getattr(model, "b_O", None)
    for layer, z in enumerate(stream.z):
        written = einsum(
            z.to(readout.direction),
            output_weights[layer].to(readout.direction),
            readout.direction,
            "batch head d_head, head d_head d_model, batch d_model -> head batch",
        )
        for head, values in enumerate(written):
            yield Component("head", layer, head), values
        if output_biases is not None:
            bias = output_biases[layer].detach().expand(len(z), -1)
            yield Component("attention_bias", layer), readout.of(bias)
        if stream.mlp_out:
            yield Component("mlp_out", layer), readout.of(stream.mlp_out[layer])
    yield Component("final_bias"), readout.constant


def _token_embedding(
    model: HookedModel, tokens: Int[Tensor, "batch pos"], at: Int[Tensor, " batch"]
) -> Float[Tensor, "batch d_model"]:
    rows = torch.arange(len(tokens), device=tokens.device)
    with torch.no_grad():
        # One token a row is enough, and the hook rather than W_E because some models scale what they look up.
        _, cache = model.run_with_cache(tokens[rows, at][:, None], names_filter=["hook_embed"])
    embedding: Tensor = cache["hook_embed"]
    return embedding[:, 0]
