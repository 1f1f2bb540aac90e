"""Accuracy by K: what is drawn is what the table says, and illustrations look like nothing that was measured."""

import numpy as np
import pytest

from cotinterp.report import ReportInputs, accuracy_figure, illustrative_accuracy


def test_markers_and_whiskers_are_the_rates_and_intervals_of_the_table(inputs: ReportInputs) -> None:
    frame = inputs.tables["accuracy"].query("task == 's3'")
    traces = {trace.name: trace for trace in accuracy_figure(frame).data}
    assert set(traces) == {"direct, held-out", "direct, train", "cot, held-out", "cot, train"}
    rows = frame.query("regime == 'direct' and split == 'heldout'").sort_values("k")
    drawn = traces["direct, held-out"]
    np.testing.assert_allclose(drawn.y, rows["accuracy"])
    np.testing.assert_allclose(drawn.y + drawn.error_y.array, rows["ci_high"])
    np.testing.assert_allclose(drawn.y - drawn.error_y.arrayminus, rows["ci_low"])
    np.testing.assert_allclose(np.round(np.asarray(drawn.x)), rows["k"])


def test_regimes_differ_in_color_and_marker_and_splits_in_dash(inputs: ReportInputs) -> None:
    traces = {trace.name: trace for trace in accuracy_figure(inputs.tables["accuracy"].query("task == 's3'")).data}
    direct, cot, train = (traces[name] for name in ("direct, held-out", "cot, held-out", "cot, train"))
    assert direct.line.color != cot.line.color
    assert direct.marker.symbol != cot.marker.symbol
    assert (train.line.color, train.marker.symbol) == (cot.line.color, cot.marker.symbol)
    assert train.line.dash != cot.line.dash


def test_the_sources_numbers_are_hollow_markers_of_its_own_task_only(inputs: ReportInputs) -> None:
    for task, expected in (("digit-sum", 2), ("s3", 0)):
        frame = inputs.tables["accuracy"]
        figure = accuracy_figure(frame[frame["task"] == task])
        drawn = [trace for trace in figure.data if "illustrative" in trace.name]
        assert len(drawn) == expected
        for trace in drawn:
            assert "not measured" in trace.name
            assert trace.mode == "markers"
            assert trace.marker.symbol.endswith("-open")


def test_the_sources_numbers() -> None:
    table = illustrative_accuracy("digit-sum").pivot(index="k", columns="regime", values="accuracy")
    assert table["direct"].tolist() == [0.95, 0.80, 0.55, 0.30, 0.15]
    assert table["cot"].tolist() == [0.98, 0.96, 0.94, 0.92, 0.90]
    assert table.index.tolist() == [2, 3, 4, 5, 6]
    assert illustrative_accuracy("parity").empty


def test_two_tasks_in_one_figure_are_refused_by_name(inputs: ReportInputs) -> None:
    with pytest.raises(ValueError, match=r"one task.*digit-sum.*s3"):
        accuracy_figure(inputs.tables["accuracy"])
