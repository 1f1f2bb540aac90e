"""Sites against places, layers against heads: one colored cell per row of a table."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from cotinterp.figures.labels import NO_SYMBOLS, Place, Symbols, axis_labels
from cotinterp.figures.sheet import (
    ABSENT,
    CHARACTER,
    DIVERGING,
    INK,
    INNER_WIDTH,
    SEQUENTIAL,
    Panels,
    checked,
    grid,
    order,
    panels,
    set_axes,
    text,
    tooltip,
)

_HOVERED = ("ci_low", "ci_high", "n")


def heatmap(
    frame: pd.DataFrame,
    *,
    x: str,
    y: str,
    value: str,
    title: str,
    facet: str | None = None,
    midpoint: float | None = None,
    bounds: tuple[float, float] | None = None,
    x_title: str | None = None,
    y_title: str | None = None,
    value_title: str | None = None,
    hover: Sequence[str] | None = None,
) -> go.Figure:
    """A cell for every row of the table, `y` from top to bottom; facets share the color scale.

    With `midpoint` the scale diverges: white there, equally far to red (below) and to blue (above). `bounds` replaces
    the data's own ends. Cells that are absent or NaN are gray with a cross, never a color of the scale. Numbers are
    printed in the cells where they fit. `hover` names further columns to show; by default ci_low, ci_high and n.
    """
    shown = [name for name in _HOVERED if name in frame.columns] if hover is None else list(hover)
    table = checked(frame, place=[x, y, facet], numbers=[value], hover=shown)
    columns, rows = order(table[x]), order(table[y])
    sheet = panels(
        table,
        facet=facet,
        title=title,
        x_title=x_title or x,
        y_title=y_title or y,
        x_labels=columns,
        height=max(160, 26 * len(rows)),
        slot=18,
    )
    low, high = bounds or _ends(table[value], midpoint)
    printed = INNER_WIDTH / sheet.columns / len(columns) >= 40
    for place in sheet:
        _draw(sheet, place, x=x, y=y, value=value, shown=shown, printed=printed)
    colors = SEQUENTIAL if midpoint is None else DIVERGING
    sheet.figure.update_layout(
        coloraxis=_color_axis((low, high), colors, value_title or value, length=220),
        legend={"orientation": "h", "x": 0, "xref": "container", "xanchor": "left", "y": 0, "yref": "container"},
    )
    axes = {"type": "category", "showgrid": False, "dtick": 1}
    set_axes(sheet.figure, x=axes, y=axes | {"autorange": "reversed"})
    return sheet.figure


def _draw(
    sheet: Panels,
    place: tuple[int, int, pd.DataFrame],
    *,
    x: str,
    y: str,
    value: str,
    shown: Sequence[str],
    printed: bool,
) -> None:
    """The cells of one facet, with only the rows and columns that the facet has."""
    row, column, part = place
    across, down = order(part[x]), order(part[y])
    cells = {name: part.pivot(index=y, columns=x, values=name) for name in [value, *shown]}
    numbers = cells[value].to_numpy(dtype=float)
    absent = np.isnan(numbers)
    sheet.figure.add_heatmap(
        x=across,
        y=down,
        z=numbers,
        customdata=np.stack([cells[name].to_numpy() for name in shown], axis=-1) if shown else None,
        hovertemplate=tooltip(part, x=x, y=y, value=value, shown=shown),
        hoverongaps=False,
        texttemplate="%{z:.2f}" if printed else None,
        coloraxis="coloraxis",
        xgap=1,
        ygap=1,
        row=row,
        col=column,
    )
    if absent.any():
        seen = any(trace.name == "no value" for trace in sheet.figure.data)
        sheet.figure.add_heatmap(
            x=across,
            y=down,
            z=np.where(absent, 0.0, np.nan),
            colorscale=[[0, ABSENT], [1, ABSENT]],
            showscale=False,
            text=np.where(absent, "×", ""),
            texttemplate="%{text}",
            textfont={"color": INK},
            hovertemplate="%{x}, %{y}: no value<extra></extra>",
            hoverongaps=False,
            name="no value",
            showlegend=not seen,
            xgap=1,
            ygap=1,
            row=row,
            col=column,
        )


def _ends(values: pd.Series, midpoint: float | None) -> tuple[float, float]:
    """The ends of the scale: those of the data, or as far on both sides of the midpoint as the data goes."""
    finite = values.to_numpy(dtype=float)
    finite = finite[np.isfinite(finite)]
    if midpoint is None:
        low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
        return (low, high) if low < high else (low - 0.5, high + 0.5)
    reach = float(np.abs(finite - midpoint).max(initial=0.0)) or 1.0
    return midpoint - reach, midpoint + reach


def _color_axis(ends: tuple[float, float], colors: str, title: str, *, length: int) -> dict[str, object]:
    return {
        "colorscale": colors,
        "cmin": ends[0],
        "cmax": ends[1],
        "colorbar": {
            "title": {"text": text(title), "side": "right", "font": {"size": 12}},
            "thickness": 14,
            "lenmode": "pixels",
            "len": length,
            "y": 1,
            "yanchor": "top",
        },
    }


WIDE = 16
"""More places than this, and a number no longer fits into a cell of two panels side by side."""
_GAP = 34


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


def place_heatmaps(
    panels: Sequence[Sequence[Panel]],
    *,
    places: tuple[Place, ...],
    value: str,
    scale: Scale,
    title: str,
    row_axis: str = "",
    symbols: Symbols = NO_SYMBOLS,
    cell: int = 20,
    hover: Sequence[str] = ("ci_low", "ci_high", "n"),
) -> go.Figure:
    """Small multiples that share the places of a transcript on x and one color scale.

    A panel's frame has the columns `row` (one of the panel's rows), role, step, `value` and those of `hover`. Cells
    that the table does not have, or that are NaN, stay gray. Where a transcript is too long for two panels side by
    side, all panels stand in one column.
    """
    if len(places) > WIDE:
        panels = [[panel] for row in panels for panel in row]
    heights = [cell * max(len(panel.rows) for panel in row) for row in panels]
    labels = axis_labels(places, symbols)
    below = round(20 + CHARACTER * max(len(re.sub(r"<.*?>|&", "", label)) for label in labels))
    columns = max(len(row) for row in panels)
    figure = grid(
        [row[index].title if index < len(row) else "" for row in panels for index in range(columns)],
        title=title,
        columns=columns,
        heights=heights,
        gap=_GAP,
        below=below,
        left=90,
        right=90,
        between=0.03,
        shared_xaxes=True,
        shared_yaxes=True,
    )
    for row_index, row in enumerate(panels, start=1):
        for column_index, panel in enumerate(row, start=1):
            figure.add_trace(_cells(panel, places, labels, value, scale.written, hover), row_index, column_index)
            if panel.divide is not None and 0 < panel.divide < len(places):
                line = {"color": INK, "width": 1.5, "dash": "dash"}
                figure.add_vline(x=panel.divide - 0.5, line=line, row=row_index, col=column_index)
    axes = {"type": "category", "ticks": "", "tickfont": {"size": 11}}
    set_axes(
        figure,
        x=axes | {"tickangle": -90, "dtick": 1},
        y=axes | {"autorange": "reversed", "showgrid": False},
    )
    figure.update_yaxes(title_text=row_axis, col=1)
    length = max(130, min(260, sum(heights)))
    return figure.update_layout(
        plot_bgcolor=ABSENT,
        coloraxis=_color_axis((scale.low, scale.high), scale.colors, scale.title, length=length),
    )


def _cells(
    panel: Panel, places: tuple[Place, ...], labels: list[str], value: str, written: float, hover: Sequence[str]
) -> go.Heatmap:
    """Cells by (row, place)."""
    cells = panel.frame.set_index(["row", "role", "step"])[[value, *hover]]
    if cells.index.has_duplicates:
        twice = cells.index[cells.index.duplicated()][0]
        raise ValueError(
            f"panel {panel.title!r} has more than one value for {twice}; select one metric, pair and site first"
        )
    index = pd.MultiIndex.from_tuples([(row, *place) for row in panel.rows for place in places])
    flat = cells.reindex(index).to_numpy(dtype=float, na_value=np.nan)
    table = flat.reshape(len(panel.rows), len(places), 1 + len(hover))
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
        hovertemplate=f"{panel.title}<br>%{{y}} at %{{x}}<br>%{{z:.3f}}{_beside(table, hover)}<extra></extra>",
    )


def _printed(number: float, written: float) -> str:
    """A number as it stands in its cell, `.56`; nothing for one that is missing or too small to be printed."""
    if np.isnan(number) or abs(number) < written:
        return ""
    return re.sub(r"^(-?)0\.", r"\1.", f"{number:.2f}").replace("-", "\N{MINUS SIGN}")


def _beside(table: np.ndarray, hover: Sequence[str]) -> str:
    """The hover text behind a value: interval and n as such, other columns by name, none that is missing throughout."""
    known = [i for i in range(len(hover)) if not np.isnan(table[:, :, 1 + i]).all()]
    data = {hover[i]: f"%{{customdata[{i}]:{'.0f' if hover[i] == 'n' else '.3f'}}}" for i in known}
    parts = []
    if "ci_low" in data and "ci_high" in data:
        parts.append(f"95% interval {data.pop('ci_low')} to {data.pop('ci_high')}")
    parts += [f"{name.replace('_', ' ')} = {shown}" for name, shown in data.items()]
    return "<br>" + ", ".join(parts) if parts else ""
