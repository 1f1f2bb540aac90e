"""One trained model's share of a table, and one figure of the report with what it is called."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go


def file_name(text: str) -> str:
    """A text as part of a file name or an id: whatever is no letter, digit, `_` or `-` becomes one hyphen."""
    return re.sub(r"[^A-Za-z0-9_]+", "-", text).strip("-")


@dataclass(frozen=True, order=True)
class RunKey:
    """Which trained model a row is about."""

    task: str
    regime: str
    run_seed: int

    @property
    def words(self) -> str:
        """The run in words: `digit-sum, cot, seed 0`."""
        return f"{self.task}, {self.regime}, seed {self.run_seed}"

    @property
    def slug(self) -> str:
        """The run as part of a file name."""
        return file_name(f"{self.task}-{self.regime}-{self.run_seed}")


@dataclass(frozen=True)
class ReportFigure:
    """A figure with a file-like name and a one-line caption."""

    name: str
    caption: str
    figure: go.Figure


def runs_of(frame: pd.DataFrame) -> Iterator[tuple[RunKey, pd.DataFrame]]:
    """Each trained model of a table with its rows, in the order of the table."""
    for key, rows in frame.groupby(["task", "regime", "run_seed"], sort=False):
        task, regime, seed = key
        yield RunKey(str(task), str(regime), int(str(seed))), rows


def tasks_of(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each task of a table with its rows, in the order of the table."""
    for (task,), rows in frame.groupby(["task"], sort=False):
        yield str(task), rows


def only(frame: pd.DataFrame, column: str) -> str:
    """The one value of a column.

    Raises ValueError naming the values where there are several (or none): the figure would mix what it must not.
    """
    values = [str(value) for value in frame[column].unique()]
    if len(values) != 1:
        raise ValueError(
            f"this figure is about one {column}, and the table has {values or 'no rows'}; select one first"
        )
    return values[0]
