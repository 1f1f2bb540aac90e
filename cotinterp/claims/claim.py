"""A claim as a value: what is said, by whom, what else could be so, and which numbers would tell them apart.

Everything here is declared before anything is measured. A criterion is a number with a threshold; the claim says on
which side of it the number lies, and so does every rival. `judge` compares.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf, isfinite
from typing import Any, Literal

from cotinterp.claims.cells import Statistic

Side = Literal["above", "below"]


@dataclass(frozen=True)
class Threshold:
    """Where the line is drawn, and why there. ValueError for a value that is no finite number."""

    value: float
    reason: str

    def __post_init__(self) -> None:
        """Check that something can lie on either side of it."""
        if not isfinite(self.value):
            raise ValueError(f"a threshold is a finite number, got {self.value}: nothing could lie beyond it")


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
        ValueError: A prediction for a criterion that is not there, no prediction at all, of the claim or of a rival, a
            name that occurs twice, or a side that is neither "above" nor "below".
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
        if silent := [rival.name for rival in self.rivals if not rival.predicts]:
            raise ValueError(
                f"claim {self.name!r}: the rivals {silent} predict nothing, so no number could tell them from it; name "
                f"a side for at least one of {names}"
            )
        for kind, found in (
            ("criteria and controls", [*names, *(control.name for control in self.controls)]),
            ("rivals", [rival.name for rival in self.rivals]),
        ):
            if len(set(found)) != len(found):
                raise ValueError(f"claim {self.name!r} has {kind} of one name: {found}")
        sides = [*self.predicts.values(), *(side for rival in self.rivals for side in rival.predicts.values())]
        sides += [control.passes for control in self.controls]
        if wrong := sorted({side for side in sides if side not in ("above", "below")}):
            raise ValueError(
                f"claim {self.name!r} names the sides {wrong}; a side of a threshold is 'above' or 'below'"
            )

    def with_threshold(self, name: str, factor: float) -> "Claim":
        """The same claim with the threshold of one criterion or control multiplied by `factor`."""

        def moved(at: Threshold) -> Threshold:
            return replace(at, value=at.value * factor)

        criteria = tuple(replace(x, threshold=moved(x.threshold)) if x.name == name else x for x in self.criteria)
        controls = tuple(replace(x, threshold=moved(x.threshold)) if x.name == name else x for x in self.controls)
        return replace(self, criteria=criteria, controls=controls)


LEAST_SEEDS = 5
"""Trained models of each kind below which nothing but `inconclusive` is said: a headline needs five seeds."""

ALPHA = 0.05
"""Chance of one wrong statement in the whole table of claims and tasks (Holm 1979)."""

LEAST_ERRORS = 20
"""Wrong outputs, over all seeds, below which nothing is said about their kinds: with fewer, a share of one half has an
interval of more than 40 points."""

SOLVED = Threshold(0.9, "the criterion for a solved length of Merrill et al. 2024 (arXiv 2404.08819)")

DECODABLE = Threshold(
    0.25, "a quarter of the problems more than random labels, the untrained model or the bare token give"
)

TABLE_OR_ALGORITHM = Threshold(
    0.5, "halfway between a table, which has 0 by construction, and an algorithm, which has 1"
)

MOST_ERRORS = Threshold(0.5, "most of the errors")

USED = Threshold(0.1, "the least share of the gap that counts as used (`UseRule.min_effect`)")

THRESHOLDS: dict[str, Threshold] = {
    "slope": Threshold(0.02, "2 points for each operand: over the five lengths trained on, the gap grows by 8 points"),
    "advantage": Threshold(
        0.1, "a tenth of the problems: visible in any figure, ten times the spread of a solved task"
    ),
    "ratio": TABLE_OR_ALGORITHM,
    "few": TABLE_OR_ALGORITHM,
    "many": TABLE_OR_ALGORITHM,
    "beyond-memory": Threshold(0.1, "a tenth of the problems more than the best that memory could guess at them"),
    "agreement": Threshold(
        0.5, "halfway between a table of tuples, which has 0 by construction, and a sum, which has 1"
    ),
    "size-gain": Threshold(0.1, "10 points for ten times the training problems; a table gains none on unseen problems"),
    "cliff": Threshold(
        0.3, "one layer too few costs a serial computation most of its answers, a smooth decline far less"
    ),
    "memory": Threshold(0.25, "a model of random answers must score as memory, or the ratio does not measure memory"),
    "learned": Threshold(
        0.2, "20 points above guessing on its own training problems: below that there is no memory to test"
    ),
    "margin": Threshold(0.5, "of the edits that decide, three quarters go one way"),
    "ignored": Threshold(0.5, "of the edits that decide, three quarters leave the answer as it was"),
    "patch-margin": Threshold(0.5, "one of the two carries at least half of the gap more than the other"),
    "read-margin": Threshold(
        0.25, "a quarter of the logit difference: five times what a cut of random tokens may cost"
    ),
    "clean-trace": Threshold(
        0.9, "with the true total written back, the answer must stay right, or editing itself breaks it"
    ),
    "by-chance": Threshold(
        0.1, "judged by another problem's edit, about as many answers must seem to follow as to ignore"
    ),
    "unrelated": Threshold(0.1, "an operand that cannot matter must not matter"),
    "random-cut": Threshold(0.25, "cutting as many random tokens must cost less than what counts as a read"),
    "cot-decodable": DECODABLE,
    "cot-used": USED,
    "direct-decodable": DECODABLE,
    "direct-used": USED,
    "bookkeeping": MOST_ERRORS,
    "early": MOST_ERRORS,
    "content": Threshold(0.1, "a tenth of the problems, as for the advantage of cot over direct"),
    "passes": Threshold(0.1, "a tenth of the problems, as for the advantage of cot over direct"),
    "within-budget": SOLVED,
    "beyond-budget": SOLVED,
    "log-budget": SOLVED,
    "depth-gain": Threshold(0.1, "a tenth of the problems between one layer and all of them"),
    "anchored": Threshold(0.5, "more likely than not"),
    "lost": Threshold(0.5, "more than half of the probability of the right answer"),
    "copied": Threshold(0.5, "more likely than not"),
    "ready": Threshold(0.5, "more than half of the probability comes with the written totals"),
    "own-wrong": Threshold(0.5, "most of the model's own wrong totals"),
    "lost-at-once": Threshold(0.1, "a tenth of the problems, as for the advantage of cot over direct"),
    "leaks": Threshold(0.5, "most responses begin a trace that was not asked for"),
    "gain": Threshold(0.1, "a tenth of the problems, as for the advantage of cot over direct"),
    "content-gain": Threshold(0.1, "a tenth of the problems, as for the content of written tokens"),
    "trace-gain": Threshold(0.1, "a tenth of the problems, as for the advantage of cot over direct"),
    "totals-inside": DECODABLE,
    "totals-gain": Threshold(0.1, "a tenth of the problems more than the same phases leave without content"),
    "totals-used": USED,
    "writes-it": SOLVED,
    "hurt": Threshold(0.1, "a tenth of the problems, as for the advantage of cot over direct"),
    "wide-gain": Threshold(0.1, "a tenth of the problems, as for the advantage of cot over direct"),
    "fluent": MOST_ERRORS,
    "wide-cot-solves-it": SOLVED,
    "at-the-answer": DECODABLE,
    "at-operands": DECODABLE,
    "order": Threshold(
        0.5, "half a layer a step: midway between totals that appear together, 0, and one a layer, which has 1"
    ),
    "used-at-the-answer": USED,
    "answers-at-once": Threshold(0.5, "most problems: else no computation is inside to be looked at"),
    "teacher-writes-it": SOLVED,
    "less-new": Threshold(0.1, "a tenth of the problems, as for the advantage of cot over direct"),
    "less-known": Threshold(0.1, "a tenth of the problems, as for the advantage of cot over direct"),
    "all-weights-learn": SOLVED,
    "relative-gain": Threshold(0.1, "a tenth of the problems of lengths that were never shown"),
    "none-gain": Threshold(0.1, "a tenth of the problems of lengths that were never shown"),
    "trace-beyond": Threshold(0.1, "a tenth of the problems of lengths that were never shown"),
    "within": SOLVED,
    "unread-gain": Threshold(0.1, "a tenth of the problems, as for the advantage of cot over direct"),
    "input-gain": Threshold(0.1, "a tenth of the problems, as for the advantage of cot over direct"),
    "missed": Threshold(0.1, "a tenth of the problems, as for the advantage of cot over direct"),
    "reads-it": SOLVED,
    "carried": Threshold(0.1, "a tenth of a nat: the answer would be a tenth less likely without knowing the trace"),
    "equal-flops-gain": Threshold(0.1, "a tenth of the problems, as for the advantage of cot over direct"),
    "votes-gain": Threshold(0.05, "a twentieth of the problems: it is about the same model, asked more than once"),
    "times-larger": Threshold(14.0, "the factor of Snell et al. 2024 (arXiv 2408.03314)"),
    "verifier-gain": Threshold(0.05, "a twentieth of the problems: both choose among the same responses"),
    "own-verifier-gain": Threshold(0.05, "a twentieth of the problems: both choose among the same responses"),
    "beyond-likelihood": Threshold(0.05, "a twentieth of the problems: both choose among the same responses"),
    "room": Threshold(0.1, "twice what a verifier must gain: else there is nothing to choose"),
    "knows": Threshold(0.1, "one more of ten pairs of a right and a wrong step; published: more than three"),
    "acts-on-it": Threshold(0.1, "a tenth of the next steps, as for what counts as used"),
    "by-shuffled-labels": Threshold(0.1, "without anything to find, at most what counts as knowing"),
    "untrained-knows": Threshold(0.1, "what untrained states tell beyond the text is not learned"),
    "same-heads": Threshold(0.7, "seven tenths of what heads carry; a head of four at random would have a quarter"),
    "beyond-base": Threshold(0.1, "a tenth of what heads carry has moved, in both to the same heads"),
    "read-by-heads": USED,
    "both-solve-it": SOLVED,
    "by-permuted-heads": Threshold(0.6, "a tenth below what counts as the same: else any heads would be"),
    "twin-reads": USED,
    "reward-gain": Threshold(0.1, "a tenth of the problems, as for the advantage of cot over direct"),
    "gain-from-nothing": Threshold(0.1, "a tenth of the problems, as for the advantage of cot over direct"),
    "beyond-twin": Threshold(0.1, "a tenth of the problems, as for the advantage of cot over direct"),
    "dealt-gain": Threshold(0.1, "what updates alone do, without a reward of one's own, must be less"),
    "base-room": Threshold(0.2, "twice what reward must gain: else there is nothing to teach"),
    "kept-elsewhere": Threshold(0.5, "most of the logit difference"),
    "lost-elsewhere": Threshold(0.1, "a tenth of the logit difference, as for what counts as used"),
    "writes-the-trace": SOLVED,
    "kept-at-home": Threshold(0.75, "circuits keep 0.9 of the pairs that they were chosen on: on others most of that"),
    "kept-by-random": Threshold(0.25, "half of what counts as kept: else any edges would do"),
    "beyond-kept-untrained": Threshold(0.25, "half of what counts as kept: else training has little to do with it"),
    "attention-ahead": Threshold(0.1, "7% more updates, a third of the way from one kept moment to the next"),
    "effect-ahead": Threshold(0.1, "7% more updates, a third of the way from one kept moment to the next"),
    "table-ahead": Threshold(0.1, "7% more updates, a third of the way from one kept moment to the next"),
    "rotation-gain": Threshold(0.1, "a tenth of the variance more than streams share that hold the same symbols"),
    "states-gain": Threshold(0.1, "a tenth of the states, as for what counts as used"),
    "heads-gain": Threshold(0.1, "a tenth of the attention more than heads share that were not trained"),
    "dealt-out-anew": Threshold(0.1, "a rotation of unrelated problems must explain nothing"),
    "own-states": Threshold(0.3, "three times what states must gain: else there is nothing to carry over"),
    "moves-as-the-task": Threshold(0.75, "three quarters of the pairs (`VariableRule.min_iia`)"),
    "beyond-unmapped": Threshold(0.25, "a quarter of the pairs (`VariableRule.margin`)"),
    "moves-whole": Threshold(0.75, "three quarters of the pairs (`VariableRule.min_iia`)"),
    "moved-by-nothing": Threshold(0.5, "a quarter of the pairs below what counts (`VariableRule.margin`)"),
    "moved-untrained": Threshold(0.5, "a quarter of the pairs below what counts (`VariableRule.margin`)"),
    "shown-are-right": Threshold(0.5, "most traces: else the reward has nothing to prefer"),
}
"""By the name of a criterion or control. Written when single seeds had been looked at (docs/log.md) and before the
other seeds were measured; none was changed afterwards but that of `by-chance`, which is of another number since
2026-12-01 (docs/log.md). `cotinterp claims` says which verdicts would change if one of
them were a tenth higher or lower (`threshold_changes`). The report prints them with their reasons."""


def criterion(name: str, words: str, statistic: Statistic, unit: str = "points", **more: Any) -> Criterion:
    """A criterion with the threshold of its name; in points a difference of shares unless bounds say otherwise."""
    bounds = {"bounds": (-1.0, 1.0)} if unit == "points" else {}
    return Criterion(name, words, statistic, THRESHOLDS[name], unit, **(bounds | more))


def control(name: str, words: str, statistic: Statistic, passes: Side, unit: str = "points", **more: Any) -> Control:
    """A control with the threshold of its name."""
    return Control(name, words, statistic, THRESHOLDS[name], passes, unit, **more)


LEAST_DEPTHS = 3
"""Depths below which no law of depth is named: two points lie on every law with one free number."""

LEAST_DEPTH_SEEDS = 2
"""Runs at each depth below which no law of depth is named: the spread among seeds is estimated over all depths
together, but one run at a depth cannot show that it is an odd one."""

LAW_THRESHOLDS: dict[str, Threshold] = {
    "weight": Threshold(0.9, "nine to one for one law of depth against all its rivals together, in both treatments"),
    "share": Threshold(0.8, "four of five redrawn sets of seeds prefer the same law"),
    "misfit": Threshold(0.01, "the best of four laws is not good enough where a K* for each depth fits so much better"),
    "trend": Threshold(0.05, "K* that still rises or falls with depth beyond the law speaks against the law"),
    "growth": Threshold(1.5, "depth buys nothing: from the least depth to the greatest K* may not grow by half"),
    "binding": Threshold(
        2.0, "depths with a frontier inside the measured lengths: from one alone a steep law and a constant look alike"
    ),
    "monotone": Threshold(0.25, "where a quarter of the runs solve a length beyond a failed one, K* says little"),
}
"""Those of `cotinterp.claims.depth_law`, set on simulated frontiers (`cotinterp.calibration.law_worlds`)."""
