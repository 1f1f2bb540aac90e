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

A model that was trained on perfect traces only has never seen an edited one: what it does with it shows what its
answer depends on, not what it would have learned from imperfect traces.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch

from cotinterp.behavior.decoding import LanguageModel, context_length, prefixes, text_of, verified
from cotinterp.behavior.edit_kinds import ALL_EDITS, SubstituteTotal, get_edit
from cotinterp.behavior.edited_trace import WHOLE, EditedTrace, EditKind, Original, Reason
from cotinterp.behavior.labels import labels_of
from cotinterp.behavior.outcomes import NONE, EditResult, TraceEdit, judge
from cotinterp.behavior.wrong_totals import Exclusion
from cotinterp.tasks.task import Task
from cotinterp.transcripts.batch import collate
from cotinterp.transcripts.parsing import final_answer
from cotinterp.transcripts.problems import Problem
from cotinterp.transcripts.regimes import Regime, get_regime, regime_names
from cotinterp.transcripts.vocabulary import Vocabulary

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
    seed: int = 0,
    max_new: int | None = None,
    batch_size: int = 256,
) -> EditResult:
    """Replaces each written total of each problem by other ones and lets `model` go on.

    The prompt and the totals before step j stay true; total j is replaced by another one of the same written length
    that occurs at that step, and the text is cut directly after it. Arguments and errors are those of `trace_edits`,
    whose first kind of edit this is.
    """
    bench = _Bench(model, task, _with_totals(regime), max_new, batch_size)
    return bench.result({SubstituteTotal(values_per_step): rng}, problems, seed)


def trace_edits(
    model: LanguageModel,
    task: Task,
    regime: str | Regime,
    problems: Sequence[Problem],
    *,
    edits: Sequence[str | EditKind] = ALL_EDITS,
    rng: np.random.Generator,
    seed: int = 0,
    max_new: int | None = None,
    batch_size: int = 256,
) -> EditResult:
    """Edits the trace of each problem in every way that `edits` names, at every step, and lets `model` go on.

    Args:
        problems: Distinct ones are used once. Held-out problems keep memory of the answer out of `ignores`.
        edits: Kinds of edit or their names; `all_edits` gives them all with another number of wrong totals.
        rng: Draws what an edit leaves open, and the partners of `shuffled_target`. What one kind draws does not depend
            on which others are asked for; `substitute_total` draws what `substitute_totals` does.
        seed: Label of the trained model in the tables.
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
    return bench.result({kind: streams[kind.name] for kind in kinds}, problems, seed)


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

    def result(self, kinds: dict[EditKind, np.random.Generator], problems: Sequence[Problem], seed: int) -> EditResult:
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
        return EditResult(tuple(edits), tuple(chance), tuple(desk.excluded), labels_of(self.task, self.regime, seed))

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
