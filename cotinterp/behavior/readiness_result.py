"""P(true answer) after each total: the table and the curve."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float

from cotinterp.behavior.labels import described
from cotinterp.behavior.shown_traces import Trace
from cotinterp.results.intervals import bootstrap
from cotinterp.results.plots import lines
from cotinterp.results.result import Result, with_labels
from cotinterp.transcripts.problems import Problem

How = Literal["forced", "free"]
FLOOR = -20.0
"""Logarithms below this count as this, in nats: 2e-9 and less is the probability of something that never happens."""


class Ready(NamedTuple):
    """One problem after one total of one trace.

    Attributes:
        step: How many totals are shown, 0 to k-1.
        log_prob: Natural log of P(true answer); -inf where no drawn continuation could give it.
        followed_log_prob: The same of the answer that follows from the edited total; None for traces without an edit.
    """

    problem: Problem
    trace: Trace
    how: How
    step: int
    log_prob: float
    followed_log_prob: float | None


@dataclass(frozen=True)
class ReadinessResult(Result):
    """Answer readiness, problem by problem."""

    points: tuple[Ready, ...]
    labels: Mapping[str, str | int]

    def frame(self) -> pd.DataFrame:
        """One row for each k, trace, how and step: task, regime, seed, k, trace, how, step, n, then three numbers.

        `probability` is the mean of P(true answer) over problems, `log_prob` the mean of its natural log (no lower than
        FLOOR for a problem), `followed` the mean of P(answer that follows from the edit), NaN for other traces; each
        with a bootstrap interval over problems (`<name>_low`, `<name>_high`), NaN for fewer than two problems.
        """
        rows = []
        for (k, trace, how, step), group in self.cells().items():
            row: dict[str, object] = {"k": k, "trace": trace, "how": how, "step": step, "n": len(group)}
            columns: dict[str, Callable[[Ready], float]] = {
                "probability": lambda point: float(np.exp(point.log_prob)),
                "log_prob": lambda point: max(point.log_prob, FLOOR),
                "followed": lambda point: float(np.exp(_or_nan(point.followed_log_prob))),
            }
            for name, number in columns.items():
                row |= mean_and_interval(name, np.array([number(point) for point in group]))
            rows.append(row)
        return with_labels(pd.DataFrame(rows), self.labels)

    def figure(self) -> go.Figure:
        """P(true answer) against the number of totals shown, a color for each trace, dashed where it is forced."""
        table = self.frame()
        return lines(
            table.assign(operands=[f"{k} operands" for k in table["k"]]),
            x="step",
            y="probability",
            low="probability_low",
            high="probability_high",
            color="trace",
            dash="how",
            facet="operands",
            bounds=(0.0, 1.0),
            title=f"When the answer is settled: {described(self.labels)}",
            x_title="totals shown",
            y_title="P(true answer)",
            hover=["n", "log_prob", "followed"],
        )

    def cells(self) -> dict[tuple[int, Trace, How, int], list[Ready]]:
        cells: dict[tuple[int, Trace, How, int], list[Ready]] = {}
        for point in self.points:
            cells.setdefault((point.problem.k, point.trace, point.how, point.step), []).append(point)
        return cells


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def mean_and_interval(name: str, values: Float[np.ndarray, " n"]) -> dict[str, float]:
    """The mean and its interval; NaN where the number is not there."""
    low, high = bootstrap(values) if np.isfinite(values).all() else (np.nan, np.nan)
    return {name: float(values.mean()), f"{name}_low": low, f"{name}_high": high}
