"""What probes found: each test row's prediction, the tables and the picture made from them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Bool, Float, Int

from cotinterp.mechanism.probe_controls import interval_over_groups
from cotinterp.results import Interval, Result, with_labels
from cotinterp.results.plots import heatmap

T = TypeVar("T")
Measure = Literal["selectivity", "accuracy", "control_accuracy"]


@dataclass(frozen=True, kw_only=True)
class ProbedAt:
    """Where the features of a probe came from.

    Attributes:
        site: Kind of activation, `input` for the baseline that sees the current token and its position alone.
        layer: -1 where the features belong to no layer.
        role: Role of the token, empty where it has none.
        step: Step of the token, -1 where it has none.
        model: `trained`, or `untrained` for the control of the same size at its initialization.
        place: Words for an axis; role and step where left empty.
    """

    site: str
    layer: int = -1
    role: str = ""
    step: int = -1
    model: str = "trained"
    place: str = ""

    @property
    def row(self) -> str:
        """`L2.resid_pre`, or the site alone where it belongs to no layer."""
        return self.site if self.layer < 0 else f"L{self.layer}.{self.site}"

    @property
    def column(self) -> str:
        """The place in words."""
        words = self.role.replace("_", " ")
        return self.place or (words if self.step < 0 else f"{words} {self.step}") or "everywhere"


@dataclass(frozen=True, kw_only=True, eq=False)
class ProbeCell:
    """One converged probe and its controls, on rows of problems that none of them was fitted on.

    Attributes:
        truth, predicted: Class of each test row and the probe's answer.
        control_truth, control_predicted: The same for probes fitted to a random label per type of input.
        shuffled_truth, shuffled_predicted: The same for probes fitted to labels shuffled over problems; maybe none.
        groups: Problem of each test row: the unit of the intervals.
        majority: The most frequent class of the training rows.
        seen: Share of test rows whose type of input stood in the training rows too. At 1 a stored table would do.
    """

    at: ProbedAt
    target: str
    n_train: int
    n_classes: int
    truth: Int[np.ndarray, " n"]
    predicted: Int[np.ndarray, " n"]
    control_truth: Int[np.ndarray, "controls n"]
    control_predicted: Int[np.ndarray, "controls n"]
    shuffled_truth: Int[np.ndarray, "shuffles n"]
    shuffled_predicted: Int[np.ndarray, "shuffles n"]
    groups: Int[np.ndarray, " n"]
    majority: int
    seen: float

    @property
    def correct(self) -> Bool[np.ndarray, " n"]:
        """Test rows that the probe gets right; a class that no training row has is always wrong."""
        hits: Bool[np.ndarray, " n"] = self.predicted == self.truth
        return hits

    @property
    def control_correct(self) -> Float[np.ndarray, " n"]:
        """Share of the control probes that are right about their own label of each test row."""
        return np.asarray((self.control_predicted == self.control_truth).mean(0), dtype=np.float64)

    @property
    def shuffled_accuracy(self) -> float:
        """Accuracy on labels shuffled over problems: chance, unless the split leaks. NaN without shuffles."""
        hits = self.shuffled_predicted == self.shuffled_truth
        return float(hits.mean()) if hits.size else float("nan")

    @property
    def interval(self) -> Interval:
        """95% interval of the accuracy over problems."""
        return interval_over_groups(self.correct, self.groups)

    @property
    def selectivity_interval(self) -> Interval:
        """95% bootstrap interval of the selectivity: probe and control are compared on the same problems."""
        return interval_over_groups(self.correct - self.control_correct, self.groups)

    def summary(self) -> dict[str, str | int | float]:
        """One row of the table."""
        accuracy, control = float(self.correct.mean()), float(self.control_correct.mean())
        return {
            "model": self.at.model,
            "layer": self.at.layer,
            "site": self.at.site,
            "role": self.at.role,
            "step": self.at.step,
            "target": self.target,
            "n_train": self.n_train,
            "n_test": len(self.truth),
            "accuracy": accuracy,
            "control_accuracy": control,
            "selectivity": accuracy - control,
            "chance": float((self.truth == self.majority).mean()),
            "ci_low": self.interval.low,
            "ci_high": self.interval.high,
        }


@dataclass(frozen=True, eq=False)
class ProbeResult(Result):
    """How well a linear probe reads each target at each place of each site, beside what it reads where nothing is.

    `accuracy` is the share of test rows whose class the probe names, over problems that it was not fitted on;
    `selectivity` is that minus the accuracy of the same probe on a random label per type of input (Hewitt & Liang,
    2019, arXiv 1909.03368). A target that is decodable is present in a linear form; that does not show that the model
    uses it, and one that is not decodable here may be present in another form. Compare with the rows of the untrained
    model and of the site `input`: what they have, training did not put there.

    Selectivity, and accuracy minus chance, can be negative: where each operand permutes the answers, as in a group, the
    training problems that resemble a test problem all have other answers, and a probe that goes by resemblance does
    worse than one that guesses.
    """

    cells: tuple[ProbeCell, ...]
    labels: Mapping[str, str | int] = field(default_factory=dict)

    def frame(self) -> pd.DataFrame:
        """One row per cell, in reading order: the columns of `tables/probes.csv` behind the labels."""
        return with_labels(pd.DataFrame([cell.summary() for cell in self.cells]), self.labels)

    def detail(self) -> pd.DataFrame:
        """`frame` with the place in words, the interval of the selectivity, the accuracy on shuffled labels, the share
        of test rows whose type of input the training rows had shown, and the number of classes there."""
        rows = []
        for cell in self.cells:
            low, high = cell.selectivity_interval
            rows.append(
                {
                    "place": cell.at.column,
                    "selectivity_low": low,
                    "selectivity_high": high,
                    "shuffled_accuracy": cell.shuffled_accuracy,
                    "seen": cell.seen,
                    "n_classes": cell.n_classes,
                }
            )
        return pd.concat([self.frame(), pd.DataFrame(rows)], axis=1)

    def predictions(self) -> pd.DataFrame:
        """One row per cell and test row: problem, truth, prediction."""
        columns = ["model", "layer", "site", "role", "step"]
        parts = [
            pd.DataFrame({"group": cell.groups, "truth": cell.truth, "predicted": cell.predicted}).assign(
                target=cell.target, **{name: getattr(cell.at, name) for name in columns}
            )
            for cell in self.cells
        ]
        order = [*columns, "target", "group", "truth", "predicted"]
        return with_labels(pd.concat(parts, ignore_index=True)[order], self.labels)

    def figure(self, measure: Measure = "selectivity") -> go.Figure:
        """Site by place, a facet per target and model; gray where a cell was left out. The scale is always 0 to 1."""
        facet = [f"{cell.target}, {cell.at.model}" for cell in self.cells]
        rows, columns = [cell.at.row for cell in self.cells], [cell.at.column for cell in self.cells]
        targets, models = _unique(cell.target for cell in self.cells), _unique(cell.at.model for cell in self.cells)
        beside = [name for target in targets for model in models if (name := f"{target}, {model}") in facet]
        axes = {"row": _unique(rows), "column": _unique(columns), "facet": beside}
        shown = [measure, "accuracy", "control_accuracy", "chance", "ci_low", "ci_high", "n_test"]
        cells = self.frame()[list(dict.fromkeys(shown))]
        cells.index = pd.MultiIndex.from_arrays([rows, columns, facet], names=list(axes))
        places = [(row, column, of) for row, of in _unique(zip(rows, facet, strict=True)) for column in axes["column"]]
        grid = cells.reindex(pd.MultiIndex.from_tuples(places, names=list(axes))).reset_index()
        for axis, order in axes.items():
            grid[axis] = pd.Categorical(grid[axis], categories=order, ordered=True)
        return heatmap(
            grid,
            x="column",
            y="row",
            value=measure,
            facet="facet",
            bounds=(0.0, 1.0),
            title=f"Linear probes: {measure.replace('_', ' ')} by site and place",
            x_title="place, in reading order",
            y_title="site",
            value_title=measure.replace("_", " "),
            hover=[name for name in cells.columns if name != measure],
        )


def _unique(values: Iterable[T]) -> list[T]:
    """Each value once, in the order of first appearance."""
    return list(dict.fromkeys(values))
