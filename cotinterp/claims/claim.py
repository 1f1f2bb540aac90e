"""A claim as a value: what is said, by whom, what else could be so, and which numbers would tell them apart.

Everything here is declared before anything is measured. A criterion is a number with a threshold; the claim says on
which side of it the number lies, and so does every rival. `judge` compares.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf
from typing import Literal

from cotinterp.claims.cells import Statistic

Side = Literal["above", "below"]


@dataclass(frozen=True)
class Threshold:
    """Where the line is drawn, and why there."""

    value: float
    reason: str


@dataclass(frozen=True)
class Criterion:
    """A number that tells a claim from its rivals.

    Attributes:
        name: Kebab-case, unique within its claim.
        words: What the number is, as part of a sentence: "held-out accuracy of cot minus that of direct".
        statistic: The number, as a function of the cells of one seed.
        threshold: Which side of it the number lies on is what is predicted.
        unit: "points" (shown as 100 times the number), "nats", or nothing.
        pool: The statistic is of all seeds together (`estimate`).
        optional: Where its cells were not measured it is left out; otherwise the claim is then inconclusive.
        least: Fewest problems it may rest on; with fewer it counts as not measured.
        bounds: What the number cannot be below or above; its interval is cut there.
    """

    name: str
    words: str
    statistic: Statistic
    threshold: Threshold
    unit: str = "points"
    pool: bool = False
    optional: bool = False
    least: int = 0
    bounds: tuple[float, float] = (-inf, inf)


@dataclass(frozen=True)
class Control:
    """A number that must lie on one side of a threshold, or the criteria say nothing about the claim.

    Attributes:
        passes: The side on which it passes; judged by the estimate.
        optional: Passed over where its cells were not measured.
        least: Fewest problems that the number must rest on; with fewer the control fails.
    """

    name: str
    words: str
    statistic: Statistic
    threshold: Threshold
    passes: Side
    unit: str = "points"
    pool: bool = False
    optional: bool = False
    least: int = 0


@dataclass(frozen=True)
class Rival:
    """Another way in which it could be so.

    Attributes:
        predicts: Side of the threshold for each criterion on which it commits itself.
    """

    name: str
    statement: str
    predicts: Mapping[str, Side]


@dataclass(frozen=True)
class Claim:
    """What somebody says about the models of any task, and how it is to be judged.

    Attributes:
        name: Kebab-case.
        statement: The claim in a sentence.
        source: Who says so, and where.
        criteria: The first is the headline: its estimate is the verdict's effect.
        predicts: Side of the threshold for each criterion on which the claim commits itself.
        rivals: What else could be so.
        controls: What must hold for the criteria to mean anything.
        decisive: Criteria that the claim cannot do without: where one of them fails it is not supported, whatever else
            holds.
        evidence: Sections of the report that show what the numbers are made of.
        limits: What a verdict does not establish.

    Raises:
        ValueError: A prediction for a criterion that is not there, or no prediction at all.
    """

    name: str
    statement: str
    source: str
    criteria: tuple[Criterion, ...]
    predicts: Mapping[str, Side]
    rivals: tuple[Rival, ...] = ()
    controls: tuple[Control, ...] = ()
    decisive: frozenset[str] = frozenset()
    evidence: tuple[str, ...] = ()
    limits: str = ""

    def __post_init__(self) -> None:
        """Check that every prediction is about a criterion."""
        names = [criterion.name for criterion in self.criteria]
        if len(set(names)) != len(names):
            raise ValueError(f"claim {self.name!r} has criteria of one name: {names}")
        if not self.predicts:
            raise ValueError(f"claim {self.name!r} predicts nothing; name a side for at least one of {names}")
        mentioned = {"the claim": {*self.predicts, *self.decisive}}
        mentioned |= {f"rival {rival.name!r}": set(rival.predicts) for rival in self.rivals}
        for who, predicted in mentioned.items():
            if unknown := sorted(predicted - set(names)):
                raise ValueError(f"claim {self.name!r}: {who} speaks of {unknown}; its criteria are {names}")
        sides = [*self.predicts.values(), *(side for rival in self.rivals for side in rival.predicts.values())]
        if wrong := sorted({side for side in sides if side not in ("above", "below")}):
            raise ValueError(f"claim {self.name!r} predicts {wrong}; a side of a threshold is 'above' or 'below'")

    def with_threshold(self, name: str, factor: float) -> "Claim":
        """The same claim with the threshold of one criterion or control multiplied by `factor`."""

        def moved(at: Threshold) -> Threshold:
            return replace(at, value=at.value * factor)

        criteria = tuple(replace(x, threshold=moved(x.threshold)) if x.name == name else x for x in self.criteria)
        controls = tuple(replace(x, threshold=moved(x.threshold)) if x.name == name else x for x in self.controls)
        return replace(self, criteria=criteria, controls=controls)
