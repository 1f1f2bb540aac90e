"""Steps, prompts and codes of a task, put to the test on a sample of its problems."""

import numpy as np
from jaxtyping import Int

from cotinterp.tasks.task import Steps, Task

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
