"""What probes found: each test row's prediction, the tables, the scan over all cells and the picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Bool, Float, Int

from cotinterp.figures.probing import probe_figure, probe_scan_figure
from cotinterp.mechanism.probing.controls import interval_over_groups
from cotinterp.mechanism.probing.linear_probe import LinearProbe, ProbedAt
from cotinterp.results import Interval, Result, with_labels
from cotinterp.results.multiplicity import exchange_test

LeftOut = Literal["problems", "inputs"]
Null = Literal["renamed", "control"]
Score = Literal["selectivity", "accuracy", "control_accuracy"]


@dataclass(frozen=True, kw_only=True, eq=False)
class ProbeCell:
    """One converged probe and its controls, on rows of problems that none of them was fitted on.

    Attributes:
        truth, predicted: Class of each test row and the probe's answer.
        control_truth, control_predicted: The same for probes fitted to a random label per type of input.
        shuffled_truth, shuffled_predicted: The same for probes fitted to labels shuffled over problems; maybe none.
        groups: Problem of each test row: the unit of the intervals.
        majority: The most frequent class of the training rows, for each test row.
        left_out: What the probe was not fitted on and is tested on: whole `problems`, or whole `inputs` as well.
        seen: Share of test rows whose type of input stood in the training rows too. At 1 a stored table would do.
        renamed_accuracy: Accuracy of probes fitted to the same target where the operands' symbols are renamed, one
            entry a renaming, the same renamings in all cells of a sweep: what `ProbeResult.scan` compares with.
        r_squared: For regressions onto a circle, on the test rows: 1 is exact, 0 no better than the training mean.
            NaN for classifiers.
        control_r_squared: The same for the control labels, averaged.
        probe: The fitted probe, where it was asked for (`keep=True`).
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
    majority: Int[np.ndarray, " n"]
    seen: float
    left_out: LeftOut = "problems"
    renamed_accuracy: Float[np.ndarray, " draws"] = field(default_factory=lambda: np.empty(0))
    r_squared: float = float("nan")
    control_r_squared: float = float("nan")
    probe: LinearProbe | None = None

    @classmethod
    def joined(cls, folds: Sequence["ProbeCell"]) -> "ProbeCell":
        """One cell of probes that were fitted on other parts of the inputs, each tested on the part that it lacks.

        `n_train` is that of the probe with fewest training rows; shares of rows are those of all test rows together.
        """
        first, n = folds[0], np.array([len(fold.truth) for fold in folds])
        rows = ("truth", "predicted", "control_truth", "control_predicted", "shuffled_truth", "shuffled_predicted")
        shares = ("seen", "renamed_accuracy", "r_squared", "control_r_squared")
        together: dict[str, Any] = {
            name: np.concatenate([getattr(fold, name) for fold in folds], axis=-1)
            for name in (*rows, "groups", "majority")
        }
        together |= {name: n @ np.stack([getattr(fold, name) for fold in folds]) / n.sum() for name in shares}
        n_train, n_classes = min(fold.n_train for fold in folds), max(fold.n_classes for fold in folds)
        return replace(first, left_out="inputs", n_train=n_train, n_classes=n_classes, probe=None, **together)

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

    @property
    def columns(self) -> dict[str, str | int]:
        """What names the cell in every table of probes: the columns of `ProbedAt`, target, left_out."""
        return {**self.at.columns, "target": self.target, "left_out": self.left_out}

    def summary(self) -> dict[str, str | int | float]:
        """One row of the table."""
        accuracy, control = float(self.correct.mean()), float(self.control_correct.mean())
        return {
            **self.columns,
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
class ProbeScan(Result):
    """The cells of each model against the same scan on other labelings, by the largest cell of a scan.

    The statistic of a cell is its accuracy minus the mean accuracy over all namings of that cell, the true one among
    them. `p_adjusted` is the share of namings, the true one among them, whose largest cell is at least as high; a
    cell is flagged at or below `level`. Where the null holds, the chance that anything at all is flagged in the scan of
    one model is at most `level`, for any number of cells, targets and coordinates and however they depend on one
    another. Cells chosen from another scan of the same model are not covered, nor are several models taken together.

    The null, `renamed`: the model makes no more of the text as it is than of the same text with the operands' symbols
    permuted, wherever they stand, and the labels as they were. It holds exactly for a model whose embeddings were drawn
    alike for all symbols and never trained (reading a renamed text is reading the text with permuted embeddings), for
    every task, whether or not its totals are uniform, and at every place, after written totals too; what any such model
    shows by its architecture (sums of embeddings, stored pairs) it shows for all namings. Of a trained model a renamed
    trace is off the distribution that it knows, so that where it reads what stands written a flag may be owed to that
    as well. Features that are given once have renamed labels instead (`Target.renamed`), which is the same where no
    total stands written, and there alone. `control`: the features favor the naming no more than a random
    label for each type of input. That is false for untrained models on commutative tasks, and conservative where the
    labels are balanced over each operand; use it where no task is at hand.

    A scan can only find what few namings share: a parity of six symbols has ten namings, so one labeling in ten equals
    the true one there and no number of draws reaches 5% (a parity of ten symbols has 126). No flag is then no evidence
    of absence; compare with an untrained model. A flag says that the target can be read better than by a model without
    knowledge of the task; not that it is used, nor how well.

    Attributes:
        skipped: Cells that have no other truth to compare with: the input baseline, and totals already written.
    """

    table: pd.DataFrame
    level: float
    skipped: int
    labels: Mapping[str, str | int] = field(default_factory=dict)

    def frame(self) -> pd.DataFrame:
        """One row per cell: accuracy, mean and largest accuracy on other labelings, their number, adjusted p, flag."""
        return with_labels(self.table, self.labels)

    def figure(self) -> go.Figure:
        """Accuracy of the flagged cells alone; the others, and those left out, are gray."""
        return probe_scan_figure(self.frame(), level=self.level)


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
    return ProbeScan(table, level, len(cells) - len(found), labels or {})


def _table(found: Sequence[tuple[ProbeCell, Float[np.ndarray, " draws"]]]) -> pd.DataFrame:
    """The rows of one model."""
    cells, null = [cell for cell, _ in found], np.stack([drawn for _, drawn in found], axis=1)
    accuracy = np.array([cell.correct.mean() for cell in cells])
    mean = np.concatenate([accuracy[None], null]).mean(0)
    return pd.DataFrame([cell.columns for cell in cells]).assign(
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

    Rows where `left_out` is `inputs` come from probes that were fitted without the test row's input (all that the
    target is made of at the place, `totals.beginnings`): a stored table of inputs reads nothing there, so that what is
    read is held in the same directions whatever it was made of. Where it is `problems` the input may have been shown.

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
                    "place": cell.at.place,
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
        parts = [
            pd.DataFrame({**cell.columns, "group": cell.groups, "truth": cell.truth, "predicted": cell.predicted})
            for cell in self.cells
        ]
        return with_labels(pd.concat(parts, ignore_index=True), self.labels)

    def scan(self, level: float = 0.05, *, null: Null = "renamed") -> ProbeScan:
        """Which cells of each model read their target better than chance alone explains, all cells looked at together.

        See `ProbeScan` for what is tested. ValueError with fewer than 19 renamings (or controls).
        """
        return scan_cells(self.cells, level=level, null=null, labels=self.labels)

    def figure(self, measure: Score = "selectivity", *, left_out: LeftOut | None = None) -> go.Figure:
        """Site by place, a row of panels for each target, a column for each model; gray where nothing was probed.

        Of cells of both kinds those of one `left_out` are drawn, by default that of the first.
        """
        return probe_figure(self.frame(), measure, left_out=left_out or "")
