import math

import pytest

from benchmarks.comparison import Agreement, Rates, matmul_floor


@pytest.mark.parametrize(("difference", "equal"), [(0.0, True), (1e-5, True), (1.1e-5, False), (math.nan, False)])
def test_equal_up_to_the_tolerance_and_never_with_nan(difference, equal):
    agreement = Agreement.within(difference, 1e-5, "logits")
    assert agreement.equal is equal
    assert agreement.note.startswith("logits: largest difference")


def test_notes_are_added_up():
    assert Agreement(True, "one").also("two").also("") == Agreement(True, "one; two")


def test_a_floor_is_operations_over_the_rate_of_the_precision():
    rates = Rates(fp32=2e9, bf16=8e9)
    assert matmul_floor(4e9)(rates) == 2.0
    assert matmul_floor(4e9, "bf16")(rates) == 0.5
