"""What probes read away from home: the table and the matrix."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Bool, Float, Int

from cotinterp.mechanism.probing.controls import interval_over_groups
from cotinterp.mechanism.probing.place import ProbedAt
from cotinterp.results import Interval, Result, with_labels
from cotinterp.results.plots import heatmap

Measure = Literal["accuracy", "selectivity", "control_accuracy"]


@dataclass(frozen=True, kw_only=True, eq=False)
class TransferCell:
    """A probe fitted at one place and tested at another, on problems that no probe was fitted on.

    Attributes:
        truth, predicted: Class of each test row at the tested place, and the answer of the probe.
        control_truth, control_predicted: The same for probes of random labels, fitted and tested at the same places.
        groups: Problem of each test row: the unit of the intervals.
        majority: The most frequent class of the tested place's training rows.
    """

    fitted: ProbedAt
    fitted_target: str
    tested: ProbedAt
    tested_target: str
    n_train: int
    truth: Int[np.ndarray, " n"]
    predicted: Int[np.ndarray, " n"]
    control_truth: Int[np.ndarray, "controls n"]
    control_predicted: Int[np.ndarray, "controls n"]
    groups: Int[np.ndarray, " n"]
    majority: int

    @property
    def correct(self) -> Bool[np.ndarray, " n"]:
        """Test rows that the probe gets right."""
        hits: Bool[np.ndarray, " n"] = self.predicted == self.truth
        return hits

    @property
    def control_correct(self) -> Float[np.ndarray, " n"]:
        """Share of the control probes that are right about their own label of each test row."""
        return np.asarray((self.control_predicted == self.control_truth).mean(0), dtype=np.float64)

    @cached_property
    def interval(self) -> Interval:
        """95% interval of the accuracy over problems."""
        return interval_over_groups(self.correct, self.groups)

    @cached_property
    def selectivity_interval(self) -> Interval:
        """95% bootstrap interval of the selectivity over problems."""
        return interval_over_groups(self.correct - self.control_correct, self.groups)


@dataclass(frozen=True, eq=False)
class TransferResult(Result):
    """Accuracy of every probe at every place, beside the same transfer of probes for random labels.

    High off the diagonal with low control: both places hold the variable along the same directions. It does not show
    that the model uses it at either. Low off the diagonal: other directions, another scale or mean, or nothing there
    (the diagonal tells which).
    """

    cells: tuple[TransferCell, ...]
    labels: Mapping[str, str | int]

    def frame(self) -> pd.DataFrame:
        """One row per place fitted at and place tested at.

        `chance`: always naming the tested place's most frequent class. `home_accuracy`: the probe that was fitted at
        the tested place; what is there to be read by it. `selectivity`: accuracy minus control accuracy.
        """
        home = {_key(c.tested, c.tested_target): float(c.correct.mean()) for c in self.cells if _at_home(c)}
        rows = []
        for cell in self.cells:
            accuracy, control = float(cell.correct.mean()), float(cell.control_correct.mean())
            rows.append(
                {
                    **_columns("fitted", cell.fitted, cell.fitted_target),
                    **_columns("tested", cell.tested, cell.tested_target),
                    "n_train": cell.n_train,
                    "n_test": len(cell.truth),
                    "accuracy": accuracy,
                    "control_accuracy": control,
                    "selectivity": accuracy - control,
                    "home_accuracy": home[_key(cell.tested, cell.tested_target)],
                    "chance": float((cell.truth == cell.majority).mean()),
                    "ci_low": cell.interval.low,
                    "ci_high": cell.interval.high,
                }
            )
        return with_labels(pd.DataFrame(rows), self.labels)

    def figure(self, measure: Measure = "accuracy") -> go.Figure:
        """Fitted at (rows) by tested at (columns); the scale is always 0 to 1."""
        several = len({cell.fitted.model for cell in self.cells}) > 1
        names = {
            "fitted at": [_name(cell.fitted, cell.fitted_target, several) for cell in self.cells],
            "tested at": [_name(cell.tested, cell.tested_target, several) for cell in self.cells],
        }
        shown = dict.fromkeys([measure, "accuracy", "control_accuracy", "home_accuracy", "chance", "ci_low", "ci_high"])
        return heatmap(
            self.frame()[list(shown)].assign(**names),
            x="tested at",
            y="fitted at",
            value=measure,
            bounds=(0.0, 1.0),
            title=f"Do probes transfer? {measure.replace('_', ' ').capitalize()} of each probe at each place",
            x_title="tested at",
            y_title="fitted at",
            value_title=measure.replace("_", " "),
            hover=[name for name in shown if name != measure],
        )


def _key(at: ProbedAt, target: str) -> tuple[ProbedAt, str]:
    return at, target


def _at_home(cell: TransferCell) -> bool:
    return _key(cell.fitted, cell.fitted_target) == _key(cell.tested, cell.tested_target)


def _columns(prefix: str, at: ProbedAt, target: str) -> dict[str, str | int]:
    named = {name: getattr(at, name) for name in ("model", "layer", "site", "role", "step")}
    return {f"{prefix}_{name}": value for name, value in {**named, "target": target}.items()}


def _name(at: ProbedAt, target: str, with_model: bool) -> str:
    return f"{at.model + ' ' if with_model else ''}{target}: {at.row} at {at.column}"
