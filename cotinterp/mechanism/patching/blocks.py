"""Patched runs through hooks, many cells in one pass: the path that works on any model."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
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
from cotinterp.mechanism.interventions import Edit, derangement, patch, run_with
from cotinterp.mechanism.metrics import MetricName, measure
from cotinterp.mechanism.model import HookedModel
from cotinterp.mechanism.patching.run_predictions import predictions
from cotinterp.mechanism.sites import Site

Numbers = dict[MetricName, Float[np.ndarray, "..."]]


def stacked_changes(
    model: HookedModel,
    recipient: Int[Tensor, "batch pos"],
    sites: Sequence[Site],
    masks: Sequence[Bool[Tensor, "..."]],
    donors: Mapping[Site, Tensor],
    pending: Sequence[int],
    read: Callable[..., Numbers],
    *,
    stack: int,
    checked: bool,
) -> Iterator[tuple[list[int], Numbers]]:
    """What the pending edits changed, a stack at a time: their indices, and by metric `edit batch`.

    Edit i writes `donors` of the whole site under `masks[i]` (`batch pos`, or `batch pos head`). `read(logits, stack=)`
    measures a stacked run. `checked`: an edit that changes no value raises.
    """
    if not pending:
        return
    # As many passes as `stack` asks for, filled evenly; the last one repeats an edit where it is not full.
    stack = -(-len(pending) // -(-len(pending) // stack))
    tokens = repeat(recipient, "batch pos -> (edit batch) pos", edit=stack)
    unpatched = read(run_with(model, tokens, []), stack=stack)
    for start in range(0, len(pending), stack):
        chunk = list(pending[start : start + stack])
        slots = chunk + chunk[-1:] * (stack - len(chunk))
        edits = _edits([(sites[i], masks[i]) for i in slots], donors, expect_change=checked)
        change = minus(read(run_with(model, tokens, edits), stack=stack), unpatched)
        yield chunk, {name: values.reshape(stack, len(recipient))[: len(chunk)] for name, values in change.items()}


def minus(numbers: Numbers, others: Numbers) -> Numbers:
    """The differences, metric by metric."""
    return {name: numbers[name] - others[name] for name in numbers}


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


MAX_BYTES = 2**30
"""What the activations of a sweep may take at once unless it is told otherwise."""
# Larger passes of a small model leave the processor's cache and are slower per sequence, not faster.
_TOKENS_AT_ONCE = 3072
_LOGITS_AT_ONCE = 2**26


def rows_at_once(model: HookedModel, contrast: Contrast, batch_size: int | None = None) -> int:
    """Sequences of one pass: `batch_size`, or as many as keep tokens and logits within bounds. ValueError below 1."""
    if batch_size is not None:
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: at least one sequence must run at once.")
        return batch_size
    n = contrast.clean.shape[1]
    vocabulary = int(getattr(model.cfg, "d_vocab", 0) or 1)
    return max(1, min(_TOKENS_AT_ONCE // n, _LOGITS_AT_ONCE // (n * vocabulary)))


def rows_in(model: HookedModel, contrast: Contrast, wholes: Collection[Site], max_bytes: int | None = None) -> int:
    """Sequences that fit in `max_bytes` of a sweep by hooks (1 GiB unless told), by what one of them holds.

    That is the sites that are patched, in the recipient's run, the donor's and another one's; the widest layer of a
    pass, and logits. An estimate: an architecture may hold more. ValueError where not one fits.
    """
    cfg, n = model.cfg, contrast.clean.shape[1]
    d_model, heads = int(cfg.d_model), int(cfg.n_heads)
    d_mlp, vocabulary = (int(getattr(cfg, name, 0) or 0) for name in ("d_mlp", "d_vocab"))
    held = sum(heads * n if site.kind == "pattern" else d_model for site in wholes)
    row = 4 * n * (3 * held + 12 * d_model + 2 * d_mlp + 3 * heads * n + 6 * vocabulary)
    bound = MAX_BYTES if max_bytes is None else max_bytes
    if bound < row:
        raise ValueError(f"max_bytes={bound:,}: one example of {n} tokens needs {row:,} in this model.")
    return bound // row


def partners(contrast: Contrast, rng: np.random.Generator) -> Int[np.ndarray, " batch"]:
    """For every example another one of the same layout, whose run is a random donor; -1 where there is none."""
    layout: dict[bytes, list[int]] = {}
    for row in range(len(contrast)):
        masks = b"".join(mask[row].cpu().numpy().tobytes() for mask in contrast.places.values())
        layout.setdefault(masks + int(contrast.at[row]).to_bytes(8, "little"), []).append(row)
    partner = np.full(len(contrast), -1, dtype=np.int64)
    for members in layout.values():
        if len(members) > 1:
            group = np.array(members)
            partner[group] = group[derangement(len(group), rng)]
    return partner


@dataclass(frozen=True, eq=False)
class Meter:
    """Reads several metrics of the logits of one block, per example, in float64; kl is against `reference`."""

    contrast: Contrast
    names: Sequence[MetricName]
    reference: Float[Tensor, "batch d_vocab"]

    @classmethod
    def against(
        cls, contrast: Contrast, names: Sequence[MetricName], logits: Float[Tensor, "batch pos d_vocab"]
    ) -> "Meter":
        """The meter whose reference is this run."""
        return cls(contrast, names, at_positions(logits, contrast.at).double())

    def of(self, logits: Float[Tensor, "rows pos d_vocab"], stack: int = 1) -> Numbers:
        """Every metric of every row; `stack` says how often the block's rows are repeated."""
        rows = torch.arange(len(self.contrast), device=logits.device).repeat(stack)
        at = self.contrast.at.to(logits.device)
        return self.of_readout(at_positions(logits, at[rows]), rows)

    def of_readout(self, readout: Float[Tensor, "rows d_vocab"], rows: Int[Tensor, " rows"] | None = None) -> Numbers:
        """Every metric of logits that were already read; `rows` says which examples they belong to (all, in order)."""
        chosen = slice(None) if rows is None else rows
        tensors = (self.contrast.answer, self.contrast.foil)
        answer, foil = (tensor.to(readout.device)[chosen] for tensor in tensors)
        logits, reference = readout.double(), self.reference[chosen]
        return {
            name: measure(name, logits, answer=answer, foil=foil, reference=reference).cpu().numpy()
            for name in self.names
        }


@dataclass(frozen=True, eq=False)
class Changes:
    """Per example, by metric: what each thing that was tried changed, and the gap that is the unit of effects.

    `baselines`: the same change for runs whose answer is known. `ran`: rows that needed a run of their own; in the
    others nothing that differs was there to write, and the change is 0 by identity.
    """

    changes: Mapping[MetricName, Float[np.ndarray, "rows batch"]]
    gaps: Mapping[MetricName, Float[np.ndarray, " batch"]]
    baselines: Mapping[str, Mapping[MetricName, Float[np.ndarray, " batch"]]]
    ran: Bool[np.ndarray, " rows"]

    @classmethod
    def joined(cls, parts: Sequence["Changes"]) -> "Changes":
        """Blocks of examples, put one after the other."""

        def join(blocks: Sequence[Mapping[MetricName, Float[np.ndarray, "..."]]]) -> Numbers:
            return {name: np.concatenate([block[name] for block in blocks], axis=-1) for name in blocks[0]}

        return cls(
            changes=join([part.changes for part in parts]),
            gaps=join([part.gaps for part in parts]),
            baselines={key: join([part.baselines[key] for part in parts]) for key in parts[0].baselines},
            ran=np.any([part.ran for part in parts], axis=0),
        )


def known(place: str, contrast: Contrast) -> str:
    """`place`, if the contrast has it. ValueError with the places there are."""
    if place not in contrast.places:
        raise ValueError(
            f"no place {place!r} at or before the readout; the contrast has {list(contrast.places)}. Places that only "
            "some examples have, or that lie after the readout, cannot be used."
        )
    return place


def placed(place: str | None, contrast: Contrast, like: Tensor) -> Tensor:
    """Where a place lies, `batch pos`, on the device of `like`; None is everywhere."""
    if place is None:
        return torch.ones_like(contrast.clean, dtype=torch.bool, device=like.device)
    return contrast.places[known(place, contrast)].to(like.device)
