"""How numbers are printed, halves and units included."""

import pytest

from cotinterp.depth.simulator import NO_TASK, Sliders
from cotinterp.report.simulator import amount, count, rounded, words


@pytest.mark.parametrize(("value", "shown"), [(69.0, "69"), (89.41, "89.4"), (2.25, "2.3"), (0.5, "0.5")])
def test_means_are_whole_where_they_are_whole(value, shown):
    assert count(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(999.0, "999.00 FLOP"), (1319680.0, "1.32 MFLOP"), (2.5e9, "2.50 GFLOP"), (7.125e12, "7.13 TFLOP")],
)
def test_operations_have_a_unit(value, shown):
    assert amount(value) == shown


def test_halves_go_up_as_in_the_page():
    assert [rounded(value, 1) for value in (0.25, 0.75, 2.0)] == ["0.3", "0.8", "2.0"]


def test_what_a_position_says():
    at = Sliders(n_layers=4, k=12)
    texts = words(NO_TASK.readouts(at), at, NO_TASK.model, NO_TASK.d_vocab)
    assert (texts["needed.linear"], texts["direct.linear"], texts["cot.linear"]) == ("11", "7 short", "enough")
    assert (texts["needed.logarithmic"], texts["direct.logarithmic"]) == ("4", "enough")
    assert (texts["needed.none"], texts["direct.none"]) == ("no number is enough", "never enough")
    assert texts["cot.none"] == "enough, a step at a time"
    assert (texts["response.cot"], texts["response.ratio"]) == ("69", "34.50 \N{MULTIPLICATION SIGN}")
    assert texts["have.cot"] == "272 layers before its answer"


def test_no_trace_helps_where_not_even_two_operands_are_folded():
    at = Sliders(floor=1)
    assert words(NO_TASK.readouts(at), at, NO_TASK.model, NO_TASK.d_vocab)["cot.none"] == "never enough"
