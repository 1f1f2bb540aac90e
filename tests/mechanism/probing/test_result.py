"""The table has the promised columns and the sums in it hold; the picture shows left-out cells as missing."""

from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from cotinterp.mechanism.probing.controls import Controls, hold_out, renamed_totals, renamings
from cotinterp.mechanism.probing.coordinates import coordinates
from cotinterp.mechanism.probing.fit import Target, fit_probes
from cotinterp.mechanism.probing.linear_probe import ProbedAt
from cotinterp.mechanism.probing.result import ProbeResult
from cotinterp.mechanism.sites import Site
from cotinterp.tasks import get_task

COLUMNS = [
    *("task", "regime", "run_seed", "model", "site", "kind", "layer", "head", "role", "step", "target", "left_out"),
    *("n_train", "n_test", "accuracy", "control_accuracy", "selectivity", "chance", "ci_low", "ci_high"),
]


@pytest.fixture(scope="module")
def result() -> ProbeResult:
    rng = np.random.default_rng(0)
    truth, other = rng.integers(0, 4, size=(2, 200))
    train = hold_out(np.arange(200))
    rows = torch.eye(4)[torch.from_numpy(truth)] + 0.1 * torch.from_numpy(rng.normal(size=(200, 4))).float()
    labels: dict[str, str | int] = {"task": "s3", "regime": "cot", "run_seed": 0}
    at = {
        step: [ProbedAt(site=Site("resid_pre", layer), role="equals", step=step) for layer in range(2)]
        for step in (1, 2)
    }
    first = fit_probes(dict.fromkeys(at[1], rows), {"s_1": truth, "s_2": other}, train, controls=Controls(n_controls=2))
    second = fit_probes(dict.fromkeys(at[2], rows), {"s_2": other}, train)
    return ProbeResult(first.cells + second.cells, labels)


def test_table_by_hand(result: ProbeResult) -> None:
    frame = result.frame()
    assert list(frame.columns) == COLUMNS
    assert len(frame) == 6
    for row, cell in zip(frame.to_dict("records"), result.cells, strict=True):
        assert row["accuracy"] == (cell.predicted == cell.truth).mean()
        assert row["control_accuracy"] == np.mean(cell.control_predicted == cell.control_truth)
        assert row["selectivity"] == row["accuracy"] - row["control_accuracy"]
        assert row["ci_low"] <= row["accuracy"] <= row["ci_high"]
        assert (row["n_train"], row["n_test"]) == (150, 50)
    assert frame["target"].tolist() == ["s_1", "s_2", "s_1", "s_2", "s_2", "s_2"]
    assert frame["layer"].tolist() == [0, 0, 1, 1, 0, 1]


def test_detail_brackets_the_selectivity(result: ProbeResult) -> None:
    detail = result.detail()
    assert (detail["selectivity_low"] <= detail["selectivity"]).all()
    assert (detail["selectivity"] <= detail["selectivity_high"]).all()
    assert detail["place"].tolist() == ["equals 1"] * 4 + ["equals 2"] * 2
    assert (detail["seen"] == 0).all()


def test_accuracy_can_be_recomputed_from_the_predictions(result: ProbeResult) -> None:
    table = result.predictions()
    by_cell = table.assign(hit=table["truth"] == table["predicted"]).groupby(["layer", "step", "target"])["hit"].mean()
    frame = result.frame().set_index(["layer", "step", "target"])["accuracy"]
    pd.testing.assert_series_equal(by_cell.sort_index(), frame.sort_index(), check_names=False)


@pytest.mark.parametrize("measure", ["selectivity", "accuracy"])
def test_picture_has_every_cell_in_its_place_and_gaps_where_nothing_was_probed(
    result: ProbeResult, measure: str
) -> None:
    figure = result.figure(measure)
    grids = [np.array(trace.z, dtype=float) for trace in figure.data if trace.type == "heatmap" and trace.coloraxis]
    s_1, s_2 = (grid for grid in grids if grid.shape == (2, 2))
    frame = result.frame().set_index(["target", "step", "layer"])[measure]
    np.testing.assert_allclose(s_1, [[frame["s_1", 1, layer], np.nan] for layer in (1, 0)], rtol=1e-6)
    np.testing.assert_allclose(s_2, [[frame["s_2", 1, layer], frame["s_2", 2, layer]] for layer in (1, 0)], rtol=1e-6)
    assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == (0.0 if measure == "accuracy" else -1.0, 1.0)


def test_saved(result: ProbeResult, tmp_path: Path) -> None:
    table, page = result.save(tmp_path, "probes")
    pd.testing.assert_frame_equal(pd.read_csv(table), result.frame())
    assert "selectivity of linear probes" in page.read_text()


Z6 = get_task("z6")
PAIRS = np.array(list(product(range(6), repeat=2)))
ONE_HOT = torch.eye(6)


def ignorant(operands: np.ndarray, seed: int) -> torch.Tensor:
    """Random features of the unordered operands: what an untrained average of embeddings has, and no arithmetic."""
    generator = torch.Generator().manual_seed(seed)
    bag = sum(ONE_HOT[torch.from_numpy(column)] for column in operands.T)
    return torch.relu(bag @ torch.randn(6, 30, generator=generator))


def scanned(features: dict[str, torch.Tensor], operands: np.ndarray, seed: int, n_controls: int = 1) -> ProbeResult:
    names = renamings(Z6, operands, 19, rng=np.random.default_rng([seed, 2]))
    return fit_probes(
        {ProbedAt(site=name): rows for name, rows in features.items()},
        {"s_1": Target(truth=Z6.steps(operands).total[:, 0], renamed=renamed_totals(Z6, operands, 1, names))},
        hold_out(np.arange(len(operands)), seed=seed),
        groups=np.arange(len(operands)),
        controls=Controls(n_controls=n_controls, n_shuffles=0, seed=seed),
    )


def twice(seed: int) -> np.ndarray:
    """Every ordered pair of operands twice, less a few: enough rows, and each pair has its mirror image."""
    return np.random.default_rng(seed).permutation(np.concatenate([PAIRS, PAIRS]))[:66]


def test_what_knows_the_names_is_flagged_and_noise_beside_it_is_not() -> None:
    operands = twice(0)
    known = ONE_HOT[torch.from_numpy(operands.sum(1) % 6)]
    noise = torch.randn(66, 6, generator=torch.Generator().manual_seed(0))
    scan = scanned({"known": known, "bag": ignorant(operands, 0), "noise": noise}, operands, 0).scan()
    table = scan.frame().set_index("site")
    assert table["flagged"].to_dict() == {"known": True, "bag": False, "noise": False}
    assert table.loc["known", "p_adjusted"] == 1 / 20
    assert table.loc["known", "accuracy"] == 1.0
    assert (table["n_null"] == 19).all()
    assert (table["null_max"] >= table["null_mean"]).all()


def test_level_is_kept_without_knowledge_and_random_labels_would_not_keep_it() -> None:
    flagged = {"renamed": 0, "control": 0}
    for seed in range(14):
        operands = twice(seed)
        features = {"a": ignorant(operands, seed), "b": ignorant(operands, 100 + seed)}
        flagged["renamed"] += int(scanned(features, operands, seed).scan().frame()["flagged"].any())
        if seed < 6:
            known = scanned(features, operands, seed, n_controls=19)
            flagged["control"] += int(known.scan(null="control").frame()["flagged"].any())
    # Binomial: more than 4 of 14 at a true 5% happens once in 2,000 times.
    assert flagged["renamed"] <= 4
    # Sums do not depend on the order, and these features cannot see it: no knowledge is needed to do well at s_1.
    assert flagged["control"] >= 4


def test_coordinates_share_their_draws_and_are_corrected_together() -> None:
    task = get_task("digit-sum")
    operands = np.array(list(product(range(10), repeat=2)))
    total = task.steps(operands).total[:, 0]
    parity_alone = torch.cat([ONE_HOT[:2][torch.from_numpy(total % 2)], torch.randn(100, 4)], dim=1)
    names = renamings(task, operands, 19, rng=np.random.default_rng(0))
    result = fit_probes(
        {"x": parity_alone},
        {"s_1": Target(truth=total, renamed=renamed_totals(task, operands, 1, names))},
        hold_out(np.arange(100)),
        groups=np.arange(100),
        coordinates=coordinates(task),
        controls=Controls(n_controls=2),
    )
    table = result.scan().frame().set_index("target")
    assert table["flagged"].to_dict() == {
        "s_1": False,
        "parity of s_1": True,
        "units of s_1": False,
        "tens of s_1": False,
    }
    value, parity, units, _ = result.cells
    assert (value.control_truth % 2 == parity.control_truth).all()
    assert (value.control_truth % 10 == units.control_truth).all()


def test_a_parity_of_six_symbols_has_too_few_other_names_to_be_found() -> None:
    # Ten ways of splitting six symbols into two halves of three: one in ten namings has the true one's parity.
    operands = np.array(list(product(range(6), repeat=3)))
    names = renamings(Z6, operands, 39, rng=np.random.default_rng(0))
    total = Z6.steps(operands).total[:, 1]
    result = fit_probes(
        {"x": ONE_HOT[:2][torch.from_numpy(total % 2)]},
        {"s_2": Target(truth=total % 2, renamed=renamed_totals(Z6, operands, 2, names) % 2)},
        hold_out(np.arange(216)),
        groups=np.arange(216),
    )
    row = result.scan().frame().iloc[0]
    assert (row["accuracy"], row["null_max"], row["flagged"]) == (1.0, 1.0, False)


def test_circles_report_how_much_they_explain() -> None:
    total = twice(0).sum(1) % 6
    angle = 2 * np.pi * total / 6
    rows = torch.from_numpy(np.stack([np.cos(angle), np.sin(angle)], axis=1)).float()
    result = fit_probes(
        {"x": rows},
        {"s_1": total},
        hold_out(np.arange(66)),
        groups=np.arange(66),
        coordinates=coordinates(Z6),
        controls=Controls(n_controls=4),
    )
    table = result.detail().set_index("target")
    assert table.loc["fourier 1 of s_1", ["accuracy", "r_squared"]].tolist() == pytest.approx([1.0, 1.0], abs=2e-3)
    assert table.loc["fourier 2 of s_1", "r_squared"] < 0.2
    assert (table["control_r_squared"].dropna() < 0.3).all()
    assert table["r_squared"].isna().tolist() == [True, True, False, False]


def test_too_few_or_unequal_labelings_are_refused() -> None:
    operands = twice(0)
    result = scanned({"a": ignorant(operands, 0)}, operands, 0)
    with pytest.raises(ValueError, match=r"19 renamed labelings.*at level 0.01 .* fewer than 99.*n_renamings"):
        result.scan(0.01)
    with pytest.raises(ValueError, match=r"1 control labelings.*n_controls of 19"):
        result.scan(null="control")
    each = np.arange(66)
    plain = fit_probes({"a": ignorant(operands, 0)}, {"s_1": operands.sum(1) % 6}, hold_out(each), groups=each)
    with pytest.raises(ValueError, match="0 renamed labelings"):
        plain.scan()
    with pytest.raises(ValueError, match="strictly between"):
        result.scan(1.0)
    more = fit_probes(
        {"b": ignorant(operands, 0)},
        {"s_1": operands.sum(1) % 6},
        hold_out(np.arange(66)),
        groups=np.arange(66),
        controls=Controls(n_controls=20),
    )
    joined = ProbeResult(scanned({"a": ignorant(operands, 0)}, operands, 0, n_controls=19).cells + more.cells)
    with pytest.raises(ValueError, match=r"\[19, 20\] control labelings"):
        joined.scan(null="control")


def test_models_are_scanned_one_by_one_and_the_baseline_is_left_out() -> None:
    operands = twice(0)
    known = ONE_HOT[torch.from_numpy(operands.sum(1) % 6)]
    names = renamings(Z6, operands, 19, rng=np.random.default_rng(0))
    at = [ProbedAt(site="x", model=model) for model in ("trained", "untrained")]
    result = fit_probes(
        {at[0]: known, at[1]: ignorant(operands, 0), ProbedAt(site="input"): known},
        {"s_1": Target(truth=operands.sum(1) % 6, renamed=renamed_totals(Z6, operands, 1, names))},
        hold_out(np.arange(66)),
        groups=np.arange(66),
        labels={"task": "z6"},
    )
    scan = result.scan()
    assert scan.frame()[["task", "model", "flagged"]].values.tolist() == [
        ["z6", "trained", True],
        ["z6", "untrained", False],
    ]
    assert scan.skipped == 1
    grids = [
        np.array(trace.z, dtype=float) for trace in scan.figure().data if trace.type == "heatmap" and trace.coloraxis
    ]
    assert sorted(float(grid[0, 0]) for grid in grids if np.isfinite(grid).all()) == [1.0]
