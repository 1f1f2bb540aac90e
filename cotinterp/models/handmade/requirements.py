"""What the handmade models ask of a task, with errors that say which task would do."""

import numpy as np

from cotinterp.tasks.registry import get_task
from cotinterp.tasks.task import FoldTask, Task
from cotinterp.transcripts.regimes import Regime, get_regime
from cotinterp.transcripts.render import longest_transcript

KRange = tuple[int, int]


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


def require_k_range(task: Task, k_range: KRange) -> None:
    """ValueError unless both ends, inclusive, are lengths that the task has."""
    if k_range[0] > k_range[1]:
        raise ValueError(f"k_range is (fewest, most) operands, both included; got {k_range}")
    for k in k_range:
        task.check_k(k)


def require_context(task: Task, regime: str, k_range: KRange, n_ctx: int | None) -> int:
    """The context length: the longest transcript, or `n_ctx` where that is at least as much."""
    longest = longest_transcript(task, k_range[1], regime)
    if n_ctx is not None and n_ctx < longest:
        raise ValueError(
            f"n_ctx {n_ctx} is too short: {k_range[1]} operands take {longest} tokens in the regime {regime!r}; "
            "lower k_range or leave n_ctx out"
        )
    return longest if n_ctx is None else n_ctx
