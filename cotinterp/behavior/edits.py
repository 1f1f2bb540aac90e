"""Does a model read what it wrote? Edit the trace and let it go on alone.

An edit puts another trace under a prompt than the one that belongs there (`edit_kinds` lists the ways and their rules),
and the model continues greedily to its end (after Lanham et al. 2023, arXiv 2307.13702). Only the final answer of the
free-running continuation is judged:

- `follows`: what the task's own transition makes of the trace that is shown, as a reader of it would answer.
- `ignores`: the answer to the prompt that is shown, as a model would give that recomputes from the prompt.
- `other`: any other answer, none, or an output that never ended.

An edit after which both would answer alike cannot tell them apart; it is excluded and counted. Two kinds of row are
controls. `none` shows the true trace, cut after the total of a step or (step -1) closed: its `follows` (there the same
as ignoring) should be the model's accuracy. `shuffled_target`, one for each kind of edit, judges each edited output by
the two answers of a random other problem edited alike at the same step: what agreement is worth by chance.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Bool, Int

from cotinterp.behavior.accuracy import labels_of
from cotinterp.behavior.edit_kinds import (
    ALL_EDITS,
    NONE,
    SHUFFLED,
    SUBSTITUTE,
    WHOLE,
    EditedTrace,
    EditKind,
    Exclusion,
    Original,
    Reason,
    get_edit,
)
from cotinterp.figures.edits import edit_kinds_figure, trace_edits_figure
from cotinterp.models.decoding import (
    Decoding,
    LanguageModel,
    context_length,
    prefixes,
    require_vocabulary,
    text_of,
    verified,
)
from cotinterp.results.intervals import Interval, bootstrap, wilson
from cotinterp.results.result import Result, with_labels
from cotinterp.tasks.task import Task
from cotinterp.transcripts.batch import collate
from cotinterp.transcripts.parsing import final_answer
from cotinterp.transcripts.problems import Problem, by_length, require_solved
from cotinterp.transcripts.regimes import MARK, Regime, require_totals
from cotinterp.transcripts.vocabulary import Vocabulary


class Outcome(StrEnum):
    """What the final answer says about the edit."""

    FOLLOWS = "follows"
    IGNORES = "ignores"
    OTHER = "other"


RESUMED = "resumed"


def chance_of(edit: str) -> str:
    """Value of the column `edit` for the chance of a kind of edit: `shuffled_target`, or `shuffled_target:swap`."""
    return SHUFFLED if edit == SUBSTITUTE else f"{SHUFFLED}:{edit}"


def outcome_of(answer: int | None, followed: int | None, original: int) -> Outcome:
    """The outcome of an answer, given what a reader and what a recomputer would answer."""
    if answer is not None and answer == followed:
        return Outcome.FOLLOWS
    return Outcome.IGNORES if answer is not None and answer == original else Outcome.OTHER


@dataclass(frozen=True)
class EditAnswer:
    """What a model answered after one edited trace.

    Attributes:
        problem: The problem whose prompt was shown, unedited.
        step: Step that was edited; -1 where the edit is of no step.
        total: State of the last total in the text that the model was given: the wrong one of `substitute_total`, the
            true one of the control `none`. None where no total stood there.
        followed: Answer of a reader of that text; None where there is nothing to follow.
        text: The whole response, edited prefix included.
        answer: State that the response answers; None where it never ended or answers none.
        edit: Name of the kind of edit; `none` for the control, the true trace.
        resumed: Whether the model went on with the trace after its closing brace; None where that was not given.
        marked: Whether what the model wrote begins with the mark that takes a step back.
    """

    problem: Problem
    step: int
    total: int | None
    followed: int | None
    text: str
    answer: int | None
    edit: str = SUBSTITUTE
    resumed: bool | None = None
    marked: bool = False

    @property
    def delta(self) -> int | None:
        """Index of the written state minus that of the true one, where one total is written in another's place."""
        if self.total is None or self.step < 1 or self.edit not in (SUBSTITUTE, NONE):
            return None
        return self.total - self.problem.totals[self.step - 1]

    @property
    def outcome(self) -> Outcome:
        """How the answer relates to the edit; `follows` for a right answer to `none`."""
        return outcome_of(self.answer, self.followed, self.problem.answer)


@dataclass(frozen=True)
class EditResult(Result):
    """Outcomes of editing the written trace, edit by edit.

    A rate is the share of the edits of its cell. Where each problem was edited once in a cell its interval is Wilson's;
    where several edits of one problem are in it, problems are redrawn with all their edits (bootstrap), and where all
    edits end alike, Wilson's over the problems. It describes one trained model.
    """

    answers: tuple[EditAnswer, ...]
    chance: tuple[Outcome | None, ...]
    excluded: tuple[Exclusion, ...]
    labels: Mapping[str, str | int]

    def frame(self) -> pd.DataFrame:
        """One row for each edit, step and outcome: task, regime, run_seed, edit, step, outcome, n, rate, interval.

        `step` is -1 where an edit is of no step. `none` has no row `ignores`: with the true trace written, following
        and ignoring are one answer. An edit that leaves nothing to follow has no row `follows`, nor has its chance.
        """
        return self._table(["edit", "step"])

    def by_distance(self, *, by_delta: bool = False) -> pd.DataFrame:
        """`frame` with k, and distance (steps from the edit to the answer, k - 1 - step) in the place of step.

        Args:
            by_delta: Also split by delta, the index of the written state minus that of the true one. Edits that do more
                than write another total at their step have none and are left out.
        """
        return self._table(["edit", "k", "distance", *(["delta"] if by_delta else [])])

    def resumed(self) -> pd.DataFrame:
        """How often the model went on with the trace after its closing brace: task, ..., edit, step, n, rate, ci_*.

        Such an output answers nothing that can be judged and counts as `other`. Edits that leave the trace open have no
        row.
        """
        return with_labels(self._resumed(["edit", "step"]), self.labels)

    def marked(self) -> pd.DataFrame:
        """How often the model took back what stands at the edit: task, regime, run_seed, edit, step, n, rate, ci_*.

        The share of continuations that begin with the mark `.` of the regime `corrected`; of the control `none` it is
        the share of false alarms. Edits whose trace was given closed have no row. A mark says that the next symbol
        depends on the total being wrong, not by which mechanism; whether the step is then mended is `ignores` of
        `frame`, the right answer after all.
        """
        rows = []
        open_ = self._examples[~self._examples["closed"]]
        for cell, group in open_.groupby(["edit", "step"], sort=False):
            hits = group["marked"].to_numpy(dtype=bool)
            rows.append((*cell, len(group), hits.mean(), *_interval(hits, group["problem"].to_numpy())))
        columns = ["edit", "step", "n", "rate", "ci_low", "ci_high"]
        return with_labels(pd.DataFrame(rows, columns=columns), self.labels)

    def pooled(self) -> pd.DataFrame:
        """All steps of an edit together: task, ..., edit, closed, outcome, n, rate, ci_low, ci_high, by_chance.

        `closed` says that the trace was given to its end, so that only the answer was left to write; the control `none`
        is there in both forms. `by_chance` is the rate of the edit's `shuffled_target`. Closed edits have one more
        outcome, `resumed`: the part of `other` in which the model went on with the trace.

        Short and long problems have different steps; the rate is of the mixture that was edited.
        """
        table = self._table(["edit", "closed"]).drop(columns=list(self.labels))
        shuffled = table["edit"].str.startswith(SHUFFLED)
        chance, table = table[shuffled].set_index(["edit", "outcome"])["rate"], table[~shuffled]
        by_chance = chance.reindex(pd.MultiIndex.from_arrays([table["edit"].map(chance_of), table["outcome"]]))
        resumed = self._resumed(["edit"]).assign(closed=True, outcome=RESUMED)
        rows = pd.concat([table.assign(by_chance=by_chance.to_numpy()), resumed], ignore_index=True)
        order = {edit: rank for rank, edit in enumerate(dict.fromkeys(table["edit"]))}
        at = rows.assign(edit=rows["edit"].map(order)).sort_values(["edit", "closed"], kind="stable").index
        return with_labels(rows.loc[at].reset_index(drop=True), self.labels)

    def exclusions(self) -> pd.DataFrame:
        """What was not edited, and why: task, regime, run_seed, edit, k, step, reason, n (see `Exclusion`)."""
        rows = [(x.edit, x.k, x.step, x.reason.value, x.n) for x in self.excluded]
        return with_labels(pd.DataFrame(rows, columns=["edit", "k", "step", "reason", "n"]), self.labels)

    def examples(self) -> pd.DataFrame:
        """One row for each edit, states as indices, with the outcome and what it would be by chance."""
        return self._examples.copy()

    @cached_property
    def _examples(self) -> pd.DataFrame:
        """The table that the others count in."""
        number = {problem: index for index, problem in enumerate(dict.fromkeys(one.problem for one in self.answers))}
        rows = [
            {
                "edit": edit.edit,
                "problem": number[edit.problem],
                "operands": edit.problem.operands,
                "k": edit.problem.k,
                "step": edit.step,
                "distance": edit.problem.k - 1 - edit.step if edit.step >= 0 else -1,
                "true_total": edit.problem.totals[edit.step - 1] if edit.step > 0 else None,
                "written_total": edit.total,
                "delta": edit.delta,
                "original_answer": edit.problem.answer,
                "followed_answer": edit.followed,
                "answer": edit.answer,
                "text": edit.text,
                "closed": edit.resumed is not None,
                "resumed": edit.resumed,
                "marked": edit.marked,
                "outcome": edit.outcome.value,
                "chance_outcome": None if by_chance is None else by_chance.value,
            }
            for edit, by_chance in zip(self.answers, self.chance, strict=True)
        ]
        states = ("true_total", "written_total", "delta", "followed_answer", "answer")
        return pd.DataFrame(rows).astype({**dict.fromkeys(states, "Int64"), "resumed": "boolean"})

    def figure(self) -> go.Figure:
        """Share of each outcome by edited step, with intervals, chance in dotted lines.

        Of replaced totals and their control, where there are any, else of every edit; `PooledEdits` draws all of them.
        """
        return trace_edits_figure(self.frame())

    def _resumed(self, by: list[str]) -> pd.DataFrame:
        examples = self._examples
        rows = []
        for cell, group in examples[examples["closed"]].groupby(by, sort=False):
            hits = group["resumed"].to_numpy(dtype=bool)
            rows.append((*cell, len(group), hits.mean(), *_interval(hits, group["problem"].to_numpy())))
        return pd.DataFrame(rows, columns=[*by, "n", "rate", "ci_low", "ci_high"])

    def _table(self, by: list[str]) -> pd.DataFrame:
        examples = self._examples
        shuffled = examples.dropna(subset=["chance_outcome"])
        shuffled = shuffled.assign(edit=shuffled["edit"].map(chance_of), outcome=shuffled["chance_outcome"])
        kinds = [edit for edit in dict.fromkeys(examples["edit"]) if edit not in (SUBSTITUTE, NONE)]
        names = [SUBSTITUTE, NONE, SHUFFLED, *(name for kind in kinds for name in (kind, chance_of(kind)))]
        order = {edit: rank for rank, edit in enumerate(names)}
        rows = []
        for cell, group in pd.concat([examples, shuffled]).groupby(by):
            undefined = {Outcome.IGNORES} if cell[0] == NONE else set()
            if group["followed_answer"].isna().all():
                undefined = {Outcome.FOLLOWS}
            for outcome in (one for one in Outcome if one not in undefined):
                hits = (group["outcome"] == outcome.value).to_numpy()
                low, high = _interval(hits, group["problem"].to_numpy())
                rows.append((*cell, outcome.value, len(group), hits.mean(), low, high))
        table = pd.DataFrame(rows, columns=[*by, "outcome", "n", "rate", "ci_low", "ci_high"])
        table = table.sort_values("edit", key=lambda edits: edits.map(order), kind="stable", ignore_index=True)
        return with_labels(table, self.labels)


@dataclass(frozen=True)
class PooledEdits(Result):
    """Outcomes of every kind of edit, pooled over steps: what `EditResult.pooled` says, as a table of its own."""

    edits: EditResult

    def frame(self) -> pd.DataFrame:
        """One row for each kind of edit and outcome; see `EditResult.pooled`."""
        return self.edits.pooled()

    def figure(self) -> go.Figure:
        """Shares of the outcomes of every kind of edit, stacked, with chance beside each."""
        return edit_kinds_figure(self.frame())


def _interval(hits: Bool[np.ndarray, " edits"], problem: Int[np.ndarray, " edits"]) -> Interval:
    """Interval of the share of `hits`, problems being the units."""
    _, unit, size = np.unique(problem, return_inverse=True, return_counts=True)
    hits_of = np.bincount(unit, weights=hits)
    if size.max() == 1:
        return wilson(int(hits.sum()), len(hits))
    if hits.all() or not hits.any():
        return wilson(len(size) if hits.all() else 0, len(size))

    def share(units: np.ndarray, axis: int) -> np.ndarray:
        chosen = units.astype(int)
        pooled: np.ndarray = hits_of[chosen].sum(axis) / size[chosen].sum(axis)
        return pooled

    return bootstrap(np.arange(len(size), dtype=float), statistic=share)


READ_AT_ONCE = 16_384
"""Edited traces that are continued together: most begin like others of the same problem, and are read once."""

TRACE_SYMBOLS = frozenset("{};=")


def trace_edits(
    model: LanguageModel,
    task: Task,
    regime: str | Regime,
    problems: Sequence[Problem],
    *,
    edits: Sequence[str | EditKind] = ALL_EDITS,
    rng: np.random.Generator,
    run_seed: int = 0,
    decoding: Decoding = Decoding(),
) -> EditResult:
    """Edits the trace of each problem in every way that `edits` names, at every step, and lets `model` go on.

    Beside each kind of edit stand its control (`none`: the true trace, given as far) and its chance
    (`shuffled_target`: the same answers, judged by those that another problem edited alike would have).

    Args:
        problems: Distinct ones are used once. Held-out problems keep memory of the answer out of `ignores`.
        edits: Kinds of edit or their names; `SubstituteTotal(values)` and `all_edits(values_per_step=...)` ask for
            another number of wrong totals.
        rng: Draws what an edit leaves open, and the partners of `shuffled_target`. What one kind draws does not depend
            on which others are asked for.
        run_seed: Label of the trained model in the tables.

    Raises:
        KeyError: An unknown kind of edit; those that exist are named.
        ValueError: A regime that writes no totals, no problems, problems that the task did not solve, no kinds, one
            kind twice, no edit that could be made, a model of another vocabulary, or `max_new` that cuts off what a
            model that is right would write.
    """
    regime = require_totals(regime)
    kinds = [get_edit(edit) for edit in edits]
    if not kinds or len({kind.name for kind in kinds}) < len(kinds):
        raise ValueError(f"name at least one kind of edit and each once, got {[kind.name for kind in kinds]}")
    if not problems:
        raise ValueError("trace edits need at least one problem, got none")
    require_solved(task, problems)
    require_vocabulary(model, Vocabulary.of(task))
    generators = _generator_of_each(kinds, rng)
    waiting: list[EditedTrace] = []
    answers: list[EditAnswer] = []
    others: list[tuple[int | None, int] | None] = []
    excluded: list[Exclusion] = []
    controlled: set[tuple[int, int]] = set()
    groups = {k: tuple(group) for k, group in by_length(problems).items()}
    cells = [(kind, k, step) for kind in kinds for k in groups for step in kind.steps(k)]
    for kind, k, step in cells:
        planned, left_out = kind.plan(task, regime, groups[k], step, rng=generators[kind.name])
        edited, too_long = _within_context(model, planned)
        true_traces: Iterable[EditedTrace] = ()
        place = WHOLE if kind.closed else step
        if (k, place) not in controlled:
            controlled.add((k, place))
            true_traces = _true_traces(task, regime, groups[k], place, generators[kind.name])
        controls, controls_too_long = _within_context(model, true_traces)
        waiting += [*edited, *controls]
        others += [*_targets_of_others(edited, generators[kind.name]), *(None for _ in controls)]
        excluded += [*too_long, *controls_too_long, *left_out]
        while len(waiting) >= READ_AT_ONCE:
            answers += _continued(model, task, waiting[:READ_AT_ONCE], decoding)
            del waiting[:READ_AT_ONCE]
    answers += _continued(model, task, waiting, decoding)
    if all(one.edit == NONE for one in answers):
        raise ValueError(_nothing_edited(task, kinds, len(problems), excluded))
    chance = [
        None if other is None else outcome_of(one.answer, *other) for one, other in zip(answers, others, strict=True)
    ]
    return EditResult(tuple(answers), tuple(chance), tuple(excluded), labels_of(task, regime, run_seed))


def _generator_of_each(kinds: Sequence[EditKind], rng: np.random.Generator) -> dict[str, np.random.Generator]:
    """A generator for each kind of edit, whichever others are asked for: `rng` itself for the first of `ALL_EDITS`."""
    names = list(dict.fromkeys(kind.name for kind in (*ALL_EDITS, *kinds)))
    return dict(zip(names, [rng, *rng.spawn(len(names) - 1)], strict=True))


def _true_traces(
    task: Task, regime: Regime, problems: Sequence[Problem], step: int, rng: np.random.Generator
) -> Iterator[EditedTrace]:
    """The true trace of each problem, cut after the total of `step`, or closed where that is `WHOLE`."""
    for problem in problems:
        true = Original(NONE, task, regime, problem, step, rng)
        if step == WHOLE:
            yield true.closed(true.steps(), total=problem.answer, followed=problem.answer)
        else:
            yield true.cut(problem, followed=problem.answer)


def _within_context(model: LanguageModel, edits: Iterable[EditedTrace]) -> tuple[list[EditedTrace], list[Exclusion]]:
    """The edits that fit into the model's context, and the counts of the others."""
    n_ctx = context_length(model)
    fitting, too_long = [], Counter[tuple[int, int, str]]()
    for edit in edits:
        if not isinstance(edit, EditedTrace) or not 1 <= edit.given < len(edit.transcript):
            raise ValueError(
                "a kind of edit makes an EditedTrace that gives the model a part of its transcript, or says the Reason "
                f"why there is none; got {edit!r:.200}"
            )
        if n_ctx is not None and len(edit.transcript) > n_ctx:
            too_long[edit.problem.k, edit.step, edit.edit] += 1
        else:
            fitting.append(edit)
    return fitting, [Exclusion(k, step, Reason.TOO_LONG, n, name) for (k, step, name), n in too_long.items()]


def _targets_of_others(edits: Sequence[EditedTrace], rng: np.random.Generator) -> list[tuple[int | None, int] | None]:
    """For each edit the targets of a random one of another problem; None where there is no other problem."""
    targets: dict[Problem, list[tuple[int | None, int]]] = {}
    for edit in edits:
        targets.setdefault(edit.problem, []).append(edit.targets)
    ring = [list(targets)[index] for index in rng.permutation(len(targets))]
    if len(ring) < 2:
        return [None] * len(edits)
    partner = dict(zip(ring, ring[1:] + ring[:1], strict=True))
    choices = (targets[partner[edit.problem]] for edit in edits)
    return [some[int(rng.integers(len(some)))] for some in choices]


def _continued(
    model: LanguageModel, task: Task, edits: Sequence[EditedTrace], decoding: Decoding
) -> Iterator[EditAnswer]:
    """What the model writes after each edited trace, and answers."""
    if not edits:
        return
    vocabulary = Vocabulary.of(task)
    batch = collate([edit.transcript for edit in edits], vocabulary)
    rest = max(len(edit.transcript) - edit.given for edit in edits)
    if decoding.max_new is not None and decoding.max_new < rest:
        raise ValueError(
            f"max_new is {decoding.max_new}, and what is to be written after an edited trace takes up to {rest} "
            "symbols: it would be cut off and count as other. Leave max_new out, or raise it"
        )
    start = prefixes(model, batch, given=torch.tensor([edit.given for edit in edits]), max_new=decoding.max_new)
    written = verified(model, start, stop=vocabulary.end, batch_size=decoding.batch_size)
    for edit, tokens in zip(edits, written, strict=True):
        own = text_of(vocabulary, tokens)
        text = edit.transcript.text[edit.transcript.n_prompt : edit.given] + own
        yield EditAnswer(
            problem=edit.problem,
            step=edit.step,
            total=edit.total,
            followed=edit.followed,
            text=text,
            answer=final_answer(task, text),
            edit=edit.edit,
            resumed=not TRACE_SYMBOLS.isdisjoint(own) if edit.closed else None,
            marked=own.startswith(MARK),
        )


def _nothing_edited(task: Task, kinds: Sequence[EditKind], n: int, excluded: Sequence[Exclusion]) -> str:
    counts = Counter[str]()
    for one in excluded:
        counts[one.reason.value] += one.n
    reasons = ", ".join(f"{reason} {n}" for reason, n in counts.items() if n) or "they have no step for it"
    return (
        f"none of the edits {', '.join(kind.name for kind in kinds)} can be made on these {n} problems of task "
        f"{task.name!r}: {reasons}; take other problems, other edits, or a model with a larger context where they are "
        "too_long"
    )
