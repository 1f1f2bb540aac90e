"""Does a model read what it wrote? Edit the trace and let it go on alone."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Bool, Int

from cotinterp.behavior.accuracy import described, labels_of
from cotinterp.behavior.decoding import LanguageModel, context_length, prefixes, text_of, verified
from cotinterp.behavior.edit_kinds import (
    ALL_EDITS,
    SUBSTITUTE,
    WHOLE,
    EditedTrace,
    EditKind,
    Exclusion,
    Original,
    Reason,
    SubstituteTotal,
    get_edit,
)
from cotinterp.figures import lines
from cotinterp.results.intervals import Interval, bootstrap, wilson
from cotinterp.results.result import Result, with_labels
from cotinterp.tasks.task import Task
from cotinterp.transcripts.batch import collate
from cotinterp.transcripts.parsing import final_answer
from cotinterp.transcripts.problems import Problem
from cotinterp.transcripts.regimes import Regime, get_regime, regime_names
from cotinterp.transcripts.vocabulary import Vocabulary


class Outcome(StrEnum):
    """What the final answer says about the edit."""

    FOLLOWS = "follows"
    IGNORES = "ignores"
    OTHER = "other"


NONE, SHUFFLED = "none", "shuffled_target"
RESUMED = "resumed"


def chance_of(edit: str) -> str:
    """Value of the column `edit` for the chance of a kind of edit: `shuffled_target`, or `shuffled_target:swap`."""
    return SHUFFLED if edit == SUBSTITUTE else f"{SHUFFLED}:{edit}"


@dataclass(frozen=True)
class TraceEdit:
    """One edited trace and what the model made of it.

    Attributes:
        problem: The problem whose prompt was shown, unedited.
        step: Step that was edited; -1 where the edit is of no step.
        total: State of the last total in the text that the model was given: the wrong one of `substitute_total`, the
            true one of the control `none`. None where no total stood there.
        followed: Answer of a reader of that text; None where there is nothing to follow.
        text: The whole response, edited prefix included.
        answer: State that the response answers; None where it never ended or answers none.
        kind: Name of the kind of edit.
        resumed: Whether the model went on with the trace after its closing brace; None where that was not given.
    """

    problem: Problem
    step: int
    total: int | None
    followed: int | None
    text: str
    answer: int | None
    kind: str = SUBSTITUTE
    resumed: bool | None = None

    @property
    def edit(self) -> str:
        """The kind of edit; `none` where the true total was written in the place of a wrong one."""
        true = self.kind == SUBSTITUTE and self.total == self.problem.totals[self.step - 1]
        return NONE if true else self.kind

    @property
    def delta(self) -> int | None:
        """Index of the written state minus that of the true one, where one total is written in another's place."""
        if self.total is None or self.step < 1 or self.edit not in (SUBSTITUTE, NONE):
            return None
        return self.total - self.problem.totals[self.step - 1]

    @property
    def outcome(self) -> Outcome:
        """How the answer relates to the edit; `follows` for a right answer to `none`."""
        return judge(self.answer, self.followed, self.problem.answer)


def judge(answer: int | None, followed: int | None, original: int) -> Outcome:
    """The outcome of an answer, given what a reader and what a recomputer would answer."""
    if answer is not None and answer == followed:
        return Outcome.FOLLOWS
    return Outcome.IGNORES if answer is not None and answer == original else Outcome.OTHER


@dataclass(frozen=True)
class EditResult(Result):
    """Outcomes of editing the written trace, edit by edit.

    A rate is the share of the edits of its cell. Where each problem was edited once in a cell its interval is Wilson's;
    where several edits of one problem are in it, problems are redrawn with all their edits (bootstrap), and where all
    edits end alike, Wilson's over the problems. It describes one trained model.
    """

    edits: tuple[TraceEdit, ...]
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
        rows = [(x.edit, x.k, x.step, x.reason, x.n) for x in self.excluded]
        return with_labels(pd.DataFrame(rows, columns=["edit", "k", "step", "reason", "n"]), self.labels)

    def examples(self) -> pd.DataFrame:
        """One row for each edit, states as indices, with the outcome and what it would be by chance."""
        return self._examples.copy()

    @cached_property
    def _examples(self) -> pd.DataFrame:
        """The table that the others count in."""
        number = {problem: index for index, problem in enumerate(dict.fromkeys(edit.problem for edit in self.edits))}
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
                "outcome": edit.outcome.value,
                "chance_outcome": None if by_chance is None else by_chance.value,
            }
            for edit, by_chance in zip(self.edits, self.chance, strict=True)
        ]
        states = ("true_total", "written_total", "delta", "followed_answer", "answer")
        return pd.DataFrame(rows).astype({**dict.fromkeys(states, "Int64"), "resumed": "boolean"})

    def figure(self) -> go.Figure:
        """Share of each outcome by edited step, with intervals; one panel an edit, chance in broken lines."""
        table = self.frame()
        table["measured"] = np.where(table["edit"].str.startswith(SHUFFLED), "by chance", "after the edit")
        table["edit"] = table["edit"].str.removeprefix(f"{SHUFFLED}:").replace(SHUFFLED, SUBSTITUTE)
        table = table[(table["measured"] != "by chance") | (table["outcome"] != Outcome.OTHER)]
        edits = list(dict.fromkeys(table["edit"]))
        words = {edit: edit.replace("_", " ") for edit in edits} | {NONE: "control: the true trace"}
        return lines(
            table.assign(edit=pd.Categorical(table["edit"].map(words), [words[edit] for edit in edits])),
            x="step",
            y="rate",
            low="ci_low",
            high="ci_high",
            color="outcome",
            dash="measured",
            facet="edit",
            bounds=(0.0, 1.0),
            title=f"After the written trace is edited: {described(self.labels)}",
            x_title="step that is edited (-1: the whole trace)",
            y_title="share of edits",
            hover=["n"],
        )

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
OF_A_TRACE = frozenset("{};=")


def substitute_totals(
    model: LanguageModel,
    task: Task,
    regime: str | Regime,
    problems: Sequence[Problem],
    *,
    rng: np.random.Generator,
    values_per_step: int | None = 3,
    run_seed: int = 0,
    max_new: int | None = None,
    batch_size: int = 256,
) -> EditResult:
    """Replaces each written total of each problem by other ones and lets `model` go on.

    The prompt and the totals before step j stay true; total j is replaced by another one of the same written length
    that occurs at that step, and the text is cut directly after it. Arguments and errors are those of `trace_edits`,
    whose first kind of edit this is.
    """
    bench = _Bench(model, task, _with_totals(regime), max_new, batch_size)
    return bench.result({SubstituteTotal(values_per_step): rng}, problems, run_seed)


def trace_edits(
    model: LanguageModel,
    task: Task,
    regime: str | Regime,
    problems: Sequence[Problem],
    *,
    edits: Sequence[str | EditKind] = ALL_EDITS,
    rng: np.random.Generator,
    run_seed: int = 0,
    max_new: int | None = None,
    batch_size: int = 256,
) -> EditResult:
    """Edits the trace of each problem in every way that `edits` names, at every step, and lets `model` go on.

    Args:
        problems: Distinct ones are used once. Held-out problems keep memory of the answer out of `ignores`.
        edits: Kinds of edit or their names; `all_edits` gives them all with another number of wrong totals.
        rng: Draws what an edit leaves open, and the partners of `shuffled_target`. What one kind draws does not depend
            on which others are asked for; `substitute_total` draws what `substitute_totals` does.
        run_seed: Label of the trained model in the tables.
        max_new: Symbols after which a continuation is given up; None as in `decoding.prefixes`.

    Raises:
        KeyError: An unknown kind of edit; those that exist are named.
        ValueError: A regime that writes no totals, no problems, no kinds, one kind twice, or no edit that could be
            made.
    """
    kinds = [get_edit(edit) for edit in edits]
    if not kinds or len({kind.name for kind in kinds}) < len(kinds):
        raise ValueError(f"name at least one kind of edit and each once, got {[kind.name for kind in kinds]}")
    known = [kind.name for kind in ALL_EDITS]
    names = known + [kind.name for kind in kinds if kind.name not in known]
    streams = dict(zip(names, [rng, *rng.spawn(len(names) - 1)], strict=True))
    bench = _Bench(model, task, _with_totals(regime), max_new, batch_size)
    return bench.result({kind: streams[kind.name] for kind in kinds}, problems, run_seed)


def _with_totals(regime: str | Regime) -> Regime:
    regime = get_regime(regime)
    if not regime.writes_totals:
        able = [name for name in regime_names() if get_regime(name).writes_totals]
        raise ValueError(f"regime {regime.name!r} writes no totals that could be edited; those that do: {able}")
    return regime


@dataclass(frozen=True, eq=False)
class _Bench:
    """A model and how it is asked."""

    model: LanguageModel
    task: Task
    regime: Regime
    max_new: int | None
    batch_size: int

    def result(
        self, kinds: dict[EditKind, np.random.Generator], problems: Sequence[Problem], run_seed: int
    ) -> EditResult:
        """Every kind of edit at every step of every problem, its chance and its control."""
        if not problems:
            raise ValueError("trace edits need at least one problem, got none")
        groups: dict[int, list[Problem]] = {}
        for problem in sorted(dict.fromkeys(problems), key=lambda problem: problem.k):
            groups.setdefault(problem.k, []).append(problem)
        cells = [(kind, rng, k, step) for kind, rng in kinds.items() for k in groups for step in kind.steps(k)]
        desk = _Desk(self)
        judges: list[_Judge | None] = []
        controlled: set[tuple[int, int]] = set()
        for kind, rng, k, step in cells:
            plan, left_out = kind.plan(self.task, self.regime, groups[k], step, rng=rng)
            shown = desk.hand_in(plan)
            place = WHOLE if kind.closed else step
            true = [] if (k, place) in controlled else self._controls(groups[k], place, rng)
            controls = desk.hand_in(true)
            controlled.add((k, place))
            judges += [*_by_chance(shown, rng), *(None for _ in controls)]
            desk.excluded.extend(left_out)
        edits = desk.answers()
        if all(edit.edit == NONE for edit in edits):
            raise ValueError(_nothing_done(self.task, [kind.name for kind in kinds], len(problems), desk.excluded))
        chance = [
            None if other is None else judge(edit.answer, other.followed, other.original)
            for edit, other in zip(edits, judges, strict=True)
        ]
        return EditResult(
            tuple(edits), tuple(chance), tuple(desk.excluded), labels_of(self.task, self.regime, run_seed)
        )

    def _controls(self, group: Sequence[Problem], step: int, rng: np.random.Generator) -> Iterator[EditedTrace]:
        """The true trace of each problem, cut after the total of `step`, or closed where that is `WHOLE`."""
        for problem in group:
            true = Original(NONE, self.task, self.regime, problem, step, rng)
            if step == WHOLE:
                yield true.closed(true.steps(), total=problem.answer, followed=problem.answer)
            else:
                yield true.cut(problem, followed=problem.answer)

    def continued(self, edits: Sequence[EditedTrace]) -> Iterator[TraceEdit]:
        """What the model makes of each edit."""
        vocabulary = Vocabulary.of(self.task)
        batch = collate([edit.transcript for edit in edits], vocabulary)
        start = prefixes(self.model, batch, given=torch.tensor([edit.given for edit in edits]), max_new=self.max_new)
        written = verified(self.model, start, stop=vocabulary.end, batch_size=self.batch_size)
        for edit, tokens in zip(edits, written, strict=True):
            own = text_of(vocabulary, tokens)
            text = edit.transcript.text[edit.transcript.n_prompt : edit.given] + own
            yield TraceEdit(
                edit.problem,
                edit.step,
                edit.total,
                edit.followed,
                text,
                final_answer(self.task, text),
                kind=edit.edit,
                resumed=not OF_A_TRACE.isdisjoint(own) if edit.closed else None,
            )


class _Judge(NamedTuple):
    """The two answers that an edit is judged by."""

    problem: Problem
    followed: int | None

    @property
    def original(self) -> int:
        """The answer to the prompt that is shown."""
        return self.problem.answer


@dataclass(frozen=True, eq=False)
class _Desk:
    """Takes edits of any kind, and has the model answer many together: most begin like others of the same problem."""

    bench: _Bench
    excluded: list[Exclusion] = field(default_factory=list)
    waiting: list[EditedTrace] = field(default_factory=list)
    answered: list[TraceEdit] = field(default_factory=list)

    def hand_in(self, plan: Iterable[EditedTrace]) -> list[_Judge]:
        """Takes the edits that the model's context can hold, says what they are judged by, and counts the others."""
        n_ctx = context_length(self.bench.model)
        taken, too_long = [], Counter[tuple[int, int, str]]()
        for edit in plan:
            if n_ctx is not None and len(edit.transcript) > n_ctx:
                too_long[edit.problem.k, edit.step, edit.edit] += 1
                continue
            self.waiting.append(edit)
            taken.append(_Judge(edit.problem, edit.followed))
            if len(self.waiting) == READ_AT_ONCE:
                self.answers()
        for (k, step, name), n in too_long.items():
            self.excluded.append(Exclusion(k, step, Reason.TOO_LONG.value, n, name))
        return taken

    def answers(self) -> list[TraceEdit]:
        """Every edit that was handed in, answered, in order."""
        if self.waiting:
            self.answered.extend(self.bench.continued(self.waiting))
            self.waiting.clear()
        return self.answered


def _by_chance(shown: Sequence[_Judge], rng: np.random.Generator) -> list[_Judge | None]:
    """For each edit, one of another problem by which its answer is judged, where one exists."""
    of: dict[Problem, list[_Judge]] = {}
    for edit in shown:
        of.setdefault(edit.problem, []).append(edit)
    ring = [list(of)[index] for index in rng.permutation(len(of))]
    partner = dict(zip(ring, ring[1:] + ring[:1], strict=True))
    others = [of[partner[edit.problem]] if len(of) > 1 else [] for edit in shown]
    return [some[int(rng.integers(len(some)))] if some else None for some in others]


def _nothing_done(task: Task, kinds: list[str], n: int, excluded: Sequence[Exclusion]) -> str:
    counts = Counter[str]()
    for one in excluded:
        counts[one.reason] += one.n
    reasons = ", ".join(f"{reason} {n}" for reason, n in counts.items() if n) or "they have no step for it"
    return (
        f"none of the edits {', '.join(kinds)} can be made on these {n} problems of task {task.name!r}: "
        f"{reasons}; take other problems, other edits, or a model with a larger context where they are too_long"
    )
