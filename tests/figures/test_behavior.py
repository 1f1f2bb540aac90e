"""Accuracy, errors, trace edits: what is drawn is what the table says."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from cotinterp.behavior.edit_kinds import ALL_EDITS, NONE, SHUFFLED
from cotinterp.behavior.edit_kinds import SUBSTITUTE as SUBSTITUTE_EDIT
from cotinterp.behavior.edits import RESUMED as RESUMED_OUTCOME
from cotinterp.figures.behavior import accuracy_figure, errors_figure
from cotinterp.figures.edits import (
    CHANCE,
    CONTROL,
    EDIT_WORDS,
    RESUMED,
    SUBSTITUTE,
    edit_groups,
    edit_kinds_figure,
    edit_words,
    of_edit,
    trace_edits_figure,
)
from cotinterp.report import ReportInputs


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


def test_without_replaced_totals_every_edit_has_a_panel_with_its_own_chance(inputs: ReportInputs) -> None:
    frame = inputs.tables["trace_edits"].query("task == 's3'")
    swapped = frame.query("edit == 'substitute_total'").assign(edit="swap")
    chance = frame.query("edit == 'shuffled_target'").assign(edit="shuffled_target:swap", rate=0.5)
    figure = trace_edits_figure(pd.concat([swapped, chance, swapped.assign(edit="truncate")]))
    assert [title.text.split(": ")[1] for title in figure.layout.annotations] == [
        edit_words("swap"),
        "the trace is closed early",
    ]
    (line,) = (trace for trace in figure.data if trace.name == "chance that it follows")
    assert set(line.y) == {0.5}


@pytest.fixture
def frame(inputs: ReportInputs) -> pd.DataFrame:
    return inputs.tables["trace_edit_kinds"].query("task == 's3'")


def drawn(frame: pd.DataFrame) -> tuple[list[go.Bar], list[str]]:
    """The bars of a figure, and what is written at each place of its vertical axis."""
    figure = edit_kinds_figure(frame)
    return [trace for trace in figure.data if trace.type == "bar"], list(figure.layout.yaxis.ticktext)


def test_words_and_names_are_those_of_the_library() -> None:
    assert {kind.name: kind.description for kind in ALL_EDITS} == EDIT_WORDS
    assert edit_words("my_own_edit") == "my own edit"
    assert (SUBSTITUTE, CONTROL, CHANCE, RESUMED) == (SUBSTITUTE_EDIT, NONE, SHUFFLED, RESUMED_OUTCOME)


def test_kinds_are_grouped_by_what_is_left_to_be_written(frame: pd.DataFrame) -> None:
    assert edit_groups(frame) == {
        "open": ["substitute_total", "swap_prefix", "none"],
        "closed": ["truncate", "swap", "none"],
        "filled": ["fill_totals"],
    }
    closed = {kind.name for kind in ALL_EDITS if kind.closed}
    assert not closed & {"substitute_total", "swap_prefix"}
    assert closed >= {"truncate", "swap", "fill_totals"}
    assert edit_groups(frame[frame["edit"].isin(["swap", "none"])]) == {"closed": ["swap", "none"]}


def test_each_bar_is_whole_and_other_is_without_the_part_that_went_on(frame: pd.DataFrame) -> None:
    bars, labels = drawn(frame)
    total: dict[float, float] = {}
    for bar in bars:
        for place, share in zip(bar.y, bar.x, strict=True):
            total[place] = total.get(place, 0.0) + share
    assert len(total) == 7 + 5
    assert list(total.values()) == pytest.approx([1.0] * len(total))
    place = labels.index("filler stands for every written total")
    went_on, other = (
        next(bar for bar in bars if bar.legendgroup == name and bar.showlegend) for name in ("resumed", "other")
    )
    rates = of_edit(frame, "fill_totals", "filled").set_index("outcome")["rate"]
    shares = [dict(zip(bar.y, bar.x, strict=True))[place - 0.08] for bar in (went_on, other)]
    assert shares == pytest.approx([rates["resumed"], rates["other"] - rates["resumed"]])


def test_chance_is_that_of_the_kind_and_the_controls_have_none(frame: pd.DataFrame) -> None:
    bars, labels = drawn(frame)
    chance = next(bar for bar in bars if bar.legendgroup == "follows" and not bar.showlegend)
    assert list(chance.x) == [0.1] * 4
    places = {round(place - 0.34) for place in chance.y}
    assert {labels[place] for place in places} == {
        edit_words(edit) for edit in ("substitute_total", "swap_prefix", "truncate", "swap")
    }


def test_a_second_model_gets_a_panel(frame: pd.DataFrame) -> None:
    figure = edit_kinds_figure(pd.concat([frame, frame[frame["edit"] != "swap"].assign(regime="noisy")]))
    assert [title.text for title in figure.layout.annotations] == ["<b>cot</b>, seed 0", "<b>noisy</b>, seed 0"]
    assert sum(bool(trace.showlegend) for trace in figure.data) == 4


def test_two_tasks_in_one_figure_are_refused_by_name(inputs: ReportInputs) -> None:
    figures = {
        "accuracy": accuracy_figure,
        "errors": errors_figure,
        "trace_edits": trace_edits_figure,
        "trace_edit_kinds": edit_kinds_figure,
    }
    for table, figure in figures.items():
        with pytest.raises(ValueError, match=r"one task.*digit-sum.*s3"):
            figure(inputs.tables[table])
