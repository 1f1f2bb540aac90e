"""Errors and trace edits: counts add up, rates are the table's, chance is drawn from its own rows."""

import numpy as np
import pandas as pd
import pytest

from cotinterp.report import ReportInputs, errors_figure, trace_edits_figure


def test_stacked_bars_add_up_to_the_faulty_outputs_written_above_them(inputs: ReportInputs) -> None:
    frame = inputs.tables["errors"].query("task == 'digit-sum'")
    figure = errors_figure(frame)
    texts = [trace for trace in figure.data if trace.type == "scatter"]
    for text, regime in zip(texts, ("direct", "cot"), strict=True):
        bars = [trace for trace in figure.data if trace.type == "bar" and trace.xaxis == text.xaxis]
        heights = np.sum([bar.y for bar in bars], axis=0)
        faulty = frame[(frame["regime"] == regime) & (frame["category"] != "correct")]
        rows = faulty.groupby("k")["count"].sum()
        np.testing.assert_array_equal(heights, rows)
        np.testing.assert_array_equal(text.y, rows)
        assert list(text.text) == [f"{count} of 1000" for count in rows]


def test_every_category_with_a_count_stands_in_the_legend_once(inputs: ReportInputs) -> None:
    frame = inputs.tables["errors"].query("task == 's3'")
    shown = [trace.name for trace in errors_figure(frame).data if trace.type == "bar" and trace.showlegend]
    categories = frame.query("category != 'correct' and count > 0")["category"].unique()
    assert sorted(shown) == sorted(name.replace("_", " ") for name in categories)


def test_a_model_without_faults_gets_an_empty_panel_not_an_error() -> None:
    row = {"task": "s3", "regime": "cot", "run_seed": 0, "category": "correct", "count": 50, "share": 1.0}
    figure = errors_figure(pd.DataFrame([row | {"k": k} for k in (2, 3)]))
    assert [trace.type for trace in figure.data] == ["scatter"]
    assert list(figure.data[0].text) == ["0 of 50", "0 of 50"]


def test_edit_bars_are_the_rates_and_intervals_of_the_table(inputs: ReportInputs) -> None:
    frame = inputs.tables["trace_edits"].query("task == 's3'")
    figure = trace_edits_figure(frame)
    follows = next(trace for trace in figure.data if trace.type == "bar" and trace.name == "follows")
    rows = frame.query("edit == 'substitute_total' and outcome == 'follows'")
    np.testing.assert_allclose(follows.y, rows["rate"])
    np.testing.assert_allclose(follows.y + follows.error_y.array, rows["ci_high"])


def test_chance_is_the_shuffled_rows_and_not_a_panel_of_its_own(inputs: ReportInputs) -> None:
    frame = inputs.tables["trace_edits"].query("task == 's3'")
    figure = trace_edits_figure(frame)
    chance = next(trace for trace in figure.data if trace.name == "chance that it follows")
    rows = frame.query("edit == 'shuffled_target' and outcome == 'follows'")
    np.testing.assert_allclose(chance.y, rows["rate"])
    titles = [annotation.text for annotation in figure.layout.annotations]
    assert len(titles) == 2
    assert any("control" in title for title in titles)


def test_the_figure_by_step_is_of_replaced_totals_alone(inputs: ReportInputs) -> None:
    frame = inputs.tables["trace_edits"].query("task == 's3'")
    whole = frame.query("edit == 'none' and step == 1").assign(step=-1, rate=0.0)
    swapped = frame.query("edit == 'substitute_total'").assign(edit="swap")
    chance = frame.query("edit == 'shuffled_target'").assign(edit="shuffled_target:swap", rate=1.0)
    assert trace_edits_figure(pd.concat([frame, whole, swapped, chance])) == trace_edits_figure(frame)
    with pytest.raises(ValueError, match=r"no substitute_total in the table, only \['swap'\]"):
        trace_edits_figure(swapped)


def test_two_tasks_in_one_figure_are_refused(inputs: ReportInputs) -> None:
    for figure, table in ((errors_figure, "errors"), (trace_edits_figure, "trace_edits")):
        with pytest.raises(ValueError, match="one task"):
            figure(inputs.tables[table])
