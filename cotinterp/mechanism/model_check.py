"""What can be read and written in this model, found out by doing it: the first thing to run on a bridge of your own.

An edit that fires but does not act looks exactly like a site that does not matter. So every site is replaced by what it
holds on other tokens, and two things are asked: did the logits move, and does the edited run still obey the arithmetic
of a transformer block, with the written value in the place of the old one? An edit that is discarded fails the first;
one that reaches some of its readers only (TransformerLens's resid_mid) fails the second.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cotinterp.mechanism.activations import activations
from cotinterp.mechanism.block_laws import LAWS, Held, law_error
from cotinterp.mechanism.hooks import available_kinds
from cotinterp.mechanism.interventions import patch, run_with, watch
from cotinterp.mechanism.model import HookedModel, require_eval
from cotinterp.mechanism.sites import KINDS, Kind, Site
from cotinterp.results import Result, with_labels
from cotinterp.results.plots import heatmap


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
    tolerance: float = 1e-4
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

    def frame(self) -> pd.DataFrame:
        """One row per layer and kind, with the columns of `SiteCheck` and the law that the edited run was held to."""
        rows = [
            {
                "layer": check.site.layer,
                "site": check.site.kind,
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
            x="site",
            y="block",
            value="moved",
            title="Largest change of a logit when a site is replaced by what it holds on other tokens",
            hover=["read", "own", "law_error"],
            y_title="layer",
            value_title="logits",
        )


def check_model(
    model: HookedModel,
    tokens: Int[Tensor, "batch pos"],
    *,
    other: Int[Tensor, "..."] | None = None,
    layers: Sequence[int] | None = None,
    tolerance: float = 1e-4,
    labels: Mapping[str, str | int] | None = None,
) -> ModelCheck:
    """Read and write every kind of site in every layer of `model` (or in `layers`), on your own `tokens`.

    `other`: tokens of the same shape whose activations are written; by default `tokens` with the examples exchanged.
    Some twenty passes per layer, so a handful of examples is enough. Take another number of positions than the model
    has heads: only then does a swap of the two axes show.

    It establishes that the sites are wired as named, on these tokens. It does not say that anything is computed there.
    ValueError for a model in train mode, and for `other` of another shape or with a row equal to that of `tokens`.
    """
    require_eval(model)
    donors = tokens.roll(1, dims=0) if other is None else other
    if donors.shape != tokens.shape or bool((donors == tokens).all(dim=1).any()):
        raise ValueError(
            "every example needs other tokens of the same length to be compared with: give at least two different "
            f"examples, or `other` of shape {tuple(tokens.shape)} that differs from `tokens` in every row."
        )
    with torch.no_grad():
        runs = _Runs(tokens, model(tokens), model(donors))
    checks = []
    for layer in range(int(model.cfg.n_layers)) if layers is None else layers:
        read, refused = _readable(model, donors, layer)
        own = activations(model, tokens, read)
        for site in (Site(kind, layer) for kind in KINDS):
            checks.append(
                SiteCheck(site, read=False, note=refused[site])
                if site in refused
                else _check(model, runs, site, own, read, tolerance)
            )
    return ModelCheck(tuple(checks), tolerance, dict(labels or {}))


@dataclass(frozen=True, eq=False)
class _Runs:
    """The tokens, their logits, and those of the tokens whose activations are written."""

    tokens: Int[Tensor, "batch pos"]
    clean: Float[Tensor, "batch pos d_vocab"]
    donor: Float[Tensor, "batch pos d_vocab"]


def _readable(model: HookedModel, tokens: Tensor, layer: int) -> tuple[dict[Site, Tensor], dict[Site, str]]:
    """What the sites of a layer hold, and why the others cannot be read."""
    there = [Site(kind, layer) for kind in available_kinds(model, layer)]
    refused = {Site(kind, layer): "the model has no such hook" for kind in KINDS if Site(kind, layer) not in there}
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


def _check(model: HookedModel, runs: _Runs, site: Site, own: Held, donor: Held, tolerance: float) -> SiteCheck:
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
        note=_note(site, moved, off, tolerance),
    )


def _note(site: Site, moved: float, error: float, tolerance: float) -> str:
    if not moved:
        return "the edit fired and moved no logit: what is written there is not used"
    if error > tolerance:
        return (
            f"in the run in which it is written, {LAWS[site.kind]} is off by {error:.1g} of its size: a multiplier "
            "or a norm stands in between, or part of the model still reads the old value"
        )
    return ""
