"""Attribution patching: every cell of a patching sweep estimated from one gradient.

An activation patch changes the metric by about (donor - recipient) . gradient of the metric at the recipient's
activation. Two forward passes and one backward pass give this number for every site and place of a batch at once, where
true patching takes a pass for each cell. Signs, directions and units are those of `mechanism.patching`.

It is an estimate of the first order and is to be read beside its agreement with true patching
(`AttributionPatchingResult.agreement`): exact where the model is linear between the two runs, and on a linear model
the scores of the first resid_pre sum to the metric gap. It misleads where the slope at the recipient says little about
a step of this size:

- attention that is saturated has hardly a slope: a head that would turn to another token when patched scores about 0
  at everything that moves its q and k (Kramar et al. 2024 recompute the softmax there; this does not);
- a ReLU that is off at the recipient passes no gradient, one that is on never turns off; GELU likewise, softened;
- norms: a large step (the first resid_pre, above all) is rescaled, its gradient is not;
- paths of opposite sign that cancel at the recipient hide a site that true patching shows.

`steps` > 1 averages the gradients over points between the two runs' first resid_pre (integrated gradients over the
input, Hanna et al. 2024): scores of the first resid_pre then tend to the gap as steps grow, whatever the model; at
later sites it helps where saturation is the trouble, without such a guarantee.

Nanda 2023 (neelnanda.io/mechanistic-interpretability/attribution-patching); Syed et al. 2023, arXiv:2310.10348; Kramar
et al. 2024, arXiv:2403.00745; Hanna et al. 2024, arXiv:2403.17806; Sundararajan et al. 2017, arXiv:1703.01365.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from cotinterp.mechanism.activations import at_positions, run_and_read
from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.gradients import gradients
from cotinterp.mechanism.interventions import run_with
from cotinterp.mechanism.metrics import MetricName, measure, metric_name
from cotinterp.mechanism.model import HookedModel, require_eval
from cotinterp.mechanism.patching.attribution_patching_result import AttributionPatchingResult
from cotinterp.mechanism.patching.block import FIRST, Cell, Runs
from cotinterp.mechanism.patching.blocks import Changes, Meter, partners, placed, rows_at_once
from cotinterp.mechanism.patching.stack import minus
from cotinterp.mechanism.patching.sweep import DIRECTIONS
from cotinterp.mechanism.sites import Site, as_kind, head_sites, refuse_write, residual_sites


def attribution_patch(
    model: HookedModel,
    contrast: Contrast,
    *,
    kinds: Sequence[str] = ("resid_pre", "attn_out", "mlp_out"),
    heads: bool | Sequence[str] = False,
    direction: str = "denoise",
    metric: str = "logit_diff",
    steps: int = 1,
    require_gap: bool = True,
    batch_size: int | None = None,
    seed: int = 0,
    labels: Mapping[str, str | int] | None = None,
) -> AttributionPatchingResult:
    """The first-order estimate of every cell that `patch_sweep` would run, with the same cells in the same order.

    `heads`: z of every head too, or the kinds whose heads are scored one by one (("z", "q", "k", "v", "pattern"); the
    places of a pattern are those of its queries). `metric`: any but accuracy, which has no gradient. `steps`: gradients
    averaged over so many points (midpoints) between the runs; 1 is the gradient at the recipient. The other arguments
    are those of `patch_sweep`, and the model is left as it was.

    Baselines: `self` (the recipient as its own donor: exactly 0), `full` (the estimate of the whole gap from the first
    resid_pre: 1 only as far as the model is linear; called `whole_change` where the contrast has a reference) and
    `random_donor` (that of another example's first resid_pre).

    ValueError: a model in train mode, unknown kinds, directions or metrics, steps below 1, no pair with a gap.
    """
    require_eval(model)
    if direction not in DIRECTIONS:
        raise ValueError(f"unknown direction {direction!r}: {' or '.join(DIRECTIONS)}.")
    name = metric_name(metric)
    if name == "accuracy":
        raise ValueError("accuracy has no gradient to attribute; take logit_diff, log_prob, probability or kl.")
    if steps < 1:
        raise ValueError(f"steps={steps}: at least one gradient is needed; 1 is plain attribution patching.")
    by_head: Sequence[str] = (("z",) if heads else ()) if isinstance(heads, bool) else heads
    sites = [site for kind in kinds for site in residual_sites(model, as_kind(kind))]
    sites += [site for kind in by_head for site in head_sites(model, as_kind(kind))]
    for site in sites:
        refuse_write(site)
    if getattr(model.cfg, "attention_dir", "causal") == "causal":
        contrast = contrast.until_readout()
    cells = tuple(Cell(site, place) for site in sites for place in contrast.places)
    if not cells:
        raise ValueError("nothing to score: no kinds and no heads were asked for, or no place lies before the readout.")
    rows = rows_at_once(model, contrast, batch_size)
    partner = partners(contrast, np.random.default_rng(seed))
    blocks = []
    for start in range(0, len(contrast), rows):
        runs = Runs.of(contrast, slice(start, start + rows), partner, noise=direction == "noise")
        blocks.append(_block(model, runs, cells, name, steps))
    result = AttributionPatchingResult(
        cells=cells,
        measured=Changes.joined(blocks),
        addresses={place: contrast.address(place) for place in contrast.places},
        steps=steps,
        direction=direction,
        pair=contrast.pair,
        labels=dict(labels or {}),
        seed=seed,
    )
    if require_gap:
        result.effects()
    return result


def _block(model: HookedModel, runs: Runs, cells: Sequence[Cell], name: MetricName, steps: int) -> Changes:
    """The scores of every cell on one block of examples."""
    sites = sorted({cell.site.whole for cell in cells} | {FIRST})
    own = run_and_read(model, runs.recipient, sites)[1]
    donor = run_and_read(model, runs.donor, sites)[1]
    unrelated = run_and_read(model, runs.unrelated, [FIRST])[1]
    unit_logits = run_with(model, runs.unit_donor, [])
    meter = Meter.against(runs.contrast, [name], unit_logits)
    slope = _mean_gradients(model, runs, sites, own, donor, meter, steps)

    shares = {site: _share(site, slope[site], donor[site] - own[site]) for site in sites}
    scores = [_at_place(cell, runs.contrast, shares[cell.site.whole]).cpu().numpy() for cell in cells]

    def of_first(other: Tensor) -> dict[MetricName, Float[np.ndarray, " batch"]]:
        return {name: _share(FIRST, slope[FIRST], other - own[FIRST]).sum(dim=1).cpu().numpy()}

    random = of_first(unrelated[FIRST])[name]
    return Changes(
        changes={name: np.stack(scores)},
        gaps=minus(meter.of(unit_logits), meter.of(run_with(model, runs.unit_recipient, []))),
        baselines={
            "self": of_first(own[FIRST]),
            "full" if runs.contrast.reference is None else "whole_change": of_first(donor[FIRST]),
            "random_donor": {name: np.where(runs.has_unrelated, random, np.nan)},
        },
        ran=np.array([bool((donor[cell.site.whole] != own[cell.site.whole]).any()) for cell in cells]),
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
    return (of_site * placed(cell.place, contrast, shares)).sum(dim=1)
