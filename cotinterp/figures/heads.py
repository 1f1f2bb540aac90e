"""Figures of single heads: what each writes, costs and looks at, and what every component writes to the logits."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from cotinterp.figures.sheet import PALETTE


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
    figure = make_subplots(cols=len(columns), shared_yaxes=True, horizontal_spacing=0.015)
    for index, column in enumerate(columns, start=1):
        values = table[column.name].to_numpy(dtype=float)
        figure.add_trace(_cells(values, rows, column), row=1, col=index)
    figure.update_xaxes(side="top", showgrid=False, ticks="")
    figure.update_yaxes(autorange="reversed", showgrid=False, ticks="", automargin=True)
    figure.update_layout(
        template="plotly_white",
        title={"text": title, "x": 0.01, "y": 1, "yanchor": "top", "pad": {"t": 14}},
        title_font_size=17,
        font_size=13,
        height=130 + 26 * len(rows),
        margin={"l": 60, "r": 30, "t": 100, "b": 30},
    )
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
        colorscale="RdBu" if column.signed else "Viridis",
        zmin=-reach if column.signed else 0.0,
        zmax=reach if column.signed else 1.0,
        showscale=False,
        hoverongaps=False,
        hovertemplate="%{y}: %{z:.3f}<extra></extra>",
    )


def attribution_figure(table: pd.DataFrame, *, title: str) -> go.Figure:
    """A bar for each component in the order of the table, colored by what it is, with its interval over examples."""
    figure = go.Figure()
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
    figure.update_layout(
        template="plotly_white",
        title=title,
        yaxis_title="logits toward the answer (mean, 95% interval)",
        height=520,
        font_size=13,
    )
    figure.update_xaxes(categoryorder="array", categoryarray=table["site"], tickangle=-90, automargin=True)
    return figure
