"""Figures of single heads: what each writes, costs and looks at, and what every component writes to the logits."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from cotinterp.figures.heatmap import heatmap
from cotinterp.figures.sheet import DIVERGING, PALETTE, SEQUENTIAL, grid


@dataclass(frozen=True)
class Column:
    """One number of the table: its heading, and whether it has a sign (red below zero) or is an amount in 0..1."""

    name: str
    heading: str
    signed: bool


HEAD_COLUMNS: tuple[Column, ...] = (
    Column("attribution", "direct attribution<br>(logits)", signed=True),
    Column("ablation_effect", "ablation effect<br>(share of logit difference)", signed=True),
    Column("attention_to_previous_total", "attention to<br>previous total", signed=False),
    Column("attention_to_next_operand", "attention to<br>next operand", signed=False),
)


def head_figure(table: pd.DataFrame, *, title: str, columns: Sequence[Column] = HEAD_COLUMNS) -> go.Figure:
    """`table` has a row per head with layer, head, label and the columns; each column has a color scale of its own."""
    rows = [f"{row.label}  <b>L{row.layer}H{row.head}</b> " for row in table.itertuples()]
    figure = grid(
        title=title,
        columns=len(columns),
        heights=[26 * len(rows)],
        below=30,
        above=50,
        between=0.015,
        shared_yaxes=True,
    )
    for index, column in enumerate(columns, start=1):
        values = table[column.name].to_numpy(dtype=float)
        figure.add_trace(_cells(values, rows, column), row=1, col=index)
    figure.update_xaxes(side="top", ticks="")
    figure.update_yaxes(autorange="reversed", showgrid=False, ticks="")
    return figure


def _cells(values: np.ndarray, rows: Sequence[str], column: Column) -> go.Heatmap:
    finite = values[np.isfinite(values)]
    reach = float(np.abs(finite).max()) if len(finite) and np.abs(finite).max() > 0 else 1.0
    return go.Heatmap(
        z=values[:, None],
        x=[column.heading],
        y=list(rows),
        text=[["–" if np.isnan(value) else f"{value:.2f}"] for value in values],
        texttemplate="%{text}",
        colorscale=DIVERGING if column.signed else SEQUENTIAL,
        zmin=-reach if column.signed else 0.0,
        zmax=reach if column.signed else 1.0,
        showscale=False,
        hoverongaps=False,
        hovertemplate="%{y}: %{z:.3f}<extra></extra>",
    )


def attribution_figure(table: pd.DataFrame, *, title: str) -> go.Figure:
    """A bar for each component in the order of the table, colored by what it is, with its interval over examples."""
    figure = grid(title=title, heights=[360], below=110)
    for color, (component, part) in zip(PALETTE, table.groupby("component", sort=False), strict=False):
        spread = {
            "array": part["ci_high"] - part["attribution"],
            "arrayminus": part["attribution"] - part["ci_low"],
        }
        figure.add_bar(
            x=part["site"],
            y=part["attribution"],
            error_y={"type": "data", "symmetric": False, **spread},
            name=str(component).replace("_", " "),
            marker_color=color,
            customdata=part["share"],
            hovertemplate="%{x}: %{y:.3f} logits, %{customdata:.1%} of the difference",
        )
    figure.update_yaxes(title_text="logits toward the answer (mean, 95% interval)")
    figure.update_xaxes(categoryorder="array", categoryarray=table["site"], tickangle=-90)
    return figure


def routes_figure(table: pd.DataFrame, shown: Sequence[tuple[int, int | None, str]], words: Sequence[str]) -> go.Figure:
    """Shares of the score of heads by component: a row for each of `shown` (layer, head, source) and side.

    `table` is that of `RouteResult.frame`; the first of `words` stands in the title.
    """
    if not shown:
        raise ValueError("no head was named; choose some by layer, head and source")
    rows = []
    for layer, head, src in shown:
        part = table[(table["layer"] == layer) & (table["head"] == head) & (table["src"] == src)]
        rows.append(part.assign(row=f"L{layer}H{head} to {src}: " + part["side"]))
    return heatmap(
        pd.concat(rows, ignore_index=True),
        x="source",
        y="row",
        value="share",
        midpoint=0.0,
        x_title="part of the residual stream",
        y_title="head, what it looks at, and which side of its score",
        value_title="share",
        title=f"Score by part of the residual stream. {words[0]}",
        hover=["contribution", "ci_low", "ci_high", "total", "attention", "n"],
    )
