"""Verdicts on handmade models are right, and a wrong one would show."""

from dataclasses import replace

import pytest

from cotinterp.calibration.claim_truths import HANDMADE, calibrate_claims
from cotinterp.calibration.claim_worlds import made_up_worlds

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("world", HANDMADE, ids=lambda world: world.name)
def test_every_verdict_on_handmade_models_is_right(world):
    result = calibrate_claims(quick=True, handmade=[world], made_up=[])
    assert [row.question for row in result.rows]
    assert [f"{row.question}: {row.answer}, in truth {row.truth} ({row.evidence})" for row in result.wrong] == []


def test_a_truth_that_is_not_so_makes_a_row_wrong():
    world = next(world for world in made_up_worlds() if world.name == "no gap")
    result = calibrate_claims(handmade=[], made_up=[world, replace(world, verdict="supported")])
    assert [row.right for row in result.rows] == [True, False]
    assert result.frame()["instrument"].unique().tolist() == ["claim of a made-up world"]
