"""The runs behind a patching sweep: a block of examples, every cell and the baselines.

Every comparison is made within one shape of batch (see `stack`): cells run stacked, baselines unstacked.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cotinterp.mechanism.activations import at_positions, run_and_read
from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.interventions import patch, run_with
from cotinterp.mechanism.metrics import MetricName
from cotinterp.mechanism.model import HookedModel
from cotinterp.mechanism.patching.blocks import Meter
from cotinterp.mechanism.patching.run_predictions import predictions
from cotinterp.mechanism.patching.stack import Numbers, minus, stacked_changes
from cotinterp.mechanism.sites import Site

FIRST = Site("resid_pre", 0)


@dataclass(frozen=True, order=True)
class Cell:
    """One patch of a sweep: a site, at a place."""

    site: Site
    place: str


@dataclass(frozen=True, eq=False)
class Runs:
    """Tokens of the runs of a block of examples, and what they are asked.

    `unit_recipient` and `unit_donor` are the pair whose gap is the unit: recipient and donor themselves, but for a
    contrast with a reference, which stands in for the corrupted run.
    """

    recipient: Int[Tensor, "batch pos"]
    donor: Int[Tensor, "batch pos"]
    unrelated: Int[Tensor, "batch pos"]
    has_unrelated: Bool[np.ndarray, " batch"]
    unit_recipient: Int[Tensor, "batch pos"]
    unit_donor: Int[Tensor, "batch pos"]
    contrast: Contrast

    def __len__(self) -> int:
        return len(self.contrast)

    @classmethod
    def of(cls, contrast: Contrast, rows: slice, partner: Int[np.ndarray, " all"], *, noise: bool) -> "Runs":
        """The block of these rows. `partner`: whose donor run is each example's unrelated donor, -1 for nobody's."""
        told = contrast.select(rows)
        reference = told.corrupted if told.reference is None else told.reference
        donor, recipient = (told.corrupted, told.clean) if noise else (told.clean, told.corrupted)
        unit_donor, unit_recipient = (reference, told.clean) if noise else (told.clean, reference)
        known = partner[rows] >= 0
        index = np.where(known, partner[rows], np.arange(len(contrast))[rows])
        whole = contrast.corrupted if noise else contrast.clean
        unrelated = whole[torch.from_numpy(index).to(whole.device)]
        return cls(recipient, donor, unrelated, known, unit_recipient, unit_donor, told)


@dataclass(frozen=True, eq=False)
class Measured:
    """Per example, by metric: what each cell changed (patched minus recipient) and the gap that is the unit.

    `baselines`: the same change for `self`, `full` (the whole gap), `random_donor` (NaN for examples that have no
    unrelated donor) and, where a reference defines the gap, `whole_change` (the donor's run minus the recipient's).
    `live`: where donor and recipient differ at all, by cell and example. `ran`: cells that needed a run; in the others
    donor and recipient agree bit for bit in every example. `predicted`: what the runs named there put first, as an
    index into `run_predictions.PREDICTIONS`.
    """

    changes: Mapping[MetricName, Float[np.ndarray, "cells batch"]]
    gaps: Mapping[MetricName, Float[np.ndarray, " batch"]]
    baselines: Mapping[str, Mapping[MetricName, Float[np.ndarray, " batch"]]]
    ran: Bool[np.ndarray, " cells"]
    live: Bool[np.ndarray, "cells batch"]
    predicted: Mapping[str, Int[np.ndarray, " batch"]]

    def joined(self, others: Sequence["Measured"]) -> "Measured":
        """Blocks of examples, put one after the other."""
        parts = [self, *others]
        return Measured(
            changes=_joined([part.changes for part in parts]),
            gaps=_joined([part.gaps for part in parts]),
            baselines={key: _joined([part.baselines[key] for part in parts]) for key in self.baselines},
            ran=np.any([part.ran for part in parts], axis=0),
            live=np.concatenate([part.live for part in parts], axis=1),
            predicted={run: np.concatenate([part.predicted[run] for part in parts]) for run in self.predicted},
        )


def sweep_block(
    model: HookedModel,
    runs: Runs,
    cells: Sequence[Cell],
    names: Sequence[MetricName],
    *,
    stack: int,
    unrelated_donor: bool = False,
    skip_equal: bool = True,
) -> Measured:
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
    read = Meter.against(runs.contrast, names, high[0]).of

    def rerun(tokens: Int[Tensor, "batch pos"], before: Float[Tensor, "..."], donor: Mapping[Site, Tensor]) -> Numbers:
        edit = patch(FIRST, donor[FIRST], expect_change=False)
        return minus(read(run_with(model, tokens, [edit])), read(before))

    baselines = {
        "self": rerun(runs.recipient, recipient_logits, own),
        "full": rerun(runs.unit_recipient, low[0], high[1]),
        "random_donor": known_rows(rerun(runs.recipient, recipient_logits, unrelated), runs),
    }
    if runs.contrast.reference is not None:
        baselines["whole_change"] = rerun(runs.recipient, recipient_logits, related)

    where = {site: (site.by_position(donors[site]) != site.by_position(own[site])).any(dim=-1) for site in sites}
    live = [_mask(cell, runs.contrast, where) for cell in cells]
    everywhere = {site: torch.ones_like(mask) for site, mask in where.items()}
    masks = live if skip_equal else [_mask(cell, runs.contrast, everywhere) for cell in cells]
    pending = sorted((i for i, mask in enumerate(masks) if bool(mask.any())), key=lambda i: cells[i].site.hook)
    changes: Numbers = {name: np.zeros((len(cells), len(runs))) for name in names}
    stacked = stacked_changes(
        model,
        runs.recipient,
        [cell.site for cell in cells],
        masks,
        donors,
        pending,
        read,
        stack=stack,
        checked=skip_equal,
    )
    for chunk, change in stacked:
        for name in names:
            changes[name][chunk] = change[name]
    return Measured(
        changes=known_rows(changes, runs) if unrelated_donor else changes,
        gaps=minus(read(high[0]), read(low[0])),
        baselines=baselines,
        ran=np.isin(np.arange(len(cells)), pending),
        live=np.stack([mask.flatten(1).any(dim=1).cpu().numpy() for mask in live]),
        predicted=predicted(
            runs,
            {
                run: at_positions(logits, runs.contrast.at)
                for run, logits in (
                    ("recipient", recipient_logits),
                    ("donor", donor_logits),
                    ("unit_recipient", low[0]),
                    ("unit_donor", high[0]),
                )
            },
        ),
    )


def _mask(cell: Cell, contrast: Contrast, where: Mapping[Site, Bool[Tensor, "..."]]) -> Bool[Tensor, "..."]:
    """Where a cell writes: `batch pos`, or `batch pos head` for kinds that have heads."""
    unequal = where[cell.site.whole]
    place = contrast.places[cell.place].to(unequal.device)
    mask = unequal & (place if unequal.ndim == 2 else place[..., None])
    if cell.site.head is not None:
        mask = mask & (torch.arange(mask.shape[-1], device=mask.device) == cell.site.head)
    return mask


def predicted(runs: Runs, read: Mapping[str, Float[Tensor, "batch d_vocab"]]) -> dict[str, Int[np.ndarray, " batch"]]:
    """What each run of the contrast puts first, by the logits at the readout of the runs as `Runs` names them."""
    contrast, first = runs.contrast, torch.zeros_like(runs.contrast.at)
    named = {"clean": contrast.clean, "corrupted": contrast.corrupted, "reference": contrast.reference}
    return {
        name: predictions(logits[:, None], first, contrast.answer, contrast.foil)
        for name, tokens in named.items()
        for logits in [next((logits for run, logits in read.items() if getattr(runs, run) is tokens), None)]
        if logits is not None
    }


def _joined(blocks: Sequence[Mapping[MetricName, Float[np.ndarray, "..."]]]) -> Numbers:
    return {name: np.concatenate([block[name] for block in blocks], axis=-1) for name in blocks[0]}


def known_rows(numbers: Numbers, runs: Runs) -> Numbers:
    """NaN for the examples that have no unrelated donor."""
    return {name: np.where(runs.has_unrelated, values, np.nan) for name, values in numbers.items()}
