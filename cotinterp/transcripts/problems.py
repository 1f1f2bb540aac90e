"""Problems, how they are solved, and which side of the split they are on."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Int

from cotinterp.tasks.check import require_checked
from cotinterp.tasks.task import Task, whole_number

Split = Literal["train", "validation", "heldout"]

HELD_OUT = 0.2
VALIDATION = 0.1
ENUMERABLE = 50_000
MAX_PER_K = 1000
"""Most problems of one length that an evaluation takes from each side of the split."""

IDLE_ROUNDS = 200
"""Rounds of draws without anything new after which sampling gives up drawing. Where codes are uniform over problems and
`n` of them exist, the last one is awaited for 7 rounds on average, and for so many once in 10^12 times."""


SHARES: dict[Split, float] = {"train": 1 - HELD_OUT - VALIDATION, "validation": VALIDATION, "heldout": HELD_OUT}

LISTED_SHARE = 0.75
"""A side is listed where more than this share of it is asked for: it cannot be so much smaller than its share, as with
`ENUMERABLE` problems and more it is off by a hundredth of itself."""


class EmptySplitError(ValueError):
    """No problem of the asked length is on the asked side of the split."""


@dataclass(frozen=True)
class Problem:
    """One solved problem; operands and states as indices. Entry `j - 1` of the step fields belongs to step `j`.

    What the fields hold is said in `tasks.Steps`. `operands` are the task's canonical codes. `step_operators` is empty
    where the task has one operator.
    """

    operands: tuple[int, ...]
    previous: tuple[int, ...]
    step_operands: tuple[int, ...]
    totals: tuple[int, ...]
    step_operators: tuple[int, ...] = ()

    @property
    def k(self) -> int:
        """Number of operands."""
        return len(self.operands)

    @property
    def answer(self) -> int:
        """The last total."""
        return self.totals[-1]

    @property
    def in_order(self) -> bool:
        """Whether each step takes up the total before it and the next operand, as in a left fold.

        Some problems of a task that is not in order have it by chance, and it is lost by edits after which the steps
        contradict each other or the prompt.
        """
        return self.step_operands == self.operands[1:] and self.previous[1:] == self.totals[:-1]


def solve(task: Task, operands: Int[np.ndarray, "n k"]) -> tuple[Problem, ...]:
    """The task's own solution of each row of operand codes.

    Raises:
        ValueError: Codes or a length that the task does not have, or a task of a user that is none (`check_task`).
    """
    require_checked(task)
    task.check_operands(operands)
    operands = task.canonical(operands)
    steps = task.steps(operands)
    columns = [operands, steps.previous, steps.operand, steps.total]
    columns += [] if steps.operator is None else [steps.operator]
    return tuple(Problem(*map(tuple, row)) for row in zip(*(column.tolist() for column in columns), strict=True))


def read_problem(task: Task, text: str) -> Problem:
    """The solved problem that is asked as `text`: `3+4+5+6`, with or without the brackets of a prompt around it.

    Raises:
        ValueError: No prompt of the task, or one that is not read back from its symbols alone, such as a tree's.
    """
    asked = text.removeprefix("<").removesuffix(">")
    codes = [task.parse_operand(part) for part in asked.split(task.operator)]
    known = [code for code in codes if code is not None]
    if len(known) == len(codes):
        (problem,) = solve(task, np.array([known]))
        if "".join(symbol.text for symbol in task.prompt(problem.operands)) == asked:
            return problem
    raise ValueError(
        f"{text!r} is no problem of task {task.name!r} that can be read: operands are {' '.join(task.operands)}, with "
        f"{task.operator!r} between them"
    )


def require_own(task: Task, problem: Problem) -> None:
    """ValueError unless every index of a problem is one of the task's: another task's would wrap around, or be silent.

    Totals may be wrong, as in an edited trace; `require_solved` asks whether they are right.
    """
    k = len(problem.operands)
    bounds = [
        ("operands", problem.operands, k, task.n_operands),
        ("previous", problem.previous, k - 1, task.n_states),
        ("step_operands", problem.step_operands, k - 1, len(task.operands)),
        ("totals", problem.totals, k - 1, task.n_states),
    ]
    if problem.step_operators:
        bounds.append(("step_operators", problem.step_operators, k - 1, len(task.operators)))
    for name, values, n, bound in bounds:
        if len(values) != n or min(values, default=0) < 0 or max(values, default=0) >= bound:
            raise ValueError(
                f"this is no problem of task {task.name!r}: its {name} are {values}, and {n} numbers from 0 to "
                f"{bound - 1} belong there. Problems come from solve(task, ...) or sample_problems(task, ...)"
            )


def require_solved(task: Task, problems: Iterable[Problem]) -> None:
    """ValueError unless each problem is the task's own solution of its operands, which models are judged by."""
    for k, group in by_length(problems).items():
        task.check_k(k)
        for problem in group:
            require_own(task, problem)
        for given, right in zip(group, solve(task, np.array([problem.operands for problem in group])), strict=True):
            if given != right:
                raise ValueError(
                    f"the problem with operands {given.operands} has totals {given.totals}, and task {task.name!r} "
                    f"makes {right.totals} of operands {right.operands}: it was solved by another task, or edited. Use "
                    "solve(task, operands)"
                )


def by_length(problems: Iterable[Problem]) -> dict[int, list[Problem]]:
    """Distinct problems by their number of operands, shortest first, otherwise in order."""
    groups: dict[int, list[Problem]] = {}
    for problem in sorted(dict.fromkeys(problems), key=lambda problem: problem.k):
        groups.setdefault(problem.k, []).append(problem)
    return groups


def substitute_total(task: Task, problem: Problem, step: int, total: int) -> Problem:
    """`problem` with `total` written at `step` and every later step continued from it by the task itself."""
    return continued(task, problem, (*problem.totals[: step - 1], total))


def continued(task: Task, problem: Problem, written: Sequence[int]) -> Problem:
    """`problem` with these totals at its first steps, right or wrong, and every later step done by the task itself."""
    step = len(written)
    task.check_step(problem.k, step)
    require_own(task, problem)
    if not 0 <= min(written) <= max(written) < task.n_states:
        raise ValueError(
            f"task {task.name!r} has states 0 to {task.n_states - 1}; the totals to be written are {written}"
        )
    rest = task.resume_from(np.array([problem.operands]), np.array([written]))
    return replace(
        problem,
        previous=(*problem.previous[:step], *rest.previous[0].tolist()),
        step_operands=(*problem.step_operands[:step], *rest.operand[0].tolist()),
        totals=(*written, *rest.total[0].tolist()),
    )


def widest_problem(task: Task, k: int) -> Problem:
    """Not a problem of the task, but as long as one of `k` operands can be where its totals are written.

    Every state is one that is written with the most symbols of those that can be reached at its step; the operands are
    placeholders.
    """
    chain = tuple(max(states, key=lambda state: len(task.state_text(state))) for states in task.reachable(k))
    return Problem((0,) * k, chain[:-1], (0,) * (k - 1), chain[1:])


def wrong_totals(task: Task, problem: Problem, step: int) -> tuple[int, ...]:
    """Valid wrong values for the total at `step`: what an edit of the written trace may put there.

    Each is written with as many symbols as the true total (no other token moves) and is a total that some problem of
    this length has at this step (the edited trace stays near the distribution that the model was trained on).
    """
    task.check_step(problem.k, step)
    true = problem.totals[step - 1]
    width = len(task.state_text(true))
    return tuple(
        state
        for state in sorted(task.reachable(problem.k)[step])
        if state != true and len(task.state_text(state)) == width
    )


class WrongTotal(NamedTuple):
    """A state to be written in the place of a problem's total at `step`; `followed` is the answer it leads to."""

    problem: Problem
    step: int
    total: int
    followed: int


class InformativeTotals(NamedTuple):
    """Wrong totals that tell a reader of the trace from a model that works from the prompt again.

    Attributes:
        chosen: In the order of their problems.
        n_without: Problems without any wrong total.
        n_ambiguous: Wrong totals from which the task arrives at the original answer all the same.
    """

    chosen: tuple[WrongTotal, ...]
    n_without: int
    n_ambiguous: int


def informative_totals(
    task: Task, problems: Sequence[Problem], step: int, *, at_most: int | None, rng: np.random.Generator
) -> InformativeTotals:
    """Up to `at_most` random `wrong_totals` of each problem (all with None) that lead to another answer.

    The problems have one length.
    """
    candidates = [wrong_totals(task, problem, step) for problem in problems]
    row = np.repeat(np.arange(len(problems)), [len(totals) for totals in candidates])
    total = np.array([total for totals in candidates for total in totals], dtype=np.int64)
    operands = np.array([problem.operands for problem in problems])
    followed = np.column_stack([total, task.resume(operands[row], step, total).total])[:, -1]
    tells = followed != np.array([problem.answer for problem in problems])[row]
    row, total, followed = row[tells], total[tells], followed[tells]
    order = np.lexsort((rng.random(len(row)), row))
    rank = np.arange(len(row)) - np.searchsorted(row[order], row[order])
    kept = order if at_most is None else order[rank < at_most]
    return InformativeTotals(
        chosen=tuple(WrongTotal(problems[row[i]], step, int(total[i]), int(followed[i])) for i in kept),
        n_without=sum(not totals for totals in candidates),
        n_ambiguous=int((~tells).sum()),
    )


def split_of(operands: tuple[int, ...]) -> Split:
    """The side of the split that a canonical tuple of operand codes is on: 20% held out, 10% validation, 70% train.

    A stable hash of the tuple decides, so the sides are disjoint for any sample size, seed and platform, and are the
    same for two tasks with the same operands. Reordered operands are another tuple: on a commutative task a held-out
    problem may have a permuted twin in training.
    """
    return _sides([operands])[0]


def _sides(rows: Sequence[Sequence[int]]) -> list[Split]:
    """`split_of` each row: one call for the thousands that a length has."""
    found: list[Split] = []
    for row in rows:
        digest = hashlib.blake2b(",".join(map(str, row)).encode(), digest_size=8).digest()
        place = int.from_bytes(digest, "big") / 2**64
        found.append("heldout" if place < HELD_OUT else "validation" if place < HELD_OUT + VALIDATION else "train")
    return found


def sample_problems(
    task: Task, k: int, n: int, *, split: str, rng: np.random.Generator, distinct: bool = True
) -> tuple[Problem, ...]:
    """Up to `n` problems of `k` uniform operands on one side of the split: all there are where fewer exist.

    Where a length has at most `ENUMERABLE` problems they are all listed and drawn uniformly from the list. For a task
    in which one problem has several tuples of codes that is another distribution than that of the codes.

    Args:
        distinct: No tuple twice. With False, exactly `n` independent draws.

    Raises:
        EmptySplitError: That side has no problem of this length.
        ValueError: A length that the task does not have, an `n` that is no whole number or negative, or no such side.
    """
    require_checked(task)
    task.check_k(k)
    n = whole_number(n, "n", "the number of problems", least=0)
    side_name = side_of_name(split)
    if task.n_problems(k) <= ENUMERABLE:
        side = _side(task, k, side_name)
        if side.size == 0:
            raise EmptySplitError(
                f"task {task.name!r} has no problem with {k} operands on the {split} side of the split "
                f"({task.n_problems(k)} tuples in all); use more operands"
            )
        rows = rng.permutation(len(side))[:n] if distinct else rng.integers(len(side), size=n)
        return solve(task, side[rows])
    side = np.empty((0, k), dtype=np.int64)
    if distinct and n > LISTED_SHARE * SHARES[side_name] * task.n_problems(k):
        side = _side(task, k, side_name)
        if len(side) <= n:
            return solve(task, side[rng.permutation(len(side))])
    drawn = _drawn(task, k, n, side, side_name, rng, distinct=distinct)
    return solve(task, np.array(drawn, dtype=np.int64).reshape(-1, k))


def side_of_name(name: str) -> Split:
    """The side of the split of that name. ValueError naming the three."""
    for side in SHARES:
        if side == name:
            return side
    raise ValueError(f"split {name!r} is no side of the split; the sides are {', '.join(SHARES)}")


def _side(task: Task, k: int, split: Split) -> Int[np.ndarray, "n k"]:
    """All canonical tuples of a length that are on one side of the split."""
    every = task.every(k)
    return every[[side == split for side in _sides(every.tolist())]].reshape(-1, k)


def _drawn(
    task: Task,
    k: int,
    n: int,
    side: Int[np.ndarray, "listed k"],
    split: Split,
    rng: np.random.Generator,
    *,
    distinct: bool,
) -> list[tuple[int, ...]]:
    """`n` tuples of a side, drawn until there are enough; what is seldom drawn is taken from `side`, where listed."""
    drawn: dict[tuple[int, ...], None] = {}
    repeated: list[tuple[int, ...]] = []
    idle = 0
    while (found := len(drawn if distinct else repeated)) < n:
        draws = task.canonical(rng.integers(task.n_operands, size=(2 * n + 16, k)))
        rows = draws.tolist()
        side_draws = [tuple(row) for row, one in zip(rows, _sides(rows), strict=True) if one == split]
        drawn.update(dict.fromkeys(side_draws))
        repeated.extend(side_draws)
        idle = 0 if len(drawn if distinct else repeated) > found else idle + 1
        if idle == IDLE_ROUNDS and len(side):
            drawn.update(dict.fromkeys(map(tuple, rng.permutation(side).tolist())))
        elif idle == IDLE_ROUNDS:
            raise EmptySplitError(
                f"{found} problems with {k} operands are all that {IDLE_ROUNDS} further rounds of {2 * n + 16} draws "
                f"gave on the {split} side of the split, though task {task.name!r} says that it has "
                f"{task.n_problems(k)} of that length; ask for fewer, or mend n_problems()"
            )
    return (list(drawn) if distinct else repeated)[:n]


def count_problems(task: Task, k: int, split: Split, *, at_most: int) -> int:
    """How many distinct problems of `k` operands are on one side of the split, counted up to `at_most`.

    Of more than ENUMERABLE problems it is taken for granted that a side has so many: the smallest holds a tenth.
    """
    task.check_k(k)
    if task.n_problems(k) > ENUMERABLE:
        return at_most
    found = (codes for codes in map(tuple, task.every(k).tolist()) if split_of(codes) == split)
    return sum(1 for _ in islice(found, at_most))


def training_problems(task: Task, k_range: tuple[int, int], n: int, rng: np.random.Generator) -> tuple[Problem, ...]:
    """`n` independent training problems: the number of operands uniform over `k_range` (inclusive), then each operand.

    Short problems recur, as they do in the source's data set: there are only so many.
    """
    low, high = k_range
    task.check_k(low)
    task.check_k(high)
    n = whole_number(n, "n", "the number of training problems", least=0)
    if low > high:
        raise ValueError(f"k_range is the fewest and the most operands, got {low} and {high}")
    lengths = rng.integers(low, high + 1, size=n)
    pools = {
        k: iter(sample_problems(task, k, int((lengths == k).sum()), split="train", rng=rng, distinct=False))
        for k in range(low, high + 1)
        if (lengths == k).any()
    }
    return tuple(next(pools[k]) for k in lengths.tolist())
