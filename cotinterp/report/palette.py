"""One look for every figure of the report: colors that color-blind readers can tell apart, and a second cue beside.

Colors are those of Okabe and Ito (2008), "Color Universal Design". A regime has the same color and marker everywhere.
"""

from dataclasses import dataclass

import plotly.graph_objects as go

BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, YELLOW = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#E69F00",
    "#CC79A7",
    "#56B4E9",
    "#F0E442",
)
GRAY, INK, RULE = "#8A8A8A", "#1A1A1A", "#E3E3E3"
CATEGORICAL = (VERMILLION, BLUE, ORANGE, GREEN, PURPLE, SKY, YELLOW, GRAY, "#000000")
PATTERNS = ("", "/", "x", ".", "\\", "-", "+", "|", "/")
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


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
}
DASHES = {"heldout": "solid", "train": "dot", "validation": "dash"}


def regime_mark(regime: str) -> Mark:
    """The color and marker of a regime; regimes that the bench does not name are drawn in black."""
    return REGIMES.get(regime, Mark("#000000", "star"))


def pattern(shape: str) -> dict[str, object]:
    """A white hatching over a bar's own color, for whoever cannot tell the color; none for the empty shape."""
    return {"shape": shape, "fillmode": "overlay", "fgcolor": "white", "fgopacity": 0.75, "size": 7, "solidity": 0.25}


def dressed(figure: go.Figure, *, height: int, margin: dict[str, int] | None = None) -> go.Figure:
    """`figure` with the report's fonts, white ground, margins and `height` in pixels; it is changed in place."""
    figure.update_layout(
        template="none",
        height=height,
        autosize=True,
        paper_bgcolor="white",
        plot_bgcolor="white",
        font={"family": FONT, "size": 13, "color": INK},
        margin={"l": 70, "r": 20, "t": 60, "b": 60} | (margin or {}),
        hoverlabel={"font": {"family": FONT, "size": 13}},
    )
    figure.update_xaxes(
        automargin=True, linecolor=GRAY, ticks="outside", tickcolor=GRAY, zeroline=False, showgrid=False
    )
    figure.update_yaxes(
        automargin=True, linecolor=GRAY, ticks="outside", tickcolor=GRAY, zeroline=False, gridcolor=RULE
    )
    return figure
