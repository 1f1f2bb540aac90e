import numpy as np
import pandas as pd
import pytest

from cotinterp.figures import PALETTE, lines

ACCURACY = pd.DataFrame(
    {
        "k": [3, 2, 2, 3, 2],
        "regime": ["direct", "direct", "cot", "cot", "cot"],
        "split": ["train", "train", "train", "train", "heldout"],
        "accuracy": [0.5, 0.75, 1.0, 0.875, 0.25],
        "low": [0.25, 0.5, 0.9, 0.5, 0.125],
        "high": [0.625, 1.0, 1.0, 1.0, 0.5],
    }
)


def test_a_line_per_color_and_dash_in_the_order_of_x() -> None:
    figure = lines(ACCURACY, x="k", y="accuracy", low="low", high="high", color="regime", dash="split", title="")
    assert [line.name for line in figure.data] == ["direct, train", "cot, train", "cot, heldout"]
    assert [line.line.color for line in figure.data] == [PALETTE[0], PALETTE[1], PALETTE[1]]
    assert [line.line.dash for line in figure.data] == ["solid", "solid", "dash"]
    assert len({line.marker.symbol for line in figure.data}) == 2
    direct = figure.data[0]
    assert list(direct.x) == [2, 3]
    assert list(direct.y) == [0.75, 0.5]
    assert list(direct.error_y.array) == [0.25, 0.125]
    assert list(direct.error_y.arrayminus) == [0.25, 0.25]


def test_many_points_have_a_band_from_low_to_high() -> None:
    steps = np.arange(100.0)
    table = pd.DataFrame({"step": steps, "loss": steps, "low": steps - 1, "high": steps + 2})
    line, band = lines(table, x="step", y="loss", low="low", high="high", title="").data
    assert line.error_y.array is None
    np.testing.assert_array_equal(band.x, [*steps, *steps[::-1]])
    np.testing.assert_array_equal(band.y, [*(steps + 2), *(steps[::-1] - 1)])
    assert band.fill == "toself"
    assert not band.showlegend


def test_each_series_is_in_the_legend_once_whichever_facet_has_it() -> None:
    table = pd.concat([ACCURACY[:2].assign(task="s3"), ACCURACY[:4].assign(task="z6")])
    figure = lines(table, x="k", y="accuracy", color="regime", facet="task", title="")
    assert [(line.name, line.showlegend) for line in figure.data] == [
        ("direct", True),
        ("direct", False),
        ("cot", True),
    ]
    assert not lines(ACCURACY[:2], x="k", y="accuracy", title="").data[0].showlegend


def test_numbers_keep_their_distances_and_text_its_order() -> None:
    far = pd.DataFrame({"k": [2, 20], "accuracy": [0.0, 1.0]})
    axis = lines(far, x="k", y="accuracy", title="").layout.xaxis
    assert axis.type != "category"
    assert list(axis.tickvals) == [2, 20]
    roles = pd.DataFrame({"role": ["total", "answer"], "accuracy": [0.0, 1.0]})
    axis = lines(roles, x="role", y="accuracy", title="").layout.xaxis
    assert axis.type == "category"
    assert list(axis.categoryarray) == ["total", "answer"]


def test_series_that_are_numbers_say_of_what() -> None:
    table = pd.DataFrame({"k": [2, 2], "layer": [0, 1], "accuracy": [0.0, 1.0]})
    assert [line.name for line in lines(table, x="k", y="accuracy", color="layer", title="").data] == [
        "layer 0",
        "layer 1",
    ]


def test_references_are_drawn_and_labeled_in_every_facet() -> None:
    table = pd.concat([ACCURACY[:2].assign(task="s3"), ACCURACY[:2].assign(task="z6")])
    figure = lines(table, x="k", y="accuracy", facet="task", title="", references={"chance": 0.1}, bounds=(0.0, 1.0))
    assert [(shape.y0, shape.y1) for shape in figure.layout.shapes] == [(0.1, 0.1)] * 2
    assert [note.text for note in figure.layout.annotations].count("chance") == 2
    low, high = figure.layout.yaxis.range
    assert low < 0 < 1 < high


def test_an_interval_has_two_ends() -> None:
    with pytest.raises(ValueError, match="two ends: got low='low' and high=None"):
        lines(ACCURACY, x="k", y="accuracy", low="low", title="")


def test_seeds_may_not_be_joined_into_a_zigzag() -> None:
    with pytest.raises(ValueError, match=r"rows hide another with the same \['k', 'regime'\]"):
        lines(ACCURACY, x="k", y="accuracy", color="regime", title="")


def test_the_marks_of_an_axis_are_its_values_unless_they_lie_on_one_another() -> None:
    def marks(*steps: int) -> object:
        frame = pd.DataFrame({"step": steps, "value": [0.5] * len(steps)})
        return lines(frame, x="step", y="value", title="t").layout.xaxis.tickvals

    assert marks(1, 2, 4) == (1, 2, 4)
    assert marks(15_000, 15_834, 60_000) is None
