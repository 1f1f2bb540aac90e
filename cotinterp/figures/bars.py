"""What a whole is made of: kinds of error, outcomes of an edit."""

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from cotinterp.figures.sheet import category_bar, checked, named, order, panels, tooltip


def stacked_bars(
    frame: pd.DataFrame,
    *,
    x: str,
    y: str,
    color: str,
    title: str,
    facet: str | None = None,
    bounds: tuple[float, float] | None = None,
    x_title: str | None = None,
    y_title: str | None = None,
    hover: Sequence[str] = (),
) -> go.Figure:
    """A bar per `x`, cut into the categories of `color` in the order given, from the bottom up.

    Every color comes with its own hatching. `hover` names further columns to show, such as the count
    behind a share. `ValueError` for negative parts, which do not stack into a whole.
    """
    table = checked(frame, place=[x, color, facet], numbers=[y], hover=hover)
    if (table[y] < 0).any():
        raise ValueError(
            f"column {y!r} has negative values, down to {table[y].min():.4g}, which cannot be parts of a whole"
        )
    ticks, parts = order(table[x]), order(table[color])
    sheet = panels(
        table,
        facet=facet,
        title=title,
        x_title=x_title or x,
        y_title=y_title or y,
        x_labels=ticks,
        height=320,
        slot=34,
    )
    for row, column, panel in sheet:
        for number, name in enumerate(parts):
            chosen = panel[panel[color] == name]
            sheet.figure.add_bar(
                x=chosen[x],
                y=chosen[y],
                name=named(color, name),
                legendgroup=name,
                showlegend=(row, column) == (1, 1),
                marker=category_bar(number),
                customdata=chosen[list(hover)].to_numpy() if hover else None,
                hovertemplate=tooltip(chosen, x=x, y=y, shown=hover, name=named(color, name)),
                row=row,
                col=column,
            )
    sheet.figure.update_layout(barmode="stack", bargap=0.25, legend={"traceorder": "reversed"})
    sheet.figure.update_xaxes(type="category", categoryorder="array", categoryarray=ticks)
    if bounds is not None:
        sheet.figure.update_yaxes(range=list(bounds))
    return sheet.figure
