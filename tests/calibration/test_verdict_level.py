"""Simulated worlds whose truth is on the threshold: seldom supported, mostly covered, and counted right."""

import numpy as np
import pytest

from cotinterp.calibration.verdict_level import (
    NULLS,
    Simulated,
    VerdictLevel,
    simulated,
    simulated_tables,
    verdict_level,
)
from cotinterp.results import wilson


@pytest.mark.parametrize(("spread", "problems"), [(0.0, 40), (0.1, 200)])
def test_a_truth_on_the_threshold_is_seldom_supported_and_mostly_covered(spread, problems):
    found = simulated(NULLS[0], 20, spread=spread, problems=problems)
    assert (found.worlds, found.seeds, found.null) == (20, 5, "rate")
    # 5% of 20 is 1: 5 or more have a chance of 0.3%, and so have fewer than 16 covered at 95%.
    assert found.supported <= 4
    assert found.covered >= 16


def test_a_truth_far_above_its_threshold_is_supported_every_time():
    null = NULLS[0]._replace(at=0.2)
    assert simulated(null, 5, spread=0.03, problems=200).supported == 5


def test_a_table_of_nulls_has_hardly_any_supported():
    found = simulated_tables(NULLS[0], 2, spread=0.1, family=8, problems=100)
    assert (found.null, found.worlds, found.covered) == ("any of 8", 2, -1)
    assert found.supported == 0


def test_every_kind_of_world_has_a_row():
    result = verdict_level(1, nulls=NULLS[2:3], spreads=(0.0, 0.1), problems=(20,), family=2)
    table = result.frame()
    assert table["null"].tolist() == ["difference", "difference", "any of 2"]
    assert table["spread"].tolist() == [0.0, 0.1, 0.1]
    assert result.figure().data


def test_shares_are_of_worlds():
    row = VerdictLevel((Simulated("rate", 0.1, 40, 5, 50, 4, 47),)).frame().iloc[0]
    assert row[["share", "ci_low", "ci_high"]].tolist() == [0.08, *wilson(4, 50)]
    assert row[["coverage", "coverage_low", "coverage_high"]].tolist() == [0.94, *wilson(47, 50)]
    table = VerdictLevel((Simulated("any of 16", 0.1, 40, 5, 10, 1, -1),)).frame()
    assert np.isnan(table["coverage"].iloc[0])


def test_no_worlds_are_refused():
    with pytest.raises(ValueError, match="0 worlds: at least one is needed"):
        verdict_level(0)
