"""The forest: every number in its place, on the side where it lies, in the unit that the row is named with."""

import pandas as pd
import plotly.graph_objects as go
import pytest

from cotinterp.figures.claims import MARKS, forest

NAN = float("nan")
COLUMNS = [
    "claim",
    "task",
    "criterion",
    "words",
    "unit",
    "predicted",
    "threshold",
    "estimate",
    "ci_low",
    "ci_high",
    "state",
]


def criteria() -> pd.DataFrame:
    rows = [
        ("a", "s3", "gain", "what is gained", "points", "above", 0.1, 0.3, 0.2, 0.5, "holds"),
        ("a", "z6", "gain", "what is gained", "points", "above", 0.1, NAN, NAN, NAN, "not measured"),
        ("a", "s3", "loss", "what is lost", "nats", "below", 1.0, 2.0, 1.5, 2.5, "fails"),
        ("a", "z6", "loss", "what is lost", "nats", "below", 1.0, 0.9, 0.5, 1.3, "open"),
        ("b", "s3", "share", "what is shared", "", "", 0.5, 0.7, 0.6, 0.8, "above"),
        ("b", "z6", "share", "what is shared", "", "", 0.5, 0.2, 0.1, 0.3, "below"),
    ]
    return pd.DataFrame(rows, columns=COLUMNS).assign(n=100, seeds=2)


def seeds() -> pd.DataFrame:
    rows = [("a", "s3", "gain", seed, value) for seed, value in enumerate((0.25, 0.35))]
    return pd.DataFrame(rows, columns=["claim", "task", "criterion", "run_seed", "estimate"])


@pytest.fixture(scope="module")
def figure() -> go.Figure:
    return forest(criteria(), seeds())


def drawn(figure: go.Figure, state: str) -> list[go.Scatter]:
    """The estimates with the mark of one state; the legend's entry has no place."""
    symbol, _ = MARKS[state]
    return [one for one in figure.data if one.marker.symbol == symbol and one.x[0] is not None]


def test_estimate_interval_and_threshold_stand_where_they_are_points_a_hundredfold(figure: go.Figure) -> None:
    (gain,) = drawn(figure, "holds")
    assert list(gain.x) == pytest.approx([30])
    assert (gain.error_x.array[0], gain.error_x.arrayminus[0]) == pytest.approx((20, 10))
    (loss,) = drawn(figure, "fails")
    assert list(loss.x) == [2.0]
    lines = {(shape.xref, shape.x0) for shape in figure.layout.shapes if shape.type == "line"}
    assert lines == {("x", 10), ("x2", 10), ("x3", 1), ("x4", 1), ("x5", 0.5), ("x6", 0.5)}


def test_the_shade_covers_the_predicted_side_and_none_where_nothing_is_predicted(figure: go.Figure) -> None:
    shades = {shape.xref: shape for shape in figure.layout.shapes if shape.type == "rect"}
    assert set(shades) == {"x", "x2", "x3", "x4"}
    assert shades["x"].x1 == figure.layout.xaxis.range[1] > shades["x"].x0 == 10
    assert shades["x3"].x1 == figure.layout.xaxis3.range[0] < shades["x3"].x0 == 1


def test_a_row_has_one_axis_for_all_tasks_with_everything_on_it(figure: go.Figure) -> None:
    assert figure.layout.xaxis.range == figure.layout.xaxis2.range
    low, high = figure.layout.xaxis.range
    assert low < 10 < 50 < high
    assert figure.layout.xaxis3.range == figure.layout.xaxis4.range != figure.layout.xaxis.range


def test_every_seed_is_a_ring(figure: go.Figure) -> None:
    rings = [one for one in figure.data if one.marker.symbol == "circle-open" and len(one.x) == 2]
    assert [list(one.x) for one in rings] == [pytest.approx([25, 35])]
    assert [list(one.customdata[:, 0]) for one in rings] == [[0, 1]]


def test_states_differ_in_shape_and_the_legend_names_those_that_occur(figure: go.Figure) -> None:
    assert len({symbol for symbol, _ in MARKS.values()}) == len(MARKS)
    names = [one.name for one in figure.data if one.showlegend is None and one.name]
    assert names == ["holds", "fails", "open", "above, not predicted", "below, not predicted", "one seed", "threshold"]
    few = forest(criteria().head(1), seeds())
    assert [one.name for one in few.data if one.name] == ["holds", "one seed", "threshold"]


def test_rows_and_columns_are_named_and_what_was_not_measured_is_said(figure: go.Figure) -> None:
    texts = [note.text for note in figure.layout.annotations]
    assert texts[:2] == ["<b>s3</b>", "<b>z6</b>"]
    assert texts.count("not measured") == 1
    labels = [text.split("<br>")[0] for text in texts[3:]]
    assert labels == ["<b>a</b>: gain (points)", "loss (nats)", "<b>b</b>: share"]


def test_a_criterion_that_one_task_was_not_asked_about_says_so() -> None:
    texts = [note.text for note in forest(criteria().head(3), seeds()).layout.annotations]
    assert texts.count("not asked") == 1


def test_nothing_to_draw_is_said() -> None:
    with pytest.raises(ValueError, match="no criterion was judged"):
        forest(criteria().head(0), seeds())
