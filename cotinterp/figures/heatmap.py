"""Sites against places, layers against heads: one colored cell per row of a table."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from cotinterp.figures.sheet import INNER_WIDTH, Panels, checked, order, panels, text, tooltip

_MISSING = "#c4c4c4"
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
    color = {"text": text(value_title or value), "side": "right"}
    sheet.figure.update_layout(
        coloraxis={
            "colorscale": "Viridis" if midpoint is None else "RdBu",
            "cmin": low,
            "cmax": high,
            "colorbar": {"title": color, "thickness": 16, "lenmode": "pixels", "len": 220, "y": 1, "yanchor": "top"},
        },
        legend={"orientation": "h", "x": 0, "xref": "container", "xanchor": "left", "y": 0, "yref": "container"},
    )
    sheet.figure.update_xaxes(type="category", showgrid=False, dtick=1)
    sheet.figure.update_yaxes(type="category", showgrid=False, dtick=1, autorange="reversed")
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
    grid = {name: part.pivot(index=y, columns=x, values=name) for name in [value, *shown]}
    numbers = grid[value].to_numpy(dtype=float)
    absent = np.isnan(numbers)
    sheet.figure.add_heatmap(
        x=across,
        y=down,
        z=numbers,
        customdata=np.stack([grid[name].to_numpy() for name in shown], axis=-1) if shown else None,
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
            colorscale=[[0, _MISSING], [1, _MISSING]],
            showscale=False,
            text=np.where(absent, "×", ""),
            texttemplate="%{text}",
            textfont={"color": "#555"},
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
