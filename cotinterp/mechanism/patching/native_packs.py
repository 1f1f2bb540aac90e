"""Which runs of a native sweep are made together, so that little is computed for nothing and memory is bounded.

Runs whose changes begin near the same position share a forward pass from the first of these positions on; each joins
the batch at the block that it changes. Runs that enter at the last block, or behind it, need one position only.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from cotinterp.mechanism.patching.blocks import MAX_BYTES
from cotinterp.models.native.parts import NativeParts

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
    max_bytes: int = MAX_BYTES
    most_rows: int | None = None

    @classmethod
    def of(cls, parts: NativeParts, n_pos: int, *, max_bytes: int | None, most_rows: int | None) -> "Sizes":
        """The sizes of a model on sequences of `n_pos` tokens. ValueError where one example does not fit."""
        d_mlp = max((len(block.mlp.b_in) for block in parts.blocks if block.mlp is not None), default=0)
        d_vocab_out, d_model = parts.w_u.shape
        bound = MAX_BYTES if max_bytes is None else max_bytes
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
