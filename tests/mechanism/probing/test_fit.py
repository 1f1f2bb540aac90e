"""Probes find what was planted, find nothing where nothing is, and say so when they were shown the test."""

import numpy as np
import pytest
import torch

from cotinterp.mechanism.probing.controls import Controls, hold_out
from cotinterp.mechanism.probing.fit import Target, fit_probes
from cotinterp.mechanism.probing.linear_probe import ProbedAt
from cotinterp.mechanism.probing.solver import FitOptions, ProbeNotConverged
from cotinterp.mechanism.sites import Site

N, D, CLASSES = 500, 24, 6


@pytest.fixture
def truth() -> np.ndarray:
    return np.random.default_rng(0).integers(0, CLASSES, size=N)


@pytest.fixture
def train() -> np.ndarray:
    return hold_out(np.arange(N), seed=0)


def noise(seed: int = 1) -> torch.Tensor:
    return torch.randn(N, D, generator=torch.Generator().manual_seed(seed))


def planted(truth: np.ndarray) -> torch.Tensor:
    directions = torch.randn(CLASSES, D, generator=torch.Generator().manual_seed(2))
    return directions[torch.from_numpy(truth)] + 0.5 * noise()


def test_planted_direction_is_found_and_noise_is_not(truth: np.ndarray, train: np.ndarray) -> None:
    result = fit_probes(
        {"planted": planted(truth), "noise": noise()}, {"total": truth}, train, controls=Controls(n_controls=3)
    )
    found, nothing = result.cells
    assert found.correct.mean() > 0.97
    assert found.selectivity_interval.low > 0.7
    assert nothing.selectivity_interval.low < 0 < nothing.selectivity_interval.high
    chance = 1 / CLASSES
    for cell in (found, nothing):
        assert abs(cell.control_correct.mean() - chance) < 0.06
        assert cell.interval.low <= cell.correct.mean() <= cell.interval.high
    assert nothing.interval.low < chance < nothing.interval.high


def test_problems_on_both_sides_would_inflate_the_accuracy() -> None:
    # Random labels, one per problem, and each problem four times: there is nothing to find but the problem itself.
    problems = np.repeat(np.arange(125), 4)
    truth = np.random.default_rng(0).integers(0, 3, size=125)[problems]
    wide = torch.randn(125, 200, generator=torch.Generator().manual_seed(0))[torch.from_numpy(problems)]
    rows = wide + 0.01 * torch.randn(500, 200, generator=torch.Generator().manual_seed(1))
    by_row = hold_out(np.arange(500), seed=0)
    with pytest.raises(ValueError, match="groups have rows in both training and test"):
        fit_probes({"x": rows}, {"y": truth}, by_row, groups=problems)
    leaked = fit_probes({"x": rows}, {"y": truth}, by_row).cells[0]
    honest = fit_probes({"x": rows}, {"y": truth}, hold_out(problems, seed=0), groups=problems).cells[0]
    assert leaked.correct.mean() > 0.95
    assert honest.correct.mean() < 0.55
    # Told which rows are one input, the control shows the leak: it is as high as the accuracy, at no meaning at all.
    warned = fit_probes({"x": rows}, {"y": Target(truth=truth, types=problems)}, by_row).cells[0]
    assert warned.control_correct.mean() > 0.95
    assert warned.shuffled_accuracy < 0.5
    assert warned.seen > 0.95
    assert honest.seen == 0.0


def test_stored_table_is_not_selectivity() -> None:
    # Thirty inputs, one-hot: a probe stores any labels of them. That it stores the right ones too is no finding.
    inputs = np.random.default_rng(0).integers(0, 30, size=N)
    rows = torch.eye(30)[torch.from_numpy(inputs)]
    truth = inputs % 7
    cell = fit_probes(
        {"x": rows}, {"y": Target(truth=truth, types=inputs)}, hold_out(np.arange(N)), controls=Controls(n_controls=2)
    ).cells[0]
    assert cell.correct.mean() == 1.0
    assert cell.control_correct.mean() == 1.0
    assert cell.shuffled_accuracy < 0.35


def test_test_rows_do_not_touch_the_fit(truth: np.ndarray, train: np.ndarray) -> None:
    rows = planted(truth)
    before = fit_probes({"x": rows}, {"y": truth}, train).cells[0]
    changed = rows.clone()
    moved = np.flatnonzero(~train)[0]
    changed[moved] = 1e6
    after = fit_probes({"x": changed}, {"y": truth}, train).cells[0]
    assert (before.predicted[1:] == after.predicted[1:]).all()
    assert (before.control_predicted[:, 1:] == after.control_predicted[:, 1:]).all()


def test_class_without_training_rows_counts_as_wrong(truth: np.ndarray, train: np.ndarray) -> None:
    unseen = truth.copy()
    rare = np.flatnonzero(~train)[:10]
    unseen[rare] = 99
    cell = fit_probes({"x": planted(truth)}, {"y": unseen}, train).cells[0]
    assert not cell.correct[:10].any()
    assert cell.correct[10:].mean() > 0.95
    assert cell.n_classes == CLASSES
    assert len(cell.truth) == (~train).sum()


def test_chance_is_the_accuracy_of_the_training_majority(train: np.ndarray) -> None:
    truth = np.where(np.arange(N) % 10 < 7, 4, 8)
    cell = fit_probes({"x": noise()}, {"y": truth}, train).cells[0]
    assert set(cell.majority.tolist()) == {4}
    assert cell.summary()["chance"] == (truth[~train] == 4).mean()


def test_any_integers_are_classes(truth: np.ndarray, train: np.ndarray) -> None:
    plain = fit_probes({"x": planted(truth)}, {"y": truth}, train).cells[0]
    named = fit_probes({"x": planted(truth)}, {"y": 1000 - 7 * truth}, train).cells[0]
    assert (named.truth == 1000 - 7 * plain.truth).all()
    assert named.correct.mean() == plain.correct.mean()


def test_features_share_their_controls_and_say_where_they_are_from(truth: np.ndarray, train: np.ndarray) -> None:
    at = ProbedAt(site=Site("resid_mid", 1), role="equals", step=2, model="untrained")
    result = fit_probes({Site("z", 3, 1): noise(), at: planted(truth), "mine": noise(5)}, {"y": truth}, train)
    assert [(c.at.label, c.at.model, c.at.place) for c in result.cells] == [
        ("L3H1.z", "trained", "everywhere"),
        ("L1.resid_mid", "untrained", "equals 2"),
        ("mine", "trained", "everywhere"),
    ]
    first, second, _ = result.cells
    assert (first.control_truth == second.control_truth).all()


def test_too_little_is_refused_with_the_counts(truth: np.ndarray, train: np.ndarray) -> None:
    few = np.zeros(N, dtype=bool)
    few[:30] = True
    with pytest.raises(ValueError, match="30 training and 470 test rows, but at least 40 and 10"):
        fit_probes({"x": noise()}, {"y": truth}, few)
    with pytest.raises(ValueError, match="45 classes: 80 training"):
        fit_probes({"x": noise()}, {"y": np.arange(N) % 45}, np.arange(N) < 80)
    with pytest.raises(ValueError, match=r"1 class\(es\) \[3\]"):
        fit_probes({"x": noise()}, {"y": np.full(N, 3)}, train)
    with pytest.raises(ValueError, match="n_controls=0"):
        fit_probes({"x": noise()}, {"y": truth}, train, controls=Controls(n_controls=0))


def test_cell_that_did_not_converge_is_named(truth: np.ndarray, train: np.ndarray) -> None:
    at = ProbedAt(site=Site("resid_pre", 2), role="equals", step=1)
    with pytest.raises(
        ProbeNotConverged, match=r"trained L2\.resid_pre at equals 1, target s_1: .* after 3 iterations"
    ):
        fit_probes({at: planted(truth)}, {"s_1": truth}, train, fit=FitOptions(max_iterations=3))
