"""Every kind of edit in one figure: shares fill the bars, chance stands beside."""

import pandas as pd
import plotly.graph_objects as go
import pytest
from cotinterp.report.edit_kinds import WORDS, edit_groups, edit_words, of_edit

from cotinterp.behavior.edit_kinds import ALL_EDITS
from cotinterp.behavior.edits import NONE, RESUMED, SHUFFLED, SUBSTITUTE
from cotinterp.report import ReportInputs, edit_kinds, edit_kinds_figure, edits


@pytest.fixture
def frame(inputs: ReportInputs) -> pd.DataFrame:
    return inputs.tables["trace_edit_kinds"].query("task == 's3'")


def drawn(frame: pd.DataFrame) -> tuple[list[go.Bar], list[str]]:
    """The bars of a figure, and what is written at each place of its vertical axis."""
    figure = edit_kinds_figure(frame)
    return [trace for trace in figure.data if trace.type == "bar"], list(figure.layout.yaxis.ticktext)


def test_words_and_names_are_those_of_the_library() -> None:
    assert {kind.name: kind.description for kind in ALL_EDITS} == WORDS
    assert edit_words("my_own_edit") == "my own edit"
    assert (edits.SUBSTITUTE, edits.CONTROL, edits.CHANCE) == (SUBSTITUTE, NONE, SHUFFLED)
    assert edit_kinds.RESUMED == RESUMED


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


def test_a_second_model_gets_a_panel_and_two_tasks_are_refused(inputs: ReportInputs, frame: pd.DataFrame) -> None:
    figure = edit_kinds_figure(pd.concat([frame, frame[frame["edit"] != "swap"].assign(regime="noisy")]))
    assert [title.text for title in figure.layout.annotations] == ["<b>cot</b>, seed 0", "<b>noisy</b>, seed 0"]
    assert sum(bool(trace.showlegend) for trace in figure.data) == 4
    with pytest.raises(ValueError, match="one task"):
        edit_kinds_figure(inputs.tables["trace_edit_kinds"])
