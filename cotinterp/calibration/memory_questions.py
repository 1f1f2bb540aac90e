"""Questions about what a model does with problems that it was not made for."""

import numpy as np

from cotinterp.behavior.accuracy import AccuracyResult, accuracy_by_k
from cotinterp.behavior.generalization import generalization
from cotinterp.behavior.invariance import permutation_invariance
from cotinterp.calibration.ground_truth import GroundTruth, K
from cotinterp.calibration.questions import Answer, Question, by_kind, percent
from cotinterp.results import wilson


def measured(model: GroundTruth, quick: bool) -> AccuracyResult:
    """Free-running accuracy on training and held-out problems."""
    n = 60 if quick else 250
    problems = {"train": model.trained(n), "heldout": model.heldout(n)}
    return accuracy_by_k(model.model, model.task, model.regime, problems)


def answers_heldout(model: GroundTruth, quick: bool) -> Answer:
    """`yes` where the whole interval of held-out accuracy lies above 90%, `no` where it lies below 50%."""
    right = [output.correct for output in measured(model, quick).of_split("heldout")]
    low, high = wilson(sum(right), len(right))
    said = "yes" if low > 0.9 else "no" if high < 0.5 else "partly"
    return Answer(said, f"{percent(sum(right) / len(right))} of {len(right)} held-out problems of K={K}")


def table_or_algorithm(model: GroundTruth, quick: bool) -> Answer:
    """By the interval of the generalization ratio: above one half an algorithm, below it a table."""
    (cell,) = generalization(model.task, measured(model, quick), model.trained_on).cells
    low, high = cell.interval
    if not cell.interval_known:
        return Answer("nothing learned", f"train {percent(cell.train)} at chance {percent(cell.chance)}")
    said = "algorithm" if low > 0.5 else "table" if high < 0.5 else "undecided"
    return Answer(said, f"ratio {cell.ratio:.2f} ({low:.2f} to {high:.2f}), nearest neighbor {percent(cell.nearest)}")


def same_in_any_order(model: GroundTruth, quick: bool) -> Answer:
    """`yes` where agreement with unseen orders lies above 90%, `no` where it lies less than 20 points over chance."""
    result = permutation_invariance(
        model.model,
        model.task,
        model.regime,
        [problem for problem in model.trained_on if problem.k == K],
        rng=np.random.default_rng(0),
        max_per_k=40 if quick else 150,
    )
    row = result.frame().iloc[0]
    said = "yes" if row["ci_low"] > 0.9 else "no" if row["ci_high"] < row["chance"] + 0.2 else "partly"
    return Answer(said, f"{percent(row['agreement'])} agree, chance {percent(row['chance'])}")


ALGORITHM = {"reader": "algorithm", "recomputer": "algorithm", "parallel": "algorithm"}

MEMORY_QUESTIONS = (
    Question(
        "accuracy",
        "does it answer problems that it was not made for?",
        by_kind(reader="yes", recomputer="yes", parallel="yes", lookup="no", memorizer="no", untrained="no"),
        answers_heldout,
        answers_heldout,
    ),
    Question(
        "generalization ratio",
        "a table of its training problems, or an algorithm?",
        by_kind(**ALGORITHM, lookup="table", memorizer="table", untrained="nothing learned"),
        table_or_algorithm,
    ),
    Question(
        "reorderings",
        "does it know that order does not matter?",
        by_kind(reader="yes", recomputer="yes", parallel="yes", lookup="no"),
        same_in_any_order,
    ),
)
