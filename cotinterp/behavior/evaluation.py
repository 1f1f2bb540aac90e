"""The evaluation of a trained run: which problems, the measurement, and what is stored beside the weights."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cotinterp.behavior.accuracy import AccuracyResult, accuracy_by_k
from cotinterp.tasks.task import Task
from cotinterp.training.checkpoints import Run, write_evaluation
from cotinterp.training.data import problems_of
from cotinterp.transcripts.problems import EmptySplitError, Problem, sample_problems

MAX_PER_K = 1000
"""Most problems of one length that an evaluation takes from each side of the split."""


def evaluate_run(run: Run, *, max_per_k: int = MAX_PER_K, seed: int = 0, batch_size: int = 256) -> AccuracyResult:
    """Free-running accuracy of a run on its own training problems and on held-out ones, every output kept.

    Args:
        max_per_k: Most problems of one length and side.
        seed: Draws the held-out problems where there are more; not the run's seed, so that runs of one task are
            measured on the same ones.
    """
    spec = run.spec
    problems = evaluation_problems(
        run.task,
        (spec.k_min, spec.k_max),
        problems_of(spec, run.task),
        rng=np.random.default_rng(seed),
        max_per_k=max_per_k,
    )
    return accuracy_by_k(run.model, run.task, spec.regime, problems, seed=spec.seed, batch_size=batch_size)


def evaluation_record(
    result: AccuracyResult, weight_hash: str, *, problems_per_k: int | None = None, tags: pd.DataFrame | None = None
) -> dict[str, Any]:
    """What evaluation.json holds: the hash of the weights that were measured, n outputs in all, the accuracy table.

    A reader compares the hash with that of the weights beside it: a record of other weights says nothing.

    Args:
        problems_per_k: `max_per_k` of the evaluation; stands in the record where it is given.
        tags: The same columns for the states that a run of the regime `tagging` reads at its operands, where measured.
    """
    record = {"weight_hash": weight_hash, "n": len(result.outputs), "accuracy": _rows(result.frame())}
    record |= {} if problems_per_k is None else {"problems_per_k": problems_per_k}
    return record | ({} if tags is None else {"tags": _rows(tags)})


def store_evaluation(
    run: Run, result: AccuracyResult, *, problems_per_k: int | None = None, tags: pd.DataFrame | None = None
) -> Path:
    """Writes evaluation.json beside the weights of `run`, whole or not at all; the arguments of `evaluation_record`.

    Raises:
        ValueError: `result` was measured on another task, regime or seed.
    """
    if result.labels != run.labels:
        raise ValueError(f"the result is labeled {dict(result.labels)}, the run is {run.labels}")
    record = evaluation_record(result, run.weight_hash, problems_per_k=problems_per_k, tags=tags)
    return write_evaluation(run.directory, record)


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    columns = {str(name): values for name, values in table.to_dict(orient="list").items()}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def evaluation_problems(
    task: Task,
    k_range: tuple[int, int],
    trained_on: Sequence[Problem],
    *,
    rng: np.random.Generator,
    max_per_k: int = MAX_PER_K,
) -> dict[str, tuple[Problem, ...]]:
    """Distinct problems to be measured on: `train` out of the sample `trained_on`, `heldout` never trained on.

    At most `max_per_k` of each number of operands in `k_range` (inclusive), all there are where fewer exist. A length
    of which the held-out side has none is left out of that side.

    Raises:
        EmptySplitError: A side has no problem of any length.
    """
    low, high = k_range
    heldout: list[Problem] = []
    for k in range(low, high + 1):
        try:
            heldout.extend(sample_problems(task, k, max_per_k, split="heldout", rng=rng))
        except EmptySplitError:
            continue
    if not heldout:
        raise EmptySplitError(f"task {task.name!r} has no held-out problem with {low} to {high} operands")
    distinct = list(dict.fromkeys(trained_on))
    train: list[Problem] = []
    for k in range(low, high + 1):
        of_length = [problem for problem in distinct if problem.k == k]
        train.extend(of_length[index] for index in rng.permutation(len(of_length))[:max_per_k])
    if not train:
        raise EmptySplitError(f"the training sample has no problem with {low} to {high} operands")
    return {"train": tuple(train), "heldout": tuple(heldout)}
