"""The patching sweep of a native model, from its weights: only what a patch can change is computed.

A patch becomes the input of a block at the changed positions, and the block's queries, keys and values there. A patch
of resid_pre, k or v changes what its own block does with the positions after it. A patch of q, pattern, z, attn_out,
mlp_out or resid_post changes what its block hands on, at the patched positions alone: it enters the next one. Runs that
enter anywhere are packed into passes over the positions that they share, and each pass starts from the states of the
unpatched runs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cotinterp.mechanism.activations import Budget, at_positions
from cotinterp.mechanism.metrics import MetricName
from cotinterp.mechanism.patching.runs import Cell, Changes, Meter, Numbers, Runs, minus
from cotinterp.mechanism.sites import Kind, Site
from cotinterp.models.native.parts import Block, LayerState, NativeParts, forward, key_bias
from cotinterp.models.native.resume import Entry, resume_all

_WITHIN: tuple[Kind, ...] = ("resid_pre", "k", "v")


def enters_at(site: Site) -> int:
    """The first block whose input, keys or values a patch changes; the number of blocks for one behind the last."""
    return site.layer if site.kind in _WITHIN else site.layer + 1


@dataclass(frozen=True, eq=False)
class Patches:
    """Patches that enter at one block: whose run, which of `sites`, and at which positions the donor's value stands."""

    sites: Sequence[Site]
    site: Int[Tensor, " run"]
    row: Int[Tensor, " run"]
    mask: Bool[Tensor, "run pos"]


@dataclass(frozen=True, eq=False)
class _Tokens:
    """Single positions of runs, and the head that is written there (-1 for all of them)."""

    row: Int[Tensor, " changed"]
    position: Int[Tensor, " changed"]
    head: Int[Tensor, " changed"]

    def select(self, some: Int[Tensor, " some"]) -> "_Tokens":
        return _Tokens(self.row[some], self.position[some], self.head[some])

    def of(self, state: Float[Tensor, "batch pos *axes"]) -> Float[Tensor, "changed *axes"]:
        """What the runs hold there."""
        return state[self.row, self.position]

    def written(self, own: Float[Tensor, "batch pos head x"], donor: Tensor) -> Float[Tensor, "changed head x"]:
        """The donor's values in the heads that are written, the recipient's in the others."""
        heads = torch.arange(own.shape[2], device=own.device)
        chosen = (self.head[:, None] == heads) | (self.head[:, None] < 0)
        return torch.where(chosen[..., None], self.of(donor), self.of(own))


def entry(
    parts: NativeParts,
    own: Sequence[LayerState],
    donor: Sequence[LayerState],
    patches: Patches,
    layer: int,
    positions: slice,
) -> Entry:
    """The runs of `patches` at the input of block `layer`, their streams at `positions` (which need not hold what is
    patched). `own` and `donor` are the states of the recipients' and the donors' runs, row by row."""
    run, position = patches.mask.nonzero(as_tuple=True)
    site = patches.site[run]
    head = torch.tensor([-1 if site.head is None else site.head for site in patches.sites], device=run.device)
    tokens = _Tokens(patches.row[run], position, head[site])
    stream = own[layer].resid_pre if layer < len(own) else own[-1].resid_post
    resid = stream[:, positions].index_select(0, patches.row)
    new = tokens.of(stream)
    qkv = new.new_zeros(len(run), 3, *own[-1].q.shape[2:])
    for kind in sorted({site.kind for site in patches.sites}):
        of_kind = torch.tensor([site.kind == kind for site in patches.sites], device=run.device)
        some = of_kind[site].nonzero()[:, 0]
        here = tokens.select(some)
        if not len(some):
            continue
        if kind in _WITHIN:
            qkv[some] = _asked_and_shown(own[layer], donor[layer], here, kind)
            new[some] = here.of(donor[layer].resid_pre if kind == "resid_pre" else stream)
            continue
        changed = _handed_on(parts, parts.blocks[layer - 1], own[layer - 1], donor[layer - 1], here, kind)
        new[some] = changed
        if layer < len(own):
            qkv[some] = parts.qkv(parts.blocks[layer], changed, here.position)
    inside = (position >= positions.start) & (position < positions.stop)
    resid[run[inside], position[inside] - positions.start] = new[inside]
    return Entry(patches.row, resid, run, position, qkv)


def _asked_and_shown(
    own: LayerState, donor: LayerState, tokens: _Tokens, kind: Kind
) -> Float[Tensor, "changed three head d_head"]:
    """Queries, keys and values of a block whose input, keys or values are patched."""
    if kind == "resid_pre":
        return torch.stack([tokens.of(donor.q), tokens.of(donor.k), tokens.of(donor.v)], dim=1)
    k = tokens.written(own.k, donor.k) if kind == "k" else tokens.of(own.k)
    v = tokens.written(own.v, donor.v) if kind == "v" else tokens.of(own.v)
    return torch.stack([tokens.of(own.q), k, v], dim=1)


def _handed_on(
    parts: NativeParts, block: Block, own: LayerState, donor: LayerState, tokens: _Tokens, kind: Kind
) -> Float[Tensor, "changed d_model"]:
    """resid_post of a block in which something is patched that only its own position sees."""
    if kind == "resid_post":
        return tokens.of(donor.resid_post)
    if kind == "mlp_out":
        assert donor.mlp_out is not None
        return tokens.of(own.resid_pre) + tokens.of(own.attn_out) + tokens.of(donor.mlp_out)
    if kind == "attn_out":
        attn_out = tokens.of(donor.attn_out)
    elif kind == "z":
        attn_out = parts.attn_out(block, tokens.written(own.z, donor.z))
    else:
        pattern = _pattern(parts, own, donor, tokens, kind)
        attn_out = parts.attn_out(block, torch.einsum("nhk,nkhd->nhd", pattern, own.v[tokens.row]))
    return block.after_attention(tokens.of(own.resid_pre), attn_out)


def _pattern(
    parts: NativeParts, own: LayerState, donor: LayerState, tokens: _Tokens, kind: Kind
) -> Float[Tensor, "changed head key"]:
    if kind == "pattern":
        return tokens.written(own.pattern.movedim(2, 1), donor.pattern.movedim(2, 1))
    scores = torch.einsum("nhd,nkhd->nhk", tokens.written(own.q, donor.q), own.k[tokens.row]) / parts.scale
    if parts.slopes is not None:
        scores = scores + key_bias(parts.slopes, scores.shape[-1])[:, 0]
    future = torch.arange(scores.shape[-1], device=scores.device) > tokens.position[:, None, None]
    return scores.masked_fill(future, -torch.inf).softmax(dim=-1)


# Larger passes of a small model leave the processor's cache, and are slower per token, not faster.
_TOKENS_AT_ONCE = 2048
# A pass costs as much time before it computes anything as this many tokens do: about what may be computed for nothing.
_TOKENS_OF_A_PASS = 96
_BYTES = 4


@dataclass(frozen=True, eq=False)
class Jobs:
    """The runs of a sweep: cell and recipient's row of each, the block it enters, its first changed position, and the
    position that is read."""

    cell: Int[np.ndarray, " run"]
    row: Int[np.ndarray, " run"]
    layer: Int[np.ndarray, " run"]
    first: Int[np.ndarray, " run"]
    at: Int[np.ndarray, " run"]

    def __len__(self) -> int:
        return len(self.cell)

    @classmethod
    def joined(cls, parts: Sequence["Jobs"]) -> "Jobs":
        """One after the other."""
        columns = zip(*((part.cell, part.row, part.layer, part.first, part.at) for part in parts), strict=True)
        return cls(*map(np.concatenate, columns))

    def select(self, some: Int[np.ndarray, " some"]) -> "Jobs":
        """Some of the runs, in this order."""
        return Jobs(self.cell[some], self.row[some], self.layer[some], self.first[some], self.at[some])


@dataclass(frozen=True)
class Sizes:
    """What the memory of a run depends on. `most_rows` bounds a pass whatever fits (None for no such bound)."""

    n_layers: int
    d_model: int
    d_mlp: int
    n_heads: int
    d_vocab_out: int
    n_pos: int
    max_bytes: int = Budget().bytes
    most_rows: int | None = None

    @classmethod
    def of(cls, parts: NativeParts, n_pos: int, budget: Budget) -> "Sizes":
        """The sizes of a model on sequences of `n_pos` tokens. ValueError where one example does not fit."""
        d_mlp = max((len(block.mlp.b_in) for block in parts.blocks if block.mlp is not None), default=0)
        d_vocab_out, d_model = parts.w_u.shape
        bound, most_rows = budget.bytes, budget.batch_size
        sizes = cls(len(parts.blocks), d_model, d_mlp, parts.n_heads, d_vocab_out, n_pos, bound, most_rows)
        least = 2 * max(sizes.example(), sizes.run(n_pos))
        if bound < least:
            raise ValueError(f"max_bytes={bound:,}: one example of {n_pos} tokens needs {least:,} in this model.")
        return sizes

    def example(self) -> int:
        """Bytes that an example of a block holds: the states of its runs (recipient, donor, one more), and logits."""
        state = self.n_pos * (8 * self.d_model + 3 * self.n_heads * self.n_pos + 2 * self.d_mlp // self.n_layers)
        return 3 * _BYTES * (self.n_layers * state + self.n_pos * self.d_vocab_out)

    def run(self, suffix: int) -> int:
        """Bytes of one run of a pass over `suffix` positions, at its widest."""
        stream = suffix * (9 * self.d_model + 2 * self.d_mlp + 2 * self.n_heads * self.n_pos)
        return _BYTES * (stream + 4 * self.n_pos * self.d_model + 8 * self.d_vocab_out)

    def examples_at_once(self) -> int:
        """Examples of a block: half of the memory is for what they hold, half for the runs of a pass."""
        return min(self.max_bytes // 2 // self.example(), self.most_rows or self.max_bytes)

    def runs_at_once(self, suffix: int) -> int:
        """Runs of one pass over `suffix` positions."""
        fit = self.max_bytes // 2 // self.run(suffix)
        return max(1, min(fit, max(1, _TOKENS_AT_ONCE // suffix), self.most_rows or fit))


def sweep_flops(jobs: Jobs, sizes: Sizes) -> int:
    """Floating point operations that no exact sweep of these runs from stored states can do without: the floor.

    Matrix products only, a multiplication and an addition each. At its first block a run pays for what follows
    attention at every position from its first changed one to the one that is read, at further blocks for all of the
    block, and in the last block for keys and values, and for all else at the position that is read. What is computed
    at the changed positions alone, before the run enters, is left out.
    """
    d, d_mlp, last = sizes.d_model, sizes.d_mlp, sizes.n_layers - 1
    suffix, keys = jobs.at + 1 - jobs.first, jobs.at + 1
    after, attended = d * d + 2 * d * d_mlp, d * (keys * (keys + 1) - jobs.first * (jobs.first + 1))
    whole = np.maximum(last - jobs.layer, 0)
    blocks = whole * (suffix * after + attended) + np.maximum(whole - 1, 0) * suffix * 3 * d * d
    read = (jobs.layer <= last) * (after + 2 * d * keys) + (whole > 0) * (2 * suffix + 1) * d * d
    return int(2 * (blocks + read + d * sizes.d_vocab_out).sum())


def packs(jobs: Jobs, sizes: Sizes) -> Iterator[tuple[int, Int[np.ndarray, " some"]]]:
    """The jobs of each pass, in the order in which they enter, and the position from which it computes."""
    deep = jobs.layer < sizes.n_layers - 1
    for begin, members in _neighbors(jobs.first, np.flatnonzero(deep)):
        suffix = int(jobs.at[members].max()) + 1 - begin
        yield from ((begin, part) for part in _cut(jobs, members, sizes.runs_at_once(suffix)))
    # There one position is enough: those that are read at the same one go together.
    for begin, members in _neighbors(jobs.at, np.flatnonzero(~deep)):
        suffix = int(jobs.at[members].max()) + 1 - begin
        yield from ((begin, part) for part in _cut(jobs, members, sizes.runs_at_once(suffix)))


def _neighbors(
    first: Int[np.ndarray, " all"], members: Int[np.ndarray, " some"]
) -> Iterator[tuple[int, Int[np.ndarray, " group"]]]:
    """Runs in order of `first`, cut where those that begin later would waste more than a pass costs."""
    order = members[np.argsort(first[members], kind="stable")]
    starts, index = np.unique(first[order], return_index=True)
    groups = np.split(order, index[1:]) if len(order) else []
    begin, together, wasted = 0, list[Int[np.ndarray, " group"]](), 0
    for start, group in zip(starts.tolist(), groups, strict=True):
        wasted += len(group) * (start - begin)
        if together and wasted > _TOKENS_OF_A_PASS:
            yield begin, np.concatenate(together)
            together = []
        if not together:
            begin, wasted = start, 0
        together.append(group)
    if together:
        yield begin, np.concatenate(together)


def _cut(jobs: Jobs, members: Int[np.ndarray, " some"], at_once: int) -> list[Int[np.ndarray, " part"]]:
    """Runs in the order of the blocks they enter, in parts of about the same size."""
    ordered = members[np.lexsort((jobs.cell[members], jobs.layer[members]))]
    return np.array_split(ordered, -(-len(ordered) // at_once))


# A run whose logits lie this near to the unpatched ones, in units of the largest logit, may differ by rounding alone.
_ROUNDING = 2e-5

States = tuple[LayerState, ...]


@torch.no_grad()
def native_sweep(
    parts: NativeParts,
    runs: Runs,
    cells: Sequence[Cell],
    names: Sequence[MetricName],
    sizes: Sizes,
    *,
    unrelated_donor: bool = False,
) -> Changes:
    """`sweep_hooks.sweep_block` from the weights.

    A patch of the whole first input is the donor's own run, operation for operation: the baselines are read of the runs
    of recipient, donor and unrelated donor, and need none of their own.
    """

    def ran(tokens: Int[Tensor, "batch pos"]) -> tuple[Float[Tensor, "batch d_vocab"], States]:
        logits, states = forward(parts, tokens.to(parts.w_e.device))
        return at_positions(logits, runs.contrast.at), states

    read: dict[str, Float[Tensor, "batch d_vocab"]] = {}
    read["recipient"], own = ran(runs.recipient)
    read["donor"], related = ran(runs.donor)
    read["unrelated"], unrelated = ran(runs.unrelated)
    for unit, sibling in (("unit_recipient", "recipient"), ("unit_donor", "donor")):
        same = getattr(runs, unit) is getattr(runs, sibling)
        read[unit] = read[sibling] if same else ran(getattr(runs, unit))[0]
    meter = Meter(runs.contrast, names, read["unit_donor"].double())
    numbers = {run: meter.of_readout(logits) for run, logits in read.items()}
    gaps = minus(numbers["unit_donor"], numbers["unit_recipient"])
    baselines = {
        "self": minus(numbers["recipient"], numbers["recipient"]),
        "full": gaps,
        "random_donor": runs.where_unrelated(minus(numbers["unrelated"], numbers["recipient"])),
    }
    if runs.contrast.reference is not None:
        baselines["whole_change"] = minus(numbers["donor"], numbers["recipient"])
    sweep = _Sweep.of(parts, runs, cells, own, unrelated if unrelated_donor else related)
    live, jobs = sweep.planned()
    changes = sweep.changes(live.shape, jobs, meter, sizes, read["recipient"])
    return Changes(
        changes=runs.where_unrelated(changes) if unrelated_donor else changes,
        gaps=gaps,
        baselines=baselines,
        ran=np.asarray(live.any(axis=1)),
        predicted=runs.predicted(read),
        live=live,
    )


@dataclass(frozen=True, eq=False)
class _Sweep:
    """One block of examples: what is patched where, and the states of the runs that it is patched into and from.

    `unequal`: where donor and recipient differ up to the readout; `reach`: where, of these, a patch can still reach it.
    """

    parts: NativeParts
    own: States
    donor: States
    at: Int[Tensor, " batch"]
    sites: Sequence[Site]
    site: Int[np.ndarray, " cells"]
    place: Int[np.ndarray, " cells"]
    places: Bool[Tensor, "place batch pos"]
    unequal: Bool[Tensor, "site batch pos"]
    reach: Bool[Tensor, "site batch pos"]

    @classmethod
    def of(cls, parts: NativeParts, runs: Runs, cells: Sequence[Cell], own: States, donor: States) -> "_Sweep":
        """The sweep of these cells."""
        device = parts.w_e.device
        names = {name: i for i, name in enumerate(runs.contrast.places)}
        sites = sorted({cell.site for cell in cells})
        index = {site: i for i, site in enumerate(sites)}
        at, positions = runs.contrast.at.to(device), torch.arange(runs.recipient.shape[1], device=device)
        before, here = positions <= at[:, None], positions == at[:, None]
        unequal = torch.stack([_differs(site, own[site.layer], donor[site.layer]) for site in sites]) & before
        reach = torch.stack([before if enters_at(site) < len(own) else here for site in sites])
        return cls(
            parts,
            own,
            donor,
            at,
            sites,
            np.array([index[cell.site] for cell in cells]),
            np.array([names[cell.place] for cell in cells]),
            torch.stack(list(runs.contrast.places.values())).to(device),
            unequal,
            unequal & reach,
        )

    def planned(self) -> tuple[Bool[np.ndarray, "cells batch"], Jobs]:
        """Which cells are live in which examples, and the runs that can change something."""
        live = np.zeros((len(self.site), len(self.at)), dtype=bool)
        at, found = self.at.cpu().numpy(), []
        for i, site in enumerate(self.sites):
            cells = np.flatnonzero(self.site == i)
            places = self.places[torch.from_numpy(self.place[cells]).to(self.at.device)]
            live[cells] = (places & self.unequal[i]).any(dim=2).cpu().numpy()
            reached = places & self.reach[i]
            place, row = reached.any(dim=2).cpu().numpy().nonzero()
            first = reached.int().argmax(dim=2).cpu().numpy()[place, row]
            found.append(Jobs(cells[place], row, np.full(len(row), enters_at(site)), first, at[row]))
        return live, Jobs.joined(found)

    def changes(
        self,
        shape: tuple[int, ...],
        jobs: Jobs,
        meter: Meter,
        sizes: Sizes,
        unpatched: Float[Tensor, "batch d_vocab"],
    ) -> Numbers:
        """What each cell changes in each example, by metric; exactly 0 where it can change nothing."""
        recipient, near = meter.of_readout(unpatched), [np.zeros(0, dtype=np.int64)]
        found: Numbers = {name: np.zeros(shape) for name in recipient}
        limit = _ROUNDING * unpatched.abs().amax(dim=1)
        for begin, some in packs(jobs, sizes):
            pack = jobs.select(some)
            rows, logits = self._rows(pack), self._logits(self.donor, pack, begin)
            distance = (logits - unpatched[rows]).abs().amax(dim=1)
            near.append(some[(distance <= limit[rows]).cpu().numpy()])
            for name, values in meter.of_readout(logits, rows).items():
                found[name][pack.cell, pack.row] = values - recipient[name][pack.row]
        # Rounding depends on the shape of a pass. These are compared with the unpatched run in the very same pass:
        # what reaches nothing is then exactly 0, and not 1e-7.
        doubtful = jobs.select(np.concatenate(near))
        for begin, some in packs(doubtful, sizes):
            pack = doubtful.select(some)
            rows = self._rows(pack)
            both = [meter.of_readout(self._logits(states, pack, begin), rows) for states in (self.donor, self.own)]
            for name, values in minus(*both).items():
                found[name][pack.cell, pack.row] = values
        return found

    def _logits(self, donor: States, pack: Jobs, begin: int) -> Float[Tensor, "run d_vocab"]:
        """Logits at the readout of the runs of one pack, which are in the order of the blocks they enter."""
        positions = slice(begin, int(pack.at.max()) + 1)
        entries = {}
        for layer in np.unique(pack.layer).tolist():
            some = pack.select(np.flatnonzero(pack.layer == layer))
            site, place = (torch.from_numpy(index[some.cell]).to(self.at.device) for index in (self.site, self.place))
            rows = self._rows(some)
            mask = self.places[place, rows] & self.reach[site, rows]
            patches = Patches(self.sites, site, rows, mask)
            entries[layer] = entry(self.parts, self.own, donor, patches, layer, positions)
        return resume_all(self.parts, self.own, entries, start=begin, at=self.at[self._rows(pack)])

    def _rows(self, jobs: Jobs) -> Int[Tensor, " run"]:
        return torch.from_numpy(jobs.row).to(self.at.device)


def _differs(site: Site, own: LayerState, donor: LayerState) -> Bool[Tensor, "batch pos"]:
    """Where the donor's run holds another value than the recipient's."""
    ours, theirs = (site.whole.by_position(getattr(state, site.kind)) for state in (own, donor))
    unequal = ours != theirs if site.head is None else ours[:, :, site.head] != theirs[:, :, site.head]
    return unequal.flatten(2).any(dim=2)
