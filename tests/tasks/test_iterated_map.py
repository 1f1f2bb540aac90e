"""Iterated maps by hand, and which operands permute the states."""

import numpy as np
import pytest

from cotinterp.tasks import get_task
from cotinterp.transcripts.problems import solve
from cotinterp.transcripts.render import render


@pytest.mark.parametrize(
    ("name", "operands", "text"),
    [
        ("affine-mod10", (2, 1, 3), "<2*1*3>{2*1=9;9*3=3}3#"),
        ("polynomial-mod11", (3, 4, 5), "<3*4*5>{3*4=2;2*5=0}0#"),
        ("polynomial-mod11", (10, 10, 0, 7), "<A*A*0*7>{A*A=2;2*0=1;1*7=8}8#"),
    ],
)
def test_by_hand(name, operands, text):
    task = get_task(name)
    (problem,) = solve(task, np.array([operands]))
    assert render(task, problem, "cot").text == text


def test_the_polynomial_permutes_the_states_but_for_zero_which_forgets_them():
    task, states = get_task("polynomial-mod11"), np.arange(11)
    for operand in range(11):
        image = task.step(states, np.full(11, operand))
        assert len(set(image.tolist())) == (1 if operand == 0 else 11)
