"""Measures over the updates of a training, on a logarithmic axis, and the moments at which they rise."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from cotinterp.figures.lines import lines
from cotinterp.figures.sheet import GRAY, regime_mark, styled, titled

WORDS = {
    "accuracy": "answers right",
    "trace_right": "steps written right",
    "follows": "answer follows an edited total",
    "next_total": "next total right",
    "step_table": "table: its weights, final attention",
    "routing": "routing: its attention, final weights",
    "attention": "reader's attention to the total",
    "read_effect": "effect of what heads read",
    "selectivity": "probe of the total, selectivity",
}
"""What a legend calls each measure."""

SIDES = {"accuracy": "what it writes", "trace_right": "what it writes", "follows": "what it writes"}
INSIDE = "how it comes about"


def dynamics_figure(frame: pd.DataFrame) -> go.Figure:
    """A line for each measure; behavior and mechanism side by side, several runs as mean and range.

    Update 0, which has no place on the axis, stands at half of the first update after it and is called 0.
    """
    shown = over_runs(frame)
    name = f"{shown['task'].iloc[0]}, {shown['regime'].iloc[0]}"
    runs = int(frame["run_seed"].nunique())
    spread = "mean, lowest and highest run" if runs > 1 else "one run, intervals over problems"
    figure = lines(
        shown.assign(of=shown["measure"].map(lambda one: SIDES.get(one, INSIDE)), what=shown["measure"].map(WORDS)),
        x="at",
        y="value",
        low="ci_low",
        high="ci_high",
        color="what",
        facet="of",
        title=f"{name}: measures over training ({spread})",
        x_title="updates",
        y_title="value",
    )
    # Of nine measures the last would look like the first.
    figure.update_traces(
        line_color=GRAY, marker={"color": GRAY, "symbol": "hexagon"}, selector={"legendgroup": WORDS["selectivity"]}
    )
    ticks = np.unique(shown["at"])
    kept = [0, *(i for i in range(1, len(ticks)) if i == len(ticks) - 1 or i % 4 == 1)]
    words = ["0" if (shown["update"].min() == 0 and i == 0) else f"{ticks[i]:g}" for i in kept]
    return figure.update_xaxes(type="log", tickvals=ticks[kept].tolist(), ticktext=words)


def over_runs(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean over runs, and the range of the runs in place of the interval where there are several; `at` for the axis."""
    first = frame.loc[frame["update"] > 0, "update"].min()
    if frame["run_seed"].nunique() > 1:
        keys = ["task", "regime", "measure", "update"]
        spread = frame.groupby(keys, sort=False)["value"].agg(["mean", "min", "max"]).reset_index()
        frame = spread.rename(columns={"mean": "value", "min": "ci_low", "max": "ci_high"})
    return frame.assign(at=frame["update"].where(frame["update"] > 0, first / 2))


def events_figure(frame: pd.DataFrame, *, title: str) -> go.Figure:
    """The update at which each measure rises, a row a measure, a dot a run; measures in the order of their medians."""
    known = frame.dropna(subset=["event"])
    order = known.groupby("measure")["event"].median().sort_values(ascending=False).index
    figure = go.Figure()
    for regime, rows in known.groupby("regime", sort=False):
        at, mark = [WORDS[measure] for measure in rows["measure"]], regime_mark(str(regime))
        look = {"size": 9, "opacity": 0.7, "color": mark.color, "symbol": mark.symbol}
        figure.add_scatter(x=rows["event"], y=at, mode="markers", name=str(regime), marker=look)
    styled(figure, height=140 + 32 * len(order), margin={"l": 240})
    figure.update_yaxes(categoryorder="array", categoryarray=[WORDS[measure] for measure in order])
    figure.update_xaxes(type="log", title_text="updates until halfway from first to final value")
    return titled(figure, title)
