"""The bit just read."""

from itertools import product

import numpy as np

from cotinterp.tasks import get_task
from cotinterp.transcripts.problems import solve
from cotinterp.transcripts.render import render

TASK = get_task("binary-copy")


def test_by_hand():
    (problem,) = solve(TASK, np.array([[1, 0, 1, 1]]))
    assert render(TASK, problem, "cot").text == "<1*0*1*1>{1*0=0;0*1=1;1*1=1}1#"


def test_every_state_is_its_operand_and_an_edited_one_is_forgotten():
    operands = np.array(list(product((0, 1), repeat=4)))
    assert np.array_equal(TASK.steps(operands).total, operands[:, 1:])
    assert np.array_equal(TASK.resume(operands, 1, 1 - operands[:, 1]).total, operands[:, 2:])
