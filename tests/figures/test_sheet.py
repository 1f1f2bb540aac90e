import pandas as pd
import plotly.io
import pytest

from cotinterp.figures.sheet import checked, named, order, panels, tooltip

TABLE = pd.DataFrame({"layer": [2, 0, 2], "role": ["total", "answer", "answer"], "effect": [0.1, 0.2, 0.3]})


def test_order_is_that_of_appearance_or_of_the_categories() -> None:
    assert order(TABLE["layer"]) == ["2", "0"]
    declared = pd.Categorical(TABLE["role"], categories=["answer", "absent", "total"])
    assert order(pd.Series(declared)) == ["answer", "total"]


def test_a_declared_order_survives_the_check() -> None:
    table = TABLE.assign(role=pd.Categorical(TABLE["role"], categories=["answer", "total"]))
    ready = checked(table, place=["role", "layer"], numbers=["effect"], hover=[])
    assert order(ready["role"]) == ["answer", "total"]
    assert order(ready["layer"]) == ["2", "0"]


def test_symbols_that_plotly_would_read_as_tags_are_shown() -> None:
    table = pd.DataFrame({"place": ["<", "<b>&"], "effect": [1.0, 2.0]})
    assert order(checked(table, place=["place"], numbers=["effect"], hover=[])["place"]) == ["&lt;", "&lt;b&gt;&amp;"]


def test_a_missing_column_is_named_with_its_nearest() -> None:
    with pytest.raises(KeyError, match="no column 'efect', did you mean 'effect'"):
        checked(TABLE, place=["layer"], numbers=["efect"], hover=[])


def test_rows_that_would_hide_one_another_are_refused() -> None:
    with pytest.raises(ValueError, match=r"1 rows hide another with the same \['layer'\], such as \{'layer': 2\}"):
        checked(TABLE, place=["layer"], numbers=["effect"], hover=[])
    assert len(checked(TABLE, place=["layer", "role"], numbers=["effect"], hover=[])) == 3


def test_places_cannot_be_missing() -> None:
    with pytest.raises(ValueError, match="column 'role' has missing values"):
        checked(TABLE.assign(role=["total", None, "answer"]), place=["role", "layer"], numbers=[], hover=[])


def test_numbers_are_told_with_what_they_count() -> None:
    assert named("layer", "2") == "layer 2"
    assert named("regime", "cot") == "cot"


def test_a_tooltip_formats_numbers_and_quotes_text() -> None:
    hover = tooltip(TABLE, x="layer", y="effect", shown=["effect", "role"])
    assert (
        hover
        == "layer: %{x}<br>effect: %{y:.4g}<br>effect: %{customdata[0]:.4g}<br>role: %{customdata[1]}<extra></extra>"
    )


@pytest.mark.parametrize(("labels", "columns", "angle"), [(4, 3, 0), (20, 2, -90), (50, 1, -90)])
def test_facets_stand_side_by_side_while_their_labels_fit(labels: int, columns: int, angle: int) -> None:
    table = pd.DataFrame({"kind": ["resid_pre", "attn_out", "mlp_out"]})
    sheet = panels(
        checked(table, place=["kind"], numbers=[], hover=[]),
        facet="kind",
        title="a title " * 30,
        x_title="place",
        y_title="layer",
        x_labels=["total 1"] * labels,
        height=200,
        slot=18,
    )
    places = [(row, column, part["kind"].item()) for row, column, part in sheet]
    assert places == [(i // columns + 1, i % columns + 1, kind) for i, kind in enumerate(table["kind"])]
    assert [title.text for title in sheet.figure.layout.annotations] == ["resid_pre", "attn_out", "mlp_out"]
    assert sheet.figure.layout.xaxis.tickangle == angle
    rows = -(-3 // columns)
    low, high = sheet.figure.layout.yaxis.domain
    layout = sheet.figure.layout
    assert (high - low) * (layout.height - layout.margin.t - layout.margin.b) == pytest.approx(200)
    assert layout.height > rows * 200


def test_the_style_stays_with_the_figure() -> None:
    assert plotly.io.templates.default == "plotly"
