"""What memory alone is worth, worked out by hand."""

import numpy as np
import pytest

from cotinterp.behavior.generalization import majority_credit, neighbor_credit
from cotinterp.tasks import get_task
from cotinterp.transcripts.problems import solve

Z6 = get_task("z6")


def problems(*rows):
    return solve(Z6, np.array(rows))


def test_the_most_frequent_answer_of_the_length_is_guessed_and_ties_are_shared():
    trained = (*problems((1, 1), (0, 2), (0, 3)), *problems((0, 0, 5), (0, 0, 4)))
    asked = (*problems((2, 0), (3, 0)), *problems((5, 0, 0), (1, 0, 0)))
    # Two operands: the answer 2 twice, 3 once. Three: 5 and 4 once each, so either guess is right half of the time.
    assert majority_credit(trained, asked).tolist() == [1.0, 0.0, 0.5, 0.0]


def test_the_nearest_training_problem_lends_its_answer():
    trained = problems((0, 0, 1), (0, 0, 2), (3, 3, 3))
    # (0, 0, 3): one operand from answers 1 and 2, its own answer is 3. (0, 3, 4) has answer 1: two operands from all.
    assert neighbor_credit(Z6, trained, problems((0, 0, 3), (0, 3, 4))).tolist() == [0.0, 1 / 3]


def test_a_training_problem_is_its_own_neighbor():
    trained = problems((0, 1), (2, 3), (5, 5))
    assert neighbor_credit(Z6, trained, trained).tolist() == [1.0, 1.0, 1.0]


def test_without_regard_to_order_a_reordered_twin_is_at_distance_zero():
    trained = problems((1, 2, 3), (0, 0, 0))
    twin = problems((3, 1, 2))
    assert neighbor_credit(Z6, trained, twin, reordered=True).tolist() == [1.0]
    # In order every operand differs from both training problems: the answers 0 and 0 tie, and 0 is right.
    assert neighbor_credit(Z6, trained, twin).tolist() == [1.0]
    assert neighbor_credit(Z6, problems((1, 2, 3), (0, 1, 0)), problems((3, 1, 2))).tolist() == [0.0]


def test_multisets_count_repeated_operands():
    trained = problems((1, 1, 2), (1, 2, 2))
    # (2, 1, 1) is the first reordered; counting an operand once only would tie it with the second (answer 5).
    assert neighbor_credit(Z6, trained, problems((2, 1, 1)), reordered=True).tolist() == [1.0]


def test_a_length_that_was_never_trained_has_no_baseline():
    with pytest.raises(ValueError, match=r"no training problem has 3 operands \(training lengths: \[2\]\)"):
        majority_credit(problems((0, 1)), problems((0, 1, 2)))
