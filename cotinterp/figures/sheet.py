"""The sheet that figures are drawn on: facets in a grid with room for their labels, one style, no global template."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from html import escape, unescape
from textwrap import wrap

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

# Okabe and Ito (2008), told apart under every common color blindness; yellow last, for it is faint on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
INNER_WIDTH = 900
_CHARACTER = 6.2


def text(value: object) -> str:
    """`value` as plotly shows it verbatim: `<`, with which a prompt begins, would open a tag."""
    return escape(str(value), quote=False)


def order(column: pd.Series) -> list[str]:
    """The categories in a column as text, in the order given: that of its categories, else of first appearance."""
    present = column.drop_duplicates()
    if isinstance(column.dtype, pd.CategoricalDtype):
        present = present.sort_values()
    return [str(value) for value in present]


def named(column: str | None, category: str) -> str:
    """A category as a legend or a facet's title says it. Numbers alone say little: `layer 2`, but `cot`."""
    return category if any(character.isalpha() for character in category) else f"{text(column)} {category}"


def checked(
    frame: pd.DataFrame, *, place: Sequence[str | None], numbers: Sequence[str | None], hover: Sequence[str]
) -> pd.DataFrame:
    """The columns of `frame` that are drawn, those of `place` (axes, colors, facets) as text in the order given.

    `KeyError` for a column that is missing, with the nearest name; `ValueError` for a table without rows, a place that
    is missing a value, and rows that would be drawn in one place.
    """
    places, names = [name for name in place if name], [str(name) for name in frame.columns]
    wanted = dict.fromkeys([*places, *(name for name in numbers if name), *hover])
    for column in wanted:
        if column not in names:
            near = get_close_matches(column, names, n=1)
            raise KeyError(
                f"no column {column!r}{f', did you mean {near[0]!r}?' if near else ';'} the table has {names}"
            )
    if frame.empty:
        raise ValueError(f"nothing to draw: the table with columns {names} has no rows")
    for column in places:
        if frame[column].isna().any():
            raise ValueError(f"column {column!r} has missing values, which have no place on an axis or in a legend")
    twice = frame[frame.duplicated(places)]
    if len(twice):
        example = twice[places].iloc[0].to_dict()
        raise ValueError(
            f"{len(twice)} rows hide another with the same {places}, such as {example}: aggregate or facet"
        )
    shown = {name: frame[name].astype(object).map(text) for name in places}
    kinds = {name: pd.CategoricalDtype([text(value) for value in order(frame[name])], ordered=True) for name in places}
    return frame[list(wanted)].assign(**{name: shown[name].astype(kinds[name]) for name in places})


@dataclass(frozen=True)
class Panels:
    """An empty figure of one or more facets; iterating gives each facet's row, column and rows of the table."""

    figure: go.Figure
    parts: tuple[pd.DataFrame, ...]
    columns: int

    def __iter__(self) -> Iterator[tuple[int, int, pd.DataFrame]]:
        for number, part in enumerate(self.parts):
            yield number // self.columns + 1, number % self.columns + 1, part


def panels(
    frame: pd.DataFrame,
    *,
    facet: str | None,
    title: str,
    x_title: str,
    y_title: str,
    x_labels: Sequence[str],
    height: int,
    slot: int,
) -> Panels:
    """A sheet for `frame`, with as many facets side by side as leave each of `x_labels` a width of `slot` pixels.

    Labels wider than what they get are turned upright; the rows of the grid, each `height` pixels, are set apart by the
    labels' length.
    """
    groups = [("", frame)] if facet is None else list(frame.groupby(facet, observed=True))
    columns = min(len(groups), max(1, INNER_WIDTH // (slot * len(x_labels) + 60)))
    rows = -(-len(groups) // columns)
    widest = max(len(unescape(label)) for label in x_labels) * _CHARACTER
    upright = widest > (INNER_WIDTH / columns - 60 * (columns > 1)) / len(x_labels)
    below = int(widest if upright else 20) + 40
    heading = [text(line) for line in wrap(title, 110)]
    top = 30 + 24 * len(heading) + 24 * (facet is not None)
    inner = rows * height + (rows - 1) * (below + 50)
    figure = make_subplots(
        rows=rows,
        cols=columns,
        subplot_titles=None if facet is None else [named(facet, str(name)) for name, _ in groups],
        vertical_spacing=(below + 50) / inner if rows > 1 else 0,
        horizontal_spacing=0.08 if columns > 1 else 0,
    )
    figure.update_layout(
        template="plotly_white",
        title={
            "text": "<br>".join(heading),
            "x": 0.01,
            "y": 1,
            "yanchor": "top",
            "pad": {"t": 12},
            "font": {"size": 17},
        },
        font={"size": 13},
        height=top + inner + below + 30,
        margin={"l": 70, "r": 30, "t": top, "b": below + 30},
    )
    figure.update_xaxes(title_text=text(x_title), tickangle=-90 if upright else 0, automargin=True, showline=True)
    figure.update_yaxes(title_text=text(y_title), automargin=True, showline=True)
    figure.for_each_xaxis(lambda axis: axis.update(linecolor="#888", ticks="outside", tickfont_size=12))
    figure.for_each_yaxis(lambda axis: axis.update(linecolor="#888", ticks="outside", tickfont_size=12))
    return Panels(figure, tuple(part for _, part in groups), columns)


def tooltip(
    table: pd.DataFrame, *, x: str, y: str, shown: Sequence[str], value: str | None = None, name: str = ""
) -> str:
    """Hover text: where the mark is, its number, and the columns of `shown`, which the trace holds as customdata."""
    told = [f"{text(x)}: %{{x}}", f"{text(y)}: %{{y{'' if value else ':.4g'}}}"]
    told += [f"{text(value)}: %{{z:.4g}}"] if value else []
    formats = [":.4g" if pd.api.types.is_numeric_dtype(table[column]) else "" for column in shown]
    told += [f"{text(column)}: %{{customdata[{i}]{formats[i]}}}" for i, column in enumerate(shown)]
    return "<br>".join(told) + f"<extra>{name}</extra>"
