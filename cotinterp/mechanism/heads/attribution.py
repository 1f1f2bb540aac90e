"""Direct logit attribution: which parts of the model write the logit difference, exactly and for each example.

The final residual stream is a sum of named parts; with the scale of the final norm frozen at its value on this input,
the logit difference is linear in it, so each part has a share and the shares sum to what the model says. Elhage et al.
2021 (transformer-circuits.pub/2021/framework); nostalgebraist 2020, "interpreting GPT: the logit lens".

What it does not establish: causation. A share is what the part writes *directly* to this readout. What later layers
make of it is counted as theirs, a head whose share is zero may be indispensable, the frozen scale hides that removing
a part would rescale all others, and other heads may take over for one that is removed. `table.py` sets the ablation
beside it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import pandas as pd
import plotly.graph_objects as go
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from cotinterp.mechanism.heads.decomposition import Component, ComponentKind, StreamParts, parts_in, stream_parts
from cotinterp.mechanism.heads.readout import Readout, frozen_readout
from cotinterp.mechanism.metrics import logit_diff
from cotinterp.mechanism.model import HookedModel
from cotinterp.results import Result, bootstrap_means, with_labels
from cotinterp.results.plots import PALETTE


class AttributionMismatch(ArithmeticError):
    """The parts do not sum to the model's own logit difference, so their shares mean nothing for this model."""


@runtime_checkable
class LogitContrast(Protocol):
    """Where to read which logit difference: the `clean` side of a `Contrast`, or anything shaped like it."""

    @property
    def clean(self) -> Tensor: ...
    @property
    def at(self) -> Tensor: ...
    @property
    def answer(self) -> Tensor: ...
    @property
    def foil(self) -> Tensor: ...


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
        """One row for each component: mean in logits, its share of the mean difference, 95% interval over examples."""
        values = self.values.double().numpy()
        low, high = bootstrap_means(values)
        columns = {
            "component": [part.label for part in self.components],
            "kind": [part.kind for part in self.components],
            "layer": pd.array([part.layer for part in self.components], dtype="Int64"),
            "head": pd.array([part.head for part in self.components], dtype="Int64"),
            "attribution": values.mean(axis=1),
            "share": values.mean(axis=1) / float(self.logit_difference.double().mean()),
            "ci_low": low,
            "ci_high": high,
            "n": values.shape[1],
        }
        return with_labels(pd.DataFrame(columns), self.labels)

    def figure(self) -> go.Figure:
        """A bar for each component in the order of the model, colored by kind, with its interval over examples."""
        table = self.frame()
        figure = go.Figure()
        for color, (kind, part) in zip(PALETTE, table.groupby("kind", sort=False), strict=False):
            spread = {
                "array": part["ci_high"] - part["attribution"],
                "arrayminus": part["attribution"] - part["ci_low"],
            }
            figure.add_bar(
                x=part["component"],
                y=part["attribution"],
                error_y={"type": "data", "symmetric": False, **spread},
                name=str(kind).replace("_", " "),
                marker_color=color,
                customdata=part["share"],
                hovertemplate="%{x}: %{y:.3f} logits, %{customdata:.1%} of the difference",
            )
        figure.update_layout(
            template="plotly_white",
            title=f"Direct attribution of the logit difference ({float(self.logit_difference.mean()):.2f} on average)",
            yaxis_title="logits toward the answer (mean, 95% interval)",
            height=520,
            font_size=13,
        )
        figure.update_xaxes(categoryorder="array", categoryarray=table["component"], tickangle=-90, automargin=True)
        return figure


def logit_attribution(
    model: HookedModel,
    contrast: LogitContrast,
    *,
    tolerance: float = 1e-4,
    batch_size: int | None = None,
    labels: Mapping[str, str | int] | None = None,
) -> AttributionResult:
    """What each component writes directly to logit[answer] - logit[foil] at position `at` of the clean input.

    Works without TransformerLens' compatibility mode, hence leaves the weights alone. Layer norm, RMS norm (both with
    or without parameters) and no norm; grouped-query attention, any positions, with or without MLPs.

    Raises:
        ValueError: The readout is not linear (soft-capped logits), the norm is unknown, or W_O or W_U are missing.
        AttributionMismatch: For some example the components miss the model's own logit difference by more than
            `tolerance` logits. Raise `tolerance` only for models that compute in half precision.
    """
    logits, stream = stream_parts(model, contrast.clean, contrast.at, batch_size=batch_size)
    measured = logit_diff(logits, contrast.at, contrast.answer, contrast.foil)
    readout = frozen_readout(model, stream.last, contrast.answer, contrast.foil)
    components, values = zip(*parts_in(model, stream, readout), strict=True)
    found = torch.stack(values)
    _check_sum(found, measured, stream, readout, tolerance)
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
    tolerance: float,
) -> None:
    gap = (values.sum(dim=0) - measured.double()).abs()
    if bool((gap <= tolerance).all()):
        return
    of_stream = (readout.of(stream.last) + readout.constant - measured.double()).abs().max()
    of_parts = (values.sum(dim=0) - readout.of(stream.last) - readout.constant).abs().max()
    raise AttributionMismatch(
        f"the components miss the model's own logit difference by {float(gap.max()):.3g} (allowed: {tolerance:g}). "
        f"Final norm and unembedding account for {float(of_stream):.3g}, the parts of the residual stream for "
        f"{float(of_parts):.3g}: "
        + (
            "something besides embeddings, z @ W_O + b_O and mlp_out writes to the stream (a norm after a sublayer, "
            "a parallel branch?)."
            if bool(of_parts > of_stream)
            else "the logits are not ln_final, then W_U and b_U, of the last resid_post (an unusual norm or head?)."
        )
    )
