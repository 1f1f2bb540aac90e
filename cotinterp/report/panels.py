"""Grids of heatmaps over the places of a transcript: small multiples that can be read on paper, details on hover."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from cotinterp.report.palette import INK, dressed
from cotinterp.report.places import Place, Symbols, axis_labels

WIDE = 16
"""More places than this, and a number no longer fits into a cell of two panels side by side."""

ABSENT = "#dcdcdc"
GAP, TOP, CHARACTER = 34, 60, 6.6


@dataclass(frozen=True)
class Scale:
    """How a number becomes a color: the ends of the scale, the colors, and what the number is.

    Numbers of at least `written` (in absolute value) are printed in their cells, so that nobody has to read a color.
    """

    low: float
    high: float
    colors: str
    title: str
    written: float = 0.1


@dataclass(frozen=True)
class Panel:
    """One heatmap: a title, the labels of its rows from top to bottom, and the rows of the table that fill it.

    `divide` draws a dashed line before the place of that number.
    """

    title: str
    rows: tuple[str, ...]
    frame: pd.DataFrame
    divide: int | None = None


def heatmap_grid(
    grid: Sequence[Sequence[Panel]],
    *,
    places: tuple[Place, ...],
    value: str,
    scale: Scale,
    row_axis: str,
    symbols: Symbols | None = None,
    cell: int = 20,
) -> go.Figure:
    """Small multiples that share the places on x and one color scale.

    A panel's frame has the columns `row` (one of the panel's rows), role, step, `value`, ci_low, ci_high and n. Cells
    that the table does not have stay gray. Where a transcript is too long for two panels side by side, all panels
    stand in one column.
    """
    if len(places) > WIDE:
        grid = [[panel] for row in grid for panel in row]
    heights = [cell * max(len(panel.rows) for panel in row) for row in grid]
    inner = sum(heights) + GAP * (len(grid) - 1)
    figure = make_subplots(
        rows=len(grid),
        cols=max(len(row) for row in grid),
        subplot_titles=_titles(grid),
        shared_xaxes=True,
        shared_yaxes=True,
        row_heights=heights,
        horizontal_spacing=0.03,
        vertical_spacing=GAP / inner if len(grid) > 1 else 0,
    )
    labels = axis_labels(places, symbols)
    below = round(20 + CHARACTER * max(len(re.sub(r"<.*?>|&", "", label)) for label in labels))
    for row_index, row in enumerate(grid, start=1):
        for column_index, panel in enumerate(row, start=1):
            figure.add_trace(_heatmap(panel, places, labels, value, scale.written), row_index, column_index)
            if panel.divide is not None and 0 < panel.divide < len(places):
                line = {"color": INK, "width": 1.5, "dash": "dash"}
                figure.add_vline(x=panel.divide - 0.5, line=line, row=row_index, col=column_index)
    dressed(figure, height=inner + TOP + below, margin={"t": TOP, "b": below, "l": 90, "r": 90})
    figure.update_layout(plot_bgcolor=ABSENT)
    figure.update_xaxes(type="category", tickangle=-90, tickfont={"size": 11}, ticks="", dtick=1)
    figure.update_yaxes(type="category", autorange="reversed", ticks="", tickfont={"size": 11}, showgrid=False)
    figure.update_yaxes(title=row_axis, col=1)
    figure.update_annotations(font={"size": 13})
    return figure.update_layout(
        coloraxis={
            "colorscale": scale.colors,
            "cmin": scale.low,
            "cmax": scale.high,
            "colorbar": {
                "title": {"text": scale.title, "side": "right", "font": {"size": 12}},
                "thickness": 14,
                "len": max(130, min(260, inner)),
                "lenmode": "pixels",
                "y": 1,
                "yanchor": "top",
            },
        }
    )


def _titles(grid: Sequence[Sequence[Panel]]) -> list[str]:
    columns = max(len(row) for row in grid)
    return [row[index].title if index < len(row) else "" for row in grid for index in range(columns)]


def _heatmap(panel: Panel, places: tuple[Place, ...], labels: list[str], value: str, written: float) -> go.Heatmap:
    """Cells by (row, place). The table has at most one row a cell: pivot raises where it has two."""
    cells = panel.frame.set_index(["row", "role", "step"])[[value, "ci_low", "ci_high", "n"]]
    if cells.index.has_duplicates:
        twice = cells.index[cells.index.duplicated()][0]
        raise ValueError(
            f"panel {panel.title!r} has more than one value for {twice}; select one metric, pair and site first"
        )
    index = pd.MultiIndex.from_tuples([(row, place.role, place.step) for row in panel.rows for place in places])
    table = cells.reindex(index).to_numpy(dtype=float).reshape(len(panel.rows), len(places), 4)
    return go.Heatmap(
        z=table[:, :, 0].astype(np.float32),
        x=labels,
        y=list(panel.rows),
        customdata=table[:, :, 1:].round(4).tolist(),
        coloraxis="coloraxis",
        text=[[_printed(number, written) for number in row] for row in table[:, :, 0]],
        texttemplate="%{text}",
        textfont={"size": 9},
        xgap=1,
        ygap=1,
        hoverongaps=False,
        hovertemplate=f"{panel.title}<br>%{{y}} at %{{x}}<br>%{{z:.3f}}{_interval(table)}<extra></extra>",
    )


def _printed(number: float, written: float) -> str:
    """A number as it stands in its cell, `.56`; nothing for one that is missing or too small to be printed."""
    if np.isnan(number) or abs(number) < written:
        return ""
    return re.sub(r"^(-?)0\.", r"\1.", f"{number:.2f}").replace("-", "\N{MINUS SIGN}")


def _interval(table: np.ndarray) -> str:
    """The hover text behind a value: interval and n, or n alone where the table has no interval of this number."""
    if np.isnan(table[:, :, 1]).all():
        return "<br>n = %{customdata[2]:.0f}"
    return "<br>95% interval %{customdata[0]:.3f} to %{customdata[1]:.3f}, n = %{customdata[2]:.0f}"
