"""Weights that make held-out operands as frequent as trained ones."""

from itertools import product

import numpy as np
import pytest

from cotinterp.behavior.generalization import rake
from cotinterp.tasks import get_task
from cotinterp.transcripts.problems import solve

PARITY = get_task("parity")


def problems(*rows):
    return solve(PARITY, np.array(rows))


def test_problems_with_the_reference_marginals_keep_weight_one():
    everything = problems(*product((0, 1), repeat=3))
    raked = rake(everything, everything)
    assert raked.weights == pytest.approx(np.ones(8))
    assert raked.discrepancy == pytest.approx(0, abs=1e-12)
    assert raked.effective_n == pytest.approx(8)


def test_an_operand_that_is_too_frequent_is_weighted_down():
    """(0,0) three times, (1,0), (0,1), (1,1) once: with uniform marginals the three copies share the weight of one."""
    uneven = problems((0, 0), (0, 0), (0, 0), (1, 0), (0, 1), (1, 1))
    raked = rake(uneven, problems(*product((0, 1), repeat=2)))
    assert raked.weights == pytest.approx(np.array([0.5, 0.5, 0.5, 1.5, 1.5, 1.5]))
    assert raked.effective_n == pytest.approx(36 / (3 * 0.25 + 3 * 2.25))
    assert raked.discrepancy < 1e-9


def test_an_operand_that_never_occurs_is_reported_as_the_discrepancy():
    raked = rake(problems((0, 0), (0, 1)), problems(*product((0, 1), repeat=2)))
    assert raked.discrepancy == pytest.approx(0.5)


def test_lengths_are_not_mixed():
    with pytest.raises(ValueError, match=r"problems of one length; got 1 and 1 problems of lengths \[2, 3\]"):
        rake(problems((0, 1)), problems((0, 1, 1)))
