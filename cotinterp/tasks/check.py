"""What a task says of itself, put to the test on a sample of its problems: steps, prompts, codes and flags."""

import re
from itertools import permutations

import numpy as np
from jaxtyping import Int

from cotinterp.tasks.task import STRUCTURE, Steps, Task

FEW = 512
"""Lengths with up to so many problems have their list (`Task.every`) checked."""


def check_steps(task: Task, operands: Int[np.ndarray, "n k"]) -> None:
    """ValueError unless steps have the right shapes and indices, go in the declared order, and can be resumed."""
    k = operands.shape[1]
    steps = task.steps(operands)
    bounds = [("previous", steps.previous, task.n_states), ("total", steps.total, task.n_states)]
    bounds.append(("operand", steps.operand, len(task.operands)))
    if steps.operator is not None:
        bounds.append(("operator", steps.operator, len(task.operators)))
    elif len(task.operators) > 1:
        raise ValueError(f"task {task.name!r} has {len(task.operators)} operators, but its steps name none")
    for field, values, bound in bounds:
        if values.shape != (len(operands), k - 1) or values.min() < 0 or values.max() >= bound:
            raise ValueError(
                f"task {task.name!r}: Steps.{field} must be indices below {bound}, one row a problem and one column "
                f"for each of the {k - 1} steps; got shape {values.shape}, values {values.min()} to {values.max()}"
            )
    _check_order(task, operands, steps)
    for step in range(1, k):
        written = steps.total[:, :step]
        for name, rest in (
            ("resume", task.resume(operands, step, written[:, -1])),
            ("resume_from", task.resume_from(operands, written)),
        ):
            if not _alike(rest, steps, step):
                raise ValueError(f"task {task.name!r}: {name}() from the right totals up to {step} goes another way")


def check_prompts(task: Task, operands: Int[np.ndarray, "n k"]) -> None:
    """ValueError unless prompts of this length are equally long, in declared symbols, and name every operand once."""
    k = operands.shape[1]
    texts = []
    for codes in task.canonical(operands).tolist():
        symbols = list(task.prompt(codes))
        texts.append("".join(symbol.text for symbol in symbols))
        for symbol in symbols:
            known = {"operand": tuple(task.operands), "operator": task.operators, "bracket": tuple(task.brackets)}
            named = symbol.kind != "operand" or task.operands[symbol.value] == symbol.text
            if symbol.text not in known[symbol.kind] or not named:
                raise ValueError(
                    f"task {task.name!r} writes {symbol} in {texts[-1]!r}; its {symbol.kind} symbols are "
                    f"{known[symbol.kind]}, and the value of an operand is the index of its symbol"
                )
        numbers = [symbol.number for symbol in symbols if symbol.kind == "operand"]
        if sorted(numbers) != list(range(k)):
            raise ValueError(
                f"task {task.name!r} writes the operands {numbers} in {texts[-1]!r}, not 0 to {k - 1} once"
            )
    if len(set(map(len, texts))) > 1:
        shown = [min(texts, key=len), max(texts, key=len)]
        raise ValueError(f"task {task.name!r} writes prompts of {k} operands at several lengths: {shown}")


def check_codes(task: Task, operands: Int[np.ndarray, "n k"]) -> None:
    """ValueError unless canonical codes stand for the same problem, each prompt has one, and their list is complete."""
    k = operands.shape[1]
    canonical = task.canonical(operands)
    if not np.array_equal(task.canonical(canonical), canonical):
        raise ValueError(f"task {task.name!r}: canonical() changes codes that are canonical already")
    if not _alike(task.steps(canonical), task.steps(operands), 0):
        raise ValueError(f"task {task.name!r}: canonical() gives codes of another problem, with other steps")
    few = task.n_problems(k) <= FEW
    listed = task.every(k) if few else canonical
    if few and (len(listed) != task.n_problems(k) or not np.array_equal(task.canonical(listed), listed)):
        raise ValueError(
            f"task {task.name!r}: every({k}) must list n_problems({k}) = {task.n_problems(k)} canonical rows"
        )
    rows = {tuple(row) for row in (*listed.tolist(), *canonical.tolist())}
    prompts = {"".join(symbol.text for symbol in task.prompt(row)) for row in rows}
    if len(prompts) < len(rows) or (few and len(rows) > len(listed)):
        raise ValueError(
            f"task {task.name!r}: {len(rows)} problems of {k} operands have {len(prompts)} prompts. Codes with one "
            "prompt need one canonical() tuple, or a problem may be on both sides of the split"
        )


def _check_order(task: Task, operands: Int[np.ndarray, "n k"], steps: Steps) -> None:
    in_order = np.array_equal(steps.previous[:, 1:], steps.total[:, :-1])
    in_order &= np.array_equal(steps.operand, operands[:, 1:])
    if task.in_order and not in_order:
        raise ValueError(
            f"task {task.name!r} says in_order = True, but a step starts from another state than the last total or "
            "takes another operand than the next; set in_order = False, and instruments that need the order will refuse"
        )


def _alike(rest: Steps, steps: Steps, after: int) -> bool:
    columns = ("previous", "operand", "total", *(() if steps.operator is None else ("operator",)))
    return all(np.array_equal(getattr(rest, name), getattr(steps, name)[:, after:]) for name in columns)


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
