"""One work done in two ways, ready to be timed, and how to tell that both did it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

Precision = Literal["fp32", "bf16"]


class Rates(NamedTuple):
    """Floating-point operations a second that this machine reaches in a large matrix product."""

    fp32: float
    bf16: float


class Agreement(NamedTuple):
    """Whether two ways of doing a work gave the same numbers, and by how much they differ, in words."""

    equal: bool
    note: str

    @classmethod
    def within(cls, difference: float, tolerance: float, what: str) -> "Agreement":
        """Equal where the difference is at most the tolerance; NaN is never equal."""
        return cls(difference <= tolerance, f"{what}: largest difference {difference:.2g}, allowed {tolerance:.2g}")

    def also(self, note: str) -> "Agreement":
        """The same with something more to say; nothing is added where there is nothing to say."""
        return Agreement(self.equal, "; ".join(part for part in (self.note, note) if part))


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """Ours and a peer on the same work.

    Attributes:
        work: What is done, sizes included.
        peer: What it is compared with.
        ours, theirs: Do the work once and return what `agree` looks at.
        agree: Whether the outputs of one call of each are the same; it sees the first calls.
        floor: Seconds that the work's matrix products take at the machine's rate, by our count of what must be
            computed; None where nothing says what a floor would be.
        their_share: The part of the work that a call of `theirs` does; its time is divided by this.
        unit: Of the times.
        once: Too long to be repeated: the first call of each is timed, without a warm-up.
    """

    work: str
    peer: str
    ours: Callable[[], Any]
    theirs: Callable[[], Any]
    agree: Callable[[Any, Any], Agreement]
    floor: Callable[[Rates], float | None]
    their_share: float = 1.0
    unit: Literal["ms", "s"] = "ms"
    once: bool = False


def matmul_floor(flops: float, precision: Precision = "fp32") -> Callable[[Rates], float]:
    """Seconds for that many floating-point operations at the rate of this precision."""
    return lambda rates: flops / (rates.fp32 if precision == "fp32" else rates.bf16)
