"""The picture of growth: time against size, ours, the peer and the floor, a row a work and a column an axis."""

from collections.abc import Sequence

import plotly.graph_objects as go

from benchmarks.growth import Point
from cotinterp.figures.sheet import BLUE, GRAY, VERMILLION, grid

TITLES = {"training": "training step", "greedy": "greedy decoding", "resid_pre": "resid_pre sweep", "probes": "probes"}
AXES = {"K": "operands (K)", "layers": "layers", "d_model": "d_model", "batch": "batch (probes: rows)"}
SIDES = (("ours", BLUE, "circle", "solid"), ("theirs", VERMILLION, "square", "dash"), ("floor", GRAY, "x", "dot"))
NAMES = {"ours": "cotinterp", "theirs": "peer", "floor": "matmul floor"}


def growth_figure(points: Sequence[Point]) -> go.Figure:
    """Both axes are logarithmic: a line of slope 1 grows in proportion. ValueError where there is nothing to draw."""
    if not points:
        raise ValueError("no points of growth to draw")
    kinds, axes = (list(dict.fromkeys(names)) for names in ((x.kind for x in points), (x.axis for x in points)))
    titles = [TITLES.get(kind, kind) for kind in kinds for _ in axes]
    figure = grid(
        titles,
        title="Time against size, both logarithmic: cotinterp, the peer, and the matrix products alone",
        columns=len(axes),
        heights=[180] * len(kinds),
        gap=70,
        below=90,
        between=0.07,
    )
    for row, kind in enumerate(kinds, start=1):
        for column, axis in enumerate(axes, start=1):
            here = sorted((x for x in points if (x.kind, x.axis) == (kind, axis)), key=lambda x: x.size)
            sizes = [x.size for x in here]
            for side, color, symbol, dash in SIDES:
                figure.add_trace(_line(here, side, color, symbol, dash, row == column == 1), row, column)
            figure.update_xaxes(type="log", tickvals=sizes, ticktext=[str(x) for x in sizes], row=row, col=column)
            figure.update_xaxes(title=AXES.get(axis, axis), title_standoff=4, row=row, col=column)
    figure.update_yaxes(type="log", showgrid=True, dtick=1, exponentformat="power")
    figure.update_yaxes(title="ms", col=1)
    legend = {"orientation": "h", "y": 0, "yref": "container", "yanchor": "bottom", "x": 0}
    return figure.update_layout(legend=legend)


def _line(points: Sequence[Point], side: str, color: str, symbol: str, dash: str, legend: bool) -> go.Scatter:
    values = [getattr(x.measurement, side) for x in points]
    return go.Scatter(
        x=[x.size for x in points],
        y=values,
        mode="lines+markers",
        name=NAMES[side],
        legendgroup=side,
        showlegend=legend,
        line={"color": color, "dash": dash, "width": 2},
        marker={"symbol": symbol, "size": 8},
        customdata=[[x.measurement.work, x.measurement.ratio] for x in points],
        hovertemplate=f"%{{customdata[0]}}<br>{NAMES[side]}: %{{y:.3g}} ms<br>ratio %{{customdata[1]:.1f}}",
    )
