"""The serial budget, worked out by hand."""

import math

import pytest

from cotinterp.depth.cost import serial_budget
from cotinterp.tasks import get_task


def test_direct_has_one_pass_before_the_answer_whatever_k() -> None:
    table = serial_budget(get_task("s3"), "direct", n_layers=4, ks=range(2, 7), n=20)
    assert table["additions"].tolist() == [1, 2, 3, 4, 5]
    assert table["tree_levels"].tolist() == [1, 2, 2, 3, 3]
    assert table["slots_before_answer"].tolist() == [4.0] * 5
    # One symbol of answer and the end.
    assert table["response_tokens"].tolist() == [2.0] * 5
    assert table["layer_operations"].tolist() == [8.0] * 5


def test_a_chain_of_thought_of_one_symbol_states() -> None:
    table = serial_budget(get_task("s3"), "cot", n_layers=4, ks=range(2, 5), n=20)
    # {a*b=c} for one step, and ;c*d=e for each further one; then answer and end.
    before = [7, 13, 19]
    assert table["response_tokens"].tolist() == [b + 2.0 for b in before]
    assert table["slots_before_answer"].tolist() == [4.0 * (b + 1) for b in before]


def test_sums_are_longer_where_totals_have_two_digits() -> None:
    sums = serial_budget(get_task("digit-sum"), "cot", n_layers=2, ks=range(3, 4), n=100)
    assert 13 + 2 < sums["response_tokens"].item() < 13 + 2 + 4
    assert sums["layer_operations"].item() == pytest.approx(2 * sums["response_tokens"].item())
    again = serial_budget(get_task("digit-sum"), "cot", n_layers=2, ks=range(3, 4), n=100)
    assert math.isclose(again["response_tokens"].item(), sums["response_tokens"].item())
