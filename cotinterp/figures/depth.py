"""Figures of what many runs say of depth: the frontier, and accuracy against compute."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from cotinterp.figures.sheet import GRAY, INK, REGIMES, regime_mark, styled, text, titled


class _Mark(NamedTuple):
    """How runs are drawn, and what the legend says of them."""

    symbol: str
    meaning: str
    is_bound: bool = False


CONVERGENCE_MARKS = {
    "complete": _Mark("circle", "solves all"),
    "settled": _Mark("diamond-wide", "converged, nothing moves"),
    "fitted": _Mark("diamond", "converged"),
    "budget": _Mark("hexagon-open", "lower bound, updates used up", is_bound=True),
    "stalled": _Mark("square-open", "lower bound, loss stands still", is_bound=True),
    "improving": _Mark("circle-open", "lower bound, still improving", is_bound=True),
}
"""By the column `convergence` of the frontier's table; a run with any other value was not measured."""
LAW_DASHES = {"linear": "solid", "logarithmic": "dash", "constant": "longdashdot", "none": "dot"}
ROW, TOP, SPREAD, LIKELY = 300, 100, 0.1, 0.05
KEYS = ["task", "reading", "regime", "steps"]
AXES = {
    "flops": "FLOPs per answer",
    "response_tokens": "tokens per answer (END included)",
    "training_flops": "training FLOPs",
}
COMPUTE_DASHES = ("solid", "dot", "dash", "dashdot", "longdash")
BETWEEN = 36
"""Pixels between two rows of panels."""


def frontier_figure(
    runs: pd.DataFrame,
    curves: pd.DataFrame | None = None,
    words: Mapping[tuple[str, str, str], str] | None = None,
) -> go.Figure:
    """A point a run; a row for each task (and reading), a column for each regime and budget.

    Filled points are converged runs; open ones with an arrow are lower bounds, for more training may move them up. The
    upper rule is the longest length measured: a point on it solves everything that was asked. The thin black line is
    the source's K = L + 1. Laws are drawn as fitted to the frontiers as trained, pale where their weight is under 5%.

    Args:
        runs: Rows of `FrontierResult.frame()`; runs that were not measured are left out.
        curves: `DepthVerdicts.curves_frame()`, at the budgets that were judged.
        words: The verdict on each (task, regime, reading), for the panels' titles.

    Raises:
        ValueError: No run was measured.
    """
    runs = runs[runs["convergence"].isin(CONVERGENCE_MARKS)]
    if runs.empty:
        raise ValueError("nothing to draw: no run of the table was measured")
    rows = list(dict.fromkeys(zip(runs["task"], runs["reading"], strict=True)))
    # The regime that answers at once comes first, so that written steps stand beside it.
    columns = sorted(set(zip(runs["regime"], runs["steps"], strict=True)), key=lambda one: (one[0] != "direct", one))
    titles = [_title(runs, row, column, words or {}) for row in rows for column in columns]
    figure = make_subplots(
        rows=len(rows),
        cols=len(columns),
        subplot_titles=titles,
        horizontal_spacing=0.04,
        vertical_spacing=0.32 / len(rows) if len(rows) > 1 else 0,
    )
    for place, (task, reading) in enumerate(rows):
        of_task = runs[(runs["task"] == task) & (runs["reading"] == reading)]
        top = int(of_task["k_top"].max())
        for number, (regime, steps) in enumerate(columns):
            here = {"rows": place + 1, "cols": number + 1}
            points = of_task[(of_task["regime"] == regime) & (of_task["steps"] == steps)]
            if points.empty:
                continue
            figure.add_traces([_source(points, top), *_laws(curves, (task, reading, regime, steps), top)], **here)
            figure.add_traces(_points(points, str(regime), top), **here)
            _axes(figure, points, top, place + 1, number + 1)
    _style_frontier(figure, len(rows), drawn=set(runs["convergence"]), laws=curves is not None)
    return figure


def _title(
    runs: pd.DataFrame,
    row: tuple[str, str],
    column: tuple[str, int],
    words: Mapping[tuple[str, str, str], str],
) -> str:
    (task, reading), (regime, steps) = row, column
    mine = runs[(runs["task"] == task) & (runs["reading"] == reading) & (runs["regime"] == regime)]
    if not (mine["steps"] == steps).any():
        return ""
    said = words.get((task, regime, reading), "") if steps == mine["steps"].max() else ""
    named = task if reading == "answer" else f"{task} ({reading})"
    return f"<b>{text(named)}</b>, {text(regime)}, {steps:,} steps" + (f"<br>{text(said)}" if said else "")


def _points(points: pd.DataFrame, regime: str, top: int) -> list[go.Scatter]:
    """Runs, set apart by seed, and above the lower bounds an arrow."""
    seeds = {seed: place for place, seed in enumerate(sorted(points["run_seed"].unique()))}
    shift = points["run_seed"].map(seeds).to_numpy(dtype=float) - (len(seeds) - 1) / 2
    x, y = points["n_layers"].to_numpy() + SPREAD * shift, points["frontier"].to_numpy(dtype=float)
    color = regime_mark(regime).color
    runs = go.Scatter(
        x=x,
        y=y,
        mode="markers",
        showlegend=False,
        marker={
            "symbol": points["convergence"].map(lambda name: CONVERGENCE_MARKS[name].symbol),
            "size": 10,
            "color": color,
            "line": {"width": 1.8},
        },
        customdata=points[["run_seed", "convergence", "next_k", "next_accuracy", "next_train_accuracy"]].to_numpy(),
        hovertemplate=(
            "solves K up to %{y}, seed %{customdata[0]}: %{customdata[1]}<br>next K = %{customdata[2]}: "
            "held-out %{customdata[3]:.2f}, training %{customdata[4]:.2f}<extra></extra>"
        ),
    )
    runs.marker.line.color = color
    bound = points["convergence"].map(lambda name: CONVERGENCE_MARKS[name].is_bound).to_numpy(dtype=bool)
    rise = 0.1 * top
    arrows = go.Scatter(
        x=x[bound],
        y=y[bound] + rise,
        mode="markers",
        showlegend=False,
        hoverinfo="skip",
        marker={"symbol": "arrow-up", "size": 8, "color": color},
        error_y={"array": np.zeros(bound.sum()), "arrayminus": np.full(bound.sum(), 0.7 * rise), "width": 0},
    )
    arrows.error_y.update(color=color, thickness=1.4, symmetric=False)
    return [arrows, runs]


def _source(points: pd.DataFrame, top: int) -> go.Scatter:
    depths = np.array([points["n_layers"].min(), points["n_layers"].max()], dtype=float)
    line = {"color": INK, "width": 1}
    return go.Scatter(x=depths, y=np.minimum(1 + depths, top), mode="lines", line=line, showlegend=False)


def _laws(curves: pd.DataFrame | None, where: tuple[object, ...], top: int) -> list[go.Scatter]:
    if curves is None:
        return []
    here = curves[(curves[KEYS] == list(where)).all(axis=1) & (curves["treatment"] == "as trained")]
    drawn = []
    for law, line in here.groupby("law", sort=False):
        likely = float(line["weight"].iloc[0]) >= LIKELY
        drawn.append(
            go.Scatter(
                x=line["depth"],
                y=np.minimum(line["k"].to_numpy(dtype=float), top + 0.5),
                mode="lines",
                showlegend=False,
                opacity=1.0 if likely else 0.35,
                line={"color": GRAY, "dash": LAW_DASHES[str(law)], "width": 2.4 if likely else 1.2},
                hovertemplate=f"{law}, weight {line['weight'].iloc[0]:.2f}<extra></extra>",
            )
        )
    return drawn


def _axes(figure: go.Figure, points: pd.DataFrame, top: int, row: int, column: int) -> None:
    depths = sorted(points["n_layers"].unique())
    figure.update_xaxes(
        tickvals=depths, range=[depths[0] - 0.4, depths[-1] + 0.4], title="layers L", row=row, col=column
    )
    figure.update_yaxes(range=[-0.6, 1.17 * top], row=row, col=column)
    figure.add_hline(y=top, line={"color": "#CFCFCF", "width": 1}, layer="below", row=row, col=column)
    if column == 1:
        figure.update_yaxes(title_text="longest K solved", row=row, col=column)


def _style_frontier(figure: go.Figure, rows: int, *, drawn: set[str], laws: bool) -> None:
    """A legend on top, thin axes, room for titles of two lines; the figure is changed in place."""
    for mark in (mark for name, mark in CONVERGENCE_MARKS.items() if name in drawn):
        marker = {"symbol": mark.symbol, "size": 10, "color": INK, "line": {"width": 1.8, "color": INK}}
        figure.add_scatter(x=[None], y=[None], mode="markers", name=mark.meaning, marker=marker)
    for law, dash in LAW_DASHES.items() if laws else ():
        line = {"color": GRAY, "dash": dash, "width": 2.4}
        figure.add_scatter(x=[None], y=[None], mode="lines", name=law, line=line)
    line = {"color": INK, "width": 1}
    figure.add_scatter(x=[None], y=[None], mode="lines", name="source: K = L + 1", line=line)
    styled(figure, height=TOP + ROW * rows + 40, margin={"l": 60, "r": 20, "t": TOP, "b": 50})
    figure.update_layout(
        legend={"orientation": "h", "x": 0, "xref": "container", "y": 1, "yref": "container", "yanchor": "top"}
    )
    figure.update_yaxes(showgrid=False)


@dataclass(frozen=True)
class _Line:
    """One regime at one training budget: its configurations in order of depth."""

    regime: str
    steps: int
    dash: str

    def labeled(self, price: str) -> bool:
        """Whether depths are written: not where all have one place, and once where budgets lie above one another."""
        return price == "training_flops" or (price == "flops" and self.dash == COMPUTE_DASHES[0])


def compute_figure(runs: pd.DataFrame, means: pd.DataFrame, k: int | None = None, *, height: int = 230) -> go.Figure:
    """Held-out accuracy against FLOPs per answer, tokens per answer and training FLOPs, a row of panels for each task.

    A color and a marker are one regime, a stroke one number of updates. A large marker is a configuration, mean over
    its seeds, and says its depth; the small ones are the seeds. Logarithmic axes start at the data, so a distance is a
    factor.

    Args:
        runs: `ComputeResult.by_run(k)`.
        means: `ComputeResult.by_configuration(k)`.
        k: For the title: the number of operands at which accuracy was taken; None where it is the mean over all.

    Raises:
        ValueError: No rows.
    """
    if means.empty:
        raise ValueError("nothing to draw: no run was measured on enough problems of one length")
    tasks = list(dict.fromkeys(means["task"]))
    inner = height * len(tasks) + BETWEEN * (len(tasks) - 1)
    figure = make_subplots(
        rows=len(tasks),
        cols=len(AXES),
        shared_yaxes=True,
        horizontal_spacing=0.03,
        vertical_spacing=BETWEEN / inner if len(tasks) > 1 else 0,
    )
    lines, named = list(_lines(means)), set[str]()
    for row, task in enumerate(tasks, start=1):
        seeds, mean = (frame[frame["task"] == task] for frame in (runs, means))
        for line, (column, price) in product(lines, enumerate(AXES, start=1)):
            for trace in _traces(line, seeds, mean, price):
                trace.showlegend = trace.showlegend and trace.name not in named
                named |= {trace.name} if trace.showlegend else set()
                figure.add_trace(trace, row=row, col=column)
        figure.update_yaxes(title_text=f"<b>{text(task)}</b><br>held-out accuracy", row=row, col=1)
    for column, title in enumerate(AXES.values(), start=1):
        figure.update_xaxes(title_text=title, row=len(tasks), col=column)
    at = "mean over all measured K" if k is None else f"K = {k}"
    return _styled_compute(figure, f"Accuracy against compute ({at})", inner)


def _lines(means: pd.DataFrame) -> Iterator[_Line]:
    budgets = sorted(means["steps"].unique().tolist(), reverse=True)
    order = {name: number for number, name in enumerate(REGIMES)}
    for regime in sorted(means["regime"].unique(), key=lambda name: (order.get(name, len(order)), name)):
        for number, steps in enumerate(budgets):
            yield _Line(str(regime), int(steps), COMPUTE_DASHES[number % len(COMPUTE_DASHES)])


def _traces(line: _Line, runs: pd.DataFrame, means: pd.DataFrame, price: str) -> Iterator[go.Scatter]:
    seeds, mean = (
        frame[(frame["regime"] == line.regime) & (frame["steps"] == line.steps)].sort_values(
            ["d_model", "n_layers", price], kind="stable"
        )
        for frame in (runs, means)
    )
    if mean.empty:
        return
    color, symbol = regime_mark(line.regime).color, regime_mark(line.regime).symbol
    name = f"{text(line.regime)}, {line.steps} updates"
    shown = ["n_layers", "d_model", "n_parameters", "steps"]
    hover = (
        "L = %{customdata[0]}, d_model = %{customdata[1]}, %{customdata[2]:,} parameters, %{customdata[3]} updates<br>"
        "%{x:.3s}: accuracy %{y:.1%}"
    )
    yield go.Scatter(
        x=seeds[price],
        y=seeds["accuracy"],
        customdata=seeds[[*shown, "run_seed"]].to_numpy(),
        mode="markers",
        marker={"color": color, "symbol": symbol, "size": 6, "opacity": 0.4},
        hovertemplate=f"{hover}, seed %{{customdata[4]}}<extra>{name}</extra>",
        name=name,
        legendgroup=name,
        showlegend=False,
    )
    yield go.Scatter(
        x=mean[price],
        y=mean["accuracy"],
        customdata=mean[shown].to_numpy(),
        text=[f"L{n}" for n in mean["n_layers"]] if line.labeled(price) else None,
        textposition="top center",
        textfont={"size": 11, "color": color},
        mode="lines+markers+text",
        line={"color": color, "dash": line.dash, "width": 1.5},
        marker={"color": color, "symbol": symbol, "size": 10, "line": {"color": "white", "width": 1}},
        hovertemplate=f"{hover}, mean over seeds<extra>{name}</extra>",
        name=name,
        legendgroup=name,
        showlegend=True,
    )


def _styled_compute(figure: go.Figure, title: str, inner: int) -> go.Figure:
    titled(styled(figure, height=inner + 130, margin={"t": 30, "b": 100}), title)
    figure.update_layout(
        legend={"orientation": "h", "x": 0, "xref": "container", "y": 0, "yref": "container", "yanchor": "bottom"}
    )
    figure.update_xaxes(type="log", dtick="D2", tickformat="~s", tickangle=0, tickfont_size=12)
    return figure.update_yaxes(tickformat=".0%", range=[-0.05, 1.12])
