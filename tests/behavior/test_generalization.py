"""A table, an algorithm and a guesser, told apart by what they do off their training problems."""

import numpy as np
import pytest

from cotinterp.behavior.accuracy import accuracy_by_k
from cotinterp.behavior.generalization import generalization_by_k, ratio_interval
from cotinterp.results import wilson
from cotinterp.tasks import get_task
from cotinterp.transcripts.problems import sample_problems

Z6 = get_task("z6")
COLUMNS = [
    "task",
    "regime",
    "run_seed",
    "k",
    "n_train",
    "n_heldout",
    "train",
    "heldout",
    "chance",
    "majority",
    "nearest",
]
COLUMNS += ["reordered", "ratio", "ci_low", "ci_high", "matched", "matched_ratio", "discrepancy", "effective_n"]


def table(task, known):
    """Answers the problems that it knows; elsewhere always the first state."""
    answers = {problem.operands: problem.answer for problem in known}

    def policy(text):
        prompt, _, written = text.partition(">")
        operands = tuple(task.parse_operand(x) for x in prompt.removeprefix("<").split(task.operator))
        return "#" if written else task.state_text(answers.get(operands, 0))

    return policy


@pytest.fixture(scope="module")
def sides():
    rng = np.random.default_rng(0)
    return {side: sample_problems(Z6, 3, 400, split=side, rng=rng) for side in ("train", "heldout")}


def measured(scripted, policy, sides):
    return generalization_by_k(Z6, accuracy_by_k(scripted.Model(Z6, policy), Z6, "direct", sides), sides["train"])


def test_an_algorithm_generalizes_with_ratio_one(scripted, sides):
    (cell,) = measured(scripted, scripted.recomputer(Z6, "direct"), sides).cells
    assert (cell.train, cell.heldout, cell.ratio, cell.matched, cell.matched_ratio) == (1, 1, 1, 1, 1)
    low, high = cell.interval
    assert low < 1 < high
    assert low > 0.85


def test_a_table_does_not(scripted, sides):
    result = measured(scripted, table(Z6, sides["train"]), sides)
    (cell,) = result.cells
    assert cell.train == 1
    assert cell.heldout == pytest.approx(np.mean([problem.answer == 0 for problem in sides["heldout"]]))
    assert cell.interval.low < 0 < cell.interval.high
    assert list(result.frame().columns) == COLUMNS


def test_a_guesser_has_nothing_to_generalize(scripted, sides):
    (cell,) = measured(scripted, table(Z6, ()), sides).cells
    assert np.isnan([cell.ratio, *cell.interval, cell.matched_ratio]).all()


def test_training_problems_among_the_held_out_ones_are_refused(scripted, sides):
    leaked = {"train": sides["train"], "heldout": sides["train"][:5]}
    with pytest.raises(ValueError, match="5 held-out problems were trained on"):
        measured(scripted, scripted.recomputer(Z6, "direct"), leaked)


def test_the_ratio_interval_is_wilsons_where_training_accuracy_is_known_and_chance_is_zero():
    low, high = ratio_interval((0.3, 50), (1.0, 10_000_000), 0.0)
    assert (low, high) == pytest.approx(tuple(wilson(15, 50)), abs=1e-4)


def test_the_ratio_interval_covers_at_about_its_level():
    rng = np.random.default_rng(0)
    truth = (0.6 - 1 / 6) / (0.9 - 1 / 6)
    intervals = [
        ratio_interval((rng.binomial(80, 0.6) / 80, 80), (rng.binomial(120, 0.9) / 120, 120), 1 / 6)
        for _ in range(1000)
    ]
    covered = np.mean([low <= truth <= high for low, high in intervals])
    assert 0.93 <= covered <= 0.97
