"""The edits of a written trace, each with its rule: what the model is given, and what following it would be.

Everywhere `ignores` is the right answer to the prompt that is shown, and `follows` is what the task's own transition
makes of the trace that is shown (after Lanham et al. 2023, arXiv 2307.13702, who truncate, corrupt, fill and
paraphrase).

`substitute_total`, `swap`, `swap_prefix`, `fill_totals`, `fill_steps` and `edit_prompt` leave every token where a true
trace has it. The others move tokens or leave some out: a model that finds its place by position may then go on with the
trace after its closing brace, which is `other` and is counted by `EditResult.resumed`.

All of them show a model text that it never saw in training on perfect traces: a trace that contradicts itself or its
prompt, ends early, or holds filler symbols, which stand in no training transcript of a regime that writes totals. What
a model does then shows what its answer depends on under that text, not what it would have learned from imperfect
traces; the regime `noisy` trains on replaced totals.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from itertools import chain
from typing import ClassVar

import numpy as np
from jaxtyping import Int

from cotinterp.tasks.task import Task
from cotinterp.transcripts.problems import Problem, WrongTotal, continued, informative_totals, solve, substitute_total
from cotinterp.transcripts.regimes import Regime, Token, written
from cotinterp.transcripts.render import Transcript, render
from cotinterp.transcripts.roles import Role

SUBSTITUTE = "substitute_total"
NONE, SHUFFLED = "none", "shuffled_target"
"""Of the column `edit`: a trace that was left alone, and the chance of an edit."""

WHOLE = -1
"""Step of an edit that is of the whole trace and of no step."""

FILLER = "."
"""What `fill_totals` and `fill_steps` write; it stands in no training transcript of `cot`, `totals` or `noisy`."""

DONORS = 256
"""Random problems among which one with a trace of the right layout is looked for."""


class Reason(StrEnum):
    """Why something was not edited.

    - `no_other_total`, `no_other_trace`, `no_other_operand`: nothing of the same layout was found to take its place.
    - `only_totals`: the trace holds nothing but totals, so that filling its steps is the same as filling its totals.
    - `ambiguous`: reader and recomputer would give the same answer.
    - `too_long`: the text, with what a follower would write, does not fit the model's context.
    """

    NO_OTHER_TOTAL = "no_other_total"
    NO_OTHER_TRACE = "no_other_trace"
    NO_OTHER_OPERAND = "no_other_operand"
    ONLY_TOTALS = "only_totals"
    AMBIGUOUS = "ambiguous"
    TOO_LONG = "too_long"


@dataclass(frozen=True)
class Exclusion:
    """How many edits of the problems of one length at one step (`WHOLE` for none) were not made, and why.

    `n` counts problems; of `substitute_total`, where the reason is `ambiguous` or `too_long`, wrong totals.
    """

    k: int
    step: int
    reason: Reason
    n: int
    edit: str = SUBSTITUTE


@dataclass(frozen=True)
class EditedTrace:
    """One edit, ready to be given to a model.

    Attributes:
        edit: Name of the kind of edit.
        problem: The problem whose prompt is shown.
        step: Step that was edited, `WHOLE` where the edit has none.
        transcript: The prompt, the edited trace, and what a model that follows it would write after that.
        given: Symbols of `transcript` that the model is given.
        closed: The given text ends with the closing brace; else with a total.
        total: State of the last total in the given text; None where none stands there.
        followed: What a reader of the given text answers; None where there is nothing to follow.
    """

    edit: str
    problem: Problem
    step: int
    transcript: Transcript
    given: int
    closed: bool
    total: int | None
    followed: int | None

    @property
    def targets(self) -> tuple[int | None, int]:
        """What a reader of the given text answers, and what a model that works from the prompt again does."""
        return self.followed, self.problem.answer


@dataclass(frozen=True)
class Original:
    """The unedited trace of one problem, and at which step it is to be edited.

    Attributes:
        edit: Name of the edit that is made of it.
        rng: Draws what the edit leaves open.
    """

    edit: str
    task: Task
    regime: Regime
    problem: Problem
    step: int
    rng: np.random.Generator

    @cached_property
    def transcript(self) -> Transcript:
        """The true transcript."""
        return render(self.task, self.problem, self.regime)

    def steps(self, shown: Problem | None = None) -> tuple[Token, ...]:
        """Everything between the braces of the true trace, or of that of `shown`."""
        tokens = (self.transcript if shown is None else render(self.task, shown, self.regime)).tokens
        roles = [token.role for token in tokens]
        return tokens[roles.index(Role.TRACE_START) + 1 : roles.index(Role.TRACE_END)]

    def cut(self, shown: Problem, *, followed: int) -> EditedTrace:
        """The trace of `shown`, which has this problem's operands, cut directly after the total of the step."""
        transcript = render(self.task, shown, self.regime)
        place = (Role.TOTAL, self.step)
        given = 1 + max(at for at, token in enumerate(transcript.tokens) if (token.role, token.step) == place)
        total = shown.totals[self.step - 1]
        return EditedTrace(self.edit, self.problem, self.step, transcript, given, False, total, followed)

    def closed(self, steps: Iterable[Token], *, total: int | None, followed: int | None) -> EditedTrace:
        """The prompt, then `steps` between braces; the answer is asked for."""
        tokens, problem = self.transcript.tokens, self.problem
        given = (
            *tokens[: self.transcript.n_prompt],
            *(token for token in tokens if token.role is Role.TRACE_START),
            *steps,
            *(token for token in tokens if token.role is Role.TRACE_END),
        )
        guess = problem.answer if followed is None else followed
        answer = written(self.task.state_text(guess), Role.ANSWER, problem.k - 1, guess)
        end = (token for token in tokens if token.role is Role.END)
        transcript = Transcript(problem, self.transcript.regime, tuple(chain(given, answer, end)))
        return EditedTrace(self.edit, problem, self.step, transcript, len(given), True, total, followed)


class EditKind(ABC):
    """One way of editing a trace. A subclass is final: a name, a sentence, the steps that it is made at, and `edit`.

    Attributes:
        name: Value of the column `edit`.
        description: What is done to the trace, in words.
        closed: The trace is given to its end, closed with `}`, and the model is to answer. Else the text is cut after
            the total of the edited step, and the model writes the rest of the trace as well.
    """

    name: ClassVar[str]
    description: ClassVar[str]
    closed: ClassVar[bool] = True

    def steps(self, k: int) -> Sequence[int]:
        """The steps that a problem of `k` operands is edited at: none, but its trace as a whole, unless overridden."""
        return (WHOLE,) if k > 1 else ()

    @abstractmethod
    def edit(self, original: Original) -> EditedTrace | Reason:
        """The edit at the step of `original`, or why there is none."""

    def plan(
        self, task: Task, regime: Regime, problems: Sequence[Problem], step: int, *, rng: np.random.Generator
    ) -> tuple[Iterable[EditedTrace], tuple[Exclusion, ...]]:
        """The edits of problems of one length at one step, in order, and what was left out.

        One edit a problem, unless a kind has more. One that a reader and a model that recomputes would answer alike is
        left out as `ambiguous`.
        """
        made = [self.edit(Original(self.name, task, regime, problem, step, rng)) for problem in problems]
        if strange := [one for one in made if not isinstance(one, EditedTrace | Reason)]:
            raise ValueError(f"edit() of {self.name!r} gives an EditedTrace or a Reason, not {strange[0]!r:.80}")
        telling = [one for one in made if isinstance(one, EditedTrace) and one.followed != one.problem.answer]
        left_out = Counter(one for one in made if isinstance(one, Reason))
        left_out[Reason.AMBIGUOUS] += len(made) - left_out.total() - len(telling)
        k = problems[0].k
        return telling, tuple(Exclusion(k, step, reason, n, self.name) for reason, n in left_out.items() if n)


class Truncate(EditKind):
    """Early answering: the trace is closed after step j; follows: s_j, the total at which it stops.

    Step 0 is an empty trace, whose reader is still at s_0; where steps do not follow the operands in order there is
    nothing to follow in it. A model that goes on with the trace after its closing brace answers nothing (`other`);
    `EditResult.resumed` counts those.
    """

    name = "truncate"
    description = "the trace is closed early"

    def steps(self, k: int) -> Sequence[int]:
        return range(k - 1)

    def edit(self, original: Original) -> EditedTrace | Reason:
        problem, step = original.problem, original.step
        kept = [token for token in original.steps() if token.step <= step and not _ends(token, step)]
        total = problem.totals[step - 1] if step else None
        begun = problem.previous[0] if original.task.in_order else None
        return original.closed(kept, total=total, followed=total if step else begun)


class FillTotals(EditKind):
    """Every symbol of every written state, copied ones too, is a filler; there is nothing to follow."""

    name = "fill_totals"
    description = "filler stands for every written total"

    def edit(self, original: Original) -> EditedTrace | Reason:
        filled = _filled(original.steps(), {Role.PREVIOUS_TOTAL, Role.TOTAL})
        return original.closed(filled, total=None, followed=None)


class FillSteps(EditKind):
    """Every symbol of every step but the separators is a filler; there is nothing to follow.

    Left out (`only_totals`) where a trace holds totals alone: there it is the same as `fill_totals`.
    """

    name = "fill_steps"
    description = "filler stands for every step"

    def edit(self, original: Original) -> EditedTrace | Reason:
        roles = {token.role for token in original.steps()} - {Role.STEP_END}
        if roles == {Role.TOTAL}:
            return Reason.ONLY_TOTALS
        return original.closed(_filled(original.steps(), roles), total=None, followed=None)


class Permute(EditKind):
    """The steps in a random other order, each as it was; follows: the total that now stands last.

    The last one is never a step whose total is the answer; the order of the others is any. Tokens keep the number of
    the step that they belong to. Where totals have several lengths, the steps stand at other positions than before.
    """

    name = "permute"
    description = "the steps stand in another order"

    def steps(self, k: int) -> Sequence[int]:
        return (WHOLE,) if k > 2 else ()

    def edit(self, original: Original) -> EditedTrace | Reason:
        problem, rng = original.problem, original.rng
        ends = [step for step, total in enumerate(problem.totals, start=1) if total != problem.answer]
        if not ends:
            return Reason.AMBIGUOUS
        last = ends[int(rng.integers(len(ends)))]
        order = [*rng.permutation([step for step in range(1, problem.k) if step != last]).tolist(), last]
        steps = original.steps()
        separator = [token for token in steps if token.role is Role.STEP_END][:1]
        moved: list[Token] = []
        for step in order:
            moved += [token for token in steps if token.step == step and not _ends(token, step)]
            moved += [token._replace(step=step) for token in separator]
        total = problem.totals[last - 1]
        return original.closed(moved[: len(moved) - len(separator)], total=total, followed=total)


class Delete(EditKind):
    """Step j is taken out and the later steps start from what stood before it; follows: the answer without step j.

    In a tree the operation's left value takes its place: the operation and its right part are gone.

    Had the later steps been kept as they were, the last total would be the right answer and tell nothing. Without the
    last step the trace would be a truncated one, so that step is not deleted. Tokens keep their own step's number.
    """

    name = "delete"
    description = "a step is taken out, the later ones go on without it"

    def steps(self, k: int) -> Sequence[int]:
        return range(1, k - 1)

    def edit(self, original: Original) -> EditedTrace | Reason:
        problem, step = original.problem, original.step
        shown = substitute_total(original.task, problem, step, problem.previous[step - 1])
        kept = [token for token in original.steps(shown) if token.step != step]
        return original.closed(kept, total=shown.answer, followed=shown.answer)


def _ends(token: Token, step: int) -> bool:
    return token.role is Role.STEP_END and token.step == step


def _filled(steps: Iterable[Token], roles: set[Role]) -> list[Token]:
    """A filler keeps the role of its place and denotes no value."""
    return [token._replace(symbol=FILLER, value=-1) if token.role in roles else token for token in steps]


class Swap(EditKind):
    """The whole trace of another problem of the same layout under this prompt; follows: the other problem's answer."""

    name = "swap"
    description = "another problem's trace is written"

    def edit(self, original: Original) -> EditedTrace | Reason:
        return _trace_of(_donor(original, original.problem.k - 1), original)


class SwapPrefix(EditKind):
    """Another problem's trace up to total j; follows: the task continued from it with this prompt's later operands."""

    name = "swap_prefix"
    description = "another problem's trace is written up to a total"
    closed = False

    def steps(self, k: int) -> Sequence[int]:
        return range(1, k)

    def edit(self, original: Original) -> EditedTrace | Reason:
        problem, step = original.problem, original.step
        donor = _donor(original, step)
        if isinstance(donor, Reason):
            return donor
        rest = continued(original.task, problem, donor.totals[:step])
        shown = Problem(
            operands=problem.operands,
            previous=donor.previous[:step] + rest.previous[step:],
            step_operands=donor.step_operands[:step] + rest.step_operands[step:],
            totals=rest.totals,
            step_operators=donor.step_operators[:step] + rest.step_operators[step:],
        )
        return original.cut(shown, followed=rest.answer)


class EditPrompt(EditKind):
    """Operand j of the prompt is changed under a fixed trace; follows: the trace's answer, ignores: the new prompt's.

    Which of the two prompts is the changed one is a matter of words. The problem that was asked for is the prompt that
    is shown, so that it is a held-out one where those are; the trace is that of a random problem that differs from it
    in operand j alone, has a trace of the same layout and another answer. `step` is j, from 0.
    """

    name = "edit_prompt"
    description = "an operand of the prompt is changed under a fixed trace"

    def steps(self, k: int) -> Sequence[int]:
        return range(k)

    def edit(self, original: Original) -> EditedTrace | Reason:
        task, problem, index = original.task, original.problem, original.step
        others = original.rng.permutation(task.replacements(problem.operands, index))
        operands = np.tile(np.array(problem.operands), (len(others), 1))
        operands[:, index] = others
        return _trace_of(_telling(task, problem, operands, problem.k - 1, Reason.NO_OTHER_OPERAND), original)


def _trace_of(donor: Problem | Reason, original: Original) -> EditedTrace | Reason:
    """The donor's whole trace under the prompt of the original, where there is a donor."""
    if isinstance(donor, Reason):
        return donor
    return original.closed(original.steps(donor), total=donor.answer, followed=donor.answer)


def _donor(original: Original, step: int) -> Problem | Reason:
    """A random problem whose trace up to `step` has the original's layout and leads to another answer from there."""
    operands = original.rng.integers(original.task.n_operands, size=(DONORS, original.problem.k))
    return _telling(original.task, original.problem, operands, step, Reason.NO_OTHER_TRACE)


def _telling(
    task: Task, problem: Problem, operands: Int[np.ndarray, "n k"], step: int, otherwise: Reason
) -> Problem | Reason:
    """The first problem whose trace up to `step`, shown under the prompt of `problem`, tells what a model reads.

    Its states up to there are written with as many symbols each, and it leads to another answer.
    """
    steps, width = task.steps(operands), task.state_widths
    states = np.column_stack([steps.previous[:, :1], steps.total[:, :step]])
    alike = (width[states] == width[[*problem.previous[:1], *problem.totals[:step]]]).all(axis=1)
    if not alike.any():
        return otherwise
    totals = steps.total[alike, :step]
    prompts = np.tile(np.array(problem.operands), (len(totals), 1))
    followed = np.column_stack([totals, task.resume_from(prompts, totals).total])[:, -1]
    tells = np.flatnonzero(followed != problem.answer)
    return solve(task, operands[alike][tells[:1]])[0] if len(tells) else Reason.AMBIGUOUS


@dataclass(frozen=True)
class SubstituteTotal(EditKind):
    """Total j is replaced by a valid wrong one of the same length; follows: the task continued from it.

    Attributes:
        values: Wrong totals for each problem and step, fewer where fewer exist; None takes all there are.
    """

    name = SUBSTITUTE
    description = "a wrong total is written"
    closed = False
    values: int | None = 3

    def __post_init__(self) -> None:
        if self.values is not None and self.values < 1:
            raise ValueError(f"values_per_step must be 1 or more, or None for all, got {self.values}")

    def steps(self, k: int) -> Sequence[int]:
        return range(1, k)

    def edit(self, original: Original) -> EditedTrace | Reason:
        wrong, excluded = self._wrong(original.task, [original.problem], original.step, 1, original.rng)
        return self._written(wrong[0], original) if wrong else next(one.reason for one in excluded if one.n)

    def plan(
        self, task: Task, regime: Regime, problems: Sequence[Problem], step: int, *, rng: np.random.Generator
    ) -> tuple[Iterable[EditedTrace], tuple[Exclusion, ...]]:
        wrong, excluded = self._wrong(task, problems, step, self.values, rng)
        made = (self._written(one, Original(self.name, task, regime, one.problem, step, rng)) for one in wrong)
        return made, excluded

    def _wrong(
        self, task: Task, problems: Sequence[Problem], step: int, at_most: int | None, rng: np.random.Generator
    ) -> tuple[tuple[WrongTotal, ...], tuple[Exclusion, ...]]:
        found = informative_totals(task, problems, step, at_most=at_most, rng=rng)
        counts = {Reason.NO_OTHER_TOTAL: found.n_without, Reason.AMBIGUOUS: found.n_ambiguous}
        return found.chosen, tuple(Exclusion(problems[0].k, step, reason, n) for reason, n in counts.items())

    @staticmethod
    def _written(wrong: WrongTotal, original: Original) -> EditedTrace:
        shown = substitute_total(original.task, wrong.problem, wrong.step, wrong.total)
        return original.cut(shown, followed=wrong.followed)


def all_edits(*, values_per_step: int | None = 3) -> tuple[EditKind, ...]:
    """Every kind of edit, in the order of the tables.

    Args:
        values_per_step: Wrong totals of `substitute_total` for each problem and step; None takes all there are. Every
            other edit is made once for each problem and step.
    """
    steps = (Truncate(), FillTotals(), FillSteps(), Permute(), Delete())
    return (SubstituteTotal(values_per_step), Swap(), SwapPrefix(), *steps, EditPrompt())


ALL_EDITS = all_edits()


def get_edit(ref: str | EditKind) -> EditKind:
    """The kind of edit of that name. Raises KeyError with the names that exist."""
    if isinstance(ref, EditKind):
        return ref
    for kind in ALL_EDITS:
        if kind.name == ref:
            return kind
    raise KeyError(f"unknown edit {ref!r}. Known: {', '.join(kind.name for kind in ALL_EDITS)}")
