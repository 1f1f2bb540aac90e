"""Every claim and every rival has a made-up world in which it is so, and the verdict on each is right."""

import numpy as np
import pytest

from cotinterp.calibration.claim_truths import expected_text, judge_made_up, verdict_text
from cotinterp.calibration.claim_worlds import made_up_worlds
from cotinterp.claims.catalog import EVERY

pytestmark = pytest.mark.slow

WORLDS = made_up_worlds()


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: f"{world.claim}: {world.name}")
def test_every_verdict_on_a_made_up_world_is_right(world):
    verdict = judge_made_up(world, np.random.default_rng(0))
    assert verdict_text(verdict) == expected_text(world), verdict.reason


def test_every_claim_has_a_world_in_which_it_is_so_and_one_for_each_rival():
    for claim in EVERY:
        of = [world for world in WORLDS if world.claim == claim.name]
        assert any(world.verdict == "supported" for world in of), claim.name
        assert {rival.name for rival in claim.rivals} == set().union(*(world.stands for world in of)), claim.name


def test_every_word_comes_out_somewhere():
    assert {world.verdict for world in WORLDS} == {"supported", "partly supported", "not supported", "inconclusive"}
