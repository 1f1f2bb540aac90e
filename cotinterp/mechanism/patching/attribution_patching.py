"""Attribution patching: a gradient in place of many patched runs, and how far it agrees with them.

A patch changes the metric by about (donor - recipient) . gradient of the metric at the recipient's activation. Two
forward passes and one backward pass give this score for every site and place of a batch at once, where true patching
takes a pass for each cell. Directions, signs and units are those of `patch_sweep`.

The score is a first-order estimate, to be read beside its agreement with true patching
(`AttributionPatchingResult.agreement`). It is exact where the model is linear between the two runs; on a linear model
the scores of the first resid_pre sum to the metric gap. It misleads where the slope at the recipient says little about
a step of this size:

- Saturated attention has hardly a slope: a head that would turn to another token when patched scores about 0 at
  everything that moves its q and k (Kramar et al. 2024 recompute the softmax there; this does not).
- A ReLU that is off at the recipient passes no gradient, and one that is on never turns off; GELU likewise, softened.
- A norm rescales a large step (above all one at the first resid_pre), of which its gradient knows nothing.
- Paths of opposite sign that cancel at the recipient hide a site that true patching shows.

`steps` above 1 averages the gradients over points between the two runs' first resid_pre (integrated gradients over the
input: Sundararajan et al. 2017, arXiv:1703.01365; Hanna et al. 2024, arXiv:2403.17806). As steps grow, the sum
of the scores of the first resid_pre then tends to the gap, whatever the model; at later sites it helps where saturation
is the trouble, without such a guarantee.

Nanda 2023 (neelnanda.io/mechanistic-interpretability/attribution-patching); Syed et al. 2023, arXiv:2310.10348; Kramar
et al. 2024, arXiv:2403.00745.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from einops import einsum
from jaxtyping import Bool, Float, Int
from scipy.stats import pearsonr, spearmanr
from torch import Tensor

from cotinterp.figures import heatmap
from cotinterp.figures.patching import agreement_figure
from cotinterp.mechanism.activations import BUDGET, Budget, at_positions, gradients, run_and_read
from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.interventions import run_with
from cotinterp.mechanism.metrics import METRIC_WORDS, MetricName, measure
from cotinterp.mechanism.model import HookedModel, is_causal
from cotinterp.mechanism.patching.runs import (
    CONTROLS,
    FIRST,
    Cell,
    Changes,
    Meter,
    PatchingControls,
    Runs,
    cells_of,
    checked_metrics,
    minus,
    place_mask,
    prepared,
    rows_at_once,
)
from cotinterp.mechanism.patching.sweep import CellsResult, PatchingResult
from cotinterp.mechanism.sites import Site
from cotinterp.results import Result, with_labels

RANKINGS = ("absolute", "signed")
ALL_SITES = "all sites"


@dataclass(frozen=True, eq=False)
class AttributionAgreement(Result):
    """Estimated (`score`) and true (`effect`) normalized effects of the same cells, and how alike they rank them.

    `ranking`: "absolute" ranks cells by the size of their effect, "signed" from the most positive down; which one was
    used stands in the table, because circuits chosen by one or the other differ. Cells where both are exactly 0 are
    left out (`left_out`): causal order alone makes them so, and they would agree whatever the estimate was worth.
    """

    cells: tuple[Cell, ...]
    score: Float[np.ndarray, " cells"]
    effect: Float[np.ndarray, " cells"]
    ranking: str
    top: tuple[int, ...]
    labels: Mapping[str, str | int]

    @property
    def compared(self) -> Bool[np.ndarray, " cells"]:
        """The cells that are compared: those with both numbers, where not both are exactly 0."""
        known = np.isfinite(self.score) & np.isfinite(self.effect)
        found: Bool[np.ndarray, " cells"] = known & ((self.score != 0) | (self.effect != 0))
        return found

    def frame(self) -> pd.DataFrame:
        """One row for all sites and one for each kind of site (`z of heads`: one by one).

        `n` cells are compared, `left_out` are 0 on both sides. `spearman`: rank correlation under `ranking`. `pearson`:
        correlation of the signed numbers. `overlap_k`: share of the true top k that are among the k with the largest
        scores; k/n is what chance gives. NaN where there are fewer than three cells, or than k, or where one side does
        not vary. `max_difference`: largest |score - effect|.
        """
        groups = {ALL_SITES: np.arange(len(self.cells))}
        for kind in dict.fromkeys(map(kind_of, self.cells)):
            groups[kind] = np.array([i for i, cell in enumerate(self.cells) if kind_of(cell) == kind])
        rows = [{"sites": name, **self._agreement(members)} for name, members in groups.items()]
        return with_labels(pd.DataFrame(rows), self.labels)

    def worst(self, n: int = 10) -> pd.DataFrame:
        """The cells whose estimate is furthest from the truth: site, place, score, effect, difference."""
        table = pd.DataFrame(
            {
                "site": [cell.site.label for cell in self.cells],
                "place": [cell.place for cell in self.cells],
                "score": self.score,
                "effect": self.effect,
                "difference": self.score - self.effect,
            }
        )
        return table[self.compared].sort_values("difference", key=np.abs, ascending=False, kind="stable").head(n)

    def figure(self) -> go.Figure:
        """Estimate over truth, one point a cell, colored by kind; on the line they agree."""
        cells = pd.DataFrame(
            {
                "site": [cell.site.label for cell in self.cells],
                "place": [cell.place for cell in self.cells],
                "kind": [kind_of(cell) for cell in self.cells],
                "score": self.score,
                "effect": self.effect,
            }
        )
        overall = self.frame().iloc[0]
        return agreement_figure(
            cells,
            title=f"Attribution against true patching: rank correlation {overall['spearman']:.2f} ({self.ranking}), "
            f"largest difference {overall['max_difference']:.2f}",
        )

    def _agreement(self, members: Int[np.ndarray, " members"]) -> dict[str, str | int | float]:
        return agreement_numbers(self.score[members], self.effect[members], ranking=self.ranking, top=self.top)


def agreement_numbers(
    score: Float[np.ndarray, " items"], effect: Float[np.ndarray, " items"], *, ranking: str, top: Sequence[int]
) -> dict[str, str | int | float]:
    """How alike estimates and true effects of the same items are: the columns of `AttributionAgreement.frame`."""
    compared = np.isfinite(score) & np.isfinite(effect) & ((score != 0) | (effect != 0))
    left_out, score, effect = int((~compared).sum()), score[compared], effect[compared]
    ranked = (np.abs(score), np.abs(effect)) if ranking == "absolute" else (score, effect)
    varied = len(score) > 2 and all(len(np.unique(side)) > 1 for side in (*ranked, score, effect))
    found: dict[str, str | int | float] = {
        "n": len(score),
        "left_out": left_out,
        "ranking": ranking,
        "spearman": float(spearmanr(*ranked).statistic) if varied else float("nan"),
        "pearson": float(pearsonr(score, effect).statistic) if varied else float("nan"),
    }
    for k in top:
        best = [set(np.argsort(-side, kind="stable")[:k].tolist()) for side in ranked]
        found[f"overlap_{k}"] = len(best[0] & best[1]) / k if k <= len(score) else float("nan")
    return {**found, "max_difference": float(np.abs(score - effect).max(initial=0.0))}


def agreement_of(
    cells: Sequence[Cell],
    score: Float[np.ndarray, " cells"],
    effect: Float[np.ndarray, " cells"],
    *,
    ranking: str = "absolute",
    top: Sequence[int] = (5, 10, 20),
    labels: Mapping[str, str | int] | None = None,
) -> AttributionAgreement:
    """Scores and effects of the same cells, compared. ValueError for an unknown ranking, or nothing but zeros."""
    if ranking not in RANKINGS:
        raise ValueError(f"unknown ranking {ranking!r}: {' or '.join(RANKINGS)}.")
    if not top or min(top) < 1:
        raise ValueError(f"top={tuple(top)}: name at least one k, each of 1 or more.")
    found = AttributionAgreement(tuple(cells), score, effect, ranking, tuple(top), dict(labels or {}))
    if not found.compared.any():
        zero = "exactly 0 by gradient and by patching" if np.isfinite(score + effect).any() else "without an effect"
        raise ValueError(f"all {len(cells)} cells are {zero}: nothing to compare.")
    return found


def kind_of(cell: Cell) -> str:
    """The kind of a cell's site; `z of heads` where heads are patched one by one."""
    return cell.site.kind if cell.site.head is None else f"{cell.site.kind} of heads"


@dataclass(frozen=True, eq=False, kw_only=True)
class AttributionPatchingResult(CellsResult):
    """Estimated effects of every cell, never to be shown alone.

    `measured.changes` are the scores: what patching the cell would change in the metric if the model were linear.
    Intervals are of the estimate over examples and know nothing of how far it is from the truth. `steps`: gradients
    averaged, 1 at the recipient alone.
    """

    steps: int

    def agreement(
        self, patching: PatchingResult, *, ranking: str = "absolute", top: Sequence[int] = (5, 10, 20)
    ) -> AttributionAgreement:
        """How well these estimates stand for true patching of the same pairs: report it with the scores.

        `ranking`: whether sites are ranked by the size of their effect or by the signed effect; circuits differ by it.
        ValueError where the two are not about the same pairs, direction and metric, share no cell, or have no effects.
        """
        self._check_same(patching)
        theirs = {cell: i for i, cell in enumerate(patching.cells)}
        shared = [i for i, cell in enumerate(self.cells) if cell in theirs]
        if not shared:
            raise ValueError("the two sweeps have no cell in common: score the kinds and heads that were patched.")
        cells = tuple(self.cells[i] for i in shared)
        (metric,) = self.metrics
        if reason := self.no_effects() or patching.no_effects(metric):
            raise ValueError(f"there are no effects to compare: {reason}")
        score = self.effects().effect[shared]
        effect = patching.effects(metric).effect[[theirs[cell] for cell in cells]]
        about: dict[str, str | int] = {
            "metric": metric,
            "direction": self.direction,
            "pair": self.pair,
            "steps": self.steps,
        }
        return agreement_of(cells, score, effect, ranking=ranking, top=top, labels={**self.labels, **about})

    def figure(self) -> go.Figure:
        """Layers and heads by places, one facet per kind; red is negative, blue positive, white 0."""
        table = self.frame().iloc[-len(self.cells) :]
        table = table.assign(
            kind=[kind_of(cell) for cell in self.cells],
            block=[cell.site.block for cell in self.cells],
            place=[cell.place for cell in self.cells],
        )
        (metric,) = self.metrics
        how = "at the recipient" if self.steps == 1 else f"averaged over {self.steps} steps"
        return heatmap(
            table,
            x="place",
            y="block",
            value="effect",
            facet="kind",
            midpoint=0.0,
            title=f"{self.pair} changed, {self.direction}: effect on the {METRIC_WORDS.get(metric, metric)}, "
            f"estimated from gradients {how}. Read beside the agreement with true patching.",
            x_title="place",
            y_title="layer or head",
            value_title="estimated effect",
        )

    def _check_same(self, patching: PatchingResult) -> None:
        ours = {"pair": self.pair, "direction": self.direction}
        theirs = {"pair": patching.pair, "direction": patching.direction}
        if ours != theirs:
            raise ValueError(f"attribution is of {ours}, patching of {theirs}: compare sweeps of the same contrast.")
        (metric,) = self.metrics
        if metric not in patching.metrics:
            raise ValueError(f"{metric} was not patched, only {list(patching.metrics)} were.")
        gaps = self.measured.gaps[metric], patching.measured.gaps[metric]
        if len(gaps[0]) != len(gaps[1]) or not np.allclose(*gaps, rtol=1e-3, atol=1e-3):
            raise ValueError("the gaps differ: the two sweeps were made of different examples or models.")


def attribution_patch(
    model: HookedModel,
    contrast: Contrast,
    *,
    kinds: Sequence[str] = ("resid_pre", "attn_out", "mlp_out"),
    heads: bool | Sequence[str] = False,
    direction: str = "denoise",
    metric: str = "logit_diff",
    steps: int = 1,
    controls: PatchingControls = CONTROLS,
    budget: Budget = BUDGET,
    labels: Mapping[str, str | int] | None = None,
) -> AttributionPatchingResult:
    """The first-order estimate of every cell that `patch_sweep` would run, with the same cells in the same order.

    `heads`: z of every head too, or the kinds whose heads are scored one by one (("z", "q", "k", "v", "pattern"); the
    places of a pattern are those of its queries). `metric`: any but accuracy, which has no gradient. `steps`: gradients
    averaged over so many points (midpoints) between the runs; 1 is the gradient at the recipient. The other arguments
    are those of `patch_sweep`, without unrelated donors; the model is left as it was.

    Baselines: `self` (the recipient as its own donor: exactly 0), `full` (the estimate of the whole gap from the first
    resid_pre: 1 only as far as the model is linear; called `whole_change` where the contrast has a reference) and
    `random_donor` (that of another example's first resid_pre).

    ValueError: a model in train mode, unknown kinds, directions or metrics, steps below 1, no pair with a gap.
    """
    (name,) = checked_metrics(model, direction, [metric])
    if name == "accuracy":
        raise ValueError("accuracy has no gradient to attribute; take logit_diff, log_prob, probability or kl.")
    if controls.unrelated_donor:
        raise ValueError(
            "there is no attribution with unrelated donors; its baseline random_donor has one for all cells."
        )
    if steps < 1:
        raise ValueError(f"steps={steps}: at least one gradient is needed; 1 is plain attribution patching.")
    contrast = prepared(model, contrast, require_gap=controls.require_gap)
    cells = cells_of(model, contrast, kinds, heads)
    rows = rows_at_once(model, contrast, budget.batch_size)
    blocks = Runs.blocks(contrast, rows, direction=direction, seed=controls.seed, causal=is_causal(model))
    result = AttributionPatchingResult(
        cells=cells,
        measured=Changes.joined([_block(model, runs, cells, name, steps) for runs in blocks]),
        addresses={place: contrast.address(place) for place in contrast.places},
        steps=steps,
        direction=direction,
        pair=contrast.pair,
        labels=dict(labels or {}),
        seed=controls.seed,
    )
    result.check(require_gap=controls.require_gap)
    return result


def _block(model: HookedModel, runs: Runs, cells: Sequence[Cell], name: MetricName, steps: int) -> Changes:
    """The scores of every cell on one block of examples."""
    sites = sorted({cell.site.whole for cell in cells} | {FIRST})
    recipient_logits, own = run_and_read(model, runs.recipient, sites)
    donor_logits, donor = run_and_read(model, runs.donor, sites)
    unrelated = run_and_read(model, runs.unrelated, [FIRST])[1]
    high, low = (run_with(model, tokens, []) for tokens in (runs.unit_donor, runs.unit_recipient))
    meter = Meter.against(runs.contrast, [name], high)
    slope = _mean_gradients(model, runs, sites, own, donor, meter, steps)

    shares = {site: _share(site, slope[site], donor[site] - own[site]) for site in sites}
    scores = [_at_place(cell, runs.contrast, shares[cell.site.whole]).cpu().numpy() for cell in cells]

    def of_first(other: Tensor) -> dict[MetricName, Float[np.ndarray, " batch"]]:
        return {name: _share(FIRST, slope[FIRST], other - own[FIRST]).sum(dim=1).cpu().numpy()}

    logits = {"recipient": recipient_logits, "donor": donor_logits, "unit_recipient": low, "unit_donor": high}
    return Changes(
        changes={name: np.stack(scores)},
        gaps=minus(meter.of(high), meter.of(low)),
        baselines={
            "self": of_first(own[FIRST]),
            "full" if runs.contrast.reference is None else "whole_change": of_first(donor[FIRST]),
            "random_donor": runs.where_unrelated(of_first(unrelated[FIRST])),
        },
        ran=np.ones(len(cells), dtype=bool),
        predicted=runs.predicted({run: at_positions(each, runs.contrast.at) for run, each in logits.items()}),
    )


def _mean_gradients(
    model: HookedModel,
    runs: Runs,
    sites: Sequence[Site],
    own: Mapping[Site, Tensor],
    donor: Mapping[Site, Tensor],
    meter: Meter,
    steps: int,
) -> dict[Site, Float[Tensor, "batch *axes"]]:
    """Gradients at the recipient, or averaged over midpoints of the line from its first resid_pre to the donor's."""
    contrast, (name,) = runs.contrast, meter.names

    def score(logits: Float[Tensor, "batch pos d_vocab"]) -> Float[Tensor, " batch"]:
        at, answer, foil = (tensor.to(logits.device) for tensor in (contrast.at, contrast.answer, contrast.foil))
        readout = at_positions(logits, at).double()
        return measure(name, readout, answer=answer, foil=foil, reference=meter.reference)

    if steps == 1:
        return gradients(model, runs.recipient, sites, score)
    total: dict[Site, Tensor] = {}
    for step in range(steps):
        between = torch.lerp(own[FIRST], donor[FIRST], (step + 0.5) / steps)
        found = gradients(model, runs.recipient, sites, score, written={FIRST: between})
        total = {site: gradient + total.get(site, 0.0) for site, gradient in found.items()}
    return {site: gradient / steps for site, gradient in total.items()}


def _share(site: Site, slope: Tensor, change: Tensor) -> Float[Tensor, "batch pos *head"]:
    """Slope times change, summed over all axes but those of examples, positions and heads (for patterns, queries)."""
    product = einsum(slope.double(), change.double(), "... last, ... last -> ...")
    return product.movedim(2, 1) if site.kind == "pattern" else product


def _at_place(cell: Cell, contrast: Contrast, shares: Float[Tensor, "batch pos *head"]) -> Float[Tensor, " batch"]:
    of_site = (
        shares if shares.ndim == 2 else shares.sum(dim=-1) if cell.site.head is None else shares[..., cell.site.head]
    )
    return (of_site * place_mask(cell.place, contrast, shares)).sum(dim=1)
