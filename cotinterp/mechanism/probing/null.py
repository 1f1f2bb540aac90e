"""Other truths that a model which knows nothing of the task could not tell from the true one.

Random labels for each input are the right control for how much a probe can store (`controls.random_labels`), but
the wrong null for whether a model knows a variable. In a group every operand permutes the states, so true labels are
balanced over each operand and random ones are not; and an untrained model that adds up its embeddings gives 1, 2 and
2, 1 nearly the same features, which a commutative task gives the same total and random labels do not.

The null used here renames the operands: the labels are those of the same task with its operand symbols permuted, the
same permutation at every place. Such labels have every regularity of the true ones: balance, symmetry, the share of
inputs that recur, how totals of different steps depend on one another. To a model whose embeddings were drawn alike for
all symbols, and which was never told what the symbols stand for, the true naming is one among all; what it makes more
of than of the others it has learned.
"""

import numpy as np
from jaxtyping import Int

from cotinterp.tasks.task import Task

TRIES = 50


def renamings(
    task: Task, operands: Int[np.ndarray, "n k"], n: int, *, rng: np.random.Generator
) -> Int[np.ndarray, "draws operands"]:
    """`n` permutations of the operands, drawn at random, no two of which give totals that tell the same rows apart.

    Renamings that change nothing but the names of the totals (an automorphism; the complement of every bit in a parity)
    say nothing about a probe and are not drawn, neither is the identity. ValueError where a task has fewer: parity has
    none, z6 has 59. ValueError as well where an operand's code says more than its symbol, as in a tree.
    """
    if task.n_operands != len(task.operands):
        raise ValueError(
            f"task {task.name!r} draws its operands from {task.n_operands} codes, which are not its "
            f"{len(task.operands)} symbols: renaming them would change more than names. Use an untrained model as the "
            "control instead"
        )
    found: dict[bytes, Int[np.ndarray, " operands"]] = {_partition(task, operands): np.arange(task.n_operands)}
    for _ in range(TRIES * (n + 1)):
        if len(found) > n:
            return np.stack(list(found.values())[1:])
        renaming = rng.permutation(task.n_operands)
        found.setdefault(_partition(task, renaming[operands]), renaming)
    raise ValueError(
        f"task {task.name!r} has {task.n_operands} operands, and only {len(found) - 1} ways of renaming them were "
        f"found that change more than the totals' names; {n} were asked for. Use fewer, or an untrained model instead"
    )


def renamed_totals(
    task: Task,
    operands: Int[np.ndarray, "n k"],
    step: int,
    names: Int[np.ndarray, "draws operands"],
    *,
    after: int = 0,
    shown: Int[np.ndarray, " n"] | None = None,
) -> Int[np.ndarray, "draws n"]:
    """`s_step` of every problem under each renaming.

    Where totals up to `s_after` stand written, with values `shown`, the chain goes on from those: what stands there
    cannot be renamed after the fact. They are renamed as operands where the same symbols denote both. ValueError where
    `s_step` itself has been written: there is no other truth then.
    """
    if after >= step:
        raise ValueError(f"s_{step} has been written where s_{after} stands: whatever shows it there is the symbol")
    if after == 0:
        return np.stack([task.steps(name[operands]).total[:, step - 1] for name in names])
    if shown is None:
        raise ValueError(f"the totals s_{after} that stand written are needed to go on from them; give shown=")
    alike = task.states == tuple(task.operands)
    return np.stack(
        [
            task.resume(name[operands], after, name[shown] if alike else shown).total[:, step - 1 - after]
            for name in names
        ]
    )


def _partition(task: Task, operands: Int[np.ndarray, "n k"]) -> bytes:
    """Which rows have equal totals, step by step, whatever the totals are called."""
    columns = []
    for totals in task.steps(operands).total.T:
        _, first, number = np.unique(totals, return_index=True, return_inverse=True)
        columns.append(first[number.reshape(-1)])
    return np.stack(columns).tobytes()
