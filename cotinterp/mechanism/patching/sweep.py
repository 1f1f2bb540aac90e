"""Activation patching: which places and sites carry the difference between two runs.

One run (the recipient) is repeated with the activation of another run (the donor) written at one site and one place.

- denoise: clean activations into the corrupted run. Effect 1: this site alone restores the clean behavior (it is
  sufficient, given everything else of the corrupted run). effect = (patched - corrupted) / (clean - corrupted).
- noise: corrupted activations into the clean run. Effect 1: this site alone breaks the clean behavior (it is
  necessary, given everything else of the clean run). effect = (clean - patched) / (clean - corrupted).

In both, no patch is 0 and a full patch is 1, so both read (patched - recipient) / (donor - recipient). They are not
mirror images: where two sites are redundant denoising finds both and noising neither; where two are needed together
noising finds both and denoising neither. Effects do not add up to 1, may lie outside 0..1, and a site with an effect
need not hold the changed value itself: it may hold anything that the change made different.

Zhang & Nanda 2023, arXiv:2309.16042; Heimersheim & Nanda 2024, arXiv:2404.15255; Meng et al. 2022, arXiv:2202.05262.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.metrics import metric_name
from cotinterp.mechanism.model import HookedModel, require_eval
from cotinterp.mechanism.patching.block import Cell, Runs, sweep_block
from cotinterp.mechanism.patching.blocks import partners, rows_at_once
from cotinterp.mechanism.patching.result import PatchingResult
from cotinterp.mechanism.sites import as_kind, head_sites, refuse_write, residual_sites

DIRECTIONS = ("denoise", "noise")


def patch_sweep(
    model: HookedModel,
    contrast: Contrast,
    *,
    kinds: Sequence[str] = ("resid_pre", "attn_out", "mlp_out"),
    heads: bool = False,
    direction: str = "denoise",
    metrics: Sequence[str] = ("logit_diff", "probability", "accuracy"),
    unrelated_donor: bool = False,
    require_gap: bool = True,
    batch_size: int | None = None,
    seed: int = 0,
    labels: Mapping[str, str | int] | None = None,
) -> PatchingResult:
    """Patch every place at every layer of each kind (with `heads`, z of every head too), one cell at a time.

    The first of `metrics` is primary; all are measured on the same runs. `unrelated_donor` is the control of a whole
    sweep: donors are other examples' runs (same layout), while effects stay normalized by the own donor's gap, so a
    cell whose effect is the same with an unrelated donor holds nothing about this pair. `require_gap=False` keeps the
    sweep of a model that does not tell clean from corrupted: its effects are missing and their n is 0. `batch_size`
    bounds the sequences of one forward pass: small batches are stacked, several cells to a pass. `seed` draws unrelated
    donors and bootstraps. `labels` (task, regime, seed) go in front of the table.

    Baselines of every sweep (`PatchingResult.baselines`): `self` (the recipient's own activations: exactly 0), `full`
    (the donor's: exactly 1) and `random_donor` (another example's whole first resid_pre: it breaks the run, and what is
    left need not be 0), at `resid_pre` of layer 0 at all positions; `random_site`, what a patch at a random site of the
    same kind does. Cells where donor and recipient agree bit for bit are 0 without a run.

    Where the contrast has a `reference`, effects are in units of the gap between the clean and the reference run, and
    `whole_change` is what this contrast's own change does: near 0 where the model does not care.

    ValueError: a model in train mode, unknown kinds, directions or metrics, no pair with a gap, or a sweep in which
    nothing changed anything (with a reference, or with `require_gap=False`, that is an answer).
    """
    require_eval(model)
    if direction not in DIRECTIONS:
        raise ValueError(f"unknown direction {direction!r}: {' or '.join(DIRECTIONS)}.")
    names = tuple(metric_name(name) for name in metrics)
    if not names:
        raise ValueError("a sweep needs at least one metric; the first is primary.")
    sites = [site for kind in kinds for site in residual_sites(model, as_kind(kind))]
    sites += head_sites(model) if heads else ()
    for site in sites:
        refuse_write(site)
    if getattr(model.cfg, "attention_dir", "causal") == "causal":
        contrast = contrast.until_readout()
    cells = tuple(Cell(site, place) for site in sites for place in contrast.places)
    if not cells:
        raise ValueError("nothing to patch: no kinds and no heads were asked for, or no place lies before the readout.")
    partner = partners(contrast, np.random.default_rng(seed))
    rows = rows_at_once(model, contrast, batch_size)
    blocks = []
    for start in range(0, len(contrast), rows):
        block = slice(start, start + rows)
        runs = Runs.of(contrast, block, partner, noise=direction == "noise")
        stack = max(1, rows // len(runs))
        blocks.append(sweep_block(model, runs, cells, names, stack=stack, unrelated_donor=unrelated_donor))
    measured = blocks[0].joined(blocks[1:])
    return PatchingResult(
        cells=cells,
        measured=measured,
        addresses={place: contrast.address(place) for place in contrast.places},
        direction=direction,
        pair=contrast.pair + (" (unrelated donor)" if unrelated_donor else ""),
        labels=dict(labels or {}),
        seed=seed,
    ).checked(require_gap=require_gap)
