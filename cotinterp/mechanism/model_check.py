"""What has to hold in a model before it is taken apart, and which models may be run from their weights.

`check_model` is the first thing to run on a model of your own. An edit that fires but does not act looks exactly like a
site that does not matter. So every site is replaced by what it holds on other tokens, and two things are asked: did the
logits move, and does the edited run still obey the arithmetic of a transformer block (`LAWS`), with the written value
in the place of the old one? An edit that is discarded fails the first; one that reaches only some of the site's readers
(TransformerLens's resid_mid) fails the second.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd
import plotly.graph_objects as go
import torch
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor

from cotinterp.figures import heatmap
from cotinterp.mechanism.activations import Readings, activations
from cotinterp.mechanism.hooks import available_kinds
from cotinterp.mechanism.interventions import patch, run_with, watch
from cotinterp.mechanism.model import (
    TOLERANCE,
    HookedModel,
    TokensLike,
    precision,
    require_finite_weights,
    require_model,
    require_tokens,
    several,
    tolerance_of,
    weight,
)
from cotinterp.mechanism.sites import KINDS, Kind, Site, site_columns
from cotinterp.models.native.parts import NativeParts, forward, native_parts
from cotinterp.models.native.resume import resume
from cotinterp.results import Result, with_labels

_PRECISE = (torch.float32, torch.float64)
# Examples on which weights and model are compared.
_COMPARED = 2


@torch.no_grad()
def exact_parts(model: HookedModel, tokens: Int[Tensor, "batch pos"]) -> NativeParts | None:
    """The parts of a native model (without gradient) that runs in single or double precision; None for any other.

    What is computed from them is what hooks would read, up to float32 rounding. In half precision the order of
    operations would show, so that such models are left to their own forward pass. The first two of `tokens` are run in
    three ways: by the model, from its weights, and from its weights resumed in the middle of the text (a self-patch,
    which must change nothing). Where these disagree somebody replaced the forward pass: a UserWarning says so, and the
    model is left to its hooks.
    """
    parts = native_parts(model)
    tokens = require_tokens(model, tokens)
    if parts is None or parts.w_e.dtype not in _PRECISE:
        return None
    require_finite_weights(model)
    few = tokens[:_COMPARED].to(parts.w_e.device)
    expected, (found, states) = run_with(model, few, []), forward(parts, few)
    n, rows = few.shape[1], torch.arange(len(few), device=few.device)
    at, start = torch.full_like(rows, n - 1), n // 2
    patched = resume(parts, states, layer=0, start=start, rows=rows, resid=states[0].resid_pre[:, start:], at=at)
    off = max(_distance(found, expected), _distance(patched, expected[:, -1]))
    if off <= TOLERANCE:
        return parts
    warnings.warn(
        f"the model's logits are not those of its weights (off by {off:.1g} of the largest logit): its forward pass "
        "was replaced, so this takes the slow way, by hooks. by_hooks=True takes it without asking.",
        UserWarning,
        stacklevel=3,
    )
    return None


def _distance(found: Float[Tensor, "*logits"], expected: Float[Tensor, "*logits"]) -> float:
    """The largest difference in units of the largest logit."""
    return float((found - expected).abs().max()) / max(float(expected.abs().max()), 1e-6)


STREAM, NEXT, OUTPUT, VALUES = (
    "resid_post = resid_pre + attn_out + mlp_out",
    "resid_pre of the next layer (logits of the last) = resid_post",
    "attn_out = sum of z @ W_O over heads + b_O",
    "z = pattern @ v",
)
LAWS: Mapping[Kind, str] = {
    "resid_pre": STREAM,
    "attn_out": STREAM,
    "mlp_out": STREAM,
    "resid_post": NEXT,
    "z": OUTPUT,
    "q": VALUES,
    "k": VALUES,
    "v": VALUES,
    "pattern": VALUES,
}
"""What has to hold in a run in which this kind was written."""

NO_HOOK = "the model has no such hook"


def law_error(
    model: HookedModel,
    site: Site,
    held: Readings,
    edited: Float[Tensor, "batch pos d_vocab"],
    donor: Float[Tensor, "batch pos d_vocab"],
) -> float:
    """Largest violation of the law of this kind in a run in which the site was written, relative to its largest number.

    `held`: what the sites of the layer, and `resid_pre` of the next, hold in that run; `edited`: its logits; `donor`:
    logits of the run whose activation was written. NaN where a term of the law is not in `held` or W_O is not offered.
    """
    at = {kind: held[Site(kind, site.layer)] for kind in KINDS if Site(kind, site.layer) in held}
    try:
        match LAWS[site.kind]:
            case law if law == STREAM:
                branches = [at["attn_out"], *([at["mlp_out"]] if "mlp_out" in at else [])]
                return _relative(at["resid_post"], at["resid_pre"] + sum(branches))
            case law if law == NEXT:
                following = held.get(Site("resid_pre", site.layer + 1))
                return _relative(edited, donor) if following is None else _relative(following, at["resid_post"])
            case law if law == OUTPUT:
                return _relative(at["attn_out"], _through_output(model, site.layer, at["z"]))
            case _:
                values = at["v"].repeat_interleave(at["pattern"].shape[1] // at["v"].shape[2], dim=2)
                mixed = einsum(at["pattern"], values, "batch head dest src, batch src head d -> batch dest head d")
                return _relative(at["z"], mixed)
    except (KeyError, ValueError):
        return float("nan")


def _through_output(
    model: HookedModel, layer: int, z: Float[Tensor, "batch pos head d_head"]
) -> Float[Tensor, "batch pos d_model"]:
    written = einsum(z, weight(model, "W_O")[layer].to(z), "b pos head d, head d d_model -> b pos d_model")
    bias = getattr(model, "b_O", None)
    return written if bias is None else written + bias[layer].detach()


def _relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / found.abs().max().clamp_min(1e-12))


@dataclass(frozen=True)
class SiteCheck:
    """What came of one site.

    Attributes:
        read, written: Whether its activation can be had, and whether writing it moves the logits.
        moved: Largest change of any logit when the site is replaced by what it holds on the other tokens.
        own: The same when it is replaced by what it holds already: 0 in a model that can be trusted.
        law_error: How far the edited run is from the law of this kind (`LAWS`), relative to the largest number in it;
            NaN where the kind has none, or one of its terms cannot be read.
        note: What went wrong, or what to mind.
    """

    site: Site
    read: bool
    written: bool = False
    moved: float = float("nan")
    own: float = float("nan")
    law_error: float = float("nan")
    note: str = ""


@dataclass(frozen=True)
class ModelCheck(Result):
    """What every site of a model is good for. `tolerance` is the relative error up to which a law counts as obeyed."""

    checks: tuple[SiteCheck, ...]
    tolerance: float = TOLERANCE
    labels: Mapping[str, str | int] = field(default_factory=dict)

    def of(self, kind: str, layer: int) -> SiteCheck:
        """The check of one site. KeyError where the model has no such layer or kind."""
        for check in self.checks:
            if (check.site.kind, check.site.layer) == (kind, layer):
                return check
        raise KeyError(
            f"no {kind} of layer {layer} was checked; there are {[str(check.site) for check in self.checks]}"
        )

    def sound(self) -> tuple[Kind, ...]:
        """The kinds that can be written in every layer and then obey their law, as far as that could be checked."""
        bad = {check.site.kind for check in self.checks if not check.written or check.note}
        return tuple(kind for kind in KINDS if kind not in bad)

    def problems(self) -> list[str]:
        """One line per site that cannot be read or written, or that has something to mind."""
        return [f"{check.site}: {check.note}" for check in self.checks if check.note]

    def faults(self) -> list[str]:
        """The `problems` that are none of every bridge's: neither a hook that is absent nor `resid_mid`."""
        return [
            f"{check.site}: {check.note}"
            for check in self.checks
            if check.note and check.note != NO_HOOK and check.site.kind != "resid_mid"
        ]

    def law_errors(self) -> dict[str, float]:
        """The largest violation of each law (`LAWS`) over all layers and kinds; NaN where it could not be checked."""
        found: dict[str, float] = dict.fromkeys(LAWS.values(), float("nan"))
        for check in self.checks:
            if check.law_error == check.law_error:
                law = LAWS[check.site.kind]
                found[law] = check.law_error if found[law] != found[law] else max(found[law], check.law_error)
        return found

    def frame(self) -> pd.DataFrame:
        """One row per layer and kind, with the columns of `SiteCheck` and the law that the edited run was held to."""
        rows = [
            {
                **site_columns(check.site),
                "read": check.read,
                "written": check.written,
                "moved": check.moved,
                "own": check.own,
                "law": LAWS.get(check.site.kind, ""),
                "law_error": check.law_error,
                "note": check.note,
            }
            for check in self.checks
        ]
        return with_labels(pd.DataFrame(rows), self.labels)

    def figure(self) -> go.Figure:
        """Kinds against layers, colored by how far an edit moves the logits; missing where nothing can be written."""
        table = self.frame()
        table["moved"] = table["moved"].where(table["written"])
        return heatmap(
            table.assign(block=[f"L{layer}" for layer in table["layer"]]),
            x="kind",
            y="block",
            value="moved",
            title="Largest change of a logit when a site is replaced by what it holds on other tokens",
            hover=["read", "own", "law_error"],
            y_title="layer",
            value_title="logits",
        )


def check_model(
    model: HookedModel,
    tokens: TokensLike,
    *,
    other: Int[Tensor, "..."] | TokensLike | None = None,
    layers: Sequence[int] | None = None,
    tolerance: float | None = None,
    labels: Mapping[str, str | int] | None = None,
) -> ModelCheck:
    """Read and write every kind of site in every layer of `model` (or in `layers`), on your own `tokens`.

    `tolerance`: the relative error up to which a law counts as obeyed; by default what rounding makes in the precision
    of the model (`tolerance_of`). `other`: tokens of the same shape whose activations are written; by default `tokens`
    with the examples exchanged. Some twenty passes per layer, so a handful of examples is enough. Take another number
    of positions than the model has heads: only then does a swap of the two axes show.

    It establishes that the sites are wired as named, on these tokens. It does not say that anything is computed there.
    ValueError for a model that does not answer the same twice, what `require_model` and `require_tokens` refuse, and
    for `other` of another shape or with a row equal to that of `tokens`.
    """
    require_model(model)
    allowed = tolerance_of(model) if tolerance is None else tolerance
    tokens = require_tokens(model, tokens)
    donors = tokens.roll(1, dims=0) if other is None else require_tokens(model, other, "other")
    if donors.shape != tokens.shape or bool((donors == tokens).all(dim=1).any()):
        raise ValueError(
            "every example needs other tokens of the same length to be compared with: give at least two different "
            f"examples, or `other` of shape {tuple(tokens.shape)} that differs from `tokens` in every row."
        )
    runs = _Runs(tokens, run_with(model, tokens, []), run_with(model, donors, []))
    again = float((run_with(model, tokens, []) - runs.clean).abs().max())
    if again:
        raise ValueError(
            f"model: two runs of the same tokens differ by {again:.2g} in a logit (dropout that is on in eval mode? "
            "random numbers?). Wanted is a model that answers the same twice: no edit could be told from chance."
        )
    checks = []
    for layer in range(int(model.cfg.n_layers)) if layers is None else several(layers, "layers", "[0]"):
        read, refused = _readable(model, donors, layer)
        own = activations(model, tokens, read)
        for site in (Site(kind, layer) for kind in KINDS):
            checks.append(
                SiteCheck(site, read=False, note=refused[site])
                if site in refused
                else _check(model, runs, site, own, read, allowed)
            )
    return ModelCheck(tuple(checks), allowed, dict(labels or {}))


@dataclass(frozen=True, eq=False)
class _Runs:
    """The tokens, their logits, and those of the tokens whose activations are written."""

    tokens: Int[Tensor, "batch pos"]
    clean: Float[Tensor, "batch pos d_vocab"]
    donor: Float[Tensor, "batch pos d_vocab"]


def _readable(model: HookedModel, tokens: Tensor, layer: int) -> tuple[dict[Site, Tensor], dict[Site, str]]:
    """What the sites of a layer hold, and why the others cannot be read."""
    there = [Site(kind, layer) for kind in available_kinds(model, layer)]
    refused = {Site(kind, layer): NO_HOOK for kind in KINDS if Site(kind, layer) not in there}
    try:
        return activations(model, tokens, there), refused
    except ValueError:
        found: dict[Site, Tensor] = {}
    for site in there:
        try:
            found |= activations(model, tokens, [site])
        except ValueError as error:
            refused[site] = str(error)
    return found, refused


def _check(model: HookedModel, runs: _Runs, site: Site, own: Readings, donor: Readings, tolerance: float) -> SiteCheck:
    following = Site("resid_pre", site.layer + 1)
    watched = [near for near in donor if near.kind != "resid_mid"]
    watched += [following] if following.layer < int(model.cfg.n_layers) else []
    held: dict[Site, Tensor] = {}
    try:
        edited = run_with(model, runs.tokens, [patch(site, donor[site]), *(watch(near, held) for near in watched)])
        itself = run_with(model, runs.tokens, [patch(site, own[site], expect_change=False)])
    except ValueError as error:
        return SiteCheck(site, read=True, note=str(error))
    moved = float((edited - runs.clean).abs().max())
    off = law_error(model, site, held, edited, runs.donor)
    return SiteCheck(
        site=site,
        read=True,
        written=moved > 0,
        moved=moved,
        own=float((itself - runs.clean).abs().max()),
        law_error=off,
        note=_note(site, moved, off, tolerance, precision(model)),
    )


def _note(site: Site, moved: float, error: float, tolerance: float, dtype: torch.dtype) -> str:
    if not moved:
        return "the edit fired and moved no logit: what is written there is not used"
    if error > tolerance:
        name = str(dtype).removeprefix("torch.")
        return (
            f"in the run in which it is written, {LAWS[site.kind]} is off by {error:.1g} of its size, where rounding "
            f"in {name} explains {tolerance:.1g}: a multiplier or a norm stands in between, or part of the model still "
            "reads the old value"
        )
    return ""
