"""Edits that need a second problem: another trace under this prompt, or this trace under another prompt."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int

from cotinterp.behavior.edited_trace import EditedTrace, EditKind, Original, Reason
from cotinterp.tasks.task import Steps, Task
from cotinterp.transcripts.problems import Problem, continued, solve

DONORS = 256
"""Random problems among which one with a trace of the right layout is looked for."""


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
    """The first problem whose trace up to `step`, shown under the prompt of `problem`, tells what a model reads."""
    steps = task.steps(operands)
    alike = _same_layout(task, problem, steps, step)
    if not alike.any():
        return otherwise
    totals = steps.total[alike, :step]
    prompts = np.tile(np.array(problem.operands), (len(totals), 1))
    followed = np.column_stack([totals, task.resume_from(prompts, totals).total])[:, -1]
    tells = np.flatnonzero(followed != problem.answer)
    return solve(task, operands[alike][tells[:1]])[0] if len(tells) else Reason.AMBIGUOUS


def _same_layout(task: Task, problem: Problem, steps: Steps, step: int) -> Bool[np.ndarray, " n"]:
    """Whether the states written up to `step` have as many symbols each as those of `problem`."""
    width = task.state_widths
    states = np.column_stack([steps.previous[:, :1], steps.total[:, :step]])
    own = np.array([*problem.previous[:1], *problem.totals[:step]])
    same: np.ndarray = (width[states] == width[own]).all(axis=1)
    return same
