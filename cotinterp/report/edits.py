"""What a model answers after one of its written totals was replaced: rates of following, ignoring and neither."""

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from cotinterp.figures.runs import only, runs_of
from cotinterp.report.palette import BLUE, GRAY, INK, ORANGE, dressed, pattern

OUTCOMES = {"follows": (BLUE, ""), "ignores": (ORANGE, "/"), "other": (GRAY, ".")}
CONTROL, CHANCE = "none", "shuffled_target"
SUBSTITUTE = "substitute_total"
PANELS = {SUBSTITUTE: "a wrong total written", CONTROL: "control, the true total written again"}
PANEL_HEIGHT = 300
BELOW = 64


def trace_edits_figure(frame: pd.DataFrame) -> go.Figure:
    """Shares of edited transcripts that follow the edit, ignore it or do neither, by the edited step; one task.

    `follows`: the answer is what the task computes from the edited total; `ignores`: the original answer. One panel a
    trained model and kind of edit, with 95% intervals. Dotted lines are chance: the rows `shuffled_target`, each output
    judged by another problem's answers. Following shows that the answer depends on what was written; edited traces are
    off the training distribution of models that saw perfect traces only. Drawn are the rows of replaced totals and
    their control; `edit_kinds_figure` draws every kind of edit.
    Raises ValueError where the table holds more than one task, or no replaced total.
    """
    only(frame, "task")
    panels = [
        (key.regime, key.run_seed, edit, rows, run[run["edit"] == CHANCE])
        for key, run in runs_of(substitutions(frame))
        for edit in PANELS
        if len(rows := run[run["edit"] == edit])
    ]
    if not panels:
        raise ValueError(f"no {SUBSTITUTE} in the table, only {list(frame['edit'].unique())}: see edit_kinds_figure")
    n_columns = min(2, len(panels))
    n_rows = -(-len(panels) // n_columns)
    figure = make_subplots(
        rows=n_rows,
        cols=n_columns,
        subplot_titles=[f"<b>{regime}</b>, seed {seed}: {PANELS[edit]}" for regime, seed, edit, *_ in panels],
        shared_yaxes=True,
        horizontal_spacing=0.05,
        vertical_spacing=0.3 / n_rows,
    )
    for index, (_, _, edit, rows, chance) in enumerate(panels):
        at = {"row": index // n_columns + 1, "col": index % n_columns + 1}
        for outcome in OUTCOMES:
            figure.add_trace(_bars(rows[rows["outcome"] == outcome], outcome, index == 0), **at)
        if edit != CONTROL:
            for outcome in ("follows", "ignores"):
                figure.add_trace(_chance(chance[chance["outcome"] == outcome], outcome, index == 0), **at)
    dressed(figure, height=120 + PANEL_HEIGHT * n_rows, margin={"t": 50, "b": 120})
    figure.update_xaxes(title="step whose total was replaced", dtick=1)
    figure.update_yaxes(range=[0, 1.05], tickformat=".0%", dtick=0.25)
    figure.update_yaxes(title="share of edited transcripts", col=1)
    return figure.update_layout(
        barmode="group",
        legend={"orientation": "h", "y": -BELOW / (PANEL_HEIGHT * n_rows - 50), "yanchor": "top", "x": 0},
    )


def substitutions(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of a table of edits that are of one replaced total: the edit, its chance, and its control by step."""
    of_step = (frame["edit"] == CONTROL) & (frame["step"] > 0)
    return frame[frame["edit"].isin([SUBSTITUTE, CHANCE]) | of_step]


def _bars(rows: pd.DataFrame, outcome: str, legend: bool) -> go.Bar:
    color, shape = OUTCOMES[outcome]
    return go.Bar(
        x=rows["step"],
        y=rows["rate"],
        name=outcome,
        legendgroup=outcome,
        showlegend=legend,
        marker={"color": color, "pattern": pattern(shape)},
        error_y={
            "array": rows["ci_high"] - rows["rate"],
            "arrayminus": rows["rate"] - rows["ci_low"],
            "color": INK,
            "thickness": 1.2,
            "width": 3,
        },
        customdata=rows[["n", "ci_low", "ci_high"]].to_numpy(dtype=float).tolist(),
        hovertemplate=(
            f"{outcome}, step %{{x}}: %{{y:.1%}}<br>n = %{{customdata[0]:.0f}}"
            "<br>95% interval %{customdata[1]:.1%} to %{customdata[2]:.1%}<extra></extra>"
        ),
    )


def _chance(rows: pd.DataFrame, outcome: str, legend: bool) -> go.Scatter:
    return go.Scatter(
        x=rows["step"],
        y=rows["rate"],
        mode="lines+markers",
        name=f"chance that it {outcome}",
        legendgroup=f"chance-{outcome}",
        showlegend=legend and len(rows) > 0,
        line={"color": OUTCOMES[outcome][0], "dash": "dot", "width": 2},
        marker={
            "symbol": "diamond" if outcome == "follows" else "cross",
            "size": 8,
            "line": {"color": "white", "width": 1},
        },
        hovertemplate=f"chance that it {outcome}, step %{{x}}: %{{y:.1%}}<extra></extra>",
    )
