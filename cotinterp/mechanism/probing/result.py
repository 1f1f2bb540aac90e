"""What probes found: each test row's prediction, the tables and the picture made from them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import pandas as pd
import plotly.graph_objects as go

from cotinterp.mechanism.probing.cell import ProbeCell as ProbeCell
from cotinterp.mechanism.probing.figure import probe_grid
from cotinterp.mechanism.probing.place import ProbedAt as ProbedAt
from cotinterp.mechanism.probing.scan import Null, ProbeScan, scan_cells
from cotinterp.results import Result, with_labels

Measure = Literal["selectivity", "accuracy", "control_accuracy"]


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

    The best of many cells, or of several coordinates of one total, is high by selection alone: `scan` corrects that.
    """

    cells: tuple[ProbeCell, ...]
    labels: Mapping[str, str | int] = field(default_factory=dict)

    def frame(self) -> pd.DataFrame:
        """One row per cell, in reading order: the columns of `tables/probes.csv` behind the labels."""
        return with_labels(pd.DataFrame([cell.summary() for cell in self.cells]), self.labels)

    def detail(self) -> pd.DataFrame:
        """`frame` with the place in words, the interval of the selectivity, the accuracy on shuffled labels, the share
        of test rows whose type of input the training rows had shown, the number of classes there, and for circles the
        share of the variance explained, on the target and on the control labels."""
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
                    "r_squared": cell.r_squared,
                    "control_r_squared": cell.control_r_squared,
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

    def scan(self, level: float = 0.05, *, null: Null = "renamed") -> ProbeScan:
        """Which cells of each model read their target better than chance alone explains, all cells looked at together.

        See `ProbeScan` for what is tested. ValueError with fewer than 19 renamings (or controls).
        """
        return scan_cells(self.cells, level=level, null=null, labels=self.labels)

    def figure(self, measure: Measure = "selectivity") -> go.Figure:
        """Site by place, a facet per target and model; gray where a cell was left out. The scale is always 0 to 1."""
        shown = [measure, "accuracy", "control_accuracy", "chance", "ci_low", "ci_high", "n_test"]
        return probe_grid(
            [(cell.at, cell.target) for cell in self.cells],
            self.frame()[list(dict.fromkeys(shown))],
            measure,
            title=f"Linear probes: {measure.replace('_', ' ')} by site and place",
        )
