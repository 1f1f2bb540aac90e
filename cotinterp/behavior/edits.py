"""Does a model read the totals that it wrote? Replace one and let it go on alone.

The prompt and the totals before step j stay true; total j is replaced by another one of the same written length that
occurs at that step, the text is cut directly after it, and the model continues greedily to its end (after Lanham et al.
2023, arXiv 2307.13702). Only the final answer is judged:

- `follows`: the task's own transition continued from the edited total, as a reader of the trace would.
- `ignores`: the answer of the unedited problem, as a model would that recomputes from the prompt.
- `other`: any other answer, none, or an output that never ended.

An edit after which both would answer alike cannot tell them apart; it is excluded and counted. Two rows of the table
are controls. `none` writes the true total: its `follows` (there the same as ignoring) should be the model's accuracy.
`shuffled_target` judges each edited output by the two answers of a random other problem edited at the same step: what
agreement is worth by chance.

A model that was trained on perfect traces only has never seen a wrong total: what it does with one shows what its
answer depends on, not what it would have learned from imperfect traces.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from cotinterp.behavior.decoding import LanguageModel, prefixes, text_of, verified
from cotinterp.behavior.labels import labels_of
from cotinterp.behavior.outcomes import NONE, SUBSTITUTE, EditResult, Outcome, TraceEdit, judge
from cotinterp.behavior.wrong_totals import Exclusion, WrongTotal, informative_totals
from cotinterp.tasks.task import Task
from cotinterp.transcripts.batch import collate
from cotinterp.transcripts.parsing import parse_response
from cotinterp.transcripts.problems import Problem, substitute_total
from cotinterp.transcripts.regimes import Regime, get_regime, regime_names
from cotinterp.transcripts.render import render
from cotinterp.transcripts.roles import Role
from cotinterp.transcripts.vocabulary import Vocabulary

RENDERED_AT_ONCE = 8192


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

    Args:
        problems: Distinct ones are used once. Held-out problems keep memory of the answer out of `ignores`.
        rng: Draws the wrong totals and the partners of `shuffled_target`.
        values_per_step: Wrong totals for each problem and step, fewer where fewer exist; None takes all there are.
        seed: Label of the trained model in the tables.
        max_new: Symbols after which a continuation is given up; None as in `decoding.prefixes`.

    Raises:
        ValueError: A regime that writes no totals, no problems, or no total that could be replaced.
    """
    regime = get_regime(regime)
    if not regime.writes_totals:
        able = [name for name in regime_names() if get_regime(name).writes_totals]
        raise ValueError(f"regime {regime.name!r} writes no totals that could be edited; those that do: {able}")
    if not problems:
        raise ValueError("trace edits need at least one problem, got none")
    if values_per_step is not None and values_per_step < 1:
        raise ValueError(f"values_per_step must be 1 or more, or None for all, got {values_per_step}")
    edits: list[TraceEdit] = []
    chance: list[Outcome | None] = []
    excluded: list[Exclusion] = []
    distinct = list(dict.fromkeys(problems))
    for k, step in _cells(distinct):
        group = [problem for problem in distinct if problem.k == k]
        plan, left_out = informative_totals(task, group, step, at_most=values_per_step, rng=rng)
        excluded.extend(left_out)
        controls = [WrongTotal(problem, step, problem.totals[step - 1], problem.answer) for problem in group]
        done: list[TraceEdit] = []
        for some in _blocks([*plan, *controls]):
            done.extend(_continue(model, task, regime, some, max_new=max_new, batch_size=batch_size))
        edits.extend(done)
        chance.extend(_by_chance(done, rng))
    if all(edit.edit == NONE for edit in edits):
        raise ValueError(
            f"no total of these {len(distinct)} problems of task {task.name!r} has another one of the same length that "
            "occurs at its step and changes the answer; take other problems"
        )
    return EditResult(tuple(edits), tuple(chance), tuple(excluded), labels_of(task, regime, seed))


def _cells(problems: Sequence[Problem]) -> Iterator[tuple[int, int]]:
    """Every number of operands with every step of it."""
    for k in sorted({problem.k for problem in problems}):
        for step in range(1, k):
            yield k, step


def _blocks(plan: Sequence[WrongTotal]) -> Iterator[Sequence[WrongTotal]]:
    """Parts of a plan small enough to be rendered at once."""
    for first in range(0, len(plan), RENDERED_AT_ONCE):
        yield plan[first : first + RENDERED_AT_ONCE]


def _continue(
    model: LanguageModel,
    task: Task,
    regime: Regime,
    plan: Sequence[WrongTotal],
    *,
    max_new: int | None,
    batch_size: int,
) -> Iterator[TraceEdit]:
    """Lets the model go on after the edited total of each edit; all of them are at one step."""
    vocabulary = Vocabulary.of(task)
    step = plan[0].step
    transcripts = [render(task, substitute_total(task, edit.problem, step, edit.total), regime) for edit in plan]
    batch = collate(transcripts, vocabulary)
    start = prefixes(model, batch, given=batch.where(Role.TOTAL, step, part=-1) + 1, max_new=max_new)
    written = verified(model, start, stop=vocabulary.end, batch_size=batch_size)
    for edit, transcript, given, tokens in zip(plan, transcripts, start.given.tolist(), written, strict=True):
        text = transcript.text[transcript.n_prompt : given] + text_of(vocabulary, tokens)
        parsed = parse_response(task, text)
        answer = parsed.answer if parsed.ended else None
        yield TraceEdit(edit.problem, step, edit.total, edit.followed, text, answer)


def _by_chance(edits: Sequence[TraceEdit], rng: np.random.Generator) -> list[Outcome | None]:
    """Each wrong edit's answer judged by the two answers of another problem's edit, where one exists."""
    wrong: dict[Problem, list[TraceEdit]] = {}
    for edit in edits:
        if edit.edit == SUBSTITUTE:
            wrong.setdefault(edit.problem, []).append(edit)
    ring = [list(wrong)[index] for index in rng.permutation(len(wrong))]
    partner = dict(zip(ring, ring[1:] + ring[:1], strict=True))
    outcomes: list[Outcome | None] = []
    for edit in edits:
        if edit.edit == NONE or partner[edit.problem] == edit.problem:
            outcomes.append(None)
            continue
        others = wrong[partner[edit.problem]]
        other = others[int(rng.integers(len(others)))]
        outcomes.append(judge(edit.answer, other.followed, other.problem.answer))
    return outcomes
