"""Accuracy against compute, drawn: a row of panels for each task, a column for each thing that it is bought with."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from cotinterp.results.plots.panels import PALETTE, text

if TYPE_CHECKING:
    from cotinterp.sweeps.compute import ComputeResult

AXES = {
    "flops": "FLOPs per answer",
    "response_tokens": "tokens per answer (END included)",
    "training_flops": "training FLOPs",
}
SYMBOLS = ("square", "circle", "diamond", "triangle-up", "triangle-down", "cross", "x", "star")
DASHES = ("solid", "dot", "dash", "dashdot", "longdash")
BETWEEN = 36
"""Pixels between two rows of panels."""
LOOKS = {"direct": 1, "cot": 0, "totals": 2, "filler": 3, "noisy": 4, "tagging": 5, "chain": 6}
"""Places in the palette and among the markers; the two regimes that everything is about look as in the report."""


@dataclass(frozen=True)
class _Line:
    """One regime at one training budget: its configurations in order of depth."""

    regime: str
    steps: int
    dash: str

    @property
    def look(self) -> int:
        return LOOKS.get(self.regime, 7)

    def labeled(self, price: str) -> bool:
        """Whether depths are written: not where all have one place, and once where budgets lie above one another."""
        return price == "training_flops" or (price == "flops" and self.dash == DASHES[0])


def compute_figure(result: "ComputeResult", k: int | None = None, *, height: int = 230) -> go.Figure:
    """Held-out accuracy against FLOPs per answer, tokens per answer and training FLOPs, a row of panels for each task.

    A color and a marker are one regime, a stroke one number of updates. A large marker is a configuration, mean over
    its seeds, and says its depth; the small ones are the seeds. Accuracy at `k` operands, or the mean over all measured
    lengths, each counted once. Logarithmic axes start at the data, so a distance is a factor.

    Raises:
        KeyError: Nothing was measured at `k`.
    """
    runs, means = result.by_run(k), result.by_configuration(k)
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
    return _dressed(figure, f"Accuracy against compute ({at})", inner)


def _lines(means: pd.DataFrame) -> Iterator[_Line]:
    budgets = sorted(means["steps"].unique().tolist(), reverse=True)
    for regime in sorted(means["regime"].unique(), key=lambda name: (LOOKS.get(name, 7), name)):
        for number, steps in enumerate(budgets):
            yield _Line(str(regime), int(steps), DASHES[number % len(DASHES)])


def _traces(line: _Line, runs: pd.DataFrame, means: pd.DataFrame, price: str) -> Iterator[go.Scatter]:
    seeds, mean = (
        frame[(frame["regime"] == line.regime) & (frame["steps"] == line.steps)].sort_values(
            ["d_model", "n_layers", price], kind="stable"
        )
        for frame in (runs, means)
    )
    if mean.empty:
        return
    color, symbol = PALETTE[line.look % len(PALETTE)], SYMBOLS[line.look % len(SYMBOLS)]
    name = f"{text(line.regime)}, {line.steps} updates"
    shown = ["n_layers", "d_model", "n_parameters", "steps"]
    told = (
        "L = %{customdata[0]}, d_model = %{customdata[1]}, %{customdata[2]:,} parameters, %{customdata[3]} updates<br>"
        "%{x:.3s}: accuracy %{y:.1%}"
    )
    yield go.Scatter(
        x=seeds[price],
        y=seeds["accuracy"],
        customdata=seeds[[*shown, "seed"]].to_numpy(),
        mode="markers",
        marker={"color": color, "symbol": symbol, "size": 6, "opacity": 0.4},
        hovertemplate=f"{told}, seed %{{customdata[4]}}<extra>{name}</extra>",
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
        hovertemplate=f"{told}, mean over seeds<extra>{name}</extra>",
        name=name,
        legendgroup=name,
        showlegend=True,
    )


def _dressed(figure: go.Figure, title: str, inner: int) -> go.Figure:
    figure.update_layout(
        template="plotly_white",
        title={"text": title, "x": 0.01, "y": 1, "yanchor": "top", "pad": {"t": 12}, "font": {"size": 17}},
        font={"size": 13},
        height=inner + 160,
        margin={"l": 70, "r": 30, "t": 60, "b": 100},
        legend={"orientation": "h", "x": 0, "xref": "container", "y": 0, "yref": "container", "yanchor": "bottom"},
    )
    figure.update_xaxes(type="log", dtick="D2", tickformat="~s", tickangle=0, tickfont_size=12)
    figure.update_xaxes(showline=True, linecolor="#888", ticks="outside", automargin=True)
    figure.update_yaxes(showline=True, linecolor="#888", ticks="outside", tickformat=".0%", range=[-0.05, 1.12])
    return figure
