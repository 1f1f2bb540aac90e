"""Steps, resumption, reachable states and prompts of a task."""

from itertools import product

import numpy as np
import pytest

from cotinterp.tasks import FoldTask, get_task, task_names
from cotinterp.tasks.task import PromptSymbol, bracket_symbol, operand_symbol, operator_symbol


def test_symbols_by_hand():
    assert operand_symbol("7", 2, 7) == PromptSymbol("7", "operand", 2, 7, 0)
    assert operator_symbol("+", 2) == PromptSymbol("+", "operator", 2, -1, 0)
    assert bracket_symbol(")", 3, 1) == PromptSymbol(")", "bracket", 3, -1, 1)


def test_equal_symbols_are_one_object():
    assert operand_symbol("7", 2, 7) is operand_symbol("7", 2, 7)
    assert operator_symbol("+", 2) is not operator_symbol("+", 3)


@pytest.mark.parametrize(
    ("name", "operands", "totals"),
    [
        ("digit-sum", [3, 4, 5, 6], [7, 12, 18]),
        ("parity", [1, 0, 1, 1], [1, 0, 1]),
        ("z6", [5, 4, 3], [3, 0]),
        ("affine-mod10", [2, 1, 3], [(4 * 2 + 1) % 10, (6 * 9 + 9) % 10]),
    ],
)
def test_steps_worked_by_hand(name, operands, totals):
    steps = get_task(name).steps(np.array([operands]))
    assert steps.total.tolist() == [totals]
    assert steps.previous.tolist() == [[operands[0], *totals[:-1]]]
    assert steps.operand.tolist() == [operands[1:]]


@pytest.mark.parametrize("name", task_names())
def test_resuming_from_the_true_total_gives_the_true_rest(name):
    task = get_task(name)
    operands = np.random.default_rng(0).integers(task.n_operands, size=(50, 5))
    steps = task.steps(operands)
    for step in range(1, 5):
        rest = task.resume(operands, step, steps.total[:, step - 1])
        assert np.array_equal(rest.total, steps.total[:, step:])
        assert np.array_equal(rest.previous, steps.previous[:, step:])


def test_resuming_from_a_wrong_total_carries_the_error():
    rest = get_task("digit-sum").resume(np.array([[3, 4, 5, 6]]), 1, np.array([9]))
    assert rest.total.tolist() == [[14, 20]]
    assert rest.previous.tolist() == [[9, 14]]


@pytest.mark.parametrize("name", task_names())
def test_every_total_seen_is_reachable_and_every_state_parses_back(name):
    task = get_task(name)
    operands = np.random.default_rng(1).integers(task.n_operands, size=(300, 4))
    totals = task.steps(operands).total
    for step, states in enumerate(task.reachable(4)[1:]):
        assert set(totals[:, step].tolist()) <= states
    assert [task.parse_state(task.state_text(state)) for state in range(task.n_states)] == list(range(task.n_states))
    assert task.parse_state("nonsense") is None


@pytest.mark.parametrize("name", ["parity", "s3", "affine-mod10"])
def test_reachable_totals_are_those_of_all_problems(name):
    task = get_task(name)
    every = np.array(list(product(range(task.n_operands), repeat=4)))
    totals = task.steps(every).total
    assert task.reachable(4)[1:] == tuple(frozenset(column.tolist()) for column in totals.T)


def test_reachable_totals_of_a_digit_sum():
    assert get_task("digit-sum").reachable(3) == tuple(frozenset(range(9 * n + 1)) for n in (1, 2, 3))


@pytest.mark.parametrize("k", [1, 13])
def test_length_outside_the_task_is_refused(k):
    with pytest.raises(ValueError, match=f"2 to 12 operands, not {k}"):
        get_task("digit-sum").steps(np.zeros((1, k), dtype=int))


def fold(step):
    attributes = {"name": "toy", "operands": "012", "commutative": True, "step": step}
    return type("Toy", (FoldTask,), attributes)()


def test_a_step_that_leaves_the_states_names_what_left():
    with pytest.raises(ValueError, match=r"step\(2, 2\) = 4 leaves its 3 states"):
        fold(lambda self, total, operand: total + operand).steps(np.array([[2, 2]]))


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (lambda self, total, operand: 1, "array of the same shape"),
        (lambda self, total, operand: total[:1], "array of the same shape"),
        (lambda self, total, operand: total / 2, "integer state indices, got float64"),
    ],
)
def test_a_step_that_is_not_vectorized_is_refused(step, message):
    with pytest.raises(ValueError, match=message):
        fold(step).steps(np.array([[0, 1], [1, 1]]))


@pytest.mark.parametrize("step", [0, 4])
def test_resuming_outside_the_steps_is_refused(step):
    with pytest.raises(ValueError, match="steps 1 to 3"):
        get_task("digit-sum").resume(np.array([[1, 2, 3, 4]]), step, np.array([3]))
