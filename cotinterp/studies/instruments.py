"""Every instrument with its standard settings, applied to one trained model: what the commands and the report measure.

Problems are held-out ones wherever the answer could be a memory, and the same for all models of a task.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from cotinterp.behavior.accuracy import AccuracyResult, accuracy_by_k, store_evaluation
from cotinterp.behavior.edit_kinds import all_edits
from cotinterp.behavior.edits import EditResult, PooledEdits, trace_edits
from cotinterp.behavior.errors import error_taxonomy
from cotinterp.figures import stacked_bars
from cotinterp.figures.attention import AttentionView
from cotinterp.mechanism.activations import Budget
from cotinterp.mechanism.circuits import edge_agreement, edge_scores, faithfulness_curve
from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.heads.attention import attention, attention_by_role
from cotinterp.mechanism.heads.table import head_table
from cotinterp.mechanism.metrics import NoGapError
from cotinterp.mechanism.patching.run_predictions import family_predictions
from cotinterp.mechanism.patching.runs import DIRECTIONS, PatchingControls
from cotinterp.mechanism.patching.sweep import PatchingResult, patch_sweep
from cotinterp.mechanism.probing.controls import Controls
from cotinterp.mechanism.probing.result import ProbeResult
from cotinterp.mechanism.probing.solver import FitOptions
from cotinterp.mechanism.probing.totals import probe_totals
from cotinterp.results import Result, with_labels
from cotinterp.studies.probes import totals_across_inputs
from cotinterp.studies.protocol import (
    FAMILIES_K,
    Missing,
    at_first_length,
    declared_head_pairs,
    declared_pairs,
    standard_families,
)
from cotinterp.studies.subject import FULL, Effort, Subject
from cotinterp.training.checkpoints import Run
from cotinterp.transcripts.pairs import NoPairsError
from cotinterp.transcripts.problems import sample_problems
from cotinterp.transcripts.regimes import get_regime

StudyName = Literal["evaluate", "edit", "probe", "patch", "attribute", "circuit"]
STUDIES: tuple[StudyName, ...] = ("evaluate", "edit", "probe", "patch", "attribute", "circuit")
"""Those that a report is made of."""

Results = dict[str, dict[str, Result]]
"""For each table that a study fills, the results that make it up, by a name for their figures."""


def study(name: StudyName, subject: Subject, effort: Effort = FULL) -> Results:
    """One instrument with its standard settings on one model.

    Pairs that the task does not have are left out and listed in the table `skipped`, each with the reason.

    Raises:
        KeyError: An unknown study; those that exist are named.
        ValueError: The study makes no sense for the subject (`edit` in a regime that writes no totals, `attribute`
            where steps do not follow the operands, a model that looks ahead).
        NoPairsError: No pairs at all can be made of the task: nothing that it is shown changes its answer.
        EmptySplitError: No problem of this length is held out.
    """
    if name not in _STUDIES:
        raise KeyError(f"unknown study {name!r}; there are {', '.join(_STUDIES)}")
    subject.require_causal()
    return _STUDIES[name](subject, effort)


def applicable(regime: str) -> tuple[StudyName, ...]:
    """The studies that make sense for a regime: one without written totals has none to edit."""
    return tuple(name for name in STUDIES if name != "edit" or get_regime(regime).writes_totals)


def table_of(results: Mapping[str, Result]) -> pd.DataFrame:
    """The rows of several results in one table."""
    return pd.concat([result.frame() for result in results.values()], ignore_index=True)


def store_accuracy(run: Run, results: Results) -> Path:
    """Write the accuracies that `evaluate` found beside the weights of `run`, in evaluation.json."""
    accuracy = results["accuracy"]["accuracy"]
    assert isinstance(accuracy, AccuracyResult)
    return store_evaluation(run, accuracy)


def attention_example(subject: Subject, effort: Effort = FULL) -> AttentionView:
    """Attention of every head on the first held-out problem: chosen before looking, one example and no statistic."""
    batch = subject.batch(subject.heldout(1, k=subject.length(effort)))
    return attention(subject.model, batch, labels=subject.labels)


def evaluated(subject: Subject, effort: Effort) -> AccuracyResult:
    """Every output on training and held-out problems of each number of operands."""
    problems = subject.evaluation_problems(effort.evaluated)
    return accuracy_by_k(subject.writer, subject.task, subject.regime, problems, run_seed=subject.run_seed)


def edited(subject: Subject, effort: Effort) -> EditResult:
    """The traces of held-out problems, edited in every way that there is."""
    return trace_edits(
        subject.writer,
        subject.task,
        subject.regime,
        subject.heldout_of_each_k(effort.edited),
        edits=all_edits(values_per_step=effort.edits_per_step),
        rng=np.random.default_rng(0),
        run_seed=subject.run_seed,
    )


def _evaluate(subject: Subject, effort: Effort) -> Results:
    accuracy = evaluated(subject, effort)
    errors = error_taxonomy(subject.task, subject.regime, accuracy.of_split("heldout"), run_seed=subject.run_seed)
    return {"accuracy": {"accuracy": accuracy}, "errors": {"errors": errors}}


def _edit(subject: Subject, effort: Effort) -> Results:
    result = edited(subject, effort)
    return {"trace_edits": {"trace_edits": result}, "trace_edit_kinds": {"trace_edit_kinds": PooledEdits(result)}}


def _probe(subject: Subject, effort: Effort) -> Results:
    k = subject.length(effort)
    rng = np.random.default_rng(0)
    train = sample_problems(subject.task, k, effort.probed * 3 // 4, split="train", rng=rng)
    test = sample_problems(subject.task, k, effort.probed // 4, split="heldout", rng=rng)
    everywhere = probe_totals(
        subject.model,
        subject.batch(train),
        test=subject.batch(test),
        controls=Controls(untrained=subject.untrained),
        fit=FitOptions(max_bytes=effort.max_bytes),
    )
    try:
        across = totals_across_inputs(subject, effort).cells
    except ValueError as error:
        warnings.warn(f"the table of probes has no rows with inputs left out: {error}", stacklevel=2)
        across = ()
    return {"probes": {"probes": ProbeResult(everywhere.cells + across, subject.labels)}}


@dataclass(frozen=True, eq=False)
class Skipped(Result):
    """What a study could not measure, the task having no such pairs, and why: by number of operands and name."""

    study: StudyName
    errors: Missing
    labels: Mapping[str, str | int]

    @classmethod
    def whole(cls, study: StudyName, error: ValueError, labels: Mapping[str, str | int]) -> "Skipped":
        """A study that was refused altogether."""
        told = error if isinstance(error, NoPairsError) else NoPairsError(" ".join(str(error).split()), tried=0)
        return cls(study, {(0, "all"): told}, labels)

    def frame(self) -> pd.DataFrame:
        """tables/skipped.csv: study, k, pairs, problems that were `tried`, and why they were not enough."""
        rows = [
            {"study": self.study, "k": k, "pairs": name, "tried": error.tried, "why": error.reason}
            for (k, name), error in self.errors.items()
        ]
        return with_labels(pd.DataFrame(rows, columns=["study", "k", "pairs", "tried", "why"]), self.labels)

    def figure(self) -> go.Figure:
        """A bar for each kind of pairs, cut by number of operands: problems that were tried in vain."""
        table = self.frame().astype({"k": str})
        title = f"{self.study}: pairs that the task does not have"
        return stacked_bars(
            table, x="pairs", y="tried", color="k", title=title, y_title="problems tried", hover=["why"]
        )


def _patch(subject: Subject, effort: Effort) -> Results:
    sweeps: dict[str, PatchingResult] = {}
    k, asked, missing = at_first_length(
        subject, effort, lambda k: declared_pairs(subject, effort.patched, k=k), enough=(2, 1)
    )
    for name, pairs in asked.items():
        contrast = Contrast.from_pairs(pairs)
        for direction in DIRECTIONS:
            sweeps[f"{name}-{direction}"] = patch_sweep(
                subject.model,
                contrast,
                heads=True,
                direction=direction,
                controls=PatchingControls(require_gap=False),
                budget=Budget(max_bytes=effort.max_bytes),
                labels=subject.labels,
            )
    results: Results = {
        "patching": {f"patching-{name}": sweep for name, sweep in sweeps.items()},
        "patching_scan": {f"patching-scan-{name}": sweep.scan() for name, sweep in sweeps.items()},
    }
    try:
        families = standard_families(subject, effort.paired, k=k)
    except NoPairsError as error:
        families, missing[k, "families"] = None, error
    if families is None and subject.writes_totals and (k, "families") not in missing:
        least = f"a fold in the order of its operands, of {FAMILIES_K} at least"
        missing[k, "families"] = NoPairsError(f"families of pairs need {least}; here are {k}", tried=0)
    if families is not None:
        contrasts = {family: Contrast.from_pairs(pairs) for family, pairs in families.items()}
        found = family_predictions(subject.model, contrasts, labels=subject.labels)
        results["pair_families"] = {"pair_families": found}
    return results | _skipped("patch", missing, subject)


def _skipped(name: StudyName, missing: Missing, subject: Subject) -> Results:
    """The table of what could not be measured; none where everything was."""
    return {"skipped": {f"skipped-{name}": Skipped(name, missing, subject.labels)}} if missing else {}


def _attribute(subject: Subject, effort: Effort) -> Results:
    k, asked, missing = at_first_length(
        subject, effort, lambda k: declared_head_pairs(subject, effort.paired, k=k), enough=(2,)
    )
    contrast = Contrast.from_pairs(*asked.values())
    results: Results = {
        "heads": {},
        "attention_by_role": {"attention_by_role": attention_by_role(subject.model, contrast, labels=subject.labels)},
    }
    try:
        results["heads"]["heads"] = head_table(subject.model, contrast, labels=subject.labels)
    except ValueError as error:
        if not subject.task.in_order:
            raise
        del results["heads"]
        missing[k, "heads"] = NoPairsError(str(error), tried=len(contrast))
    return results | _skipped("attribute", missing, subject)


def _circuit(subject: Subject, effort: Effort) -> Results:
    k, asked, missing = at_first_length(
        subject, effort, lambda k: declared_pairs(subject, effort.patched, k=k), enough=(2, 1)
    )
    results: Results = {"edges": {}, "edge_agreement": {}, "faithfulness": {}}
    for name, pairs in asked.items():
        contrast, budget = Contrast.from_pairs(pairs), Budget(max_bytes=effort.max_bytes)
        try:
            exact, estimate = (
                edge_scores(subject.model, contrast, method=method, budget=budget, labels=subject.labels)
                for method in ("exact", "eap-ig")
            )
            curve = faithfulness_curve(subject.model, contrast, exact, budget=budget)
        except NoGapError as error:
            missing[k, name] = NoPairsError(str(error), tried=len(contrast))
            continue
        results["edges"][f"edges-{name}"] = exact
        results["edge_agreement"][f"edge-agreement-{name}"] = edge_agreement(estimate, exact)
        results["faithfulness"][f"faithfulness-{name}"] = curve
    return {table: found for table, found in results.items() if found} | _skipped("circuit", missing, subject)


_STUDIES: Mapping[StudyName, Callable[[Subject, Effort], Results]] = {
    "evaluate": _evaluate,
    "edit": _edit,
    "probe": _probe,
    "patch": _patch,
    "attribute": _attribute,
    "circuit": _circuit,
}
