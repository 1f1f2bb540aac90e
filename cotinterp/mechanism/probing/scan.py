"""A whole sweep of probes looked at together: which cells hold what chance does not explain."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float

from cotinterp.mechanism.probing.cell import ProbeCell
from cotinterp.mechanism.probing.figure import probe_grid
from cotinterp.mechanism.probing.place import ProbedAt
from cotinterp.results import Result, with_labels
from cotinterp.results.multiplicity import exchange_test

Null = Literal["renamed", "control"]


@dataclass(frozen=True, eq=False)
class ProbeScan(Result):
    """The cells of each model against the same scan on other labelings, by the largest cell of a scan.

    The statistic of a cell is its accuracy minus the mean accuracy on all labelings of that cell, the true one among
    them. `p_adjusted` is the share of labelings, the true one among them, whose largest cell is at least as high; a
    cell is flagged at or below `level`. Where the null holds, the chance that anything at all is flagged in the scan of
    one model is at most `level`, for any number of cells, targets and coordinates and however they depend on one
    another. Cells chosen from another scan of the same model are not covered, nor are several models taken together.

    The null, `renamed`: the features favor the task's naming of the operands no more than any other naming of them. It
    holds exactly for a model whose embeddings were drawn alike for all symbols and never trained, at places where no
    total stands written; what any such model shows by its architecture (sums of embeddings, stored pairs) it shows for
    all namings. After written totals the labelings rename the step that goes on from them, and the null is close to
    exact only: a written total also depends on the operands before it. `control`: they favor it no more than a random
    label for each type of input. That is false for untrained models on commutative tasks, and conservative where the
    labels are balanced over each operand; use it where no task is at hand.

    A scan can only find what few namings share: a parity of six symbols has ten namings, so one labeling in ten equals
    the true one there and no number of draws reaches 5% (a parity of ten symbols has 126). No flag is then no evidence
    of absence; compare with an untrained model. A flag says that the target can be read better than by a model without
    knowledge of the task; not that it is used, nor how well.

    Attributes:
        where: Place and target of each row of the table.
        skipped: Cells that have no other truth to compare with: the input baseline, and totals already written.
    """

    table: pd.DataFrame
    where: tuple[tuple[ProbedAt, str], ...]
    level: float
    skipped: int
    labels: Mapping[str, str | int] = field(default_factory=dict)

    def frame(self) -> pd.DataFrame:
        """One row per cell: accuracy, mean and largest accuracy on other labelings, their number, adjusted p, flag."""
        return with_labels(self.table, self.labels)

    def figure(self) -> go.Figure:
        """Accuracy of the flagged cells alone; the others, and those left out, are gray."""
        shown = self.table[["accuracy", "null_mean", "null_max", "p_adjusted"]]
        found = shown.where(self.table["flagged"])
        title = f"Linear probes above chance at {self.level:g}, scan-wide"
        return probe_grid(self.where, found, "accuracy", title=title)


def scan_cells(
    cells: Sequence[ProbeCell], *, level: float, null: Null, labels: Mapping[str, str | int] | None = None
) -> ProbeScan:
    """The scan of these cells, model by model. ValueError with too few labelings for the level, or unequal numbers."""
    if not 0 < level < 1:
        raise ValueError(f"level {level} must lie strictly between 0 and 1; 0.05 is the usual choice")
    found = [(cell, drawn) for cell in cells if cell.at.site != "input" and len(drawn := _accuracies(cell, null))]
    counts = sorted({len(drawn) for _, drawn in found})
    needed = int(np.ceil(1 / level - 1e-9)) - 1
    if not found or counts[0] < needed:
        how = "n_renamings (with the task)" if null == "renamed" else "n_controls"
        raise ValueError(
            f"the scan has {min(counts, default=0)} {null} labelings a cell; at level {level:g} nothing can be found "
            f"with fewer than {needed}. Fit the sweep with {how} of {needed} or more"
        )
    if len(counts) > 1:
        raise ValueError(f"cells have {counts} {null} labelings; a scan needs the same draws in every cell")
    models = list(dict.fromkeys(cell.at.model for cell, _ in found))
    found.sort(key=lambda one: models.index(one[0].at.model))
    table = pd.concat([_table([one for one in found if one[0].at.model == model]) for model in models])
    table = table.assign(flagged=table["p_adjusted"] <= level).reset_index(drop=True)
    where = tuple((cell.at, cell.target) for cell, _ in found)
    return ProbeScan(table, where, level, len(cells) - len(found), labels or {})


def _table(found: Sequence[tuple[ProbeCell, Float[np.ndarray, " draws"]]]) -> pd.DataFrame:
    """The rows of one model."""
    cells, null = [cell for cell, _ in found], np.stack([drawn for _, drawn in found], axis=1)
    accuracy = np.array([cell.correct.mean() for cell in cells])
    mean = np.concatenate([accuracy[None], null]).mean(0)
    rows = [
        {
            "model": cell.at.model,
            "layer": cell.at.layer,
            "site": cell.at.site,
            "role": cell.at.role,
            "step": cell.at.step,
            "target": cell.target,
        }
        for cell in cells
    ]
    return pd.DataFrame(rows).assign(
        accuracy=accuracy,
        null_mean=null.mean(0),
        null_max=null.max(0),
        n_null=len(null),
        p_adjusted=exchange_test(accuracy - mean, null - mean),
    )


def _accuracies(cell: ProbeCell, null: Null) -> Float[np.ndarray, " draws"]:
    if null == "renamed":
        return cell.renamed_accuracy
    each: Float[np.ndarray, " draws"] = (cell.control_predicted == cell.control_truth).mean(1)
    return each
