"""Folds over bits and residues by hand."""

from itertools import product

import numpy as np
import pytest

from cotinterp.tasks import get_task
from cotinterp.transcripts.problems import solve
from cotinterp.transcripts.render import render

TASK = get_task("binary-copy")


def test_binary_copy_by_hand():
    (problem,) = solve(TASK, np.array([[1, 0, 1, 1]]))
    assert render(TASK, problem, "cot").text == "<1*0*1*1>{1*0=0;0*1=1;1*1=1}1#"


def test_every_state_is_its_operand_and_an_edited_one_is_forgotten():
    operands = np.array(list(product((0, 1), repeat=4)))
    assert np.array_equal(TASK.steps(operands).total, operands[:, 1:])
    assert np.array_equal(TASK.resume(operands, 1, 1 - operands[:, 1]).total, operands[:, 2:])


@pytest.mark.parametrize(
    ("name", "operands", "text"),
    [
        ("affine-mod10", (2, 1, 3), "<2*1*3>{2*1=9;9*3=3}3#"),
        ("polynomial-mod11", (3, 4, 5), "<3*4*5>{3*4=2;2*5=0}0#"),
        ("polynomial-mod11", (10, 10, 0, 7), "<A*A*0*7>{A*A=2;2*0=1;1*7=8}8#"),
    ],
)
def test_iterated_maps_by_hand(name, operands, text):
    task = get_task(name)
    (problem,) = solve(task, np.array([operands]))
    assert render(task, problem, "cot").text == text


def test_the_polynomial_permutes_the_states_but_for_zero_which_forgets_them():
    task, states = get_task("polynomial-mod11"), np.arange(11)
    for operand in range(11):
        image = task.step(states, np.full(11, operand))
        assert len(set(image.tolist())) == (1 if operand == 0 else 11)
