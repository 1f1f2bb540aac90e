"""Probe and patching heatmaps: each cell stands where its row says, in the transcript's order, with its symbol."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from cotinterp.figures.labels import RunKey, axis_labels, place_words, reading_order, symbols_of
from cotinterp.figures.patching import (
    distinguished_pairs,
    families_figure,
    is_cell,
    pair_words,
    patching_figures,
    primary_metric,
    without_dead_start,
)
from cotinterp.figures.probing import AFTER_TOTAL, BEFORE_STEPS, BEFORE_TOTAL, probe_figures, written_from
from cotinterp.figures.sheet import INK
from cotinterp.report import ReportInputs
from cotinterp.transcripts import roles
from cotinterp.transcripts.roles import PROMPT_ROLES, Role

pytestmark = pytest.mark.slow

COT = RunKey("s3", "cot", 0)


@pytest.fixture(scope="module")
def figures(inputs: ReportInputs) -> dict[str, go.Figure]:
    """Every figure of probes and patching by its name; tests read them and change none."""
    made = [*probe_figures(inputs.tables["probes"], symbols=inputs.symbols)]
    made += patching_figures(inputs.tables["patching"], symbols=inputs.symbols)
    return {figure.name: figure.figure for figure in made}


def panel(figure: go.Figure, title: str) -> go.Heatmap:
    (number,) = (i for i, note in enumerate(figure.layout.annotations) if note.text == title)
    return figure.data[number]


def test_a_probe_cell_is_the_row_of_its_layer_place_target_and_model(
    inputs: ReportInputs, figures: dict[str, go.Figure]
) -> None:
    drawn = panel(figures["probes-s3-cot-0-selectivity"], "<b>total 2</b>, trained")
    rows = inputs.tables["probes"].query("task == 's3' and regime == 'cot' and model == 'trained' and target == 's_2'")
    for site, role, step in (
        ("L2.resid_pre", "equals", 1),
        ("L3.resid_post", "step_operand", 2),
        ("input", "operand", 0),
    ):
        cell = rows.query("site == @site and role == @role and step == @step")
        y = list(drawn.y).index(site)
        x = [label.split("  ")[0] for label in drawn.x].index(place_words((role, step)))
        assert drawn.z[y][x] == pytest.approx(cell["selectivity"].item(), abs=1e-6)


def test_cells_that_were_not_probed_are_empty_and_not_zero(figures: dict[str, go.Figure]) -> None:
    drawn = panel(figures["probes-s3-cot-0-selectivity"], "<b>total 2</b>, trained")
    column = [label.split("  ")[0] for label in drawn.x].index("total 2")
    assert np.isnan(np.asarray(drawn.z)[:, column]).all()


def test_deeper_layers_stand_above_and_the_input_baseline_below(figures: dict[str, go.Figure]) -> None:
    made = figures
    rows = list(made["probes-s3-cot-0-accuracy"].data[0].y)
    assert rows == ["L3.resid_post", "L3.resid_pre", "L2.resid_pre", "L1.resid_pre", "L0.resid_pre", "input"]
    heads = list(made["patching-s3-cot-0-operand-1-heads"].data[0].y)
    assert (heads[0], heads[-1], len(heads)) == ("L3H3", "L0H0", 16)
    assert made["probes-s3-cot-0-accuracy"].layout.yaxis.autorange == "reversed"


def test_a_patching_cell_is_the_row_of_its_site_place_and_direction(
    inputs: ReportInputs, figures: dict[str, go.Figure]
) -> None:
    made = figures
    rows = inputs.tables["patching"].query("task == 's3' and regime == 'cot' and pair == 'written_total 1'")
    for name, title, row, site, direction in (
        ("layers", "<b>mlp_out</b>, noise (corrupted into clean)", "L2", "L2.mlp_out", "noise"),
        ("heads", "<b>z</b>, denoise (clean into corrupted)", "L1H3", "L1H3.z", "denoise"),
    ):
        drawn = panel(made[f"patching-s3-cot-0-written_total-1-{name}"], title)
        cell = rows[(rows["site"] == site) & (rows["direction"] == direction)].query("role == 'total' and step == 1")
        x = [label.split("  ")[0] for label in drawn.x].index("total 1")
        assert drawn.z[list(drawn.y).index(row)][x] == pytest.approx(cell["effect"].item(), abs=1e-6)
        assert drawn.customdata[list(drawn.y).index(row)][x][2] == 64


def test_places_stand_in_reading_order_with_the_symbols_of_the_example(figures: dict[str, go.Figure]) -> None:
    labels = list(figures["patching-s3-cot-0-operand-1-layers"].data[0].x)
    assert labels[:4] == [
        "prompt start  <b>&lt;</b>",
        "operand 0  <b>3</b>",
        "operator 1  <b>+</b>",
        "operand 1  <b>4</b>",
    ]
    assert "total 2  <b>12</b>" in labels
    assert labels[-1] == "end  <b>#</b>"


def test_the_color_scale_is_symmetric_around_zero(figures: dict[str, go.Figure]) -> None:
    axis = figures["patching-s3-cot-0-operand-1-layers"].layout.coloraxis
    assert (axis.cmin, axis.cmax) == (-1, 1)


def test_baselines_are_not_cells(inputs: ReportInputs) -> None:
    frame = inputs.tables["patching"]
    assert set(frame.loc[~is_cell(frame), "site"]) == {"self", "full", "random_donor"}


def test_the_logit_difference_is_the_metric_that_is_shown() -> None:
    assert primary_metric(pd.DataFrame({"metric": ["kl", "logit_diff", "accuracy"]})) == "logit_diff"
    assert primary_metric(pd.DataFrame({"metric": ["kl", "accuracy"]})) == "kl"


def test_two_numbers_for_one_cell_are_refused(inputs: ReportInputs) -> None:
    frame = inputs.tables["patching"]
    twice = pd.concat([frame, frame[is_cell(frame)].head(1)])
    with pytest.raises(ValueError, match="more than one value"):
        patching_figures(twice)


def test_long_transcripts_put_all_panels_in_one_column(inputs: ReportInputs) -> None:
    frame = inputs.tables["probes"].query("task == 's3' and regime == 'direct'")
    longer = pd.concat([frame.assign(step=frame["step"] + 10 * repeat) for repeat in range(4)])
    assert len(reading_order(longer)) > 16
    narrow, wide = (probe_figures(table)[0].figure for table in (frame, longer))
    assert narrow.data[1].xaxis == "x2"
    assert narrow.data[1].yaxis == "y2"
    assert narrow.layout.yaxis2.domain == narrow.layout.yaxis.domain
    assert wide.layout.yaxis2.domain != wide.layout.yaxis.domain


def test_numbers_that_matter_are_printed_in_their_cells_and_others_are_not(figures: dict[str, go.Figure]) -> None:
    drawn = panel(figures["patching-s3-cot-0-operand-1-layers"], "<b>mlp_out</b>, denoise (clean into corrupted)")
    for numbers, texts in zip(drawn.z, drawn.text, strict=True):
        for number, text in zip(numbers, texts, strict=True):
            assert bool(text) == (abs(number) >= 0.05)
            assert not text or float(text.replace("\N{MINUS SIGN}", "-")) == pytest.approx(number, abs=0.006)


def test_places_before_the_change_are_left_out_and_the_caption_says_so(inputs: ReportInputs) -> None:
    table = inputs.tables["patching"].query("task == 's3' and regime == 'direct'")
    early = table["role"].eq("prompt_start") | (table["role"].eq("operand") & table["step"].eq(0))
    (cut, _) = patching_figures(table.assign(effect=table["effect"].mask(early & is_cell(table), 0.0)))
    assert "2 places before operator 1 left out" in cut.caption
    assert cut.figure.data[0].x[0] == "operator 1"
    (whole, _) = patching_figures(table)
    assert "left out" not in whole.caption
    nothing = table[is_cell(table)].assign(effect=0.0)
    assert without_dead_start(nothing) == (reading_order(nothing), 0)


def test_a_pair_in_words_and_how_often_the_model_tells_it_apart() -> None:
    assert pair_words("operand 2 -> step_operand 2") == "operand 2 differs, read at step operand 2"
    assert pair_words("written_total 1") == "written total 1 differs"
    full = pd.DataFrame(
        {"site": ["full", "full", "self"], "metric": ["logit_diff", "accuracy", "accuracy"], "n": [48, 10, 9]}
    )
    assert distinguished_pairs(full) == (10, 48)
    assert distinguished_pairs(full.head(1)) is None


def test_a_dashed_line_stands_where_the_total_may_have_been_written(figures: dict[str, go.Figure]) -> None:
    places = (("operand", 0), ("equals", 1), ("total", 1), ("equals", 2), ("total", 2))
    assert [written_from(places, target) for target in ("s_1", "s_2", "answer")] == [2, 4, None]
    assert written_from(places[:2], "s_1") is None
    figure = figures["probes-s3-cot-0-selectivity"]
    words = [label.split("  ")[0] for label in figure.data[0].x]
    (line,) = (shape for shape in figure.layout.shapes if shape.xref == "x")
    assert line.x0 == line.x1 == words.index("total 1") - 0.5
    assert line.line.color == INK


def test_labels_are_distinct_and_escape_what_would_be_markup() -> None:
    places = (("total", 1), ("total", 2), ("end", -1))
    labels = axis_labels(places, {places[0]: "<b>", places[2]: "#"})
    assert labels == ["total 1  <b>&lt;b&gt;</b>", "total 2", "end  <b>#</b>"]


def test_characters_of_one_total_are_joined() -> None:
    assert symbols_of(("1", "2", ";"), ("total", "total", "step_end"), (2, 2, 2)) == {
        ("total", 2): "12",
        ("step_end", 2): ";",
    }


def test_bars_are_whole_and_stand_in_the_order_of_the_changes(inputs: ReportInputs) -> None:
    figure = families_figure(inputs.tables["pair_families"].query("task == 's3'"))
    totals: dict[str, float] = {}
    for trace in figure.data:
        for change, share in zip(trace.x, trace.y, strict=True):
            totals[change] = totals.get(change, 0.0) + share
    assert list(figure.layout.xaxis.categoryarray) == ["prompt operand", "written total", "both", "unrelated operand"]
    assert {round(total, 9) for total in totals.values()} == {1.0}
    assert {trace.name for trace in figure.data} == {"as before", "follows the change", "neither"}


def test_a_place_has_one_phrase() -> None:
    for place in ((Role.PREVIOUS_TOTAL, 2), (Role.PROMPT_END, -1), (Role.OPERAND, 0)):
        assert place_words(place) == roles.place_words(*place)


def test_the_roles_before_the_steps_are_those_of_the_prompt_and_where_the_trace_begins() -> None:
    assert PROMPT_ROLES | {Role.TRACE_START} == BEFORE_STEPS
    assert {*BEFORE_STEPS, *BEFORE_TOTAL, *AFTER_TOTAL} <= set(Role)
