"""Labels without a rule: uniform, the same everywhere, and of no help with one another."""

from itertools import combinations, permutations, product

import numpy as np
import pytest

from cotinterp.tasks import get_task
from cotinterp.transcripts.problems import solve, substitute_total
from cotinterp.transcripts.render import render


@pytest.fixture(scope="module")
def task():
    return get_task("random-labels")


def tuples(k):
    return np.array(list(product(range(6), repeat=k)))


def answers(task, operands):
    return task.steps(operands).total[:, -1]


def splitmix(x):
    """One output of SplitMix64, in Python's unbounded integers."""
    x = (x + 0x9E3779B97F4A7C15) % 2**64
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
    return x ^ x >> 31


def test_labels_are_those_of_the_published_generator(task):
    """First outputs of SplitMix64 from the seeds 0 and 1234567: the values that implementations are tested with."""
    assert splitmix(0) == 0xE220A8397B1DCDAF
    assert splitmix(1234567) == 6457827717110365317
    for operands in ((0, 0), (3, 1, 4), (5, 5, 5, 5, 5)):
        state, labels = 0, []
        for operand in operands:
            state = splitmix((state + operand + 1) % 2**64)
            labels.append(state % 6)
        assert task.steps(np.array([operands])).total.tolist() == [labels[1:]]
    assert task.steps(np.array([[0, 0, 0], [1, 2, 3]])).total.tolist() == [[1, 5], [5, 0]]


def test_running_totals_are_the_labels_of_the_prefixes(task):
    operands = tuples(4)[::7]
    steps = task.steps(operands)
    for step in (1, 2, 3):
        assert np.array_equal(steps.total[:, step - 1], answers(task, operands[:, : step + 1]))
    assert np.array_equal(steps.previous, np.column_stack([operands[:, 0], steps.total[:, :-1]]))
    assert np.array_equal(steps.operand, operands[:, 1:])


def excess(task, operands, columns):
    """Chi-square of the answer by a sub-tuple, standardized by its degrees of freedom: near 0 if independent."""
    seen = operands[:, columns] @ 6 ** np.arange(len(columns))
    counts = np.zeros((6 ** len(columns), task.n_states))
    np.add.at(counts, (seen, answers(task, operands)), 1)
    expected = counts.sum(1, keepdims=True) / task.n_states
    degrees = (task.n_states - 1) * len(counts)
    return (((counts - expected) ** 2 / expected).sum() - degrees) / np.sqrt(2 * degrees)


@pytest.mark.parametrize("k", [3, 4, 5])
def test_answers_are_uniform_and_independent_of_every_part_of_the_tuple(task, k):
    operands = tuples(k)
    parts = [list(columns) for size in range(k) for columns in combinations(range(k), size)]
    assert max(abs(excess(task, operands, part)) for part in parts) < 4


def test_a_task_with_a_rule_fails_that_test():
    assert excess(get_task("affine-mod10"), tuples(4), [3]) > 100


def test_neither_the_label_before_nor_a_permuted_twin_tells_the_answer(task):
    operands = tuples(5)
    steps = task.steps(operands)
    same = [np.mean(steps.previous[:, -1] == steps.total[:, -1])]
    twins = [order for order in permutations(range(5)) if order != (0, 1, 2, 3, 4)]
    distinct = operands[(np.sort(operands)[:, 1:] != np.sort(operands)[:, :-1]).all(1)]
    same += [np.mean(answers(task, distinct) == answers(task, distinct[:, order])) for order in twins]
    assert len(distinct) == 720
    assert np.abs(np.array(same) - 1 / 6).max() < 4 * np.sqrt(5 / 36 / 360)


def test_no_edit_of_a_total_changes_what_follows_but_its_copy(task):
    problem = solve(task, np.array([[1, 2, 3, 4]]))[0]
    for step, total in product((1, 2, 3), range(6)):
        edited = substitute_total(task, problem, step, total)
        assert edited.totals == (*problem.totals[: step - 1], total, *problem.totals[step:])
        assert edited.previous[:step] == problem.previous[:step]
        assert edited.previous[step : step + 1] in ((total,), ())
    answer = problem.answer
    assert render(task, problem, "cot").text == f"<1*2*3*4>{{1*2=5;5*3=0;0*4={answer}}}{answer}#"


def test_it_looks_like_the_groups_of_order_six(task):
    assert task.operands == get_task("z6").operands == get_task("s3").operands
    assert task.states == get_task("s3").states


@pytest.mark.parametrize("step", [0, 3])
def test_resuming_outside_the_steps_is_refused(task, step):
    with pytest.raises(ValueError, match="3 operands has steps 1 to 2"):
        task.resume(np.array([[1, 2, 3]]), step, np.array([0]))
