"""A batch without its padding: every token once, in one long row, and how to lay them out again for attention.

Norms, MLPs and projections treat each token alone, so they need no rectangle. Attention does: sequences are sorted by
length and cut into a few buckets, each as wide as its longest.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor
from torch.nn import functional

from cotinterp.training.data import NOT_SCORED, TrainingSet

TOKENS_A_BUCKET = 512
MAX_BUCKETS = 4
"""More buckets would pad less, but each costs a dozen calls a layer. Measured on batches of 700 to 2,100 tokens."""

NARROWEST = 16
"""torch's softmax over fewer than 16 numbers is ten times slower on a CPU than over 16: one vector register."""

TOKENS_STEP, WIDTH_STEP = 64, 8
"""Sizes are rounded up to these: a CPU compiles a bfloat16 product anew for every shape that it has not seen lately."""


@dataclass(frozen=True, eq=False)
class Bucket:
    """Sequences of similar length, next to each other in the long row, as a rectangle.

    Attributes:
        tokens: Where in the long row they stand.
        rows: Number of sequences; the rectangle has `rows` by `width` cells.
        grid: For each cell the token in it, counted from the bucket's first; 0 where it is padding.
        flat: For each token the cell that it stands in.
        real: Cells that are no padding.
    """

    tokens: slice
    rows: int
    width: int
    grid: Int[Tensor, " cells"]
    flat: Int[Tensor, " tokens"]
    real: Bool[Tensor, "cells 1"]


@dataclass(frozen=True, eq=False)
class PackedBatch:
    """Some training transcripts without padding, sorted by length.

    Attributes:
        tokens: Inputs of all sequences, one after the other, then blanks up to a round number.
        positions: Where each stands in its sequence, from 0.
        scored: Which of them predict a scored token, then blanks up to a round number.
        targets: The tokens that they are to predict; NOT_SCORED for the blanks.
        n_tokens: Tokens that are no blanks; no bucket holds a blank.
    """

    tokens: Int[Tensor, " tokens"]
    positions: Int[Tensor, " tokens"]
    scored: Int[Tensor, " scored"]
    targets: Int[Tensor, " scored"]
    n_tokens: int
    buckets: tuple[Bucket, ...]

    @classmethod
    def of(cls, data: TrainingSet, rows: Int[np.ndarray, " batch"], n_buckets: int | None = None) -> "PackedBatch":
        """The transcripts in these rows of the training set; `n_buckets` None chooses by their number of tokens."""
        device = data.inputs.device
        length = data.length.numpy()[rows]
        if n_buckets is None:
            n_buckets = min(MAX_BUCKETS, max(1, round(int(length.sum()) / TOKENS_A_BUCKET)))
        order = np.argsort(length, kind="stable")
        rows, length = rows[order], length[order]
        last = np.cumsum(length)
        positions = np.arange(last[-1]) - np.repeat(last - length, length)

        def moved(array: Shaped[np.ndarray, "..."]) -> Tensor:
            return torch.from_numpy(array).to(device)

        sequence, position = moved(np.repeat(rows, length)), moved(positions)
        tokens, targets = data.inputs[sequence, position], data.targets[sequence, position]
        scored = (targets != NOT_SCORED).nonzero()[:, 0]
        buckets, start = [], 0
        for part in np.array_split(np.arange(len(rows)), min(n_buckets, len(rows))):
            width, size = max(NARROWEST, _rounded(int(length[part[-1]]), WIDTH_STEP)), int(length[part].sum())
            place = np.arange(width)
            real = place < length[part, None]
            first = last[part] - length[part] - start
            grid = np.where(real, first[:, None] + place, 0)
            buckets.append(
                Bucket(
                    tokens=slice(start, start + size),
                    rows=len(part),
                    width=width,
                    grid=moved(grid.ravel()),
                    flat=moved(np.flatnonzero(real)),
                    real=moved(real.reshape(-1, 1)),
                )
            )
            start += size
        return cls(
            tokens=_filled(tokens, 0),
            positions=_filled(position, 0),
            scored=_filled(scored, 0),
            targets=_filled(targets[scored], NOT_SCORED),
            n_tokens=start,
            buckets=tuple(buckets),
        )


def _rounded(size: int, step: int) -> int:
    """The next multiple of `step`."""
    return -(-size // step) * step


def _filled(row: Int[Tensor, " some"], blank: int) -> Int[Tensor, " more"]:
    """`row` with blanks behind it."""
    return functional.pad(row, (0, _rounded(len(row), TOKENS_STEP) - len(row)), value=blank)
