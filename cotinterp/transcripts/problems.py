"""Problems, how they are solved, and which side of the split they are on."""

import hashlib
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

import numpy as np
from jaxtyping import Int

from cotinterp.tasks.task import Steps, Task

Split = Literal["train", "validation", "heldout"]

HELD_OUT = 0.2
VALIDATION = 0.1
ENUMERABLE = 50_000


class EmptySplitError(ValueError):
    """No problem of the asked length is on the asked side of the split."""


@dataclass(frozen=True)
class Problem:
    """One solved problem; operands and states as indices. Entry `j - 1` of the step fields belongs to step `j`."""

    operands: tuple[int, ...]
    previous: tuple[int, ...]
    step_operands: tuple[int, ...]
    totals: tuple[int, ...]

    @property
    def k(self) -> int:
        """Number of operands."""
        return len(self.operands)

    @property
    def answer(self) -> int:
        """The last total."""
        return self.totals[-1]


def solve(task: Task, operands: Int[np.ndarray, "n k"]) -> tuple[Problem, ...]:
    """The task's own solution of each row of operand indices."""
    steps = task.steps(operands)
    columns = (operands, steps.previous, steps.operand, steps.total)
    return tuple(Problem(*map(tuple, row)) for row in zip(*(column.tolist() for column in columns), strict=True))


def substitute_total(task: Task, problem: Problem, step: int, total: int) -> Problem:
    """`problem` with `total` written at `step` and every later step continued from it by the task itself."""
    rest: Steps = task.resume(np.array([problem.operands]), step, np.array([total]))
    return replace(
        problem,
        previous=(*problem.previous[:step], *rest.previous[0].tolist()),
        totals=(*problem.totals[: step - 1], total, *rest.total[0].tolist()),
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
    if not 1 <= step < problem.k:
        raise ValueError(f"a problem of {problem.k} operands has steps 1 to {problem.k - 1}, not {step}")
    true = problem.totals[step - 1]
    width = len(task.state_text(true))
    return tuple(
        state
        for state in sorted(task.reachable(problem.k)[step])
        if state != true and len(task.state_text(state)) == width
    )


def split_of(operands: tuple[int, ...]) -> Split:
    """The side of the split that a tuple of operand indices is on: 20% held out, 10% validation, 70% train.

    A stable hash of the tuple decides, so the sides are disjoint for any sample size, seed and platform, and are the
    same for two tasks with the same operands. Reordered operands are another tuple: on a commutative task a held-out
    problem may have a permuted twin in training.
    """
    digest = hashlib.blake2b(",".join(map(str, operands)).encode(), digest_size=8).digest()
    place = int.from_bytes(digest, "big") / 2**64
    if place < HELD_OUT:
        return "heldout"
    return "validation" if place < HELD_OUT + VALIDATION else "train"


def sample_problems(
    task: Task, k: int, n: int, *, split: Split, rng: np.random.Generator, distinct: bool = True
) -> tuple[Problem, ...]:
    """Up to `n` problems of `k` uniform operands on one side of the split: all there are where fewer exist.

    Args:
        distinct: No tuple twice. With False, exactly `n` independent draws.

    Raises:
        EmptySplitError: That side has no problem of this length.
    """
    task.check_k(k)
    if task.n_operands**k <= ENUMERABLE:
        side = np.array([t for t in product(range(task.n_operands), repeat=k) if split_of(t) == split])
        if side.size == 0:
            raise EmptySplitError(
                f"task {task.name!r} has no problem with {k} operands on the {split} side of the split "
                f"({task.n_operands**k} tuples in all); use more operands"
            )
        rows = rng.permutation(len(side))[:n] if distinct else rng.integers(len(side), size=n)
        return solve(task, side[rows])
    drawn: dict[tuple[int, ...], None] = {}
    repeated: list[tuple[int, ...]] = []
    while len(drawn if distinct else repeated) < n:
        draws = rng.integers(task.n_operands, size=(2 * n + 16, k))
        side_draws = [t for t in map(tuple, draws.tolist()) if split_of(t) == split]
        drawn.update(dict.fromkeys(side_draws))
        repeated.extend(side_draws)
    return solve(task, np.array((list(drawn) if distinct else repeated)[:n]).reshape(-1, k))


def training_problems(task: Task, k_range: tuple[int, int], n: int, rng: np.random.Generator) -> tuple[Problem, ...]:
    """`n` independent training problems: the number of operands uniform over `k_range` (inclusive), then each operand.

    Short problems recur, as they do in the source's data set: there are only so many.
    """
    low, high = k_range
    lengths = rng.integers(low, high + 1, size=n)
    pools = {
        k: iter(sample_problems(task, k, int((lengths == k).sum()), split="train", rng=rng, distinct=False))
        for k in range(low, high + 1)
        if (lengths == k).any()
    }
    return tuple(next(pools[k]) for k in lengths.tolist())
