"""Made-up sweeps of known laws: the right one or `cannot tell`, and the same draw twice."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from cotinterp.calibration.law_worlds import WORLDS, Judged, LawCalibration, law_calibration, law_table
from cotinterp.depth.frontier import depth_frontier
from cotinterp.sweeps.table import SWEEP_COLUMNS

pytestmark = pytest.mark.slow

OF = {world.name: world for world in WORLDS}


def test_clear_worlds_are_named_and_no_world_falsely():
    found = law_calibration(1, resamples=40)
    assert found.false == 0
    assert {one.world.name for one in found.judged if one.words[one.world.truth]} >= {
        "a layer, two steps",
        "a tree",
        "all solved",
        "enough from three layers",
        "depth buys nothing",
    }


def test_what_is_cut_short_is_never_named():
    found = law_calibration(3, worlds=[OF["looks linear, all cut short"]], resamples=20)
    assert found.judged[0].words["cannot tell"] == 3


def test_a_world_that_is_not_what_it_is_called_is_counted_as_false():
    false = replace(OF["a layer, two steps"], truth="none")
    found = law_calibration(1, worlds=[false], resamples=20)
    assert (found.false, found.n) == (1, 1)
    assert found.frame()["false"].tolist() == [1.0]


def test_runs_stand_as_their_world_says():
    table = law_table(replace(OF["all solved"], unconverged={4: 1.0}), np.random.default_rng(0))
    runs = depth_frontier(table).frame()
    assert set(runs.loc[runs["n_layers"] < 4, "convergence"]) == {"complete"}
    assert set(runs.loc[runs["n_layers"] == 4, "convergence"]) <= {"improving", "complete"}
    assert set(table.columns) <= set(SWEEP_COLUMNS)
    pd.testing.assert_frame_equal(
        table, law_table(replace(OF["all solved"], unconverged={4: 1.0}), np.random.default_rng(0))
    )


def test_the_table_counts_words():
    words = dict.fromkeys(("linear", "logarithmic", "constant", "none", "cannot tell"), 0) | {"linear": 3, "none": 1}
    result = LawCalibration((Judged(OF["a tree"], words), Judged(OF["nothing solved"], {"cannot tell": 4})))
    assert (result.n, result.false) == (8, 4)
    assert result.frame()[["right", "false"]].to_numpy().tolist() == [[0.0, 1.0], [1.0, 0.0]]
    assert result.figure().data


def test_no_sweeps_are_refused():
    with pytest.raises(ValueError, match="0 sweeps of each kind"):
        law_calibration(0)
