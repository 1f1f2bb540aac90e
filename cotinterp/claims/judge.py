"""From evidence to verdicts, by rules that were declared before.

Each criterion is an estimate with a standard error over seeds and problems (`estimate`). A claim is

- `inconclusive` where fewer than LEAST_SEEDS seeds were measured, a control does not pass, or a criterion that it needs
  was not measured; and a criterion is open whatever its number where, at more than half of the seeds, a run that it is
  made of does not answer its own training problems or was ended by its budget: that is about the budget;
- `supported` where every prediction holds and none is shown to fail at any seed: the largest of their one-sided
  p-values (an intersection-union test), Holm adjusted over claims and tasks, is at most ALPHA;
- `not supported` where some prediction is shown to fail and none is shown to hold, or a decisive one fails;
- `partly supported` where some fail and some hold;
- `mixed` where none fails and models differ: a prediction is shown to fail at some seeds, each over its own problems,
  and over all seeds it is not;
- `inconclusive` otherwise, with what the design could have seen.

A single prediction holds or fails where its p-value, times two sides and times the number of the claim's criteria,
Holm adjusted over claims and tasks, is at most ALPHA.

A verdict is about most models trained so, and says how many that is (`verdict.least_share`): the mean of five models
that are alike says nothing of a sixth that is otherwise.
"""

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.stats import norm

from cotinterp.claims.cells import EvidenceIndex, MissingEvidence
from cotinterp.claims.claim import ALPHA, LEAST_SEEDS, Claim, Control, Criterion, Side
from cotinterp.claims.estimate import Estimate, estimate
from cotinterp.claims.verdict import (
    OPPOSITE,
    MeasuredCriterion,
    Position,
    State,
    Verdict,
    Verdicts,
    Word,
    controls_in_words,
    judged_rivals,
    word_for,
)
from cotinterp.results.multiplicity import holm
from cotinterp.studies.evidence import MEMORY_TASK, Evidence, kinds_of


@dataclass(frozen=True)
class ClaimEstimates:
    """One claim on one task with its numbers, before the correction that needs all claims.

    Attributes:
        numbers: By criterion, the estimate or why there is none.
        controls: The same by control.
        penalty: Every p-value is multiplied by it, where the number of seeds is not fixed beforehand (`Looks`).
    """

    claim: Claim
    task: str
    numbers: Mapping[str, Estimate | str]
    controls: Mapping[str, Estimate | str]
    penalty: float = 1.0

    @property
    def measured(self) -> tuple[Criterion, ...]:
        """The criteria that were measured."""
        return tuple(one for one in self.claim.criteria if isinstance(self.numbers[one.name], Estimate))

    def p(self, criterion: Criterion, side: Side) -> float:
        """One-sided p-value of the criterion's not lying on that side of its threshold."""
        number = self.numbers[criterion.name]
        assert isinstance(number, Estimate)
        at = criterion.threshold.value
        if number.short_of_training or (criterion.optional and len(number.by_seed) < LEAST_SEEDS):
            return 1.0
        return min(1.0, self.penalty * (number.p_above(at) if side == "above" else number.p_below(at)))

    @property
    def support(self) -> float:
        """Largest p-value of the claim's own predictions; NaN where one that it needs was not measured."""
        own = [one for one in self.claim.criteria if one.name in self.claim.predicts]
        known = [one for one in own if one in self.measured]
        if not known or any(not one.optional for one in own if one not in known):
            return float("nan")
        return max(self.p(one, self.claim.predicts[one.name]) for one in known)

    def shares(self, criterion: Criterion) -> float:
        """p-value that the criterion lies on either side, corrected for sides and for the criteria of the claim."""
        return min(1.0, 2 * len(self.measured) * min(self.p(criterion, "above"), self.p(criterion, "below")))


def judge(claim: Claim, evidence: Evidence, *, task: str | None = None) -> Verdict:
    """The verdict on one claim and one task, corrected for nothing else: use `judge_all` for a table of claims.

    Args:
        task: May be left out where the evidence is of one task.

    Raises:
        ValueError: The evidence is of several tasks and none was named, or not of the one that was.
    """
    wanted = judged_tasks(evidence) if task is None else (task,)
    if len(wanted) > 1:
        raise ValueError(f"the evidence is of several tasks, {list(wanted)}; say which with task=")
    return judge_all((claim,), evidence, wanted).verdicts[0]


def judged_tasks(evidence: Evidence) -> tuple[str, ...]:
    """Every task of the evidence but the one that is a yardstick for the others."""
    return tuple(task for task in evidence.tasks if task != MEMORY_TASK) or evidence.tasks


def judge_all(claims: Sequence[Claim], evidence: Evidence, tasks: Sequence[str] | None = None) -> Verdicts:
    """The verdict on every claim for every task, by default all that were measured but `random-labels`.

    Nothing here depends on the order of seeds, rows, claims or tasks. ValueError for a task without evidence.
    """
    return Verdicts(decide(estimate_claims(claims, evidence, _judged(evidence, tasks))), unfinished(evidence))


def _judged(evidence: Evidence, tasks: Sequence[str] | None) -> tuple[str, ...]:
    wanted = judged_tasks(evidence) if tasks is None else tuple(dict.fromkeys(tasks))
    if not evidence.tasks or not wanted:
        raise ValueError("the evidence has no rows, so there is nothing to judge: " + what_failed(evidence))
    if unknown := sorted(set(wanted) - set(evidence.tasks)):
        raise ValueError(f"no evidence on tasks {unknown}; there is some on {list(evidence.tasks)}")
    return wanted


def what_failed(evidence: Evidence, tasks: Sequence[str] = ()) -> str:
    """Why runs of these tasks, or of any, left no rows: how many failed, and what the first said."""
    runs = evidence.runs[evidence.runs["task"].isin(tasks)] if tasks else evidence.runs
    failed = runs[runs["status"] == "failed"]
    if failed.empty:
        return "no run of it is listed as failed"
    return f"{len(failed)} of {len(runs)} runs failed, such as {failed.iloc[0]['slug']}: {failed.iloc[0]['note']}"


def unfinished(evidence: Evidence) -> pd.DataFrame:
    """The runs that failed, did not converge, or were refused by a measure."""
    return evidence.runs[evidence.runs["status"] != "finished"]


def estimate_claims(claims: Sequence[Claim], evidence: Evidence, tasks: Sequence[str]) -> tuple[ClaimEstimates, ...]:
    """Every number of every claim and task. Thresholds play no part in it."""
    names = [claim.name for claim in claims]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two claims have the name {twice[0]!r}; their verdicts could not be told apart: rename one")
    index = EvidenceIndex(evidence)
    return tuple(
        ClaimEstimates(
            claim,
            task,
            {one.name: _number(claim, one, index, task) for one in claim.criteria},
            {one.name: _number(claim, one, index, task) for one in claim.controls},
        )
        for task in tasks
        for claim in claims
    )


def decide(estimates: Sequence[ClaimEstimates]) -> tuple[Verdict, ...]:
    """The verdicts on all of them together."""
    support = holm(np.array([one.support for one in estimates]))
    strongest = [min((one.shares(part) for part in one.measured), default=float("nan")) for one in estimates]
    in_table = sum(len(one.measured) for one in estimates)
    found = []
    for place, one in enumerate(estimates):
        states: dict[str, Position] = {}
        for part in one.measured:
            family = np.array([one.shares(part) if other == place else p for other, p in enumerate(strongest)])
            clear = holm(family)[place] <= ALPHA
            side: Side = "above" if one.p(part, "above") < one.p(part, "below") else "below"
            states[part.name] = side if clear else None
        if support[place] <= ALPHA:
            states |= {name: one.claim.predicts[name] for name in states if name in one.claim.predicts}
        states |= dict.fromkeys(_mixed(one, states, in_table), "mixed")
        found.append(
            _verdict(
                one, states, float(support[place]), float(holm(np.array(strongest))[place]), len(estimates), in_table
            )
        )
    return tuple(found)


def _mixed(one: ClaimEstimates, states: Mapping[str, Position], in_table: int) -> Iterator[str]:
    """The predictions that some model is shown to break and that over all of them are not shown to fail."""
    for name, predicted in one.claim.predicts.items():
        if name not in states or states[name] == OPPOSITE[predicted]:
            continue
        above, below = _shown(one, name, in_table)
        breaking, keeping = (below, above) if predicted == "above" else (above, below)
        if breaking and (keeping or states[name] == predicted):
            yield name


def _shown(one: ClaimEstimates, name: str, in_table: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The seeds at which a criterion lies above, and below, corrected for sides, seeds, and criteria of the table."""
    number = one.numbers[name]
    assert isinstance(number, Estimate)
    if number.short_of_training:
        return (), ()
    threshold = next(part.threshold.value for part in one.claim.criteria if part.name == name)
    return number.shown(threshold, ALPHA / (2 * len(number.by_seed) * in_table * one.penalty))


STAGE = LEAST_SEEDS
"""Seeds that are added at a time."""


Looks = Mapping[int, float]
"""At how many seeds is looked, and by what p-values are multiplied at each look.

Each look spends a part of the level, which together are all of it, so that with any rule for stopping a false verdict
is as rare as without: by the union bound, however the looks depend on one another.
"""


def look_factors(most: int) -> Looks:
    """Looks that are planned before there is a model, every STAGE seeds and at `most`.

    The parts of the level are those of an O'Brien-Fleming boundary (O'Brien & Fleming 1979; spent as Lan & DeMets 1983
    do): next to nothing early on, where only what is plain is decided, and most of it at the end. ValueError where a
    verdict needs more seeds than `most`.
    """
    if most < LEAST_SEEDS:
        raise ValueError(f"at most {most} seeds: a verdict needs {LEAST_SEEDS}, so give --max-seeds that many or more")
    counts = _every_stage(most)
    spent = 2 * norm.sf(norm.isf(ALPHA / 2) / np.sqrt(np.array(counts) / most))
    return dict(zip(counts, (ALPHA / np.diff(spent, prepend=0.0)).tolist(), strict=True))


def equal_looks(most: int) -> Looks:
    """Looks each of which has an equal part of the level, every STAGE seeds and at `most`.

    For seeds that were added because verdicts on the first ones were open: the first look is then as good as the last.
    """
    counts = _every_stage(most)
    return dict.fromkeys(counts, float(len(counts)))


def _every_stage(most: int) -> list[int]:
    return [*range(STAGE, most, STAGE), most]


def judge_stored(
    claims: Sequence[Claim], evidence: Evidence, tasks: Sequence[str] | None = None
) -> tuple[Verdicts, tuple[ClaimEstimates, ...]]:
    """The verdicts of stored tables, which get more seeds where verdicts are open: at every STAGE that they hold.

    A task is charged for the looks at its own seeds (`stored_looks`). Where no task has more than STAGE seeds it is
    `judge_all`. Where so many seeds were meant from the beginning, `judge_all` is the better one: all of the level for
    one look.

    Returns:
        The verdicts, and the numbers that each rests on.
    """
    return judge_in_stages(claims, of_first_seeds(evidence), _judged(evidence, tasks), stored_looks(evidence))


def of_first_seeds(evidence: Evidence) -> Callable[[int, tuple[str, ...]], Evidence]:
    """Of stored evidence the lowest so many seeds, on some tasks: what `judge_in_stages` asks for."""
    return lambda n, tasks: evidence.of_seeds(n).of_tasks(tasks)


def stored_looks(evidence: Evidence) -> Callable[[str], Looks]:
    """Of a task: a look at every STAGE seeds that its own rows hold, each with an equal part of the level.

    Where it was settled after the first look which tasks get more seeds, a false verdict is at most half as frequent
    again as the level says: the first look has all of it where it stays the only one.
    """
    seeds = evidence.table.groupby("task")["run_seed"].nunique()
    return lambda task: equal_looks(int(seeds[task]))


def judge_in_stages(
    claims: Sequence[Claim],
    evidence_of: Callable[[int, tuple[str, ...]], Evidence],
    tasks: Sequence[str],
    looks: Callable[[str], Looks],
) -> tuple[Verdicts, tuple[ClaimEstimates, ...]]:
    """Verdicts with as many seeds as each needs: look by look, until all are decided or it was the last.

    A verdict is that of the first look at which it is not inconclusive, with the seeds that there were then; what no
    look decides is inconclusive at the last. A task of which all is decided gets no more seeds.

    Args:
        evidence_of: The evidence of that many seeds, on those tasks.
        tasks: All that are judged together.
        looks: Of a task, at how many seeds is looked, and what each look costs.

    Returns:
        The verdicts, and the numbers that each rests on.
    """
    of_task = {task: looks(task) for task in tasks}
    decided: dict[tuple[str, str], tuple[Verdict, ClaimEstimates]] = {}
    latest: dict[tuple[str, str], ClaimEstimates] = {}
    runs: list[pd.DataFrame] = []
    for seeds in sorted({count for counts in of_task.values() for count in counts}):
        wanted = tuple(
            task for task in tasks if seeds in of_task[task] and any((one.name, task) not in decided for one in claims)
        )
        if not wanted:
            continue
        evidence = evidence_of(seeds, wanted)
        runs.append(unfinished(evidence))
        for one in estimate_claims(claims, evidence, wanted):
            latest[one.claim.name, one.task] = replace(one, penalty=of_task[one.task][seeds])
        for (key, numbers), verdict in zip(latest.items(), decide(tuple(latest.values())), strict=True):
            last = seeds == max(of_task[numbers.task])
            if numbers.task in wanted and key not in decided and (last or verdict.verdict != "inconclusive"):
                decided[key] = verdict, numbers
    found = [decided[key] for key in latest]
    verdicts = Verdicts(tuple(verdict for verdict, _ in found), pd.concat(runs).drop_duplicates())
    return verdicts, tuple(estimates for _, estimates in found)


THRESHOLD_COLUMNS = ("claim", "task", "part", "kind", "verdict", "moved_verdict", "factor")


def threshold_changes(estimates: Sequence[ClaimEstimates], factors: Sequence[float] = (0.9, 1.1)) -> pd.DataFrame:
    """Which verdicts change when one threshold of one claim is multiplied by a factor, the others as they are.

    Columns THRESHOLD_COLUMNS: `part` is the criterion or control that was moved, `kind` which of the two it is,
    `verdict` the one with the threshold as declared, `moved_verdict` the one with the threshold moved.
    """
    before = decide(estimates)
    rows: list[tuple[str, str, str, str, Word, Word, float]] = []
    for factor in factors:
        for place, one in enumerate(estimates):
            for kind, parts in (("criterion", one.claim.criteria), ("control", one.claim.controls)):
                for part in parts:
                    changed = replace(one, claim=one.claim.with_threshold(part.name, factor))
                    after = decide([changed if other == place else same for other, same in enumerate(estimates)])[place]
                    if after.verdict != before[place].verdict:
                        words = (before[place].verdict, after.verdict)
                        rows.append((one.claim.name, one.task, part.name, kind, *words, factor))
    return pd.DataFrame(rows, columns=list(THRESHOLD_COLUMNS))


def _number(claim: Claim, part: Criterion | Control, index: EvidenceIndex, task: str) -> Estimate | str:
    try:
        found = estimate(part.statistic, index, task, pool=part.pool)
    except MissingEvidence as missing:
        return str(missing.args[0])
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise ValueError(
            f"claim {claim.name!r}: the statistic of {part.name!r} failed on task {task!r} with "
            f"{type(error).__name__}: {error} ({place.filename}, line {place.lineno}, in {place.name})"
        ) from error
    if found.n < part.least:
        return f"it rests on {found.n} cases, of the {part.least} that it needs"
    return found


def _verdict(
    one: ClaimEstimates,
    states: Mapping[str, Position],
    support: float,
    objection: float,
    family: int,
    in_table: int,
) -> Verdict:
    measured = tuple(_criterion(one, part, states, family, in_table) for part in one.claim.criteria)
    controls, broken = controls_in_words(one.claim, one.controls)
    alike = not any(part.state == "mixed" for part in measured)
    word, reason = word_for(one.claim, measured, broken, supported=support <= ALPHA and alike)
    first = next((part for part in measured if part.state != "not measured"), measured[0])
    return Verdict(
        claim=one.claim.name,
        task=one.task,
        verdict=word,
        statement=one.claim.statement,
        effect=first.estimate,
        ci_low=first.low,
        ci_high=first.high,
        unit=first.unit,
        n=first.n,
        seeds=first.seeds,
        threshold=first.threshold,
        p=support if word == "supported" else objection,
        controls=controls,
        rivals=judged_rivals(one.claim, {} if broken else states),
        reason=reason,
        evidence=one.claim.evidence,
        criteria=measured,
    )


def _criterion(
    one: ClaimEstimates, part: Criterion, states: Mapping[str, Position], family: int, in_table: int
) -> MeasuredCriterion:
    number, predicted = one.numbers[part.name], one.claim.predicts.get(part.name)
    nan = float("nan")
    if isinstance(number, str):
        return MeasuredCriterion(
            part.name, part.words, part.unit, part.threshold.value, predicted or "", nan, nan, nan, nan, nan,
            "not measured", 0, {}, nan, number,
        )  # fmt: skip
    side = states[part.name]
    state: State = "open" if side is None else side
    if side in ("above", "below") and predicted is not None:
        state = "holds" if side == predicted else "fails"
    above, below = _shown(one, part.name, in_table)
    return MeasuredCriterion(
        name=part.name,
        words=part.words,
        unit=part.unit,
        threshold=part.threshold.value,
        predicted=predicted or "",
        estimate=number.value,
        low=max(number.interval[0], part.bounds[0]),
        high=min(number.interval[1], part.bounds[1]),
        p_above=number.p_above(part.threshold.value),
        p_below=number.p_below(part.threshold.value),
        state=state,
        n=number.n,
        by_seed=number.by_seed,
        detectable=_within(part, predicted, number.detectable(ALPHA / (2 * len(one.measured) * family * one.penalty))),
        note="; ".join(f"not at seed {seed}: {why}" for seed, why in number.missing.items()),
        above=above,
        below=below,
        kinds=kinds_of(number.measures),
        unconverged=number.unconverged if number.short_of_training else (),
        core_hours=number.core_hours,
    )


def _within(part: Criterion, predicted: Side | None, distance: float) -> float:
    """The distance, or infinity where a number so far on the predicted side is beyond what it can be."""
    low, high = part.bounds
    room = {"above": high - part.threshold.value, "below": part.threshold.value - low}
    return distance if predicted is None or distance <= room[predicted] else float("inf")
