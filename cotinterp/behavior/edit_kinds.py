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

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from cotinterp.behavior.donor_edits import EditPrompt, Swap, SwapPrefix
from cotinterp.behavior.edited_trace import EditedTrace, EditKind, Original, Reason
from cotinterp.behavior.outcomes import SUBSTITUTE
from cotinterp.behavior.step_edits import Delete, FillSteps, FillTotals, Permute, Truncate
from cotinterp.behavior.wrong_totals import Exclusion, WrongTotal, informative_totals
from cotinterp.tasks.task import Task
from cotinterp.transcripts.problems import Problem, substitute_total
from cotinterp.transcripts.regimes import Regime


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
        one = original
        wrong, left_out = informative_totals(one.task, [one.problem], one.step, at_most=1, rng=one.rng)
        return _written(wrong[0], one) if wrong else Reason(next(out.reason for out in left_out if out.n))

    def plan(
        self, task: Task, regime: Regime, problems: Sequence[Problem], step: int, *, rng: np.random.Generator
    ) -> tuple[Iterable[EditedTrace], tuple[Exclusion, ...]]:
        wrong, left_out = informative_totals(task, problems, step, at_most=self.values, rng=rng)
        made = (_written(one, Original(self.name, task, regime, one.problem, step, rng)) for one in wrong)
        return made, left_out


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
