"""A fitted probe says what its sweep said, in the units of the activations, and sees nothing outside its subspace."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler

from cotinterp.mechanism.probing.controls import hold_out
from cotinterp.mechanism.probing.coordinates import coordinates
from cotinterp.mechanism.probing.fit import fit_probes
from cotinterp.mechanism.probing.linear_probe import fit_circle, fit_probe
from cotinterp.mechanism.probing.solver import Design, FitOptions
from cotinterp.mechanism.sites import Site
from cotinterp.tasks import get_task

N, D, CLASSES = 400, 12, 5


@pytest.fixture
def truth() -> np.ndarray:
    return 10 * np.random.default_rng(0).integers(0, CLASSES, size=N) + 7


@pytest.fixture
def rows(truth: np.ndarray) -> torch.Tensor:
    """Class centers in noise, on features of very different size and place; the last is constant."""
    generator = torch.Generator().manual_seed(1)
    centers = torch.randn(CLASSES, D, generator=generator)
    noisy = centers[torch.from_numpy(truth) // 10] + 0.7 * torch.randn(N, D, generator=generator)
    scaled = noisy * torch.logspace(-1, 1, D) + 3.0
    scaled[:, -1] = 2.5
    return scaled


def test_directions_are_scikit_learns_in_the_units_of_the_features(rows: torch.Tensor, truth: np.ndarray) -> None:
    probe = fit_probe(rows.double(), truth, at=Site("resid_mid", 1), target="s_2", tolerance=1e-7)
    scaler = StandardScaler().fit(rows[:, :-1].double().numpy())
    oracle = LogisticRegression(tol=1e-10, max_iter=10_000).fit(scaler.transform(rows[:, :-1].double()), truth)
    np.testing.assert_allclose(probe.direction[:, :-1], oracle.coef_ / scaler.scale_, atol=1e-3)
    assert probe.direction[:, -1].abs().max() == 0
    np.testing.assert_allclose(probe.direction.sum(0), 0, atol=1e-6)
    assert probe.classes.tolist() == [7, 17, 27, 37, 47]
    assert (probe.predict(rows) == oracle.predict(scaler.transform(rows[:, :-1]))).mean() > 0.995
    assert (probe.at.label, probe.target, probe.n_train) == ("L1.resid_mid", "s_2", N)
    for number, one in enumerate(probe.classes):
        torch.testing.assert_close(probe.centers[number].float(), rows[torch.from_numpy(truth == one)].mean(0))
    torch.testing.assert_close(probe.mean.float(), rows.mean(0))
    torch.testing.assert_close(probe.scale[:-1], torch.from_numpy(scaler.scale_))
    assert probe.scale[-1] == 0


def test_sweep_keeps_the_probe_that_it_tested(rows: torch.Tensor, truth: np.ndarray) -> None:
    train = hold_out(np.arange(N))
    cell = fit_probes({Site("resid_pre", 2): rows}, {"s_1": truth}, train, fit=FitOptions(keep=True)).cells[0]
    assert cell.probe is not None
    assert (cell.probe.predict(rows[torch.from_numpy(~train)]) == cell.predicted).all()
    assert (cell.probe.at, cell.probe.target, cell.probe.n_train) == (cell.at, "s_1", 300)
    assert fit_probes({"x": rows}, {"y": truth}, train).cells[0].probe is None


def test_predictions_depend_on_the_subspace_alone(rows: torch.Tensor, truth: np.ndarray) -> None:
    probe = fit_probe(rows, truth)
    basis = probe.subspace()
    assert basis.shape == (CLASSES - 1, D)
    torch.testing.assert_close(basis @ basis.T, torch.eye(CLASSES - 1), atol=1e-5, rtol=0)
    outside = torch.randn(N, D, generator=torch.Generator().manual_seed(3))
    moved = rows + outside - outside @ basis.T @ basis
    torch.testing.assert_close(probe.logits(moved), probe.logits(rows), atol=1e-3, rtol=1e-3)
    assert not (probe.predict(rows + outside) == probe.predict(rows)).all()
    # With the subspace set to its mean nothing is left to go by: one answer for all.
    erased = rows - (rows - probe.mean) @ basis.T @ basis
    assert len(np.unique(probe.predict(erased))) == 1
    assert (probe.predict(rows) == truth).mean() > 0.8
    with pytest.raises(ValueError, match="span 4 dimensions, not 5"):
        probe.subspace(5)


def test_the_first_axis_of_the_centers_is_where_they_differ_most(rows: torch.Tensor, truth: np.ndarray) -> None:
    probe = fit_probe(rows, truth)
    axes = probe.subspace(2, of="centers")
    spread = (probe.centers - probe.centers.mean(0)) @ axes.T
    assert spread[:, 0].norm() > spread[:, 1].norm()
    # The features' scales grow along the axes: the means move along the last ones.
    assert axes[0, -4:].norm() > 0.9
    assert probe.subspace(1)[0, -4:].norm() < 0.9


def test_circle_is_a_linear_probe_of_two_dimensions(truth: np.ndarray) -> None:
    coordinate = coordinates(get_task("z6"))["fourier 1"]
    residue = np.random.default_rng(0).integers(0, 6, size=N)
    plane = torch.randn(2, D, generator=torch.Generator().manual_seed(0))
    assert coordinate.circle is not None
    rows = torch.from_numpy(coordinate.circle).float()[torch.from_numpy(residue)] @ plane + 5.0
    probe = fit_probe(rows, residue, circle=coordinate.circle)
    assert (probe.predict(rows) == residue).all()
    assert probe.subspace().shape == (2, D)
    # The plane that was planted is where the centers move; the directions that read it best may lean out of it.
    for of in ("centers", "direction"):
        cosines = torch.linalg.svdvals(probe.subspace(of=of) @ torch.linalg.qr(plane.T).Q)
        assert (float(cosines.min()) > 0.999) == (of == "centers")
    some = residue < 4
    seen = fit_probe(rows[torch.from_numpy(some)], residue[some], circle=coordinate.circle)
    assert seen.classes.tolist() == [0, 1, 2, 3]


def test_one_class_is_refused(rows: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"'s_3' has 1 class\(es\) \[4\]"):
        fit_probe(rows, np.full(N, 4), target="s_3")


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
