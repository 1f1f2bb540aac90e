"""What a task says of itself, put to the test on a sample of its problems: steps, prompts, codes and flags."""

import random
import re
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import permutations

import numpy as np
from jaxtyping import Int

from cotinterp.tasks.guard import GUARDED, described, is_ours, one_line, owner_of
from cotinterp.tasks.task import STRUCTURE, FoldTask, Steps, Task

ROWS = 64
"""Random problems of a length that every function is tried on, together and one at a time."""

RESUMED = 8
"""Steps that a task is resumed at where it inherits how that is done; ROWS where it says so itself."""

LONGEST_NAME = 100
"""A run's folder is named after the task and some forty characters more, and a file system takes 255 bytes."""

LONGEST_K = 1024
"""The check walks through every step of the longest problems; a transcript of these has 4,000 tokens and more."""

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
    ours = all(is_ours(owner_of(type(task), name)) for name in ("resume", "resume_from"))
    for step in np.unique(np.linspace(1, k - 1, min(k - 1, RESUMED if ours else ROWS)).astype(int)).tolist():
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

    Symbols must be single, distinct and not the transcript's own; the transition must be vectorized, pure
    (`check_pure`) and stay inside the states from every state that can be reached at the longest length; the flags
    `commutative` and `in_order` must agree with what is measured. Prompts of one length must be equally long and
    written with declared symbols, two codes with one prompt must have one canonical tuple, and resuming from right
    totals must give the right rest.

    What is random is tried on 64 problems of the shortest and of the longest length: a fault that none of them shows
    is not found.
    """
    _check_attributes(task)
    _check_symbols(task)
    rng = np.random.default_rng(0)
    with _random_state_kept():
        for k in (task.min_k, task.max_k):
            operands = rng.integers(task.n_operands, size=(ROWS, k))
            try:
                task.reachable(k)
                check_pure(task, operands)
                check_steps(task, operands)
                _check_reachable(task, k)
                check_prompts(task, operands)
                _check_asked_again(task, operands)
                check_codes(task, operands)
            except ValueError:
                raise
            except Exception as error:
                raise ValueError(
                    f"task {task.name!r} cannot be computed with {k} operands: {one_line(error)}"
                ) from error
        counterexample = measure_commutative(task)
    if task.commutative and counterexample is not None:
        shown = _operands_text(task, counterexample)
        raise ValueError(f"task {task.name!r} says commutative = True, but the order of {shown!r} changes its answer")
    if not task.commutative and counterexample is None:
        raise ValueError(f"task {task.name!r} says commutative = False, but no order of operands changed its answer")
    vars(task)["_checked"] = True


def _check_reachable(task: Task, k: int) -> None:
    chain = task.reachable(k)
    if len(chain) != k or not all(some and set(some) <= set(range(task.n_states)) for some in chain):
        raise ValueError(
            f"task {task.name!r}: {described(type(task), 'reachable')} must give {k} sets of states, one for each of "
            f"s_0 to s_{k - 1}, and none of them empty; got {chain!r:.80}"
        )


def require_checked(task: Task) -> None:
    """`check_task` once for each task that is not one of this package: the gate that every solved problem passes."""
    if "_checked" not in vars(task) and not is_ours(type(task)):
        check_task(task)


def check_pure(task: Task, operands: Int[np.ndarray, "n k"]) -> None:
    """ValueError unless every function of the task gives a row the same result again, alone and beside any others.

    Asked are rows again under another random state, in another order, one at a time, in halves and many times over:
    what depends on chance, on earlier calls or on the other rows shows in one of them.
    """
    cls = type(task)
    for name, call, columns in _row_functions(task, operands):
        owner = owner_of(cls, name)
        if owner is cls or not is_ours(owner):
            _check_rows(task, name, call, columns)
        elif name == "steps":
            _check_rows(task, name, call, tuple(column[:8] for column in columns))


def _check_asked_again(task: Task, operands: Int[np.ndarray, "n k"]) -> None:
    """The same of the functions that are no rows of numbers."""
    cls, k = type(task), operands.shape[1]
    rows = task.canonical(operands).tolist()
    whole: dict[str, Callable[[], object]] = {
        "prompt": lambda: [list(task.prompt(tuple(row))) for row in rows[:7]],
        "replacements": lambda: [tuple(task.replacements(tuple(row), 0)) for row in rows[:3]],
        "reachable": lambda: task.reachable(k),
        "n_problems": lambda: task.n_problems(k),
        "every": lambda: task.every(k).tolist() if task.n_problems(k) <= FEW else None,
        "n_operands": lambda: task.n_operands,
    }
    for name, ask in whole.items():
        _seed(0)
        first = ask()
        _seed(1)
        if ask() != first:
            raise ValueError(
                f"task {task.name!r}: {described(cls, name)} says something else when it is asked again. It must "
                "follow from its arguments alone, every time: no chance, nothing remembered from earlier calls"
            )


Columns = list[np.ndarray]


def _row_functions(
    task: Task, operands: Int[np.ndarray, "n k"]
) -> Iterator[tuple[str, Callable[..., Columns], tuple[np.ndarray, ...]]]:
    """What maps rows to rows, the innermost first, each with rows to ask about."""
    rng = np.random.default_rng(0)
    n, k = operands.shape
    if isinstance(task, FoldTask):
        _check_reachable(task, k)
        codes = rng.permutation(task.n_operands)[: 4 * n]
        yield "initial", lambda x: [task._inside(task.initial(x), "initial", x)], (codes,)
        states = np.array(sorted(frozenset().union(*task.reachable(k)[:-1])))
        pairs = (rng.choice(states, 4 * n), rng.integers(task.n_operands, size=4 * n))
        yield "step", lambda total, x: [task._inside(task.step(total, x), "step", total, x)], pairs
    if (combine := getattr(task, "combine", None)) is not None:
        left, right = rng.integers(len(task.operands), size=(2, 4 * n))
        sign = rng.integers(len(task.operators), size=4 * n)
        yield "combine", lambda *x: [task._inside(combine(*x), "combine", *x)], (left, sign, right)
    yield "canonical", lambda x: [task.canonical(x)], (operands,)
    yield "steps", lambda x: _columns(task.steps(x)), (operands,)
    total = task.steps(operands).total[::-1, :1].copy()
    yield "resume", lambda x, t: _columns(task.resume(x, 1, t)), (operands, total[:, 0])
    yield "resume_from", lambda x, t: _columns(task.resume_from(x, t)), (operands, total)


def _columns(steps: Steps) -> Columns:
    return [steps.previous, steps.operand, steps.total, *([] if steps.operator is None else [steps.operator])]


def _check_rows(task: Task, name: str, call: Callable[..., Columns], rows: tuple[np.ndarray, ...]) -> None:
    n = len(rows[0])
    _seed(0)
    expected = call(*rows)
    if any(np.shape(column)[:1] != (n,) for column in expected):
        return  # not rows at all, which check_steps says in its own words
    order, whole = np.random.default_rng(1).permutation(n), np.arange(n)
    ways = {
        "when it is asked again": [whole],
        "with the rows in another order": [order],
        "in a batch of half the size": [whole[: n // 2], whole[n // 2 :]],
        "when it is asked alone": [whole[i : i + 1] for i in range(0, n, max(1, n // ROWS))],
        "in a larger batch": [np.tile(whole, 2 * ROWS)],
        "after other calls": [whole],
    }
    for seed, (way, batches) in enumerate(ways.items(), start=1):
        _seed(seed)
        for batch in batches:
            found = call(*(column[batch] for column in rows))
            wrong = [
                np.flatnonzero((a != b[batch]).reshape(len(batch), -1).any(1)) if a.shape == b[batch].shape else [0]
                for a, b in zip(found, expected, strict=True)
            ]
            if at := sorted({int(row) for some in wrong for row in some}):
                row = int(batch[at[0]])
                given = ", ".join(str(column[row].tolist()) for column in rows)
                results = [[c[i].tolist() for c in of][-1] for of, i in ((expected, row), (found, at[0]))]
                raise ValueError(
                    f"task {task.name!r}: {described(type(task), name)} gives another result {way}: for ({given}) "
                    f"{results[0]} at first (of {n} rows), {results[1]} then. A row's result must follow from that row "
                    "alone, every time: no chance (np.random), nothing remembered from earlier calls, and nothing of "
                    "the other rows (no len(), sum, max, sort or cumulative sum over the batch)"
                )


def _seed(seed: int) -> None:
    np.random.seed(seed)
    random.seed(seed)


@contextmanager
def _random_state_kept() -> Iterator[None]:
    kept = np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        np.random.set_state(kept[0])
        random.setstate(kept[1])


def _check_attributes(task: Task) -> None:
    """What a subclass sets is there, and of the type that it is used as."""
    cls = type(task)
    for attribute in ("name", "operands", "commutative"):
        if not hasattr(task, attribute):
            raise ValueError(f"task class {cls.__name__} sets no `{attribute}`")
    if not isinstance(task.name, str) or not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", task.name):
        raise ValueError(f"task name {task.name!r} is not kebab-case (lower-case letters, digits, single hyphens)")
    if len(task.name) > LONGEST_NAME:
        raise ValueError(f"task name {task.name!r:.40}... has {len(task.name)} characters; {LONGEST_NAME} at most")
    for kind in ("operands", "states", "operators"):
        texts = getattr(task, kind)
        if not isinstance(texts, str | tuple | list) or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"task {task.name!r}: `{kind}` are texts, such as {('0', '1')!r}; got {texts!r:.80}")
    for kind, wanted in (("operator", str), ("brackets", str), ("commutative", bool), ("in_order", bool)):
        if not isinstance(getattr(task, kind), wanted):
            raise ValueError(
                f"task {task.name!r}: `{kind}` is a {wanted.__name__}, got {getattr(task, kind)!r:.80} "
                f"({type(getattr(task, kind)).__name__})"
            )
    bounds = (task.min_k, task.max_k)
    if any(isinstance(k, bool) or not isinstance(k, int) for k in bounds) or not 2 <= task.min_k <= task.max_k:
        raise ValueError(f"task {task.name!r}: 2 <= min_k <= max_k is needed, got {task.min_k} and {task.max_k}")
    if task.max_k > LONGEST_K:
        raise ValueError(f"task {task.name!r}: max_k is {task.max_k}; {LONGEST_K} operands are the most")
    if held := [name for name in GUARDED if name in vars(task)]:
        raise ValueError(
            f"task {task.name!r}: {held[0]} is set on the object; define it in the class {cls.__name__}, where it is "
            "known before the task is used"
        )


def _operands_text(task: Task, operands: tuple[int, ...]) -> str:
    (codes,) = task.canonical(np.array([operands])).tolist()
    return "".join(symbol.text for symbol in task.prompt(codes) if symbol.kind == "operand")


def _control(symbol: str) -> bool:
    return unicodedata.category(symbol) in ("Cc", "Cs")


def _check_symbols(task: Task) -> None:
    operands, states = tuple(task.operands), task.states
    for kind, texts in (("operands", operands), ("states", states)):
        if len(set(texts)) != len(texts) or len(texts) < 2 or "" in texts:
            raise ValueError(f"task {task.name!r}: `{kind}` must be two or more distinct texts, got {texts!r}")
    unwritable = sorted(
        {c for text in (*operands, *states, *task.operators, *task.brackets) for c in text if _control(c)}
    )
    if unwritable:
        raise ValueError(
            f"task {task.name!r} uses {unwritable!r}: control characters and half characters are not for every file"
        )
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
