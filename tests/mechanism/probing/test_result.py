"""The table has the promised columns and the sums in it hold; the picture shows left-out cells as missing."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from cotinterp.mechanism.probing.controls import Controls, hold_out
from cotinterp.mechanism.probing.fit import fit_probes
from cotinterp.mechanism.probing.linear_probe import ProbedAt
from cotinterp.mechanism.probing.result import ProbeResult
from cotinterp.mechanism.sites import Site

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
