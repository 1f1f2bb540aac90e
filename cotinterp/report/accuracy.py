"""Accuracy by number of operands, both regimes in one figure."""

import pandas as pd
import plotly.graph_objects as go

from cotinterp.figures.runs import RunKey, only, runs_of
from cotinterp.report.illustrative import illustrative_accuracy
from cotinterp.report.palette import DASHES, GRAY, dressed, regime_mark

SPLIT_WORDS = {"heldout": "held-out", "train": "train", "validation": "validation"}


def accuracy_figure(frame: pd.DataFrame, *, illustrative: bool = True) -> go.Figure:
    """Share of free-running answers that are exactly right, by K, with Wilson intervals (95 %); one task.

    Solid: held-out problems; dotted: problems of the train split. One line a trained model. Hollow gray markers are the
    source's illustrations (not measured). A gap between regimes is a fact about these models; it does not say why.
    Raises ValueError where the table holds more than one task.
    """
    task = only(frame, "task")
    figure = go.Figure()
    lines = list(frame.groupby(["regime", "split", "run_seed"], sort=False))
    for index, ((regime, split, seed), rows) in enumerate(lines):
        shift = (index - (len(lines) - 1) / 2) * min(0.07, 0.36 / len(lines))
        figure.add_trace(_line(str(regime), str(split), int(str(seed)), rows.sort_values("k"), shift))
    _legend_once(figure)
    if illustrative:
        for regime, rows in illustrative_accuracy(task).groupby("regime", sort=False):
            figure.add_trace(_illustration(str(regime), rows))
    dressed(figure, height=440, margin={"t": 20, "r": 280})
    figure.update_xaxes(title="K (number of operands)", dtick=1)
    figure.update_yaxes(title="answers right, free-running", range=[-0.03, 1.05], tickformat=".0%", dtick=0.2)
    return figure.update_layout(legend={"x": 1.02, "y": 1, "xanchor": "left", "itemsizing": "constant"})


def mostly_wrong(frame: pd.DataFrame) -> dict[RunKey, str]:
    """For each run that is wrong on most held-out problems, how often it is right, in words.

    Pooled over K. What is measured inside such a model is what moves its guesses, not how it finds answers.
    """
    found = {}
    for key, rows in runs_of(frame[frame["split"] == "heldout"]):
        right, n = int(rows["correct"].sum()), int(rows["n"].sum())
        if 2 * right < n:
            found[key] = f"right on {right} of {n} held-out problems, {right / n:.1%}"
    return found


def _line(regime: str, split: str, seed: int, rows: pd.DataFrame, shift: float) -> go.Scatter:
    mark, held = regime_mark(regime), split == "heldout"
    return go.Scatter(
        x=rows["k"] + shift,
        y=rows["accuracy"],
        error_y={
            "array": rows["ci_high"] - rows["accuracy"],
            "arrayminus": rows["accuracy"] - rows["ci_low"],
            "thickness": 1.2,
            "width": 4,
        },
        mode="lines+markers",
        name=f"{regime}, {SPLIT_WORDS.get(split, split)}",
        legendgroup=f"{regime}-{split}",
        line={"color": mark.color, "dash": DASHES.get(split, "dash"), "width": 2.4 if held else 1.6},
        marker={"symbol": mark.symbol, "size": 10 if held else 6, "color": mark.color},
        customdata=rows[["k", "correct", "n", "ci_low", "ci_high"]].to_numpy(dtype=float).tolist(),
        hovertemplate=(
            f"{regime}, {SPLIT_WORDS.get(split, split)}, seed {seed}<br>K = %{{customdata[0]:.0f}}: %{{y:.1%}}"
            "<br>%{customdata[1]:.0f} of %{customdata[2]:.0f} right"
            "<br>95% interval %{customdata[3]:.1%} to %{customdata[4]:.1%}<extra></extra>"
        ),
    )


def _illustration(regime: str, rows: pd.DataFrame) -> go.Scatter:
    return go.Scatter(
        x=rows["k"],
        y=rows["accuracy"],
        mode="markers",
        name=f"{regime}: illustrative (source, not measured)",
        marker={"symbol": f"{regime_mark(regime).symbol}-open", "size": 13, "color": GRAY, "line": {"width": 1.5}},
        hovertemplate=f"{regime}, K = %{{x}}: %{{y:.0%}}<br>illustrative (source, not measured)<extra></extra>",
    )


def _legend_once(figure: go.Figure) -> None:
    seen: set[str] = set()
    for trace in figure.data:
        trace.showlegend = trace.legendgroup not in seen
        seen.add(trace.legendgroup)
