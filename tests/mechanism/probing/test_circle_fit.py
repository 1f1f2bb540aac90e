"""Regression onto a circle: scikit-learn's ridge, the planted angle, and what a circle tells apart."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from cotinterp.mechanism.probing.coordinates import coordinates
from cotinterp.mechanism.probing.linear_probe import fit_circle
from cotinterp.mechanism.probing.solver import Design
from cotinterp.tasks import get_task

POINTS = torch.from_numpy(np.asarray(coordinates(get_task("z6"))["fourier 1"].circle))


def noise(n: int, d: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_is_scikit_learns_ridge() -> None:
    rows = noise(200, 7) * torch.logspace(-2, 2, 7, dtype=torch.float64) + 3
    labels = torch.randint(0, 6, (2, 200), generator=torch.Generator().manual_seed(1))
    fit = fit_circle(Design.of(rows[:150], torch.float64), labels[:, :150], POINTS, penalty=3.0)
    scaler = StandardScaler().fit(rows[:150].numpy())
    for number in range(2):
        oracle = Ridge(alpha=3.0).fit(scaler.transform(rows[:150]), POINTS[labels[number, :150]].numpy())
        expected = torch.from_numpy(oracle.predict(scaler.transform(rows[150:])))
        torch.testing.assert_close(fit.coordinates(rows[150:])[number], expected, atol=1e-6, rtol=0)
        target = POINTS[labels[number, 150:]]
        mean = POINTS[labels[number, :150]].mean(0)
        by_hand = 1 - (target - expected).square().sum() / (target - mean).square().sum()
        assert float(fit.r_squared(rows[150:], labels[:, 150:])[number]) == pytest.approx(float(by_hand))
        nearest = torch.cdist(expected, POINTS).argmin(1)
        assert (fit.predict(rows[150:])[number] == nearest).all()


def test_nothing_there_is_worse_than_the_mean() -> None:
    labels = torch.arange(300)[None] % 6
    fit = fit_circle(Design.of(noise(240, 30), torch.float64), labels[:, :240], POINTS)
    assert float(fit.r_squared(noise(60, 30, seed=1), labels[:, 240:])[0]) < 0.05


def test_a_sign_is_no_angle() -> None:
    # One feature that says which half of the circle: a line cannot place six points on a circle.
    labels = torch.arange(300)[None] % 6
    rows = torch.stack([(labels[0] < 3).double(), noise(300, 1)[:, 0]], dim=1)
    fit = fit_circle(Design.of(rows, torch.float64), labels, POINTS)
    assert float((fit.predict(rows) == labels).double().mean()) < 0.5
    assert 0.2 < float(fit.r_squared(rows, labels)[0]) < 0.8


def test_a_point_that_was_not_in_training_is_never_named() -> None:
    labels = torch.arange(300)[None] % 6
    rows = POINTS[labels[0]] + 0.01 * noise(300, 2)
    kept = labels[0] != 4
    fit = fit_circle(Design.of(rows[kept], torch.float64), labels[:, kept], POINTS)
    assert 4 not in fit.predict(rows)
    assert (fit.predict(rows)[0, kept] == labels[0, kept]).all()


def test_bad_input_is_refused() -> None:
    design = Design.of(noise(20, 2), torch.float64)
    with pytest.raises(ValueError, match=r"lie in 0\.\.5"):
        fit_circle(design, torch.full((1, 20), 6), POINTS)
    with pytest.raises(ValueError, match="must be positive"):
        fit_circle(design, torch.zeros(1, 20, dtype=torch.long), POINTS, penalty=0.0)
