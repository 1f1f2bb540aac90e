"""The three verbs of every result: the table, the picture, and both of them on disk."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cotinterp.results.atomic import output_folder, write_atomic

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects


OFFLINE = {"displaylogo": False, "showSendToCloud": False, "plotlyServerURL": ""}
"""plotly.js offers to send a chart to its makers' server unless told not to."""


class Result(ABC):
    """What an instrument found: numbers, never a model.

    Instruments return frozen dataclasses of this kind. They keep their numbers per example for as long as they can, and
    `labels` (task, regime, seed, ...) that `frame` puts in front, so that tables of several runs can be stacked.
    """

    @abstractmethod
    def frame(self) -> "pandas.DataFrame":
        """The tidy table: one row per thing measured, the interval and n of an aggregate beside it."""

    @abstractmethod
    def figure(self) -> "plotly.graph_objects.Figure":
        """The picture of that table."""

    def save(self, directory: Path | str, name: str) -> list[Path]:
        """Write `tables/<name>.csv` and `figures/<name>.html` under `directory` and return both paths.

        The page carries its own plotly.js and opens without a network. Table and picture are complete before the first
        byte is written; missing values are empty cells. `OSError` names the place that could not be written.
        """
        if name != Path(name).name or name in ("", ".", ".."):
            raise ValueError(f"{name!r} is not a file name: give a name without folders, such as 'accuracy'")
        table = self.frame().to_csv(index=False, lineterminator="\n")
        page = self.figure().to_html(include_plotlyjs=True, div_id=name, config=OFFLINE)
        tables, figures = (output_folder(Path(directory) / kind) for kind in ("tables", "figures"))
        return [write_atomic(tables / f"{name}.csv", table), write_atomic(figures / f"{name}.html", page)]


def with_labels(frame: "pandas.DataFrame", labels: Mapping[str, str | int]) -> "pandas.DataFrame":
    """A copy of `frame` with one constant column per label in front, in the labels' order.

    `ValueError` where the frame has such a column already: two meanings of one name in one table.
    """
    taken = [label for label in labels if label in frame.columns]
    if taken:
        raise ValueError(f"the table has columns {taken} already; its columns are {list(map(str, frame.columns))}")
    return frame.assign(**labels)[[*labels, *frame.columns]]
