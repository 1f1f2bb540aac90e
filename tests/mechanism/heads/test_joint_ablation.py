"""Readers ablated together, by hand: what they lose, what they would lose singly, what others lose."""

import numpy as np
import pytest
import torch

from cotinterp.mechanism.heads.ablation import JointAblation
from cotinterp.mechanism.sites import Site

CLEAN = torch.tensor([4.0, 2.0, 3.0])


@pytest.fixture
def joint():
    """Two heads that stand in for one another: each alone costs nothing, both cost two thirds."""
    return JointAblation(
        readers=(Site("z", 0, 1), Site("z", 1, 0)),
        together=torch.tensor([[3.0, 1.0, 2.0]]),
        summed=torch.zeros(1, 3),
        random=torch.tensor([[0.0, 0.6, 0.3], [0.3, 0.9, 0.6]]),
        clean=CLEAN,
    )


def test_heads_that_stand_in_for_one_another_show_only_together(joint):
    assert joint.effect == pytest.approx(2 / 3)
    assert joint.summed_effect == 0
    assert joint.random_effect == pytest.approx((0.1 + 0.2) / 2)


def test_frame_has_a_row_for_each_ablation(joint):
    frame = joint.frame()
    assert frame["set"].tolist() == ["readers", "sum of single readers", "random set", "random set"]
    assert frame["heads"].tolist() == ["L0H1 L1H0", "L0H1 L1H0", "2 others", "2 others"]
    assert frame["effect"].tolist() == pytest.approx([2 / 3, 0, 0.1, 0.2])
    assert frame["n"].tolist() == [3] * 4
    assert (frame["ci_low"] <= frame["effect"]).all()
    assert (frame["effect"] <= frame["ci_high"] + 1e-12).all()


def test_examples_without_a_donor_are_left_out(joint):
    missing = JointAblation(
        readers=joint.readers,
        together=torch.tensor([[3.0, torch.nan, 2.0]]),
        summed=joint.summed,
        random=joint.random[:0],
        clean=CLEAN,
    )
    assert missing.effect == pytest.approx(2.5 / 3.5)
    assert missing.frame()["n"].tolist() == [2, 3]
    assert np.isnan(missing.random_effect)


def test_nothing_is_lost_without_readers():
    none = torch.zeros(0, 3)
    nobody = JointAblation((), none, none, none, CLEAN)
    assert np.isnan([nobody.effect, nobody.summed_effect, nobody.random_effect]).all()
    assert nobody.frame().empty
