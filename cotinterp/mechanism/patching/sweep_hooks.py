"""The patching sweep of any model: patched runs through hooks, many cells in one pass."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cotinterp.mechanism.activations import at_positions, run_and_read
from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.interventions import Write, patch, run_with
from cotinterp.mechanism.metrics import MetricName
from cotinterp.mechanism.model import HookedModel
from cotinterp.mechanism.patching.runs import FIRST, Cell, Changes, Meter, Numbers, Runs, StackedRuns, minus, reached
from cotinterp.mechanism.sites import Site


def sweep_block(
    model: HookedModel,
    runs: Runs,
    cells: Sequence[Cell],
    names: Sequence[MetricName],
    *,
    stack: int,
    unrelated_donor: bool = False,
    skip_equal: bool = True,
) -> Changes:
    """Every cell and the baselines on one block of examples, `stack` cells to a forward pass.

    Donor activations are computed once. `skip_equal=False` also runs the cells that are 0 by identity.
    """
    sites = sorted({cell.site.whole for cell in cells} | {FIRST})
    recipient_logits, own = run_and_read(model, runs.recipient, sites)
    donor_logits, related = run_and_read(model, runs.donor, sites)
    unrelated = run_and_read(model, runs.unrelated, sites if unrelated_donor else [FIRST])[1]
    donors = unrelated if unrelated_donor else related
    # The two runs of the unit are the sweep's own unless a reference stands in for one of them.
    low = (
        (recipient_logits, own)
        if runs.unit_recipient is runs.recipient
        else run_and_read(model, runs.unit_recipient, [FIRST])
    )
    high = (donor_logits, related) if runs.unit_donor is runs.donor else run_and_read(model, runs.unit_donor, [FIRST])
    meter = Meter.against(runs.contrast, names, high[0])

    def rerun(tokens: Int[Tensor, "batch pos"], before: Float[Tensor, "..."], donor: Mapping[Site, Tensor]) -> Numbers:
        edit = patch(FIRST, donor[FIRST], expect_change=False)
        return minus(meter.of(run_with(model, tokens, [edit])), meter.of(before))

    baselines = {
        "self": rerun(runs.recipient, recipient_logits, own),
        "full": rerun(runs.unit_recipient, low[0], high[1]),
        "random_donor": runs.where_unrelated(rerun(runs.recipient, recipient_logits, unrelated)),
    }
    if runs.contrast.reference is not None:
        baselines["whole_change"] = rerun(runs.recipient, recipient_logits, related)

    reach = reached(model, runs.contrast)
    unequal = {site: (site.by_position(donors[site]) != site.by_position(own[site])).any(dim=-1) for site in sites}
    unequal = {
        site: mask & (reach if mask.ndim == 2 else reach[..., None]).to(mask.device) for site, mask in unequal.items()
    }
    live = [_mask(cell, runs.contrast, unequal) for cell in cells]
    everywhere = {site: torch.ones_like(mask) for site, mask in unequal.items()}
    masks = live if skip_equal else [_mask(cell, runs.contrast, everywhere) for cell in cells]
    pending = sorted((i for i, mask in enumerate(masks) if bool(mask.any())), key=lambda i: cells[i].site.hook)
    changes: Numbers = {name: np.zeros((len(cells), len(runs))) for name in names}
    if pending:
        # As many passes as `stack` asks for, filled evenly.
        size = -(-len(pending) // -(-len(pending) // stack))
        stacked = StackedRuns.of(model, meter, runs.recipient, size)
        wholes = [cell.site.whole for cell in cells]
        writes = ((i, [Write(wholes[i], masks[i], donors[wholes[i]], expect_change=skip_equal)]) for i in pending)
        for i, change in stacked.changes(writes):
            for name in names:
                changes[name][i] = change[name]
    readouts = {
        "recipient": recipient_logits,
        "donor": donor_logits,
        "unit_recipient": low[0],
        "unit_donor": high[0],
    }
    return Changes(
        changes=runs.where_unrelated(changes) if unrelated_donor else changes,
        gaps=minus(meter.of(high[0]), meter.of(low[0])),
        baselines=baselines,
        ran=np.isin(np.arange(len(cells)), pending),
        predicted=runs.predicted({run: at_positions(logits, runs.contrast.at) for run, logits in readouts.items()}),
        live=np.stack([mask.flatten(1).any(dim=1).cpu().numpy() for mask in live]),
    )


def _mask(cell: Cell, contrast: Contrast, where: Mapping[Site, Bool[Tensor, "..."]]) -> Bool[Tensor, "..."]:
    """Where a cell writes: `batch pos`, or `batch pos head` for kinds that have heads."""
    unequal = where[cell.site.whole]
    place = contrast.places[cell.place].to(unequal.device)
    mask = unequal & (place if unequal.ndim == 2 else place[..., None])
    if cell.site.head is not None:
        mask = mask & (torch.arange(mask.shape[-1], device=mask.device) == cell.site.head)
    return mask
