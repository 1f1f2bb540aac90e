"""The forest of a catalog of claims: what each criterion asks, and what was measured, on one sheet."""

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float
from plotly.subplots import make_subplots

from cotinterp.figures.sheet import BLUE, GRAY, INK, VERMILLION, styled, text, titled

MARKS = {
    "holds": ("circle", BLUE),
    "fails": ("x", VERMILLION),
    "mixed": ("diamond-x-open", INK),
    "open": ("diamond-open", INK),
    "above": ("triangle-right", "#5a5a5a"),
    "below": ("triangle-left", "#5a5a5a"),
}
"""Symbol and color of a criterion's state; those that were not measured get a word instead."""

LEGEND = {"mixed": "models differ", "above": "above, not predicted", "below": "below, not predicted"}
NUMBERS = ("threshold", "estimate", "ci_low", "ci_high")

PREDICTED = "rgba(0, 114, 178, 0.10)"
ROW, TOP, BOTTOM, LEFT, WRAP, ONE_LINE = 66, 96, 24, 380, 56, 48
"""Pixels; and of the words on the left, characters of a line, and most of a claim and a criterion in one line."""


@dataclass(frozen=True)
class Forest:
    """The grid of a forest: a row for each criterion, a column for each task, and every row's own axis.

    Attributes:
        rows: (claim, criterion), in the order of the table.
        tasks: In the order of the table.
        ends: Where the axis of each row begins and ends; the same in every column, so that tasks can be compared.
    """

    rows: tuple[tuple[str, str], ...]
    tasks: tuple[str, ...]
    ends: Float[np.ndarray, "rows 2"]

    @classmethod
    def of(cls, criteria: pd.DataFrame, seeds: pd.DataFrame) -> "Forest":
        """The grid that both tables fit on."""
        rows = tuple(dict.fromkeys(zip(criteria["claim"], criteria["criterion"], strict=True)))
        numbers = pd.concat([criteria[["claim", "criterion", *NUMBERS]], seeds[["claim", "criterion", "estimate"]]])
        ends = [_ends(numbers[(numbers["claim"] == claim) & (numbers["criterion"] == name)]) for claim, name in rows]
        return cls(rows, tuple(map(str, criteria["task"].unique())), np.array(ends))

    def axis(self, row: int, column: int) -> str:
        """The number of a cell's axes as plotly writes it: the first has none."""
        number = row * len(self.tasks) + column + 1
        return "" if number == 1 else str(number)


def forest(criteria: pd.DataFrame, seeds: pd.DataFrame) -> go.Figure:
    """Each criterion's estimate with its 95% interval against its threshold; a column a task, a row a criterion.

    Every row has its own axis, in its own unit, the same for all tasks: compare a row's columns, not rows. The upright
    line is the threshold, the shaded side the one that the claim predicts, the gray rings one seed each. An interval
    in the shade is on the claim's side; whether that is shown after correction for all claims and tasks is said by the
    mark's shape. The picture does not say what a criterion leaves out.

    Args:
        criteria: `Verdicts.criteria_frame()`.
        seeds: `Verdicts.by_seed_frame()`.

    Raises:
        ValueError: No criterion.
    """
    if criteria.empty:
        raise ValueError("nothing to draw: no criterion was judged; `judge_all` judges a catalog of claims")
    criteria, seeds = _in_units(criteria, seeds)
    grid = Forest.of(criteria, seeds)
    figure = make_subplots(
        rows=len(grid.rows),
        cols=len(grid.tasks),
        column_titles=[f"<b>{text(task)}</b>" for task in grid.tasks],
        vertical_spacing=0.55 / len(grid.rows) if len(grid.rows) > 1 else 0,
        horizontal_spacing=0.04 if len(grid.tasks) > 1 else 0,
    )
    figure.update_annotations(yshift=6)
    shapes: list[dict[str, object]] = []
    for row, (claim, criterion) in enumerate(grid.rows):
        for column, task in enumerate(grid.tasks):
            cell = _of(criteria, claim, criterion, task)
            rings = _of(seeds, claim, criterion, task)
            figure.add_traces(_marks(cell, rings), rows=row + 1, cols=column + 1)
            shapes += _ground(cell, grid.axis(row, column), grid.ends[row])
            if not len(cell) or cell["estimate"].isna().all():
                # Of a cell without anything drawn plotly would place the axis at NaN, with an error on the console.
                unseen = go.Scatter(
                    x=[grid.ends[row][0]], y=[0], mode="markers", marker={"opacity": 0}, hoverinfo="skip"
                )
                figure.add_trace(unseen.update(showlegend=False), row=row + 1, col=column + 1)
                _say(figure, "not measured" if len(cell) else "not asked", grid.axis(row, column))
            figure.update_xaxes(range=list(grid.ends[row]), row=row + 1, col=column + 1)
    _label(figure, grid, criteria.drop_duplicates(["claim", "criterion"]))
    _dress(figure, shapes, height=TOP + BOTTOM + ROW * len(grid.rows))
    return figure


def _in_units(criteria: pd.DataFrame, seeds: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both tables with their points as such: 100 times the number."""
    points = criteria.loc[criteria["unit"] == "points", ["claim", "criterion"]].drop_duplicates().assign(scale=100.0)
    scaled = []
    for frame, columns in ((criteria, list(NUMBERS)), (seeds, ["estimate"])):
        scale = frame[["claim", "criterion"]].merge(points, how="left")["scale"].fillna(1.0).to_numpy()
        scaled.append(frame.assign(**{column: frame[column].astype(float) * scale for column in columns}))
    return scaled[0], scaled[1]


def _of(frame: pd.DataFrame, claim: str, criterion: str, task: str) -> pd.DataFrame:
    return frame[(frame["claim"] == claim) & (frame["criterion"] == criterion) & (frame["task"] == task)]


def _ends(numbers: pd.DataFrame) -> tuple[float, float]:
    """Where the axis of one row begins and ends: everything that is drawn, and a little room."""
    values = numbers[list(NUMBERS)].to_numpy(dtype=float)
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    room = 0.08 * (high - low) or max(0.5 * abs(high), 0.5)
    return low - room, high + room


def _marks(cell: pd.DataFrame, rings: pd.DataFrame) -> list[go.Scatter]:
    """The rings of the seeds and, above them, the estimate with its interval."""
    seeds = go.Scatter(
        x=rings["estimate"],
        y=np.full(len(rings), -0.45),
        mode="markers",
        marker={"symbol": "circle-open", "size": 7, "color": GRAY, "line": {"width": 1.4}},
        customdata=rings[["run_seed"]].to_numpy(),
        hovertemplate="seed %{customdata[0]}: %{x:.3f}<extra></extra>",
        showlegend=False,
    )
    return [seeds, *(_estimate(measured) for _, measured in cell.iterrows() if np.isfinite(measured["estimate"]))]


def _estimate(measured: pd.Series) -> go.Scatter:
    symbol, color = MARKS[str(measured["state"])]
    value, low, high, threshold = (float(measured[name]) for name in ("estimate", "ci_low", "ci_high", "threshold"))
    # Of fewer seeds than an interval takes there is none; plotly would draw a bar to nowhere.
    bar = {"array": [high - value], "arrayminus": [value - low], "color": color, "thickness": 2, "width": 4}
    predicted = f"predicted {measured['predicted']} {threshold:.3g}" if measured["predicted"] else "no prediction"
    return go.Scatter(
        x=[value],
        y=[0.35],
        mode="markers",
        marker={"symbol": symbol, "size": 11, "color": color, "line": {"width": 1.6, "color": color}},
        error_x=bar if np.isfinite([low, high]).all() else None,
        hovertemplate=(
            f"<b>{text(measured['claim'])}</b>, {text(measured['task'])}<br>{text(measured['criterion'])}: {value:.3g} "
            f"({low:.3g} to {high:.3g}) {text(measured['unit'])}<br>{predicted}: {measured['state']}<br>"
            f"{int(measured['seeds'])} seeds, n = {int(measured['n'])}<extra></extra>"
        ),
        showlegend=False,
    )


def _ground(cell: pd.DataFrame, axis: str, ends: Float[np.ndarray, "2"]) -> list[dict[str, object]]:
    """The threshold as a line, and the shade on the side that is predicted, if one is."""
    found: list[dict[str, object]] = []
    for predicted, threshold in zip(cell["predicted"], cell["threshold"].astype(float), strict=True):
        place = {"xref": f"x{axis}", "yref": f"y{axis} domain", "y0": 0, "y1": 1, "layer": "below"}
        line = {"type": "line", "x0": threshold, "x1": threshold, "line": {"width": 2, "color": INK}}
        if predicted in ("above", "below"):
            edge = float(ends[1] if predicted == "above" else ends[0])
            shade = {"type": "rect", "x0": threshold, "x1": edge, "fillcolor": PREDICTED, "line": {"width": 0}}
            found.append(place | shade)
        found.append(place | line)
    return found


def _say(figure: go.Figure, words: str, axis: str) -> None:
    place = {"xref": f"x{axis} domain", "yref": f"y{axis} domain", "x": 0.5, "y": 0.5}
    figure.add_annotation(text=words, showarrow=False, font={"color": "#555", "size": 12}, **place)


def _label(figure: go.Figure, grid: Forest, named: pd.DataFrame) -> None:
    """To the left of every row its criterion, in words, and above the first of a claim the claim."""
    before = ""
    for row, one in enumerate(named.to_dict("records")):
        unit = f" ({text(one['unit'])})" if one["unit"] else ""
        lines = [f"{text(one['criterion'])}{unit}"]
        if one["claim"] != before:
            apart = "<br>" if len(f"{one['claim']}: {one['criterion']} ({one['unit']})") > ONE_LINE else " "
            lines = [f"<b>{text(one['claim'])}</b>:{apart}{lines[0]}"]
        lines += [f'<span style="font-size:11px">{text(line)}</span>' for line in wrap(str(one["words"]), WRAP)]
        place = {"xref": "paper", "yref": f"y{grid.axis(row, 0)} domain", "x": 0, "xanchor": "right", "xshift": -12}
        figure.add_annotation(
            text="<br>".join(lines), y=0.5, yanchor="middle", align="right", showarrow=False, font={"size": 12}, **place
        )
        before = one["claim"]


def _dress(figure: go.Figure, shapes: Sequence[dict[str, object]], *, height: int) -> None:
    """A legend on top and thin axes; the figure is changed in place."""
    drawn = {name for trace in figure.data for name, (symbol, _) in MARKS.items() if trace.marker.symbol == symbol}
    marks = {LEGEND.get(name, name): mark for name, mark in MARKS.items() if name in drawn}
    for name, (symbol, color) in (*marks.items(), ("one seed", ("circle-open", GRAY))):
        mark = {"symbol": symbol, "size": 10, "color": color, "line": {"width": 1.6}}
        figure.add_scatter(x=[None], y=[None], mode="markers", name=name, marker=mark, hoverinfo="skip")
    line = {"color": INK, "width": 2}
    figure.add_scatter(x=[None], y=[None], mode="lines", name="threshold", line=line)
    styled(figure, height=height, margin={"l": LEFT, "r": 20, "t": TOP, "b": BOTTOM})
    titled(figure, "Every criterion of every claim: estimate, 95% interval, threshold, and one ring for each seed")
    figure.update_layout(
        shapes=list(shapes),
        legend={"orientation": "h", "x": 0, "xref": "container", "y": 1 - 32 / height, "yref": "container"},
        legend_yanchor="top",
    )
    figure.update_yaxes(range=[-1, 1], visible=False, fixedrange=True)
    figure.update_xaxes(
        nticks=5, ticks="outside", ticklen=3, tickfont={"size": 11}, linecolor=GRAY, showgrid=False, zeroline=False
    )
