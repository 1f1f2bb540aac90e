"""One probe at one place, beside everything that it is compared with."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Int

from cotinterp.mechanism.probing.controls import interval_over_groups
from cotinterp.mechanism.probing.linear_probe import LinearProbe
from cotinterp.mechanism.probing.place import ProbedAt
from cotinterp.results import Interval


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
        renamed_accuracy: Accuracy of probes fitted to the same target of the task with its operands' symbols renamed,
            one entry a renaming, the same renamings in all cells of a sweep: what `ProbeResult.scan` compares with.
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
    majority: int
    seen: float
    renamed_accuracy: Float[np.ndarray, " draws"] = field(default_factory=lambda: np.empty(0))
    r_squared: float = float("nan")
    control_r_squared: float = float("nan")
    probe: LinearProbe | None = None

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
