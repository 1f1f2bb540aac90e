"""What writing and reading cost, counted: tokens, forward passes, floating-point operations.

Counts are of what the work cannot do without, not of what a machine did: whatever texts of one problem begin with in
common is read once, keys and values are kept for as long as they are of use, and nothing is padded. A token that was
written is read when something is written after it, so that the last token of a text costs no reading.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import nan

from cotinterp.models.flops import Cost
from cotinterp.models.native.parts import native_parts
from cotinterp.models.spec import ModelSpec


@dataclass(frozen=True)
class Spent:
    """What was spent on one problem, or on one text of it. `a + b` is a, and b after it.

    Attributes:
        written: Tokens that the model wrote, those that were thrown away among them.
        read: Tokens that were read, by the model or by a scorer; each distinct prefix once for each reader.
        passes: Forward passes one after another: texts that are written or scored side by side go through in one. It is
            what the problem waits for, where `flops` is what it takes.
        flops: Operations in matrix products (`models.flops.Cost`); NaN where a model of unknown shape was asked.
    """

    written: int = 0
    read: int = 0
    passes: int = 0
    flops: float = 0.0

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(
            self.written + other.written, self.read + other.read, self.passes + other.passes, self.flops + other.flops
        )


def side_by_side(works: Iterable[Spent]) -> Spent:
    """Several works at once: the sum of everything but passes, of which the longest work counts."""
    total, passes = Spent(), 0
    for work in works:
        total, passes = total + work, max(passes, work.passes)
    return Spent(total.written, total.read, passes, total.flops)


def cost_of(model: object) -> Cost | None:
    """The operations of a native model, by the shapes of its weights; None for any other model."""
    parts = native_parts(model)
    if parts is None or not parts.blocks or parts.blocks[0].mlp is None:
        return None
    d_vocab, d_model = parts.w_e.shape
    spec = ModelSpec(
        n_layers=len(parts.blocks),
        d_model=d_model,
        n_heads=parts.n_heads,
        d_mlp=len(parts.blocks[0].mlp.b_in),
        n_ctx=parts.n_ctx,
    )
    return Cost(spec, d_vocab)


def writing(cost: Cost | None, prefix: int, unread: int, lengths: Sequence[int]) -> Spent:
    """Writing continuations of these lengths, side by side, behind one prefix.

    Args:
        cost: Of the model that writes; None where its shape is unknown.
        prefix: Tokens of the prefix.
        unread: How many of them, at its end, were not read before: all of a prompt at first, the last one of a text
            that was just written, none of a prefix that was continued before.
        lengths: Tokens of each continuation, 1 or more.
    """
    behind = [n - 1 for n in lengths]
    read = unread + sum(behind)
    pairs = _pairs(prefix - unread, unread) + sum(_pairs(prefix, n) for n in behind)
    flops = nan if cost is None else cost.reading(float(read), float(pairs), float(bool(unread) + sum(behind)))
    return Spent(sum(lengths), read, max(lengths, default=0), flops)


def reading_of(cost: Cost | None, tokens: int, logits: int = 0) -> Spent:
    """Reading a text of so many tokens in one pass, the logits of some of its places among the work."""
    return Spent(
        0, tokens, 1, nan if cost is None else cost.reading(float(tokens), float(_pairs(0, tokens)), float(logits))
    )


def _pairs(start: int, n: int) -> int:
    """Keys that `n` positions from `start` on see in all."""
    return n * start + n * (n + 1) // 2
