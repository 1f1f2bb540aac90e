"""Where everything stands in the transcripts of a task, what is written after each place, and what a task must be like.

States of one symbol make the layout a matter of the number of operands alone, so that it is read off one problem.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cotinterp.tasks.registry import get_task
from cotinterp.tasks.task import FoldTask, Task
from cotinterp.transcripts.problems import solve
from cotinterp.transcripts.regimes import Regime, Token, get_regime
from cotinterp.transcripts.render import longest_transcript, render
from cotinterp.transcripts.roles import RESPONSE_ROLES, Role

KRange = tuple[int, int]
"""Fewest and most operands, both included."""


@dataclass(frozen=True)
class Layout:
    """Roles and steps of all transcripts of `k` operands in one regime; symbols and values are those of an example."""

    k: int
    tokens: tuple[Token, ...]

    def find(self, role: Role, step: int = -1) -> int | None:
        """Position of the token of that role and step, None where there is none."""
        return next((i for i, token in enumerate(self.tokens) if (token.role, token.step) == (role, step)), None)

    def where(self, role: Role, step: int = -1) -> int:
        """Position of the token of that role and step. KeyError where there is none."""
        position = self.find(role, step)
        if position is None:
            raise KeyError(f"a transcript of {self.k} operands has no {role} of step {step}")
        return position

    def predictions(self) -> Iterator[tuple[int, Token]]:
        """Every position whose logits matter, and the token that is written after it."""
        return ((i - 1, token) for i, token in enumerate(self.tokens) if token.role in RESPONSE_ROLES)

    def sources(self, at: int, token: Token) -> tuple[int | None, int | None]:
        """Where a reader finds the total and the operand that `token`, which follows position `at`, is made of.

        A total is made of both, a copied value of the one that it is a copy of, a symbol of neither.
        """
        match token.role:
            case Role.TOTAL:
                return self._previous_total(token.step, at), self._operand(token.step, at)
            case Role.PREVIOUS_TOTAL:
                return self._previous_total(token.step, at), None
            case Role.STEP_OPERAND:
                return None, self._operand(token.step, at)
            case Role.ANSWER:
                return self.where(Role.TOTAL, token.step), None
            case _:
                return None, None

    def _previous_total(self, step: int, at: int) -> int:
        """The total before `step` as it was last written: `cot` repeats it in the step; s_0 stands in the prompt."""
        repeated = self.find(Role.PREVIOUS_TOTAL, step)
        if repeated is not None and repeated <= at:
            return repeated
        return self.where(Role.OPERAND, 0) if step == 1 else self.where(Role.TOTAL, step - 1)

    def _operand(self, step: int, at: int) -> int:
        """Operand `step` as it was last written: in the step itself, else in the prompt."""
        repeated = self.find(Role.STEP_OPERAND, step)
        return repeated if repeated is not None and repeated <= at else self.where(Role.OPERAND, step)


def layouts(task: Task, regime: str, k_range: KRange) -> tuple[Layout, ...]:
    """The layout for each number of operands, fewest first."""
    examples = {k: solve(task, np.zeros((1, k), dtype=np.int64))[0] for k in range(k_range[0], k_range[1] + 1)}
    return tuple(Layout(k, render(task, example, regime).tokens) for k, example in examples.items())


def fitting_layouts(task: Task, regime: str, k_range: KRange, n_ctx: int | None) -> tuple[tuple[Layout, ...], int]:
    """`layouts`, and the context length: `n_ctx`, or the longest transcript where that is None.

    ValueError for a range that is none or that the task does not have, and for a context that is too short.
    """
    if k_range[0] > k_range[1]:
        raise ValueError(f"k_range is (fewest, most) operands, both included; got {k_range}")
    for k in k_range:
        task.check_k(k)
    longest = longest_transcript(task, k_range[1], regime)
    if n_ctx is not None and n_ctx < longest:
        raise ValueError(
            f"n_ctx {n_ctx} is too short: {k_range[1]} operands take {longest} tokens in the regime {regime!r}; "
            "lower k_range or leave n_ctx out"
        )
    return layouts(task, regime, k_range), longest if n_ctx is None else n_ctx


def prompt_ends(places: tuple[Layout, ...]) -> dict[int, int]:
    """Where `>` stands for each number of operands."""
    return {place.k: place.where(Role.PROMPT_END) for place in places}


def require_one_symbol(ref: str | Task, model: str) -> Task:
    """The task, once its states are known to be one symbol each and its prompts flat: the layout depends on k alone."""
    task = get_task(ref)
    long = [text for text in task.states if len(text) != 1]
    if long:
        raise ValueError(
            f"{model} needs a task whose states are one symbol each, so that every token has its place; "
            f"{task.name!r} writes {long[0]!r}. Use a group ('z6', 's3', ...) or 'parity'"
        )
    if task.brackets:
        raise ValueError(
            f"{model} finds operands at fixed positions; in the prompts of {task.name!r} brackets move them. Use "
            "a group ('z6', 's3', ...) or 'parity'"
        )
    return task


def require_fold(ref: str | Task, model: str) -> FoldTask:
    """The task, once its states are known to be its operands and its first total the first operand itself."""
    task = require_one_symbol(ref, model)
    operands = np.arange(task.n_operands)
    if not isinstance(task, FoldTask):
        raise ValueError(
            f"{model} computes s_j = step(s_{{j-1}}, x_j), but {task.name!r} is no FoldTask; use 'z6' or 's3'"
        )
    if task.states != tuple(task.operands) or not np.array_equal(task.initial(operands), operands):
        raise ValueError(
            f"{model} reads the first total off the first operand: the states of {task.name!r} must be its operands "
            "and `initial` the identity, as in every group and in 'parity'"
        )
    return task


def require_sum(ref: str | Task, model: str) -> FoldTask:
    """The task, once its step is known to be addition modulo the number of its states."""
    task = require_fold(ref, model)
    total, operand = (axis.ravel() for axis in np.indices((task.n_states, task.n_operands)))
    wrong = np.flatnonzero(task.step(total, operand) != (total + operand) % task.n_states)
    if wrong.size:
        a, b = int(total[wrong[0]]), int(operand[wrong[0]])
        raise ValueError(
            f"{model} takes the sum of the operands modulo {task.n_states}, but the step of {task.name!r} takes {a} "
            f"and {b} elsewhere; use a cyclic group ('z6', 'z60') or 'parity'"
        )
    return task


def require_trace(regime: str | Regime, model: str) -> str:
    """The name of the regime, once it is known to write the running totals in a layout of fixed places."""
    name = get_regime(regime).name
    if name not in ("totals", "cot"):
        raise ValueError(f"{model} writes running totals, in the regime 'totals' or 'cot', not {name!r}")
    return name
