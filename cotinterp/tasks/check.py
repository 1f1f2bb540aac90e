"""What a task says of itself, put to the test."""

import re
from itertools import permutations

import numpy as np

from cotinterp.tasks.check_protocol import check_codes, check_prompts, check_steps
from cotinterp.tasks.task import STRUCTURE, Task


def measure_commutative(task: Task, *, k: int = 3, n: int = 4096, seed: int = 0) -> tuple[int, ...] | None:
    """Operands whose answer depends on their order, or None where none was found.

    Every tuple of `k` operands is tried when there are at most `n` of them, else `n` random ones: None is then a
    failure to find a counterexample, not a proof.
    """
    k = min(max(k, task.min_k), task.max_k)
    if task.n_operands**k <= n:
        operands = np.stack(np.meshgrid(*[np.arange(task.n_operands)] * k, indexing="ij"), -1).reshape(-1, k)
    else:
        operands = np.random.default_rng(seed).integers(task.n_operands, size=(n, k))
    answer = task.steps(operands).total[:, -1]
    for order in permutations(range(k)):
        differs = np.flatnonzero(task.steps(operands[:, order]).total[:, -1] != answer)
        if differs.size:
            return tuple(int(operand) for operand in operands[differs[0]])
    return None


def check_task(task: Task) -> None:
    """Raises ValueError unless the task can be written, computed and believed.

    Symbols must be single, distinct and not the transcript's own; the transition must be vectorized and stay
    inside the states from every state that can be reached at the longest length; the flags `commutative` and `in_order`
    must agree with what is measured. Prompts of one length must be equally long and written with declared symbols, two
    codes with one prompt must have one canonical tuple, and resuming from right totals must give the right rest.

    What is random is tried on 64 problems of the shortest and of the longest length: a fault that none of them shows
    is not found.
    """
    for attribute in ("name", "operands", "commutative"):
        if not hasattr(task, attribute):
            raise ValueError(f"task class {type(task).__name__} sets no `{attribute}`")
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", task.name):
        raise ValueError(f"task name {task.name!r} is not kebab-case (lower-case letters, digits, single hyphens)")
    _check_symbols(task)
    if not 2 <= task.min_k <= task.max_k:
        raise ValueError(f"task {task.name!r}: 2 <= min_k <= max_k is needed, got {task.min_k} and {task.max_k}")
    rng = np.random.default_rng(0)
    for k in (task.min_k, task.max_k):
        task.reachable(k)
        operands = rng.integers(task.n_operands, size=(64, k))
        check_steps(task, operands)
        check_prompts(task, operands)
        check_codes(task, operands)
    counterexample = measure_commutative(task)
    if task.commutative and counterexample is not None:
        shown = _operands_text(task, counterexample)
        raise ValueError(f"task {task.name!r} says commutative = True, but the order of {shown!r} changes its answer")
    if not task.commutative and counterexample is None:
        raise ValueError(f"task {task.name!r} says commutative = False, but no order of operands changed its answer")


def _operands_text(task: Task, operands: tuple[int, ...]) -> str:
    (codes,) = task.canonical(np.array([operands])).tolist()
    return "".join(symbol.text for symbol in task.prompt(codes) if symbol.kind == "operand")


def _check_symbols(task: Task) -> None:
    operands, states = tuple(task.operands), task.states
    for kind, texts in (("operands", operands), ("states", states)):
        if len(set(texts)) != len(texts) or len(texts) < 2 or "" in texts:
            raise ValueError(f"task {task.name!r}: `{kind}` must be two or more distinct texts, got {texts!r}")
    long = [text for text in (*operands, *task.operators) if len(text) != 1]
    if long:
        raise ValueError(f"task {task.name!r}: operands and operator are written as one symbol, got {long!r}")
    signs = "".join(task.operators) + task.brackets
    if len(task.brackets) not in (0, 2) or len(set(signs)) != len(signs):
        raise ValueError(f"task {task.name!r}: operators and brackets (two or none) must differ, got {signs!r}")
    taken = sorted(set("".join(operands) + "".join(states)) & set(STRUCTURE + signs) | set(signs) & set(STRUCTURE))
    if taken:
        brackets = f", brackets {task.brackets!r}" if task.brackets else ""
        raise ValueError(
            f"task {task.name!r} uses {taken!r}, which the transcript needs for itself "
            f"(structure {STRUCTURE!r}, operator {''.join(task.operators)!r}{brackets})"
        )
