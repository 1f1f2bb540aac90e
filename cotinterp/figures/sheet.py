"""The sheet that every figure is drawn on: one palette, one style, panels in a grid with room for their labels.

Colors are those of Okabe and Ito (2008), "Color Universal Design", told apart under every common color blindness; a
marker or a hatching is the second cue, so that figures survive printing in gray. Nothing is set globally.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from html import escape, unescape
from pathlib import Path
from textwrap import wrap

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from cotinterp.results.atomic import output_folder
from cotinterp.results.result import PLOTLY, caption, write_page

BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK, YELLOW = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
    "#F0E442",
)
PALETTE = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK, YELLOW)
"""In the order in which series take them; yellow last, for it is faint on white."""
GRAY, INK, RULE, ABSENT = "#8A8A8A", "#1A1A1A", "#E3E3E3", "#DCDCDC"
"""Of what is no series: baselines and axes, text, grid lines, cells without a value."""
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "pentagon")
PATTERNS = ("", "/", "x", ".", "\\", "+", "-", "|")
DIVERGING, SEQUENTIAL = "RdBu", "Viridis"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
INNER_WIDTH = 900
CHARACTER = 6.4
"""Pixels that a character of a tick label takes."""
_HEADING, _TITLED, _TITLES = 22, 14, 26


@dataclass(frozen=True)
class Mark:
    """How one regime is drawn: a color and, for whoever cannot tell it, a marker."""

    color: str
    symbol: str


REGIMES = {
    "direct": Mark(VERMILLION, "circle"),
    "cot": Mark(BLUE, "square"),
    "totals": Mark(GREEN, "diamond"),
    "filler": Mark(PURPLE, "triangle-up"),
    "noisy": Mark(ORANGE, "triangle-down"),
    "tagging": Mark(SKY, "hexagon"),
    "chain": Mark(GRAY, "cross"),
    "direct-mode": Mark(YELLOW, "pentagon"),
    "dots": Mark(PURPLE, "triangle-left"),
}
"""A regime has the same color and marker in every figure."""


def regime_mark(regime: str) -> Mark:
    """The color and marker of a regime; a regime of a user's own is drawn in black."""
    return REGIMES.get(regime, Mark(BLACK, "star"))


def pattern(shape: str) -> dict[str, object]:
    """A white hatching over a bar's own color, for whoever cannot tell the color; none for the empty shape."""
    return {"shape": shape, "fillmode": "overlay", "fgcolor": "white", "fgopacity": 0.75, "size": 7, "solidity": 0.25}


def category_bar(number: int) -> dict[str, object]:
    """The color and hatching of the bars of the category of that number; none of the first 64 look alike."""
    shape = PATTERNS[(number + number // len(PALETTE)) % len(PATTERNS)]
    line = {"width": 0.5, "color": "white"}
    return {"color": PALETTE[number % len(PALETTE)], "pattern": pattern(shape), "line": line}


def whiskers(rows: pd.DataFrame, value: str, *, color: str = INK) -> dict[str, object]:
    """The error bars of `value` from `ci_low` to `ci_high`."""
    return {
        "array": rows["ci_high"] - rows[value],
        "arrayminus": rows[value] - rows["ci_low"],
        "color": color,
        "thickness": 1.2,
        "width": 4,
    }


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


def grid(
    titles: Sequence[str] = (),
    *,
    title: str,
    columns: int = 1,
    heights: Sequence[int] = (320,),
    gap: int = 0,
    above: int = 0,
    below: int = 60,
    left: int = 70,
    right: int = 30,
    between: float = 0.08,
    shared_xaxes: bool = False,
    shared_yaxes: bool = False,
) -> go.Figure:
    """An empty figure of `columns` panels side by side in rows of `heights` pixels, set apart by `gap` pixels.

    `titles` are those of the panels, row by row. `above` leaves pixels between them and the title. `between` is the
    share of the width between two columns.
    """
    inner = sum(heights) + gap * (len(heights) - 1)
    figure = make_subplots(
        rows=len(heights),
        cols=columns,
        subplot_titles=list(titles) or None,
        row_heights=list(heights),
        shared_xaxes=shared_xaxes,
        shared_yaxes=shared_yaxes,
        vertical_spacing=gap / inner if len(heights) > 1 else 0,
        horizontal_spacing=between if columns > 1 else 0,
    )
    top = _TITLED + _TITLES * any(titles) + above
    margin = {"l": left, "r": right, "t": top, "b": below}
    return titled(styled(figure, height=top + inner + below, margin=margin), title)


def styled(figure: go.Figure, *, height: int, margin: dict[str, int] | None = None) -> go.Figure:
    """`figure` with the fonts, white ground, margins and axes of all figures; it is changed in place."""
    figure.update_layout(
        template="none",
        height=height,
        autosize=True,
        paper_bgcolor="white",
        plot_bgcolor="white",
        font={"family": FONT, "size": 13, "color": INK},
        margin={"l": 70, "r": 30, "t": 60, "b": 60} | (margin or {}),
        hoverlabel={"font": {"family": FONT, "size": 13}},
        colorway=PALETTE,
    )
    axes = {
        "automargin": True,
        "linecolor": GRAY,
        "ticks": "outside",
        "tickcolor": GRAY,
        "zeroline": False,
        "title": {"font": {"size": 13}},
    }
    set_axes(figure, x={"showgrid": False, **axes}, y={"gridcolor": RULE, **axes})
    return figure.update_annotations(font={"size": 13})


def set_axes(figure: go.Figure, *, x: Mapping[str, object], y: Mapping[str, object]) -> None:
    """`update_xaxes` and `update_yaxes` of all panels; plotly's own validate and announce each panel by itself."""
    layout = figure.layout.to_plotly_json()
    for name in layout:
        for axis, properties in (("xaxis", x), ("yaxis", y)):
            if name.startswith(axis):
                layout[name] = _merged(layout[name], properties)
    figure.layout = layout


def _merged(old: Mapping[str, object], new: Mapping[str, object]) -> dict[str, object]:
    both = {name: (old[name], value) for name, value in new.items() if name in old}
    nested = {
        name: _merged(one, other)
        for name, (one, other) in both.items()
        if isinstance(one, Mapping) and isinstance(other, Mapping)
    }
    return {**old, **new, **nested}


def titled(figure: go.Figure, title: str) -> go.Figure:
    """`figure` with `title` above it, in as many lines as it needs; it is changed in place and grows by them."""
    heading = [text(line) for line in wrap(title, 105)]
    # plotly.js sets the top of one line at the padding, and the baseline of the first of several.
    above = 12 if len(heading) == 1 else 24
    figure.update_layout(
        title={"text": "<br>".join(heading), "x": 0.01, "y": 1, "yanchor": "top", "pad": {"t": above}, "font_size": 16},
        margin_t=figure.layout.margin.t + _HEADING * len(heading),
        height=figure.layout.height + _HEADING * len(heading),
    )
    return figure


def untitled(figure: go.Figure) -> go.Figure:
    """A copy of `figure` without its title and the room for it, for a page that says the title itself."""
    lines = 0 if not figure.layout.title.text else figure.layout.title.text.count("<br>") + 1
    return go.Figure(figure).update_layout(
        title=None,
        margin_t=figure.layout.margin.t - _HEADING * lines,
        height=figure.layout.height - _HEADING * lines,
    )


@dataclass(frozen=True)
class NamedFigure:
    """A figure with the name of its file."""

    name: str
    figure: go.Figure

    @property
    def caption(self) -> str:
        """The title of the figure as plain text, in one line; its name where it has none."""
        return caption(self.figure, self.name)


def write_figures(figures: Sequence[NamedFigure], directory: Path) -> list[Path]:
    """Write each figure to `directory`/figures/<name>.html; they share one plotly.min.js and open offline."""
    folder = output_folder(directory / "figures")
    pages = [write_page(one.figure, one.name, folder) for one in figures]
    return [folder / PLOTLY, *pages] if pages else []


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
    widest = max(len(unescape(label)) for label in x_labels) * CHARACTER
    upright = widest > (INNER_WIDTH / columns - 60 * (columns > 1)) / len(x_labels)
    below = int(widest if upright else 20) + 40
    figure = grid(
        () if facet is None else [named(facet, str(name)) for name, _ in groups],
        title=title,
        columns=columns,
        heights=[height] * -(-len(groups) // columns),
        gap=below + 50,
        below=below + 30,
    )
    set_axes(
        figure,
        x={"title": {"text": text(x_title)}, "tickangle": -90 if upright else 0, "showline": True},
        y={"title": {"text": text(y_title)}, "showline": True},
    )
    return Panels(figure, tuple(part for _, part in groups), columns)


def tooltip(
    table: pd.DataFrame, *, x: str, y: str, shown: Sequence[str], value: str | None = None, name: str = ""
) -> str:
    """Hover text: where the mark is, its number, and the columns of `shown`, which the trace holds as customdata."""
    parts = [f"{text(x)}: %{{x}}", f"{text(y)}: %{{y{'' if value else ':.4g'}}}"]
    parts += [f"{text(value)}: %{{z:.4g}}"] if value else []
    formats = [":.4g" if pd.api.types.is_numeric_dtype(table[column]) else "" for column in shown]
    parts += [f"{text(column)}: %{{customdata[{i}]{formats[i]}}}" for i, column in enumerate(shown)]
    return "<br>".join(parts) + f"<extra>{name}</extra>"
