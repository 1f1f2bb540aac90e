import pandas as pd
import pytest

from cotinterp.figures import stacked_bars

ERRORS = pd.DataFrame(
    {
        "k": [2, 2, 3],
        "category": pd.Categorical(["slip", "correct", "correct"], categories=["correct", "slip"]),
        "share": [0.25, 0.75, 1.0],
        "count": [1, 3, 4],
    }
)


def test_bars_are_stacked_in_the_order_of_the_categories() -> None:
    figure = stacked_bars(ERRORS, x="k", y="share", color="category", title="", hover=["count"])
    correct, slip = figure.data
    assert (correct.name, list(correct.x), list(correct.y)) == ("correct", ["2", "3"], [0.75, 1.0])
    assert (slip.name, list(slip.x), list(slip.y)) == ("slip", ["2"], [0.25])
    assert correct.customdata.tolist() == [[3], [4]]
    assert figure.layout.barmode == "stack"


def test_more_categories_than_colors_are_told_apart_by_hatching() -> None:
    table = pd.DataFrame({"k": 2, "category": [f"error {i}" for i in range(20)], "share": 0.05})
    looks = [
        (b.marker.color, b.marker.pattern.shape)
        for b in stacked_bars(table, x="k", y="share", color="category", title="").data
    ]
    assert len(set(looks)) == 20


def test_the_legend_names_each_category_once() -> None:
    table = pd.concat([ERRORS.assign(regime="direct"), ERRORS[2:].assign(regime="cot")])
    figure = stacked_bars(table, x="k", y="share", color="category", facet="regime", title="")
    assert [bar.name for bar in figure.data if bar.showlegend] == ["correct", "slip"]
    assert len(figure.data) == 4


def test_negative_parts_make_no_whole() -> None:
    with pytest.raises(ValueError, match=r"'share' has negative values, down to -0\.25"):
        stacked_bars(ERRORS.assign(share=[-0.25, 0.75, 1.0]), x="k", y="share", color="category", title="")
