"""What every sweep of this folder runs: the two runs of a contrast, a block of examples at a time, and what is read."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from einops import repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cotinterp.mechanism.activations import at_positions, run_and_read
from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.interventions import Write, run_with, stacked_edits
from cotinterp.mechanism.metrics import MetricName, NoGapError, measure, metric_name
from cotinterp.mechanism.model import HookedModel, is_causal, require_model, several
from cotinterp.mechanism.patching.run_predictions import contents_of, predictions, require_changed
from cotinterp.mechanism.sites import Site, as_kind, head_sites, refuse_write, residual_sites

Numbers = dict[MetricName, Float[np.ndarray, "..."]]

DIRECTIONS = ("denoise", "noise")
_RUNS = ("recipient", "donor", "unit_recipient", "unit_donor")
FIRST = Site("resid_pre", 0)


@dataclass(frozen=True, kw_only=True)
class PatchingControls:
    """What a sweep is held to.

    Attributes:
        unrelated_donor: The control of a whole sweep: donors are other examples' runs (same layout), while effects stay
            normalized by the own donor's gap. A cell whose effect is the same holds nothing about this pair.
        require_gap: A model that does not tell clean from corrupted raises. False keeps the sweep: its effects are
            missing and their n is 0.
        by_hooks: Native models are run through their hooks too, as any other model.
        seed: Of the unrelated donors and the bootstraps.
    """

    unrelated_donor: bool = False
    require_gap: bool = True
    by_hooks: bool = False
    seed: int = 0


CONTROLS = PatchingControls()


@dataclass(frozen=True, order=True)
class Cell:
    """One patch of a sweep: a site, at a place."""

    site: Site
    place: str


def cells_of(
    model: HookedModel, contrast: Contrast, kinds: Sequence[str], heads: bool | Sequence[str]
) -> tuple[Cell, ...]:
    """Every site of these kinds at every place; then the kinds of `heads` (True: z) head by head.

    ValueError for unknown kinds, for those that cannot be written, and where there is no cell.
    """
    by_head: Sequence[str] = (
        (("z",) if heads else ()) if isinstance(heads, bool) else several(heads, "heads", "True or ('z', 'q')")
    )
    sites = [
        site for kind in several(kinds, "kinds", "('resid_pre',)") for site in residual_sites(model, as_kind(kind))
    ]
    sites += [site for kind in by_head for site in head_sites(model, as_kind(kind))]
    for site in sites:
        refuse_write(site)
    if not sites or not contrast.places:
        raise ValueError("nothing to patch: no kinds and no heads were asked for, or no place lies before the readout.")
    return tuple(Cell(site, place) for site in sites for place in contrast.places)


def checked_metrics(model: HookedModel, direction: str, metrics: Sequence[str]) -> tuple[MetricName, ...]:
    """The metrics of a sweep. ValueError for a model in train mode, an unknown direction, unknown metrics or none."""
    require_model(model)
    if direction not in DIRECTIONS:
        raise ValueError(f"unknown direction {direction!r}: {' or '.join(DIRECTIONS)}.")
    if not metrics:
        raise ValueError("a sweep needs at least one metric; the first is primary.")
    return tuple(metric_name(name) for name in several(metrics, "metrics", "('logit_diff',)"))


def prepared(model: HookedModel, contrast: Contrast, *, require_gap: bool) -> Contrast:
    """What a sweep is made of: the contrast up to its readouts, each pair once.

    In a causal model nothing behind an example's own readout counts, neither padding nor what follows there: a place
    that lies behind it in some of the examples changes nothing in those.
    Pairs in which nothing was changed have no gap of their own, and are dropped and counted with those without one.

    Raises:
        ValueError: A pair is repeated; nothing was changed in some of the pairs, and a reference lends them a gap.
        NoGapError: Nothing was changed in any pair, and `require_gap`.
    """
    shown = contrast.until_readout(model)
    pairs = contents_of(shown, causal=is_causal(model))
    changed = [clean != corrupted for clean, corrupted, *_ in pairs]
    if shown.reference is not None and any(changed):
        require_changed(pairs)
    elif shown.reference is None and require_gap and not any(changed):
        raise NoGapError(
            f"none of {len(pairs)} pairs has a gap: clean and corrupted are the same tokens up to the readout in all. "
            "Change something before it, or read later."
        )
    reach = reached(model, shown)
    cut = {label: mask & reach.to(mask.device) for label, mask in shown.places.items()}
    return replace(
        shown, places={label: mask if mask.any(dim=1).all() else shown.places[label] for label, mask in cut.items()}
    )


def reached(model: HookedModel, contrast: Contrast) -> Bool[Tensor, "batch pos"]:
    """Where something can lie that matters to each example's readout: in a causal model nowhere behind it."""
    positions = torch.arange(contrast.clean.shape[1], device=contrast.at.device)
    return (positions <= contrast.at[:, None]) | (not is_causal(model))


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
        block = contrast.select(rows)
        reference = block.corrupted if block.reference is None else block.reference
        donor, recipient = (block.corrupted, block.clean) if noise else (block.clean, block.corrupted)
        unit_donor, unit_recipient = (reference, block.clean) if noise else (block.clean, reference)
        known = partner[rows] >= 0
        index = np.where(known, partner[rows], np.arange(len(contrast))[rows])
        whole = contrast.corrupted if noise else contrast.clean
        unrelated = whole[torch.from_numpy(index).to(whole.device)]
        return cls(recipient, donor, unrelated, known, unit_recipient, unit_donor, block)

    @classmethod
    def blocks(
        cls, contrast: Contrast, size: int, *, direction: str, seed: int, causal: bool = True
    ) -> Iterator["Runs"]:
        """All examples, `size` at a time. `seed` draws the unrelated donors (`partners`)."""
        noise = direction == "noise"
        partner = partners(contrast, np.random.default_rng(seed), noise=noise, causal=causal)
        for start in range(0, len(contrast), size):
            yield cls.of(contrast, slice(start, start + size), partner, noise=noise)

    def where_unrelated(self, numbers: Numbers) -> Numbers:
        """NaN for the examples that have no unrelated donor."""
        return {name: np.where(self.has_unrelated, values, np.nan) for name, values in numbers.items()}

    def predicted(self, readouts: Mapping[str, Float[Tensor, "batch d_vocab"]]) -> dict[str, Int[np.ndarray, " batch"]]:
        """What the clean, corrupted and reference run put first, by the logits at the readout of the runs here."""
        contrast, first = self.contrast, torch.zeros_like(self.contrast.at)
        found = {}
        for name in ("clean", "corrupted", "reference"):
            tokens = getattr(contrast, name)
            same = [readouts[run] for run in _RUNS if run in readouts and getattr(self, run) is tokens]
            if tokens is not None and same:
                found[name] = predictions(same[0][:, None], first, contrast.answer, contrast.foil)
        return found


def partners(
    contrast: Contrast, rng: np.random.Generator, *, noise: bool = False, causal: bool = True
) -> Int[np.ndarray, " batch"]:
    """For every example another one of the same layout, whose run is a random donor; -1 where there is none.

    Of one layout are rows of one template with the same places and readout. Rows whose donor (the corrupted run where
    `noise`, else the clean one) shows the same tokens are no donors of one another. Whose donor is whose does not
    depend on the order of the rows, nor on what stands behind the readout of a `causal` model.
    """
    rows = contents_of(contrast, causal=causal)
    template = contrast.alike
    masks = [mask.cpu().numpy() for mask in contrast.places.values()]
    layouts: dict[tuple[int, int, bytes], list[int]] = {}
    for i in sorted(range(len(rows)), key=rows.__getitem__):
        places = b"".join(mask[i, : len(rows[i][0])].tobytes() for mask in masks)
        layouts.setdefault((int(template[i]), rows[i][2], places), []).append(i)
    partner = np.full(len(rows), -1, dtype=np.int64)
    for members in layouts.values():
        # One random cycle: the donor of each is the one before it, or the next before that with another run.
        cycle = [members[i] for i in rng.permutation(len(members))]
        donors = [rows[i][int(noise)] for i in cycle]
        for place, i in enumerate(cycle):
            before = (cycle[place - back] for back in range(1, len(cycle)) if donors[place - back] != donors[place])
            partner[i] = next(before, -1)
    return partner


@dataclass(frozen=True, eq=False)
class Changes:
    """Per example, by metric: what each thing that was tried changed, and the gap that is the unit of effects.

    Attributes:
        changes: Patched minus recipient, a row for each cell or path.
        gaps: Donor minus recipient (with a reference: of the clean and the reference run).
        baselines: The same change for runs whose answer is known; see `EffectsResult.baselines`.
        ran: Rows that needed a run; in the others nothing that differs was there to write, and the change is 0.
        predicted: What the runs named there put first, as an index into `run_predictions.PREDICTIONS`.
        live: Where donor and recipient differ at all, by cell and example; None where rows are not cells.
    """

    changes: Mapping[MetricName, Float[np.ndarray, "rows batch"]]
    gaps: Mapping[MetricName, Float[np.ndarray, " batch"]]
    baselines: Mapping[str, Mapping[MetricName, Float[np.ndarray, " batch"]]]
    ran: Bool[np.ndarray, " rows"]
    predicted: Mapping[str, Int[np.ndarray, " batch"]]
    live: Bool[np.ndarray, "rows batch"] | None = None

    @classmethod
    def joined(cls, blocks: Sequence["Changes"]) -> "Changes":
        """Blocks of examples, put one after the other."""
        parts = {field.name: [getattr(block, field.name) for block in blocks] for field in fields(cls)}
        ran = np.any(parts.pop("ran"), axis=0)
        return cls(ran=ran, **{name: _side_by_side(values) for name, values in parts.items()})


def _side_by_side(parts: Sequence[Any]) -> Any:
    """Arrays joined along their last axis, the examples, however deep they lie in mappings."""
    if isinstance(parts[0], Mapping):
        return {key: _side_by_side([part[key] for part in parts]) for key in parts[0]}
    return None if parts[0] is None else np.concatenate(parts, axis=-1)


def minus(numbers: Numbers, others: Numbers) -> Numbers:
    """The differences, metric by metric."""
    return {name: numbers[name] - others[name] for name in numbers}


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

    def zeros(self) -> Numbers:
        """A change of 0 in every example."""
        return {name: np.zeros(len(self.contrast)) for name in self.names}

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
        found = {
            name: measure(name, logits, answer=answer, foil=foil, reference=reference).cpu().numpy()
            for name in self.names
        }
        for name, values in found.items():
            if missing := int((~np.isfinite(values)).sum()):
                raise ValueError(
                    f"{name} is not a finite number in {missing} of {len(values)} runs: the logits of the model are "
                    "NaN or infinite there. Look at its weights and activations first, or take a wider dtype."
                )
        return found


@dataclass(frozen=True, eq=False)
class StackedRuns:
    """Several edited runs of the same tokens in one pass, each compared with the same rows of an unedited pass.

    The two passes have one shape, so that an edit without an effect changes exactly nothing.
    """

    model: HookedModel
    meter: Meter
    tokens: Int[Tensor, "rows pos"]
    size: int
    unedited: Mapping[Site, Tensor]
    before: Numbers

    @classmethod
    def of(
        cls,
        model: HookedModel,
        meter: Meter,
        recipient: Int[Tensor, "batch pos"],
        size: int,
        restored: Sequence[Site] = (),
    ) -> "StackedRuns":
        """`size` runs to a pass. `restored`: whole sites at which runs may restore the unedited values."""
        tokens = repeat(recipient, "batch pos -> (run batch) pos", run=size)
        if restored:
            logits, unedited = run_and_read(model, tokens, restored)
        else:
            logits, unedited = run_with(model, tokens, []), {}
        return cls(model, meter, tokens, size, unedited, meter.of(logits, size))

    def changes(self, runs: Iterable[tuple[int, Sequence[Write]]]) -> Iterator[tuple[int, Numbers]]:
        """What each run's writes change, by the run's number. A pass that is not full repeats its last run."""
        waiting = iter(runs)
        while chunk := list(islice(waiting, self.size)):
            filled = [writes for _, writes in chunk] + [chunk[-1][1]] * (self.size - len(chunk))
            logits = run_with(self.model, self.tokens, stacked_edits(filled, unedited=self.unedited))
            change = minus(self.meter.of(logits, self.size), self.before)
            rows = {name: values.reshape(self.size, -1) for name, values in change.items()}
            for part, (number, _) in enumerate(chunk):
                yield number, {name: values[part] for name, values in rows.items()}


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


def rows_in(model: HookedModel, contrast: Contrast, wholes: Collection[Site], max_bytes: int) -> int:
    """Sequences that fit in `max_bytes` of a sweep by hooks, by what one of them holds.

    That is the sites that are patched, in the recipient's run, the donor's and another one's; the widest layer of a
    pass, and logits. An estimate: an architecture may hold more. ValueError where not one fits.
    """
    cfg, n = model.cfg, contrast.clean.shape[1]
    d_model, heads = int(cfg.d_model), int(cfg.n_heads)
    d_mlp, vocabulary = (int(getattr(cfg, name, 0) or 0) for name in ("d_mlp", "d_vocab"))
    held = sum(heads * n if site.kind == "pattern" else d_model for site in wholes)
    row = 4 * n * (3 * held + 12 * d_model + 2 * d_mlp + 3 * heads * n + 6 * vocabulary)
    if max_bytes < row:
        raise ValueError(f"max_bytes={max_bytes:,}: one example of {n} tokens needs {row:,} in this model.")
    return max_bytes // row


def checked_place(place: str, contrast: Contrast) -> str:
    """`place`, if the contrast has it. ValueError with the places there are."""
    if place not in contrast.places:
        raise ValueError(
            f"no place {place!r} at or before the readout; the contrast has {list(contrast.places)}. Places that only "
            "some examples have, or that lie after the readout, cannot be used."
        )
    return place


def place_mask(place: str | None, contrast: Contrast, like: Tensor) -> Tensor:
    """Where a place lies, `batch pos`, on the device of `like`; None is everywhere."""
    if place is None:
        return torch.ones_like(contrast.clean, dtype=torch.bool, device=like.device)
    return contrast.places[checked_place(place, contrast)].to(like.device)
