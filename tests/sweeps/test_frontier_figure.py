"""The picture: a panel for each regime and budget, open marks and arrows for lower bounds."""

import pandas as pd
import pytest

from cotinterp.depth.frontier import frontier
from cotinterp.figures.depth import frontier_figure
from tests.sweeps.frontiers import run_rows, sweep


def drawn(figure):
    """Symbols and heights of the runs, panel by panel."""
    panels = {}
    for trace in figure.data:
        if trace.customdata is not None:
            panels[trace.xaxis] = list(zip(trace.marker.symbol, trace.y, strict=True))
    return panels


def test_lower_bounds_are_open_and_have_arrows_above():
    figure = frontier_figure(frontier(sweep(lambda depth, seed: depth + 2, convergence="improving", seeds=1)).frame())
    (points,) = drawn(figure).values()
    assert points == [("circle-open", 3), ("circle-open", 4), ("circle-open", 5), ("circle-open", 6)]
    (arrows,) = (trace for trace in figure.data if str(trace.marker.symbol) == "arrow-up")
    assert all(above > below for above, (_, below) in zip(arrows.y, points, strict=True))


def test_converged_runs_are_filled_and_have_none():
    figure = frontier_figure(frontier(sweep(lambda depth, seed: 6 * depth, depths=(1, 2), seeds=1)).frame())
    assert list(drawn(figure).values()) == [[("diamond", 6), ("circle", 12)]]
    (arrows,) = (trace for trace in figure.data if str(trace.marker.symbol) == "arrow-up")
    assert len(arrows.y) == 0


def test_budgets_and_regimes_are_small_multiples_direct_first():
    short = sweep(lambda depth, seed: 3, steps=1000, convergence="improving")
    long, cot = sweep(lambda depth, seed: 5, steps=4000), sweep(lambda depth, seed: 12, regime="cot", depths=(1, 2, 4))
    figure = frontier_figure(frontier(pd.concat([cot, long, short])).frame())
    titles = [note.text for note in figure.layout.annotations if note.text]
    assert [title.split("</b>, ")[1] for title in titles] == [
        "direct, 1,000 steps",
        "direct, 4,000 steps",
        "cot, 1,000 steps",
    ]
    assert [len(points) for points in drawn(figure).values()] == [12, 12, 9]


def test_nothing_measured_is_nothing_to_draw():
    with pytest.raises(ValueError, match="no run of the table was measured"):
        frontier_figure(frontier(pd.DataFrame(run_rows({}, status="absent"))).frame())
