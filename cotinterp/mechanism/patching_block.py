"""The runs behind a patching sweep: several cells stacked along the batch, each in a slot of its own.

The rounding of a row may depend on the shape of the batch that it is computed in. So every comparison is made
within one shape: a patched slot is compared with the same slot of an unpatched run of the same stack, and baselines
run unstacked. A patch that cannot matter is then exactly 0, not 1e-7.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby

import numpy as np
import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cotinterp.mechanism.activations import at_positions, run_and_read
from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.interventions import Edit, patch, run_with
from cotinterp.mechanism.metrics import MetricName, measure
from cotinterp.mechanism.model import HookedModel
from cotinterp.mechanism.sites import Site

FIRST = Site("resid_pre", 0)
Numbers = dict[MetricName, Float[np.ndarray, "..."]]


@dataclass(frozen=True, order=True)
class Cell:
    """One patch of a sweep: a site, at a place."""

    site: Site
    place: str


@dataclass(frozen=True, eq=False)
class Runs:
    """Tokens of the three runs of a block of examples, and what they are asked."""

    recipient: Int[Tensor, "batch pos"]
    donor: Int[Tensor, "batch pos"]
    unrelated: Int[Tensor, "batch pos"]
    has_unrelated: Bool[np.ndarray, " batch"]
    contrast: Contrast

    def __len__(self) -> int:
        return len(self.contrast)

    @classmethod
    def of(cls, contrast: Contrast, rows: slice, partner: Int[np.ndarray, " all"], *, noise: bool) -> "Runs":
        """The block of these rows. `partner`: whose donor run is each example's unrelated donor, -1 for nobody's."""
        donor, recipient = (contrast.corrupted, contrast.clean) if noise else (contrast.clean, contrast.corrupted)
        known = partner[rows] >= 0
        index = np.where(known, partner[rows], np.arange(len(contrast))[rows])
        unrelated = donor[torch.from_numpy(index).to(donor.device)]
        return cls(recipient[rows], donor[rows], unrelated, known, contrast.select(rows))


@dataclass(frozen=True, eq=False)
class Measured:
    """Per example, by metric: what each cell changed (patched minus recipient) and the gap (donor minus recipient).

    `baselines`: the same change for `self`, `full` and `random_donor` (NaN for examples that have no unrelated donor).
    `ran`: cells that needed a run; in the others donor and recipient agree bit for bit, in every example.
    """

    changes: Mapping[MetricName, Float[np.ndarray, "cells batch"]]
    gaps: Mapping[MetricName, Float[np.ndarray, " batch"]]
    baselines: Mapping[str, Mapping[MetricName, Float[np.ndarray, " batch"]]]
    ran: Bool[np.ndarray, " cells"]

    def joined(self, others: Sequence["Measured"]) -> "Measured":
        """Blocks of examples, put one after the other."""
        parts = [self, *others]
        return Measured(
            changes=_joined([part.changes for part in parts]),
            gaps=_joined([part.gaps for part in parts]),
            baselines={key: _joined([part.baselines[key] for part in parts]) for key in self.baselines},
            ran=np.any([part.ran for part in parts], axis=0),
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
    """Every cell and the three baselines on one block of examples, `stack` cells to a forward pass.

    Donor activations are computed once. `skip_equal=False` also runs the cells that are 0 by identity.
    """
    sites = sorted({cell.site.whole for cell in cells} | {FIRST})
    recipient_logits, own = run_and_read(model, runs.recipient, sites)
    donor_logits, related = run_and_read(model, runs.donor, sites)
    unrelated = run_and_read(model, runs.unrelated, sites if unrelated_donor else [FIRST])[1]
    donors = unrelated if unrelated_donor else related

    read = partial(_measured, runs.contrast, names, reference=_readout(donor_logits, runs.contrast.at))
    recipient = read(recipient_logits)
    baselines = {}
    for key, activation in {"self": own, "full": related, "random_donor": unrelated}.items():
        edit = patch(FIRST, activation[FIRST], expect_change=False)
        baselines[key] = _minus(read(run_with(model, runs.recipient, [edit])), recipient)

    where = {site: (site.by_position(donors[site]) != site.by_position(own[site])).any(dim=-1) for site in sites}
    masks = [_mask(cell, runs.contrast, where, skip_equal) for cell in cells]
    pending = sorted((i for i, mask in enumerate(masks) if bool(mask.any())), key=lambda i: cells[i].site.hook)
    changes: Numbers = {name: np.zeros((len(cells), len(runs))) for name in names}
    for chunk, change in _stacked(model, runs, cells, masks, donors, pending, read, stack=stack, checked=skip_equal):
        for name in names:
            changes[name][chunk] = change[name]
    return Measured(
        changes=_known(changes, runs) if unrelated_donor else changes,
        gaps=_minus(read(donor_logits), recipient),
        baselines={**baselines, "random_donor": _known(baselines["random_donor"], runs)},
        ran=np.isin(np.arange(len(cells)), pending),
    )


def _stacked(
    model: HookedModel,
    runs: Runs,
    cells: Sequence[Cell],
    masks: Sequence[Bool[Tensor, "..."]],
    donors: Mapping[Site, Tensor],
    pending: Sequence[int],
    read: Callable[..., Numbers],
    *,
    stack: int,
    checked: bool,
) -> Iterator[tuple[list[int], Numbers]]:
    """What the pending cells changed, a stack at a time: their indices, and by metric `cell batch`."""
    if not pending:
        return
    # As many passes as `stack` asks for, filled evenly; the last one repeats a cell where it is not full.
    stack = -(-len(pending) // -(-len(pending) // stack))
    tokens = repeat(runs.recipient, "batch pos -> (cell batch) pos", cell=stack)
    unpatched = read(run_with(model, tokens, []), stack=stack)
    for start in range(0, len(pending), stack):
        chunk = list(pending[start : start + stack])
        slots = chunk + chunk[-1:] * (stack - len(chunk))
        edits = _edits([(cells[i].site, masks[i]) for i in slots], donors, expect_change=checked)
        change = _minus(read(run_with(model, tokens, edits), stack=stack), unpatched)
        yield chunk, {name: values.reshape(stack, len(runs))[: len(chunk)] for name, values in change.items()}


def _mask(
    cell: Cell, contrast: Contrast, where: Mapping[Site, Bool[Tensor, "..."]], skip_equal: bool
) -> Bool[Tensor, "..."]:
    """Where a cell writes: `batch pos`, or `batch pos head` for kinds that have heads. Equal values are left alone."""
    unequal = where[cell.site.whole] if skip_equal else torch.ones_like(where[cell.site.whole])
    place = contrast.places[cell.place].to(unequal.device)
    mask = unequal & (place if unequal.ndim == 2 else place[..., None])
    if cell.site.head is not None:
        mask = mask & (torch.arange(mask.shape[-1], device=mask.device) == cell.site.head)
    return mask


def _edits(
    slots: Sequence[tuple[Site, Bool[Tensor, "..."]]], donors: Mapping[Site, Tensor], *, expect_change: bool
) -> list[Edit]:
    """One edit per hook point; each slot of the stack writes its own site and mask, and nothing in the other slots."""
    edits = []
    for whole, group in groupby(range(len(slots)), key=lambda slot: slots[slot][0].whole):
        taken = set(group)
        nowhere = torch.zeros_like(slots[min(taken)][1])
        mask = torch.stack([slots[i][1] if i in taken else nowhere for i in range(len(slots))])
        value = partial(_overwrite, whole, mask, whole.by_position(donors[whole]))
        edits.append(Edit(whole, value, expect_change=expect_change))
    return edits


def _overwrite(
    site: Site, mask: Bool[Tensor, "stack batch pos *head"], donor: Tensor, current: Float[Tensor, "rows *axes"]
) -> Float[Tensor, "rows *axes"]:
    """The stacked activation with the donor's values under the mask."""
    slots = rearrange(site.by_position(current), "(stack batch) ... -> stack batch ...", stack=len(mask))
    written = torch.where(mask[..., None], donor.to(current), slots).flatten(0, 1)
    # The axes that by_position swaps for patterns are neighbors, so that it undoes itself.
    return site.by_position(written)


def _measured(
    contrast: Contrast,
    names: Sequence[MetricName],
    logits: Float[Tensor, "rows pos d_vocab"],
    *,
    reference: Float[Tensor, "batch d_vocab"],
    stack: int = 1,
) -> Numbers:
    """Every metric of every row, in float64."""
    at, answer, foil = (tensor.repeat(stack) for tensor in (contrast.at, contrast.answer, contrast.foil))
    readout, reference = _readout(logits, at), reference.repeat(stack, 1)
    device = readout.device
    return {
        name: measure(name, readout, answer=answer.to(device), foil=foil.to(device), reference=reference).cpu().numpy()
        for name in names
    }


def _readout(logits: Float[Tensor, "rows pos d_vocab"], at: Int[Tensor, " rows"]) -> Float[Tensor, "rows d_vocab"]:
    return at_positions(logits, at).double()


def _joined(blocks: Sequence[Mapping[MetricName, Float[np.ndarray, "..."]]]) -> Numbers:
    return {name: np.concatenate([block[name] for block in blocks], axis=-1) for name in blocks[0]}


def _minus(numbers: Numbers, others: Numbers) -> Numbers:
    return {name: numbers[name] - others[name] for name in numbers}


def _known(numbers: Numbers, runs: Runs) -> Numbers:
    """NaN for the examples that have no unrelated donor."""
    return {name: np.where(runs.has_unrelated, values, np.nan) for name, values in numbers.items()}
