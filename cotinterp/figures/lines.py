"""A number against k, depth or time, one line per regime, model or split."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from cotinterp.figures.sheet import GRAY, INK, PALETTE, SYMBOLS, checked, named, order, panels, text, tooltip

_DASHES = ("solid", "dash", "dot", "dashdot")
_MANY = 30
_APART = 0.03
"""Least share of an axis between two of its marks."""


def lines(
    frame: pd.DataFrame,
    *,
    x: str,
    y: str,
    title: str,
    low: str | None = None,
    high: str | None = None,
    color: str | None = None,
    dash: str | None = None,
    facet: str | None = None,
    bounds: tuple[float, float] | None = None,
    references: Mapping[str, float] | None = None,
    x_title: str | None = None,
    y_title: str | None = None,
    hover: Sequence[str] = (),
) -> go.Figure:
    """A line per (`color`, `dash`), a marker per row, whiskers from `low` to `high` (a band beyond 30 points).

    Every color comes with its own marker, so the figure survives printing in gray. `references` are labeled horizontal
    lines, such as chance. A numeric `x` keeps its distances; text is spread evenly in the order given. A NaN in `y`
    breaks the line.
    """
    if (low is None) != (high is None):
        raise ValueError(f"an interval has two ends: got low={low!r} and high={high!r}")
    table = checked(frame, place=[x, color, dash, facet], numbers=[y, low, high], hover=hover)
    numeric = pd.api.types.is_numeric_dtype(frame[x])
    ticks = order(table[x])
    sheet = panels(
        table.assign(**{x: frame[x]}) if numeric else table,
        facet=facet,
        title=title,
        x_title=x_title or x,
        y_title=y_title or y,
        x_labels=ticks if len(ticks) <= _MANY else ["10000"] * 6,
        height=320,
        slot=40,
    )
    series = _series(table, color, dash)
    for row, column, part in sheet:
        for one in series:
            points = one.of(part).sort_values(x)
            if points.empty:
                continue
            line, *fill = _traces(one, points, (x, y, low, high), band=len(ticks) > _MANY, hover=hover)
            line.showlegend = bool(one.where) and all(trace.name != one.name for trace in sheet.figure.data)
            sheet.figure.add_traces([line, *fill], rows=row, cols=column)
    for name, level in (references or {}).items():
        note = {"annotation_text": text(name), "annotation_position": "top right", "annotation_font_color": INK}
        sheet.figure.add_hline(y=level, line={"dash": "dot", "color": GRAY, "width": 1.5}, **note)
    if bounds is not None:
        pad = 0.03 * (bounds[1] - bounds[0])
        sheet.figure.update_yaxes(range=[bounds[0] - pad, bounds[1] + pad])
    if not numeric:
        sheet.figure.update_xaxes(type="category", categoryorder="array", categoryarray=ticks)
    elif len(ticks) <= _MANY:
        values = np.sort(frame[x].unique().astype(float))
        # Where two stand closer, their labels would lie on one another, and plotly chooses round numbers.
        if len(values) < 2 or np.diff(values).min() >= _APART * np.ptp(values):
            sheet.figure.update_xaxes(tickvals=values.tolist())
    return sheet.figure


@dataclass(frozen=True)
class _Series:
    """One entry of the legend: which rows it has, and how they look."""

    name: str
    where: Mapping[str, str]
    paint: str
    symbol: str
    stroke: str

    def of(self, part: pd.DataFrame) -> pd.DataFrame:
        chosen = part
        for column, value in self.where.items():
            chosen = chosen[chosen[column] == value]
        return chosen


def _series(table: pd.DataFrame, color: str | None, dash: str | None) -> list[_Series]:
    """Colors and markers follow `color`, strokes follow `dash`; beyond eight colors and four strokes they repeat."""
    colors, dashes = (([None] if name is None else order(table[name])) for name in (color, dash))
    return [
        _Series(
            name=", ".join(
                named(column, value) for column, value in ((color, one), (dash, other)) if value is not None
            ),
            where={column: value for column, value in ((color, one), (dash, other)) if column and value},
            paint=PALETTE[i % len(PALETTE)],
            symbol=SYMBOLS[i % len(SYMBOLS)],
            stroke=_DASHES[j % len(_DASHES)],
        )
        for (i, one), (j, other) in product(enumerate(colors), enumerate(dashes))
    ]


def _traces(
    one: _Series,
    points: pd.DataFrame,
    columns: tuple[str, str, str | None, str | None],
    *,
    band: bool,
    hover: Sequence[str],
) -> list[go.Scatter]:
    """The line, and its band where the points are too many for whiskers."""
    x, y, low, high = columns
    shown = [name for name in dict.fromkeys([low, high, *hover]) if name]
    line = go.Scatter(
        x=points[x],
        y=points[y],
        mode="lines" if band else "lines+markers",
        name=one.name,
        legendgroup=one.name,
        line={"color": one.paint, "dash": one.stroke, "width": 2},
        marker={"symbol": one.symbol, "size": 8},
        customdata=points[shown].to_numpy() if shown else None,
        hovertemplate=tooltip(points, x=x, y=y, shown=shown, name=one.name),
    )
    if low is None or high is None:
        return [line]
    if not band:
        line.error_y = {"array": points[high] - points[y], "arrayminus": points[y] - points[low], "thickness": 1.2}
        return [line]
    known = points[points[low].notna() & points[high].notna()]
    there_and_back = pd.concat([known, known[::-1]])
    edge = pd.concat([known[high], known[low][::-1]])
    fill = go.Scatter(
        x=there_and_back[x],
        y=edge,
        fill="toself",
        fillcolor=one.paint,
        opacity=0.18,
        mode="none",
        hoverinfo="skip",
        legendgroup=one.name,
        showlegend=False,
    )
    return [line, fill]
