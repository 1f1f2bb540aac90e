"""Probed cells as a picture: site by place, a facet per target and model."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

import pandas as pd
import plotly.graph_objects as go

from cotinterp.mechanism.probing.place import ProbedAt
from cotinterp.results.plots import heatmap

T = TypeVar("T")


def probe_grid(where: Sequence[tuple[ProbedAt, str]], values: pd.DataFrame, value: str, *, title: str) -> go.Figure:
    """`value` of each cell, given place and target of each row of `values`; its other columns are in the hover text.

    Gray where nothing was probed. The scale is always 0 to 1.
    """
    facet = [f"{target}, {at.model}" for at, target in where]
    rows, columns = [at.row for at, _ in where], [at.column for at, _ in where]
    targets, models = _unique(target for _, target in where), _unique(at.model for at, _ in where)
    beside = [name for target in targets for model in models if (name := f"{target}, {model}") in facet]
    axes = {"row": _unique(rows), "column": _unique(columns), "facet": beside}
    cells = values.set_axis(pd.MultiIndex.from_arrays([rows, columns, facet], names=list(axes)))
    places = [(row, column, of) for row, of in _unique(zip(rows, facet, strict=True)) for column in axes["column"]]
    grid = cells.reindex(pd.MultiIndex.from_tuples(places, names=list(axes))).reset_index()
    for axis, order in axes.items():
        grid[axis] = pd.Categorical(grid[axis], categories=order, ordered=True)
    return heatmap(
        grid,
        x="column",
        y="row",
        value=value,
        facet="facet",
        bounds=(0.0, 1.0),
        title=title,
        x_title="place, in reading order",
        y_title="site",
        value_title=value.replace("_", " "),
        hover=[name for name in cells.columns if name != value],
    )


def _unique(values: Iterable[T]) -> list[T]:
    """Each value once, in the order of first appearance."""
    return list(dict.fromkeys(values))
