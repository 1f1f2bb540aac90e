"""Warm-up, then half a cosine."""

import pytest

from cotinterp.training.learner import learning_rate
from cotinterp.training.spec import OptimizerSpec

OPTIMIZER = OptimizerSpec(steps=21, warmup=4, lr=0.8, final_lr_fraction=0.25)


@pytest.mark.parametrize(
    ("step", "rate"),
    [(0, 0.2), (1, 0.4), (3, 0.8), (4, 0.8), (12, 0.5), (20, 0.2), (8, 0.2 + 0.6 * (1 + 2**-0.5) / 2)],
)
def test_rates_worked_out_by_hand(step, rate):
    assert learning_rate(OPTIMIZER, step) == pytest.approx(rate)


def test_the_rate_falls_at_every_step_after_the_warmup():
    rates = [learning_rate(OPTIMIZER, step) for step in range(4, 21)]
    assert all(later < earlier for earlier, later in zip(rates, rates[1:], strict=False))


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (1, 100), (5, 4), (5, 5), (2, 1)])
def test_short_runs_have_a_rate_at_every_step(steps, warmup):
    optimizer = OptimizerSpec(steps=steps, warmup=warmup, lr=0.8)
    assert all(0 < learning_rate(optimizer, step) <= 0.8 for step in range(steps))
