"""Direct logit attribution: which parts of the model write the logit difference, exactly and for each example.

Every block of a pre-norm transformer only adds to the residual stream, so the final stream is a sum of named parts:
embeddings, heads, attention biases, MLPs. With the scale of the final norm frozen at its value on this input, the logit
difference is linear in that stream, so each part has a share, and the shares sum to what the model says. Elhage et al.
2021, "A Mathematical Framework for Transformer Circuits" (transformer-circuits.pub/2021/framework); nostalgebraist
2020, "interpreting GPT: the logit lens".

What it does not establish: causation. A share is what the part writes *directly* to this readout. What later layers
make of it is counted as theirs; a head whose share is zero may be indispensable; the frozen scale hides that removing a
part would rescale all others; and other heads may take over for one that is removed. `head_table` sets the ablation
beside it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pandas as pd
import plotly.graph_objects as go
import torch
from einops import einsum, rearrange
from jaxtyping import Float, Int
from torch import Tensor

from cotinterp.figures import attribution_figure
from cotinterp.mechanism.activations import run_and_read
from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.heads.losses import means, relative, unit_of
from cotinterp.mechanism.metrics import logit_diff
from cotinterp.mechanism.model import HookedModel, precision, tolerance_of, weight
from cotinterp.mechanism.sites import Site, site_columns
from cotinterp.results import Result, bootstrap_means, with_labels

NormFamily = Literal["layer norm", "rms norm", "no norm"]

NORM_FAMILIES: dict[str | None, NormFamily] = {
    "LN": "layer norm",
    "LNPre": "layer norm",
    "RMS": "rms norm",
    "RMSPre": "rms norm",
    None: "no norm",
}


@dataclass(frozen=True)
class Readout:
    """One logit difference for each example, as a linear function of its final residual stream (float64).

    `direction`: what a unit of residual stream adds to the logit difference. `constant`: the bias of the final norm
    and of the unembedding, which no part of the residual stream carries.
    """

    direction: Float[Tensor, "batch d_model"]
    constant: Float[Tensor, " batch"]

    def of(self, part: Float[Tensor, "batch d_model"]) -> Float[Tensor, " batch"]:
        """How much `part` of the residual stream adds to the logit difference; positive favors the answer."""
        return einsum(part.to(self.direction), self.direction, "batch d_model, batch d_model -> batch")


def frozen_readout(
    model: HookedModel,
    residual: Float[Tensor, "batch d_model"],
    answer: Int[Tensor, " batch"],
    foil: Int[Tensor, " batch"],
) -> Readout:
    """The readout of answer against foil, with the final norm's scale frozen at its value on `residual`.

    With the scale frozen the norm is affine, so logit[answer] - logit[foil] = <direction, residual> + constant, where
    `direction` is W_U[:, answer] - W_U[:, foil] pulled back through the norm; whatever sums to the residual stream also
    sums to the logit difference.

    Exact on `residual` itself. It does not say what the logits of *another* residual stream would be: there the scale
    differs. ValueError for a model whose readout is not linear after the norm (soft-capped logits, an unknown norm).
    """
    family = _norm_family(model.cfg)
    unembedding = weight(model, "W_U").double()
    norm = getattr(model, "ln_final", None)
    gain, shift = norm_parameters(norm, model.cfg, residual.shape[-1], unembedding.device)
    toward_answer = rearrange(unembedding[:, answer] - unembedding[:, foil], "d_model batch -> batch d_model")

    stream = residual.double()
    if family == "layer norm":
        stream = stream - stream.mean(dim=-1, keepdim=True)
    direction = toward_answer * gain
    if family == "layer norm":
        direction = direction - direction.mean(dim=-1, keepdim=True)
    if family != "no norm":
        direction = direction / (stream.square().mean(dim=-1, keepdim=True) + model.cfg.eps).sqrt()

    bias = getattr(model, "b_U", None)
    constant = toward_answer @ shift
    if bias is not None:
        constant = constant + (bias[answer] - bias[foil]).detach().double()
    return Readout(direction=direction, constant=constant)


def _norm_family(cfg: Any) -> NormFamily:
    if getattr(cfg, "output_logits_soft_cap", 0.0) > 0:
        raise ValueError(
            f"the logits are soft-capped at {cfg.output_logits_soft_cap}: they are not linear in the residual stream, "
            "so no attribution sums to their difference."
        )
    name = cfg.normalization_type
    if name not in NORM_FAMILIES:
        raise ValueError(f"normalization_type {name!r} is not understood; known: {sorted(map(str, NORM_FAMILIES))}.")
    family = NORM_FAMILIES[name]
    return "rms norm" if getattr(cfg, "final_rms", False) else family


def norm_parameters(
    norm: object, cfg: Any, d_model: int, device: torch.device
) -> tuple[Float[Tensor, " d_model"], Float[Tensor, " d_model"]]:
    """Gain and shift of a norm of the model (float64): one and zero where it has none."""
    gain = torch.ones(d_model, dtype=torch.float64, device=device)
    shift = torch.zeros_like(gain)
    for name in ("weight", "w"):
        found = getattr(norm, name, None)
        if isinstance(found, Tensor):
            offset = 1.0 if getattr(cfg, "rmsnorm_uses_offset", False) else 0.0
            gain = found.detach().double() + offset
            break
    for name in ("bias", "b"):
        found = getattr(norm, name, None)
        if isinstance(found, Tensor):
            shift = found.detach().double()
            break
    return gain, shift


ComponentKind = Literal[
    "token_embedding", "position_embedding", "head", "attention_bias", "mlp_out", "final_bias", "input_bias"
]


@dataclass(frozen=True)
class Component:
    """A part of the model that adds to the residual stream at the readout: `Component("head", 1, 3)`, printed L1H3.

    `attention_bias` is a layer's b_O, which belongs to none of its heads. `final_bias` is the bias of the final norm
    and of the unembedding: it stands in no residual stream but is part of the logits. `input_bias`, of
    `attention_routes` alone, is that of the norm before a head and of its queries or keys.
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

    @property
    def columns(self) -> dict[str, str | int]:
        """What tables say of where it writes: z of a head, mlp_out of a layer, else its label in place of a site."""
        layer = -1 if self.layer is None else self.layer
        match self.kind:
            case "head":
                return site_columns(Site("z", layer, self.head))
            case "mlp_out":
                return site_columns(Site("mlp_out", layer))
            case _:
                return {**site_columns(self.label), "kind": self.kind, "layer": layer}


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

    A component is given by this one number an example, never as a vector: attribution needs no more.

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


class AttributionMismatch(ArithmeticError):
    """The parts do not sum to the model's own logit difference, so their shares mean nothing for this model."""


@dataclass(frozen=True)
class AttributionResult(Result):
    """What each component writes to the logit difference, in logits; positive favors the answer over the foil.

    Attributes:
        components: What writes, in the order in which the model does.
        values: One row for each component; a column sums to that example's logit difference.
        logit_difference: What the model itself says, for each example.
    """

    components: tuple[Component, ...]
    values: Float[Tensor, "component batch"]
    logit_difference: Float[Tensor, " batch"]
    labels: Mapping[str, str | int] = field(default_factory=dict)

    def total(self) -> Float[Tensor, " batch"]:
        """The sum over components: the logit difference again."""
        return self.values.sum(dim=0)

    def of(self, kind: ComponentKind, layer: int | None = None, head: int | None = None) -> Float[Tensor, " batch"]:
        """The values of one component. KeyError naming those that exist."""
        wanted = Component(kind, layer, head)
        if wanted not in self.components:
            raise KeyError(f"no component {wanted.label}; there are {[part.label for part in self.components]}")
        return self.values[self.components.index(wanted)]

    def heads(self) -> Float[Tensor, "layer head batch"]:
        """The values of the heads alone."""
        rows = [row for row, part in enumerate(self.components) if part.kind == "head"]
        n_layers = 1 + max(part.layer for part in self.components if part.layer is not None)
        return rearrange(self.values[rows], "(layer head) batch -> layer head batch", layer=n_layers)

    def top(self, k: int = 5) -> list[tuple[str, float]]:
        """The `k` components whose mean is largest in absolute value, with their signed means."""
        means = self.values.mean(dim=1)
        order = means.abs().argsort(descending=True, stable=True)[:k].tolist()
        return [(self.components[row].label, float(means[row])) for row in order]

    def frame(self) -> pd.DataFrame:
        """One row for each component: mean in logits, its share of the mean difference, 95% interval over examples.

        `share`: of the examples that have a logit difference to speak of; `dropped` counts the others, and where it is
        NaN `note` says why (`losses.unit_of`).
        `component` says what it is; `site`, `kind`, `layer` and `head` where it writes (`L1H3.z`, `L1.mlp_out`).
        """
        values = self.values.double().numpy()
        low, high = bootstrap_means(values)
        # A share of a negative difference is one as well: both are turned around.
        sign = -1.0 if float(self.logit_difference.double().mean()) < 0 else 1.0
        turned = sign * self.values, sign * self.logit_difference
        columns = {
            "attribution": values.mean(axis=1),
            "share": means(relative(*turned)),
            "ci_low": low,
            "ci_high": high,
            **unit_of(*turned).columns,
            "n": values.shape[1],
        }
        places = [{"component": part.kind, **part.columns} for part in self.components]
        return with_labels(pd.DataFrame(places).assign(**columns), self.labels)

    def figure(self) -> go.Figure:
        """A bar for each component in the order of the model, colored by kind, with its interval over examples."""
        mean = float(self.logit_difference.mean())
        title = f"Direct attribution of the logit difference ({mean:.2f} on average)"
        return attribution_figure(self.frame(), title=title)


def logit_attribution(
    model: HookedModel,
    contrast: Contrast,
    *,
    tolerance: float | None = None,
    batch_size: int | None = None,
    labels: Mapping[str, str | int] | None = None,
) -> AttributionResult:
    """What each component writes directly to logit[answer] - logit[foil] at position `at` of the clean input.

    Works without TransformerLens' compatibility mode, hence leaves the weights alone. Layer norm, RMS norm (both with
    or without parameters) and no norm; grouped-query attention, any positions, with or without MLPs.

    Raises:
        ValueError: The readout is not linear (soft-capped logits), the norm is unknown, or W_O or W_U are missing.
        AttributionMismatch: For some example the components miss the model's own logit difference by more than
            `tolerance` logits; by default by more than rounding explains in the precision that the model computes in
            (`tolerance_of`, times the sum of the components' sizes where that is above 1).
    """
    contrast.check(model)
    logits, stream = stream_parts(model, contrast.clean, contrast.at, batch_size=batch_size)
    measured = logit_diff(logits, contrast.at, contrast.answer, contrast.foil)
    readout = frozen_readout(model, stream.last, contrast.answer, contrast.foil)
    components, values = zip(*parts_in(model, stream, readout), strict=True)
    found = torch.stack(values)
    allowed = tolerance_of(model) * found.abs().sum(dim=0).clamp_min(1.0)
    if tolerance is not None:
        allowed = torch.full_like(allowed, tolerance)
    _check_sum(found, measured, stream, readout, allowed, precision(model))
    return AttributionResult(
        components=components,
        values=found.float().cpu(),
        logit_difference=measured.detach().float().cpu(),
        labels=dict(labels or {}),
    )


def _check_sum(
    values: Float[Tensor, "component batch"],
    measured: Float[Tensor, " batch"],
    stream: StreamParts,
    readout: Readout,
    allowed: Float[Tensor, " batch"],
    dtype: torch.dtype,
) -> None:
    gap = (values.sum(dim=0) - measured.double()).abs()
    if bool((gap <= allowed).all()):
        return
    worst = int((gap / allowed).argmax())
    of_stream = (readout.of(stream.last) + readout.constant - measured.double()).abs().max()
    of_parts = (values.sum(dim=0) - readout.of(stream.last) - readout.constant).abs().max()
    raise AttributionMismatch(
        f"the components miss the model's own logit difference by {float(gap[worst]):.3g} (allowed in "
        f"{str(dtype).removeprefix('torch.')}: {float(allowed[worst]):.2g}). "
        f"Final norm and unembedding account for {float(of_stream):.3g}, the parts of the residual stream for "
        f"{float(of_parts):.3g}: "
        + (
            "something besides embeddings, z @ W_O + b_O and mlp_out writes to the stream (a norm after a sublayer, "
            "a parallel branch?)."
            if bool(of_parts > of_stream)
            else "the logits are not ln_final, then W_U and b_U, of the last resid_post (an unusual norm or head?)."
        )
    )
