"""Whether a probe had enough examples: accuracy, control and selectivity against the number of training problems.

A low accuracy at one sample size may be a variable that is absent or a probe that was starved; a high one may be a
table that the probe had room to store. The curve tells them apart: what is there in linear form is found early, and the
control stays behind; what is stored rises with the control.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from cotinterp.figures import lines
from cotinterp.mechanism.model import HookedModel
from cotinterp.mechanism.probing.controls import Controls, distinct_rows
from cotinterp.mechanism.probing.result import ProbeResult, Score
from cotinterp.mechanism.probing.solver import FitOptions
from cotinterp.mechanism.probing.totals import TotalTargets, probe_totals
from cotinterp.mechanism.sites import Site
from cotinterp.results import Result, with_labels
from cotinterp.transcripts.batch import Batch
from cotinterp.transcripts.roles import Role


@dataclass(frozen=True, eq=False)
class TrainAndTest:
    """A model with the transcripts that its probes are trained and tested on."""

    model: HookedModel
    train: Batch
    test: Batch


@dataclass(frozen=True, eq=False)
class SampleSizeCurve(Result):
    """The probes of a few places at several numbers of training problems, subject by subject.

    Smaller samples are the beginnings of larger ones, and all are tested on the same problems: a curve does not move
    because the test did. Compare regimes at equal `n_problems`; never one curve's end with another's beginning.

    Attributes:
        results: Sweep of each subject at each number of training problems.
    """

    results: Mapping[tuple[str, int], ProbeResult]
    labels: Mapping[str, str | int] = field(default_factory=dict)

    def frame(self) -> pd.DataFrame:
        """One row per subject, cell and size: the columns of `ProbeResult.detail` behind subject and `n_problems`."""
        parts = [
            result.detail().assign(subject=subject, n_problems=size) for (subject, size), result in self.results.items()
        ]
        table = pd.concat(parts, ignore_index=True)
        first = ["subject", "n_problems"]
        return with_labels(table[[*first, *table.columns.drop(first)]], self.labels)

    def figure(self, measure: Score = "selectivity") -> go.Figure:
        """A line per subject and place, a facet per target; 95% intervals over test problems where there are any."""
        table = self.frame()
        where = table["model"] + " " + table["site"] + " at " + table["place"]
        table = table.assign(cell=table["subject"] + ": " + where)
        ends = {"selectivity": ("selectivity_low", "selectivity_high"), "accuracy": ("ci_low", "ci_high")}
        low, high = ends.get(measure, (None, None))
        words = measure.replace("_", " ")
        return lines(
            table,
            x="n_problems",
            y=measure,
            low=low,
            high=high,
            color="cell",
            facet="target",
            title=f"Linear probes: {words} by number of training problems",
            x_title="training problems",
            y_title=words,
            hover=["accuracy", "control_accuracy", "chance", "n_test"],
        )


def sample_size_curve(
    subjects: Mapping[str, TrainAndTest],
    sizes: Sequence[int],
    *,
    sites: Sequence[Site] | None = None,
    places: Mapping[str, Sequence[tuple[Role | str, int]]] | None = None,
    targets: TotalTargets | Sequence[int] = TotalTargets(),
    controls: Controls = Controls(n_controls=3, n_shuffles=0),
    fit: FitOptions = FitOptions(),
    labels: Mapping[str, str | int] | None = None,
) -> SampleSizeCurve:
    """`probe_totals` at growing numbers of training problems, with the same problems for every subject.

    Args:
        subjects: By name, such as the regime. All must hold the same problems in the same order: the same budget.
        sizes: Numbers of distinct training problems; the first so many in an order drawn with `controls.seed`.
        places: For each subject, as in `probe_totals`; by default all of `probe_places`, which is many: name a few.

    Other arguments are those of `probe_totals`.

    Raises:
        ValueError: Subjects with different problems, sizes beyond the training problems, what `probe_totals` refuses.
    """
    names = list(subjects)
    problems = [_problems(subjects[name]) for name in names]
    for name, other in zip(names, problems, strict=True):
        if other != problems[0]:
            raise ValueError(
                f"{name!r} has other problems than {names[0]!r}, or another order; curves are compared on the same "
                "training and test problems: render the same list in each regime"
            )
    number = distinct_rows(next(iter(subjects.values())).train.operands.cpu().numpy())
    available = int(number.max()) + 1
    if not sizes or min(sizes) < 1 or max(sizes) > available:
        raise ValueError(f"sizes {list(sizes)} must lie in 1..{available}, the number of distinct training problems")
    rank = np.random.default_rng(controls.seed).permutation(available)[number]
    results = {
        (name, size): probe_totals(
            subject.model,
            subject.train[np.flatnonzero(rank < size).tolist()],
            test=subject.test,
            sites=sites,
            places=None if places is None else places.get(name),
            targets=targets,
            controls=controls,
            fit=fit,
        )
        for name, subject in subjects.items()
        for size in sorted(set(sizes))
    }
    return SampleSizeCurve(results, labels or {})


def _problems(subject: TrainAndTest) -> list[tuple[int, ...]]:
    return [(-1,), *(problem.operands for problem in (*subject.train.problems, *subject.test.problems))]
