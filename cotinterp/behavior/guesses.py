"""Guessed continuations, and what a model's likeliest symbols make of them: kept, corrected, or written on."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Guesses:
    """Continuations that are being settled, on the CPU. The tensors are changed in place by `settle`.

    Attributes:
        buffer: Settled symbols of each sequence, then its guess.
        settled: Number of settled symbols, the given ones among them.
        guessed: Number of settled and guessed symbols.
        limit: Number of symbols at which a sequence that has not stopped is given up.
        running: Whether there is more to settle.
        stop: Token that ends a sequence.
    """

    buffer: Int[Tensor, "batch pos"]
    settled: Int[Tensor, " batch"]
    guessed: Int[Tensor, " batch"]
    limit: Int[Tensor, " batch"]
    running: Bool[Tensor, " batch"]
    stop: int

    def to_read(self, rows: Int[Tensor, " rows"]) -> Int[Tensor, " rows"]:
        """Symbols of each row that are worth reading. What would follow a guessed stop symbol is never asked."""
        last = self.buffer[rows, self.guessed[rows] - 1]
        return torch.maximum(self.settled[rows], self.guessed[rows] - (last == self.stop).long())

    def settle(
        self, rows: Int[Tensor, " rows"], argmax: Int[Tensor, "rows read"], first: Int[Tensor, " rows"] | None = None
    ) -> None:
        """Takes up what a pass over some rows found; settles at least one symbol of each.

        `argmax` holds the likeliest symbol after each of the places that were read, from `first` (or 0) on, which is at
        most the last settled one. A guessed symbol that is the argmax is settled, the first that is not is corrected,
        and the argmaxes after that are the next guess.
        """
        first = torch.zeros_like(rows) if first is None else first
        settled, guessed, limit = self.settled[rows, None], self.guessed[rows, None], self.limit[rows, None]
        place = first[:, None] + torch.arange(1, argmax.shape[1] + 1)
        known = (place <= self.to_read(rows)[:, None]) & (place < limit) & (place >= settled)
        here = place.clamp(max=self.buffer.shape[1] - 1)
        there = self.buffer[rows[:, None], here]
        departs = known & ~((there == argmax) & (place < guessed))
        before = torch.where(departs.any(1), departs.int().argmax(1), argmax.shape[1])[:, None]
        ends = known & (argmax == self.stop) & (torch.arange(argmax.shape[1]) <= before)
        ended = ends.any(1)
        final = torch.where(known, place, 0).amax(1)
        at = torch.where(ended, ends.int().argmax(1), before[:, 0])
        new = torch.where(at < argmax.shape[1], first + 1 + at, final)
        self.buffer[rows[:, None].expand_as(here)[known], here[known]] = argmax[known]
        self.settled[rows] = new + 1
        self.guessed[rows] = torch.minimum(torch.maximum(self.guessed[rows], final + 1), self.limit[rows])
        self.running[rows] = ~ended & (new + 1 < self.limit[rows])


def not_nan(logits: Float[Tensor, "*places d_vocab"]) -> Float[Tensor, "*places d_vocab"]:
    """The logits. ValueError where some are NaN."""
    if bool(logits.isnan().any()):
        raise ValueError("the model gives NaN logits; nothing that it writes can be judged")
    return logits
