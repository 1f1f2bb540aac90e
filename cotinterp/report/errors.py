"""What the faulty outputs look like: counts by category and K."""

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from cotinterp.figures.runs import only, runs_of
from cotinterp.report.palette import CATEGORICAL, PATTERNS, dressed, pattern

CORRECT = "correct"
FEW = 5.0


def errors_figure(frame: pd.DataFrame) -> go.Figure:
    """Counts of faulty outputs by category, stacked over K; one panel a trained model, one task.

    Faulty is whatever is not `correct`: also a right answer after a faulty trace. The number above a bar says how many,
    of how many. The panels have their own vertical scales, for one regime may fail a hundred times as often. A category
    describes the text that was written, not its cause.
    Raises ValueError where the table holds more than one task.
    """
    only(frame, "task")
    runs = list(runs_of(frame))
    figure = make_subplots(
        rows=1,
        cols=len(runs),
        subplot_titles=[f"<b>{key.regime}</b>, seed {key.run_seed}" for key, _ in runs],
        horizontal_spacing=0.08,
    )
    categories = [str(name) for name in frame["category"].unique() if name != CORRECT]
    shown = set(frame.loc[frame["count"] > 0, "category"])
    in_legend: set[str] = set()
    for column, (_, rows) in enumerate(runs, start=1):
        for index, category in enumerate(categories):
            of_category = rows[rows["category"] == category]
            if category in shown and len(of_category):
                figure.add_trace(_bars(of_category, category, index, category not in in_legend), 1, column)
                in_legend.add(category)
        _totals(figure, rows, column)
    dressed(figure, height=440, margin={"t": 50, "b": 130, "r": 20})
    ks = frame["k"]
    figure.update_xaxes(title="K (number of operands)", dtick=1, range=[ks.min() - 0.7, ks.max() + 0.7])
    figure.update_yaxes(rangemode="tozero")
    figure.update_yaxes(title="faulty outputs", col=1)
    return figure.update_layout(
        barmode="stack",
        legend={"orientation": "h", "y": -0.24, "yanchor": "top", "x": 0, "traceorder": "normal"},
    )


def _bars(rows: pd.DataFrame, category: str, index: int, legend: bool) -> go.Bar:
    words = category.replace("_", " ")
    return go.Bar(
        x=rows["k"],
        y=rows["count"],
        name=words,
        legendgroup=category,
        showlegend=legend,
        marker={
            "color": CATEGORICAL[index % len(CATEGORICAL)],
            "pattern": pattern(PATTERNS[index % len(PATTERNS)]),
            "line": {"color": "white", "width": 0.5},
        },
        customdata=rows[["share"]].to_numpy(dtype=float).tolist(),
        hovertemplate=f"{words}<br>K = %{{x}}: %{{y}} outputs (%{{customdata[0]:.1%}} of all)<extra></extra>",
    )


def _totals(figure: go.Figure, rows: pd.DataFrame, column: int) -> None:
    totals = rows.groupby("k")["count"].sum()
    right = rows[rows["category"] == CORRECT].groupby("k")["count"].sum().reindex(totals.index, fill_value=0)
    faulty = totals - right
    figure.add_trace(
        go.Scatter(
            x=totals.index,
            y=faulty,
            mode="text",
            text=[f"{bad} of {all_}" for bad, all_ in zip(faulty, totals, strict=True)],
            textposition="top center",
            textfont={"size": 11},
            showlegend=False,
            hoverinfo="skip",
            cliponaxis=False,
        ),
        1,
        column,
    )
    # Counts: where there are hardly any, no fractions of an output on the axis.
    figure.update_yaxes(
        range=[0, max(float(faulty.max()) * 1.15, FEW)], dtick=1 if faulty.max() <= FEW else None, row=1, col=column
    )
