"""Circuits that are none seldom pass, and the true one does; counts and intervals of the table."""

import pytest

from cotinterp.calibration.circuit_rates import CASES, CircuitRates, circuit_rates
from cotinterp.mechanism.circuits.validity import TESTS
from cotinterp.results import wilson

NULLS = [case for case in CASES if case != "reader, true edges"]


@pytest.mark.slow
def test_no_null_passes_all_five_and_the_true_circuit_does():
    table = circuit_rates(2).frame().set_index(["case", "test"])
    assert table.loc[("reader, true edges", "all"), "passing"] == 2
    assert (table.loc[[(case, "all") for case in NULLS], "passing"] == 0).all()
    # What each null fails by: what is idle, what is not there, and a model that has nothing to explain.
    assert table.loc[("reader, padded", "minimality"), "passing"] == 0
    assert table.loc[("reader, padded", "equivalence"), "passing"] == 2
    assert table.loc[("reader, random edges", "sufficiency"), "passing"] == 0
    assert table.loc[("reader with shuffled weights", "equivalence"), "passing"] == 0


def test_shares_and_intervals_are_counted_by_case_and_test():
    passing, failing = (dict.fromkeys((*TESTS, "all"), passes) for passes in (True, False))
    table = CircuitRates({"one": [passing] + [failing] * 19, "other": [failing] * 20}).frame()
    found = table.set_index(["case", "test"]).loc[("one", "all")]
    assert found[["passing", "n", "share", "ci_low", "ci_high"]].tolist() == [1, 20, 0.05, *wilson(1, 20)]
    assert table["passing"].tolist() == [1] * 7 + [0] * 7


def test_unknown_cases_and_no_models_are_refused():
    with pytest.raises(ValueError, match=r"unknown cases \['tails'\]"):
        circuit_rates(1, cases=["tails"])
    with pytest.raises(ValueError, match="at least one"):
        circuit_rates(0)
