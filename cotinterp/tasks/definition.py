"""What a task is, as one short text: tasks of one definition compute the same thing and are written the same way.

A run, a table and a stored measurement are of a definition. A name can be given twice and a file can be changed.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Int

from cotinterp.tasks.task import FoldTask, Task

DIGITS = 16
"""Hexadecimal digits of a definition: no two of a billion tasks agree in 64 bits by accident."""
MOST_TRANSITIONS = 2**20
"""Pairs of state and operand that are all listed; of more, so many that are spread evenly over them."""
SAMPLED, SHOWN, LISTED = 256, 16, 512
"""Problems of each length whose steps are told, of these those whose prompts are, and the longest `every` that is."""

OF_A_FOLD = (
    "steps",
    "resume",
    "resume_from",
    "prompt",
    "canonical",
    "every",
    "n_problems",
    "replacements",
    "reachable",
)
"""What follows from symbols, `initial` and `step` alone, where a task does not override it."""


def task_definition(task: Task) -> str:
    """Sixteen hexadecimal digits over all that a task is: its name, its symbols, and what it computes.

    Of a left fold every transition from a state that can be reached, so any change that a problem could show is seen.
    Of a tree every operation, and of a task that says itself what its steps, prompts or codes are a fixed sample of
    problems of every length: a change that none of them shows is not seen.
    """
    facts = [task.name, list(task.operands), list(task.states), list(task.operators), task.brackets, task.in_order]
    digest = hashlib.sha256(json.dumps([*facts, task.n_operands]).encode())
    for part in _computed(task):
        told = part if isinstance(part, str) else str(part.shape)
        digest.update(f"|{told}|".encode())
        if not isinstance(part, str):
            digest.update(np.ascontiguousarray(part, dtype="<i8").tobytes())
    return digest.hexdigest()[:DIGITS]


def check_definition(task: Task, stored: Iterable[str], what: str) -> None:
    """Raises ValueError where something of this task's name was made with another definition of it.

    Args:
        stored: Definitions that `what` names; empty texts, of what is older than definitions, say nothing.
        what: What is stored, such as "the sweep table".
    """
    if other := sorted({text for text in stored if text} - {here := task_definition(task)}):
        raise ValueError(
            f"{what} has task {task.name!r} by another definition ({', '.join(other)}) than the task has now ({here}): "
            "it was changed, or it is another task of that name. Restore the old one, or train and measure anew"
        )


def check_one_definition(named: Iterable[tuple[str, str]], what: str) -> None:
    """Raises ValueError where one task name stands for two definitions in pairs of (name, definition)."""
    found: dict[str, set[str]] = {}
    for name, definition in named:
        if definition:
            found.setdefault(name, set()).add(definition)
    if twice := {name: sorted(texts) for name, texts in found.items() if len(texts) > 1}:
        name, texts = next(iter(twice.items()))
        raise ValueError(
            f"{what} has two different tasks of the name {name!r}, by definitions {' and '.join(texts)}. Their numbers "
            "would be pooled: give one of them a `name` of its own, or leave it out"
        )


def _computed(task: Task) -> Iterator[Int[np.ndarray, "..."] | str]:
    from cotinterp.tasks.trees import TreeTask  # which needs the registry, which needs this file

    if isinstance(task, FoldTask):
        yield from _transitions(task)
        if all(getattr(type(task), name) is getattr(FoldTask, name) for name in OF_A_FOLD):
            return
    elif isinstance(task, TreeTask):
        every = np.indices((task.n_states, len(task.operators), task.n_states)).reshape(3, -1)
        yield task.combine(*_spread(every))
    for k in range(task.min_k, task.max_k + 1):
        codes = _sample(task.n_operands, k)
        steps = task.steps(codes)
        yield from (task.canonical(codes), steps.previous, steps.operand, steps.total)
        if steps.operator is not None:
            yield steps.operator
        if task.n_problems(k) <= LISTED:
            yield task.every(k)
        for row in task.canonical(codes[:SHOWN]).tolist():
            yield "".join(symbol.text for symbol in task.prompt(row))


def _transitions(task: FoldTask) -> Iterator[Int[np.ndarray, "..."]]:
    """The first state of every operand, and where each operand leads from each state that steps begin at."""
    first = np.zeros((task.n_operands, task.min_k), dtype=np.int64)
    first[:, 0] = np.arange(task.n_operands)
    yield task.steps(first).previous[:, 0]
    states = np.array(sorted(frozenset().union(*task.reachable(task.max_k)[:-1])), dtype=np.int64)
    state, operand = _spread(np.indices((len(states), task.n_operands)).reshape(2, -1))
    problems = np.stack([np.zeros_like(operand), np.zeros_like(operand), operand], axis=1)
    yield from (states, task.resume(problems, 1, states[state]).total[:, 0])


def _spread(rows: Int[np.ndarray, "fields n"]) -> Int[np.ndarray, "fields m"]:
    n = rows.shape[1]
    return rows if n <= MOST_TRANSITIONS else rows[:, np.linspace(0, n - 1, MOST_TRANSITIONS).astype(np.int64)]


def _sample(n_operands: int, k: int) -> Int[np.ndarray, "n k"]:
    """The same codes on every machine and for every version of numpy."""
    stream = hashlib.shake_256(f"definition {k}".encode()).digest(4 * SAMPLED * k)
    return (np.frombuffer(stream, dtype="<u4").reshape(SAMPLED, k) % n_operands).astype(np.int64)
