"""The solver against scikit-learn, against solutions worked out by hand, and against itself in other company."""

import math

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from cotinterp.mechanism.probing.solver import Design, Partitions, ProbeNotConverged, fit_designs, fit_logistic, solve


def clusters(n: int, d: int, classes: int, *, spread: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows around one random center per class, on features of very different size and place."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (n,), generator=generator)
    centers = torch.randn(classes, d, generator=generator, dtype=torch.float64)
    rows = centers[labels] + spread * torch.randn(n, d, generator=generator, dtype=torch.float64)
    return rows * torch.logspace(-3, 3, d, dtype=torch.float64) + 7.0, labels


@pytest.mark.parametrize("spread", [0.2, 2.0], ids=["separable", "overlapping"])
@pytest.mark.parametrize("penalty", [1.0, 30.0])
def test_agrees_with_scikit_learn(spread: float, penalty: float) -> None:
    rows, labels = clusters(700, 12, 9, spread=spread)
    train, test = slice(0, 500), slice(500, 700)
    fit = fit_logistic(Design.of(rows[train], torch.float64), labels[None, train], 9, penalty=penalty, tolerance=1e-9)
    scaler = StandardScaler().fit(rows[train].numpy())
    oracle = LogisticRegression(C=1 / penalty, tol=1e-10, max_iter=10_000)
    oracle.fit(scaler.transform(rows[train].numpy()), labels[train].numpy())
    torch.testing.assert_close(fit.weight[0].T, torch.from_numpy(oracle.coef_), atol=1e-5, rtol=0)
    # The softmax does not see a constant added to every bias.
    bias, expected = fit.bias[0], torch.from_numpy(oracle.intercept_)
    torch.testing.assert_close(bias - bias.mean(), expected - expected.mean(), atol=1e-5, rtol=0)
    assert (fit.predict(rows[test])[0].numpy() == oracle.predict(scaler.transform(rows[test].numpy()))).all()


def test_default_tolerance_in_single_precision_predicts_as_the_exact_solution() -> None:
    rows, labels = clusters(1000, 40, 15, spread=2.0)
    exact = fit_logistic(Design.of(rows[:700], torch.float64), labels[None, :700], 15, tolerance=1e-9)
    quick = fit_logistic(Design.of(rows[:700].float()), labels[None, :700], 15)
    assert (exact.predict(rows[700:]) == quick.predict(rows[700:].float())).float().mean() >= 0.995
    torch.testing.assert_close(quick.weight, exact.weight.float(), atol=5e-3, rtol=0)


def test_two_points_by_hand() -> None:
    # By symmetry the weights are -w and w, so the logits of x = 1 differ by 2w. The gradient in w of class 1 vanishes
    # where 2 * (sigmoid(2w) - 1) + penalty * w = 0. With w = ln(3) / 2 the sigmoid is 3/4, hence penalty = 1 / ln(3).
    rows = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    fit = fit_logistic(
        Design.of(rows, torch.float64), torch.tensor([[0, 1]]), 2, penalty=1 / math.log(3), tolerance=1e-12
    )
    expected = torch.tensor([[[-math.log(3) / 2, math.log(3) / 2]]], dtype=torch.float64)
    torch.testing.assert_close(fit.weight, expected)


def test_bias_is_not_penalized() -> None:
    # Nothing but the bias can tell three ones from a zero: odds of exactly three, however strong the penalty.
    rows = torch.full((4, 3), 2.5, dtype=torch.float64)
    fit = fit_logistic(Design.of(rows, torch.float64), torch.tensor([[1, 1, 0, 1]]), 2, penalty=100.0, tolerance=1e-12)
    assert math.isclose(float(fit.bias[0, 1] - fit.bias[0, 0]), math.log(3), rel_tol=1e-9)
    assert (fit.weight == 0).all()


def test_label_sets_do_not_see_each_other() -> None:
    rows, labels = clusters(300, 8, 6, spread=1.0)
    generator = torch.Generator().manual_seed(3)
    # The third set lacks two classes and converges at another time than the others.
    sets = torch.stack([labels, labels[torch.randperm(300, generator=generator)], labels.clamp(max=3)])
    design = Design.of(rows, torch.float64)
    together = fit_logistic(design, sets, 6, tolerance=1e-10)
    for number, one in enumerate(sets):
        alone = fit_logistic(design, one[None], 6, tolerance=1e-10)
        torch.testing.assert_close(together.weight[number], alone.weight[0], atol=1e-6, rtol=0)
    fewer = fit_logistic(design, sets[2:], 4, tolerance=1e-10)
    torch.testing.assert_close(together.weight[2, :, :4], fewer.weight[0], atol=1e-6, rtol=0)
    assert together.bias[2].isneginf().tolist() == [False] * 4 + [True] * 2
    assert int(together.predict(rows)[2].max()) == 3


def test_predictions_do_not_depend_on_the_units_of_the_features() -> None:
    rows, labels = clusters(400, 10, 5, spread=1.5)
    moved = rows * torch.linspace(0.01, 90.0, 10, dtype=torch.float64) - 40.0
    one, other = (
        fit_logistic(Design.of(x[:300], torch.float64), labels[None, :300], 5, tolerance=1e-10).predict(x[300:])
        for x in (rows, moved)
    )
    assert (one == other).all()


def test_feature_that_is_constant_in_training_can_do_nothing_in_the_test() -> None:
    rows, labels = clusters(400, 10, 5, spread=1.5)
    constant = torch.cat([rows, torch.full((400, 1), 1e4, dtype=torch.float64)], dim=1)
    constant[300:, -1] = 1e9
    plain, padded = (
        fit_logistic(Design.of(x[:300], torch.float64), labels[None, :300], 5, tolerance=1e-10)
        for x in (rows, constant)
    )
    assert (plain.predict(rows[300:]) == padded.predict(constant[300:])).all()
    assert padded.weight[0, -1].abs().max() < 1e-12


def test_leak_far_below_the_largest_entry_is_no_feature_and_a_small_feature_is_one() -> None:
    labels = torch.arange(200) % 4
    largest = torch.full((200, 1), 1e3).where(torch.arange(200)[:, None] % 3 > 0, torch.tensor(-1e3))
    for size, readable in ((1e-14, False), (1e-3, True)):
        rows = torch.cat([largest, size * torch.eye(4)[labels]], dim=1)
        hits = fit_logistic(Design.of(rows), labels[None], 4).predict(rows)[0] == labels
        assert bool(hits.all()) == readable


def test_repeated_features_share_their_weight_as_in_scikit_learn() -> None:
    rows, labels = clusters(300, 6, 4, spread=1.0)
    repeated = torch.cat([rows, rows[:, :3], rows[:, :1] - rows[:, 1:2]], dim=1)
    design = Design.of(repeated, torch.float64)
    assert design.rows.shape == (300, 6)
    fit = fit_logistic(design, labels[None], 4, tolerance=1e-9)
    oracle = LogisticRegression(tol=1e-10, max_iter=10_000)
    oracle.fit(StandardScaler().fit_transform(repeated.numpy()), labels.numpy())
    torch.testing.assert_close(fit.weight[0].T, torch.from_numpy(oracle.coef_), atol=1e-5, rtol=0)


def test_converges_on_features_of_steeply_falling_variance() -> None:
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(64, 64, generator=generator))[0]
    rows = (torch.randn(600, 64, generator=generator) * torch.logspace(0, -4, 64)) @ basis
    labels = torch.randint(0, 20, (2, 600), generator=generator)
    fit = fit_logistic(Design.of(rows), labels, 20)
    assert (fit.gradient_norm <= 1e-4).all()
    assert fit.iterations < 200


def test_fit_that_did_not_converge_is_an_error_that_names_the_cell() -> None:
    rows, labels = clusters(300, 8, 6, spread=1.0)
    with pytest.raises(ProbeNotConverged, match=r"L2\.resid_pre at equals 3.*after 2 iterations.*1 of 1 label sets"):
        fit_logistic(Design.of(rows), labels[None], 6, max_iterations=2, name="L2.resid_pre at equals 3, target s_3")


def test_bad_input_is_refused() -> None:
    rows, labels = clusters(50, 4, 3, spread=1.0)
    design = Design.of(rows)
    with pytest.raises(ValueError, match=r"must be there and lie in 0\.\.1"):
        fit_logistic(design, labels[None], 2)
    with pytest.raises(ValueError, match="must be positive"):
        fit_logistic(design, labels[None], 3, penalty=0.0)
    rows[3, 1] = torch.nan
    with pytest.raises(ValueError, match="1 of 50 training rows"):
        Design.of(rows)


def sweep(n: int) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Eight feature sets of four widths, some lacking axes, and two label sets for each."""
    generator = torch.Generator().manual_seed(0)
    features, labels = [], []
    for number, (d, classes) in enumerate([(4, 3), (6, 5), (16, 5), (16, 4), (17, 5), (20, 2), (20, 5), (20, 5)]):
        rows, truth = clusters(n, d, classes, spread=0.3 + 0.4 * number, seed=number)
        features.append(torch.cat([rows, rows[:, :2]], dim=1) if number % 2 else rows)
        labels.append(torch.stack([truth, truth[torch.randperm(n, generator=generator)]]))
    return features, torch.stack(labels)


@pytest.mark.parametrize("max_bytes", [1, 2**17, 2**30], ids=["one at a time", "a few", "all"])
def test_designs_solved_together_are_those_solved_alone(max_bytes: int) -> None:
    features, labels = sweep(120)
    designs = [Design.of(rows, torch.float64) for rows in features]
    together = fit_designs(designs, labels, 5, penalty=10.0, tolerance=1e-8, max_bytes=max_bytes)
    for design, sets, fit in zip(designs, labels, together, strict=True):
        alone = fit_logistic(design, sets, 5, penalty=10.0, tolerance=1e-8)
        assert fit.design is design
        assert (fit.gradient_norm <= 1e-8).all()
        torch.testing.assert_close(fit.weight, alone.weight, atol=1e-5, rtol=0)
        assert (fit.bias.isneginf() == alone.bias.isneginf()).all()


def test_sweep_agrees_with_scikit_learn_within_half_a_point() -> None:
    features, labels = sweep(360)
    train, test = slice(0, 260), slice(260, 360)
    designs = [Design.of(rows[train].float()) for rows in features]
    fits = fit_designs(designs, labels[..., train], 5)
    theirs, ours = [], []
    for rows, sets, fit in zip(features, labels, fits, strict=True):
        scaler = StandardScaler().fit(rows[train].numpy())
        predicted = fit.predict(rows[test].float())
        for number, truth in enumerate(sets):
            two = len(truth[train].unique()) == 2
            oracle = LogisticRegression(C=0.5 if two else 1.0, tol=1e-8, max_iter=10_000)
            oracle.fit(scaler.transform(rows[train].numpy()), truth[train].numpy())
            theirs.append(oracle.score(scaler.transform(rows[test].numpy()), truth[test].numpy()))
            ours.append(float((predicted[number] == truth[test]).double().mean()))
    assert max(ours) > 0.95
    assert min(ours) < 0.35
    # One test row in a hundred may be on the border at the default tolerance, in one fit of the sixteen.
    assert abs(torch.tensor(ours) - torch.tensor(theirs)).mean() < 0.005
    assert abs(torch.tensor(ours) - torch.tensor(theirs)).max() < 0.0101


def test_the_design_that_does_not_converge_is_the_one_named() -> None:
    rows, labels = clusters(300, 8, 6, spread=1.0)
    easy = Design.of(torch.zeros(300, 8, dtype=torch.float64))
    hard = Design.of(rows)
    # Without features only the biases are left, which a handful of steps finds.
    with pytest.raises(ProbeNotConverged, match=r"^hard: .*1 of 1 label sets"):
        fit_designs(
            [easy, hard],
            labels[None, None].expand(2, 1, -1),
            6,
            max_iterations=8,
            tolerance=1e-6,
            names=["easy", "hard"],
        )


def test_equal_rows_are_held_once_and_change_nothing() -> None:
    rows, labels = clusters(60, 8, 4, spread=2.0)
    number = torch.randint(0, 60, (400,), generator=torch.Generator().manual_seed(1))
    truth = torch.where(torch.arange(400) % 3 > 0, labels[number], torch.arange(400) % 4)
    design = Design.of(rows[number], torch.float64)
    assert len(design.distinct) == len(number.unique()) < 61
    assert design.rows.shape == (400, 8)
    torch.testing.assert_close(design.rows @ design.rotation.T, design.standardized(rows[number]))
    fit = fit_logistic(design, truth[None], 4, tolerance=1e-9)
    oracle = LogisticRegression(tol=1e-10, max_iter=10_000)
    oracle.fit(StandardScaler().fit_transform(rows[number].numpy()), truth.numpy())
    torch.testing.assert_close(fit.weight[0].T, torch.from_numpy(oracle.coef_), atol=1e-5, rtol=0)
    # A row that differs in one entry alone is another row.
    changed = rows[number].clone()
    changed[0, 3] += 1e-9 * changed[:, 3].std()
    assert len(Design.of(changed, torch.float64).distinct) == len(design.distinct) + 1


def test_renamed_labels_are_fitted_once_and_the_work_is_counted_once() -> None:
    rows, labels = clusters(300, 8, 6, spread=1.0)
    design, naming = Design.of(rows, torch.float64), torch.tensor([3, 5, 0, 2, 4, 1])
    both = fit_logistic(design, torch.stack([labels, naming[labels]]), 6, tolerance=1e-9)
    alone = fit_logistic(design, labels[None], 6, tolerance=1e-9)
    assert (both.weight[0] == both.weight[1][:, naming]).all()
    assert (both.bias[0] == both.bias[1][naming]).all()
    torch.testing.assert_close(both.weight[:1], alone.weight, atol=1e-6, rtol=0)
    assert both.flops == alone.flops == 4 * 300 * 9 * 6 * alone.iterations


def test_label_sets_of_any_number_of_classes_go_together() -> None:
    rows, labels = clusters(300, 8, 6, spread=1.0)
    design = Design.of(rows, torch.float64)
    sets = [labels, labels.clamp(max=4), labels % 2]
    parts = [Partitions.of(one[None], int(one.max()) + 1) for one in sets]
    options = {"penalty": 1.0, "tolerance": 1e-9, "max_iterations": 500, "names": ["a", "b", "c"], "max_bytes": 2**30}
    found = dict(solve([design] * 3, parts, **options))
    for number, one in enumerate(sets):
        alone = fit_logistic(design, one[None], int(one.max()) + 1, tolerance=1e-9)
        torch.testing.assert_close(found[number].weight, alone.weight, atol=1e-6, rtol=0)


def test_by_hand() -> None:
    # The second set renames the classes of the first (2 -> 1, 0 -> 3); the third joins two of them.
    labels = torch.tensor([[2, 0, 2, 0, 1], [1, 3, 1, 3, 0], [2, 0, 2, 0, 0]])
    found = Partitions.of(labels, 4)
    assert found.codes.tolist() == [[0, 1, 0, 1, 2], [0, 1, 0, 1, 1]]
    assert found.same.tolist() == [0, 0, 1]
    assert found.sizes.tolist() == [3, 2]
    assert found.n_classes == 3
    # Two places, the first with rows 0 to 2: of class 0 two and none, of class 1 one and one, of class 2 one later.
    counts = found.counts(torch.tensor([0, 0, 0, 1, 1]), 2, 3)
    assert counts.tolist() == [[[2, 0], [1, 1], [0, 1]], [[2, 0], [1, 2], [0, 0]]]


def test_columns_return_to_their_classes() -> None:
    labels = torch.tensor([[2, 0, 2, 0, 1], [1, 3, 1, 3, 0]])
    found = Partitions.of(labels, 4)
    weight, bias = found.expanded(torch.tensor([[[10.0, 20.0, 30.0]]]), torch.tensor([[1.0, 2.0, 3.0]]))
    assert weight.tolist() == [[[20.0, 30.0, 10.0, 0.0]], [[30.0, 10.0, 0.0, 20.0]]]
    assert bias.tolist() == [[2.0, 3.0, 1.0, -torch.inf], [3.0, 1.0, -torch.inf, 2.0]]


def test_random_labels_agree_row_by_row() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 5, (6, 40), generator=generator)
    labels[4] = torch.randperm(5, generator=generator)[labels[1]]
    found = Partitions.of(labels, 7)
    assert found.same.tolist() == [0, 1, 2, 3, 1, 4]
    for row, own, column in zip(labels, found.same, found.column, strict=True):
        assert (column[row] == found.codes[own]).all()
