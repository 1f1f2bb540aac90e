"""Which wrong totals are admissible, enumerated by brute force."""

import numpy as np
import pytest

from cotinterp.tasks import get_task
from cotinterp.transcripts.problems import informative_totals, solve


def problems_of(task, *operands):
    return solve(task, np.array(operands))


def test_all_wrong_totals_of_a_sum_by_hand():
    task = get_task("digit-sum")
    problem = problems_of(task, (3, 4, 5))[0]
    found = informative_totals(task, [problem], 1, at_most=None, rng=np.random.default_rng(0))
    assert {wrong.total for wrong in found.chosen} == set(range(10)) - {7}
    assert all(wrong.followed == wrong.total + 5 for wrong in found.chosen)
    assert (found.n_without, found.n_ambiguous) == (0, 0)
    edits = informative_totals(task, [problem], 2, at_most=None, rng=np.random.default_rng(0)).chosen
    assert {edit.total for edit in edits} == set(range(10, 28)) - {12}
    assert all(edit.followed == edit.total for edit in edits)


def test_ambiguous_edits_are_left_out_and_counted():
    """In affine-mod10 an operand 7 multiplies by 10: whatever stood there, the next total is the same."""
    task = get_task("affine-mod10")
    problem = problems_of(task, (1, 2, 7, 4))[0]
    found = informative_totals(task, [problem], 1, at_most=None, rng=np.random.default_rng(0))
    assert found == ((), 0, len(task.reachable(4)[1]) - 1)


def test_problems_without_another_total_of_the_length_are_counted():
    class Lonely(type(get_task("parity"))):
        name = "lonely"

        @property
        def states(self):
            return ("0", "11")

    task = Lonely()
    problems = problems_of(task, (0, 1), (1, 1))
    assert informative_totals(task, problems, 1, at_most=3, rng=np.random.default_rng(0)) == ((), 2, 0)


@pytest.mark.parametrize("at_most", [1, 3, 100])
def test_some_of_each_problem(at_most):
    task = get_task("digit-sum")
    problems = problems_of(task, (3, 4, 5), (9, 9, 9), (0, 0, 1))
    available = {3: 9, 9: 8, 0: 9}  # one digit 0..9 but 7; two digits 10..18 but 18; one digit but 0
    edits = informative_totals(task, problems, 1, at_most=at_most, rng=np.random.default_rng(0)).chosen
    for problem in problems:
        chosen = [edit.total for edit in edits if edit.problem == problem]
        assert len(chosen) == len(set(chosen)) == min(at_most, available[problem.operands[0]])
        assert problem.totals[0] not in chosen


def test_choices_are_seeded_and_cover_all_values():
    task = get_task("digit-sum")
    problem = problems_of(task, (3, 4, 5))

    def draw(seed):
        return informative_totals(task, problem, 1, at_most=1, rng=np.random.default_rng(seed)).chosen[0].total

    drawn = [draw(seed) for seed in range(90)]
    assert drawn == [draw(seed) for seed in range(90)]
    assert set(drawn) == set(range(10)) - {7}
