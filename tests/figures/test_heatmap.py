import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from cotinterp.figures import heatmap

SWEEP = pd.DataFrame(
    {
        "place": ["operand 1", "total 1", "operand 1", "total 1", "answer"],
        "layer": [1, 1, 0, 0, 0],
        "effect": [0.25, -0.5, 0.0, 2.0, np.nan],
        "n": [8, 8, 8, 7, 0],
    }
)


def cells(figure: go.Figure, trace: int = 0) -> pd.DataFrame:
    drawn = figure.data[trace]
    return pd.DataFrame(np.array(drawn.z, dtype=float), index=list(drawn.y), columns=list(drawn.x))


def test_every_row_is_a_cell_in_the_order_given() -> None:
    drawn = cells(heatmap(SWEEP, x="place", y="layer", value="effect", title=""))
    assert list(drawn.columns) == ["operand 1", "total 1", "answer"]
    assert list(drawn.index) == ["1", "0"]
    np.testing.assert_array_equal(drawn, [[0.25, -0.5, np.nan], [0.0, 2.0, np.nan]])


def test_cells_without_a_value_are_marked_absent_or_nan_alike() -> None:
    figure = heatmap(SWEEP, x="place", y="layer", value="effect", title="")
    np.testing.assert_array_equal(cells(figure, 1).notna(), cells(figure).isna())
    assert figure.data[1].name == "no value"
    np.testing.assert_array_equal(figure.data[1].text, [["", "", "×"], ["", "", "×"]])
    assert len({color for _, color in figure.data[1].colorscale}) == 1
    complete = heatmap(SWEEP[:4], x="place", y="layer", value="effect", title="")
    assert len(complete.data) == 1


def test_the_midpoint_is_the_middle_of_the_scale() -> None:
    scale = heatmap(SWEEP, x="place", y="layer", value="effect", title="", midpoint=0.5).layout.coloraxis
    assert (scale.cmin, scale.cmax) == (-1.0, 2.0)
    assert scale.colorscale[5][1] == "rgb(247,247,247)"
    amount = heatmap(SWEEP, x="place", y="layer", value="effect", title="", value_title="logit difference")
    assert (amount.layout.coloraxis.cmin, amount.layout.coloraxis.cmax) == (-0.5, 2.0)
    assert amount.layout.coloraxis.colorbar.title.text == "logit difference"


@pytest.mark.parametrize("midpoint", [None, 0.0])
@pytest.mark.parametrize("value", [0.0, np.nan])
def test_the_scale_has_width_where_the_data_has_none(midpoint: float | None, value: float) -> None:
    figure = heatmap(SWEEP.assign(effect=value), x="place", y="layer", value="effect", title="", midpoint=midpoint)
    assert figure.layout.coloraxis.cmin < figure.layout.coloraxis.cmax


def test_bounds_replace_the_ends_of_the_data() -> None:
    figure = heatmap(SWEEP, x="place", y="layer", value="effect", title="", bounds=(0.0, 1.0))
    assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == (0.0, 1.0)


def test_facets_keep_their_own_places_and_share_the_scale() -> None:
    table = pd.concat([SWEEP.assign(regime="direct")[:2], SWEEP.assign(regime="cot")[2:]])
    figure = heatmap(table, x="place", y="layer", value="effect", facet="regime", title="", midpoint=0.0)
    assert [title.text for title in figure.layout.annotations] == ["direct", "cot"]
    assert list(cells(figure, 0).columns) == ["operand 1", "total 1"]
    assert list(cells(figure, 1).columns) == ["operand 1", "total 1", "answer"]
    assert {trace.coloraxis for trace in figure.data if trace.name != "no value"} == {"coloraxis"}
    assert figure.layout.coloraxis.cmax == 2.0


def test_numbers_are_printed_where_they_fit() -> None:
    assert heatmap(SWEEP, x="place", y="layer", value="effect", title="").data[0].texttemplate == "%{z:.2f}"
    wide = pd.DataFrame({"place": range(60), "layer": 0, "effect": 1.0})
    assert heatmap(wide, x="place", y="layer", value="effect", title="").data[0].texttemplate is None


def test_hovering_tells_n_of_that_very_cell() -> None:
    figure = heatmap(SWEEP, x="place", y="layer", value="effect", title="")
    assert "n: %{customdata[0]:.4g}" in figure.data[0].hovertemplate
    assert figure.data[0].customdata[1][1][0] == 7
    assert heatmap(SWEEP, x="place", y="layer", value="effect", title="", hover=[]).data[0].customdata is None
