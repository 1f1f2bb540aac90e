"""Models that know nothing, scanned and judged: how often something is found in them.

A model with random weights computes nothing on purpose. All its heads, patched cells and probe cells are scanned as a
user would scan them: the share of models in which anything at all is flagged should be about the level or below it.
Beside it stands what the same scans flag without correction, which is the price of looking at many cells. The claims
are judged on worlds of such models too: none of them is so there, and none may come out as supported.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple, get_args

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float, Int
from scipy.stats import ttest_1samp

from cotinterp.calibration.claim_truths import LEAST
from cotinterp.calibration.ground_truth import SEEDS, GroundTruth, K, untrained, untrained_subject
from cotinterp.claims.catalog import CATALOG
from cotinterp.claims.claim import Claim
from cotinterp.claims.judge import judge_all
from cotinterp.claims.verdict import Word
from cotinterp.figures import lines
from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.heads.table import head_table
from cotinterp.mechanism.patching.runs import PatchingControls
from cotinterp.mechanism.patching.sweep import patch_sweep
from cotinterp.mechanism.probing.controls import Controls
from cotinterp.mechanism.probing.totals import probe_totals
from cotinterp.results import wilson
from cotinterp.results.multiplicity import max_statistic
from cotinterp.results.result import Result
from cotinterp.studies.measuring import Measure
from cotinterp.studies.protocol import head_pairs
from cotinterp.studies.subject import Effort, Subject
from cotinterp.sweeps.pool import parallel_map
from cotinterp.sweeps.replication import gather_subjects
from cotinterp.tasks.task import FoldTask, Task
from cotinterp.training.loop import torch_threads
from cotinterp.transcripts.pairs import Pairs

LITTLE = replace(LEAST, probed=400)
"""As for handmade models; a probe needs some held-out problems of every total."""
TASKS = ("z6", "s3")
REGIMES = ("cot", "direct", "filler")
WORDS: tuple[Word, ...] = get_args(Word)


@dataclass(frozen=True)
class NullVerdict:
    """One claim in one world of untrained models, and what was said of it."""

    world: int
    task: str
    claim: str
    verdict: str
    reason: str


@dataclass(frozen=True)
class NullClaims(Result):
    """Claims about untrained models: whatever is called supported is not so.

    `inconclusive` is the usual word for them, because a control does not pass; `not supported` is as right.
    """

    verdicts: tuple[NullVerdict, ...]

    @property
    def false(self) -> tuple[NullVerdict, ...]:
        """Those called supported, wholly or partly."""
        return tuple(one for one in self.verdicts if one.verdict in ("supported", "partly supported"))

    def examples(self) -> pd.DataFrame:
        """One row for each world and claim: world, task, claim, verdict, reason."""
        return pd.DataFrame([vars(one) for one in self.verdicts])

    def frame(self) -> pd.DataFrame:
        """One row for each claim: worlds, how many of each word, share supported or partly so, Wilson interval."""
        rows = []
        for claim, group in self.examples().groupby("claim", sort=False):
            counts = [int((group["verdict"] == word).sum()) for word in WORDS]
            false, n = sum(counts[:2]), len(group)
            rows.append((claim, n, *counts, false / n, *wilson(false, n)))
        words = [word.replace(" ", "_") for word in WORDS]
        return pd.DataFrame(rows, columns=["claim", "worlds", *words, "share_false", "ci_low", "ci_high"])

    def figure(self) -> go.Figure:
        """Share of worlds in which each claim is called supported, wholly or partly."""
        figure = lines(
            self.frame(),
            x="claim",
            y="share_false",
            low="ci_low",
            high="ci_high",
            bounds=(0.0, 1.0),
            title="Claims supported by untrained models",
            x_title="claim",
            y_title="share of worlds with a false verdict",
            hover=["worlds"],
        )
        return figure.update_traces(mode="markers")


def null_claims(
    n_worlds: int = 20,
    *,
    catalog: Sequence[Claim] = CATALOG,
    effort: Effort = LITTLE,
    measures: Sequence[Measure] | None = None,
    jobs: int = 0,
) -> NullClaims:
    """Judge every claim in `n_worlds` worlds of untrained models, alternately of a commutative and of another group.

    Args:
        effort: What each model is measured with.
        measures: By default all that apply to a model.
        jobs: Processes side by side, one thread each; 0: none but this one.

    Raises:
        ValueError: No worlds.
        RuntimeError: A world could not be measured.
    """
    if n_worlds < 1:
        raise ValueError(f"{n_worlds} worlds: at least one is needed")
    work = partial(judge_untrained, effort=effort, catalog=catalog, measures=measures)
    found: list[NullVerdict] = []
    for world, result in enumerate(parallel_map(work, range(n_worlds), jobs=jobs)):
        if result.value is None:
            raise RuntimeError(f"world {world} of untrained models could not be measured: {result.error}")
        found.extend(result.value)
    return NullClaims(tuple(found))


def untrained_world(world: int) -> tuple[Subject, ...]:
    """Five seeds of every regime, and of direct with one layer."""
    task = TASKS[world % len(TASKS)]
    standard = tuple(untrained_subject(task, regime, seed, world=world) for regime in REGIMES for seed in SEEDS)
    return (*standard, *(untrained_subject(task, "direct", seed, world=world, layers=1) for seed in SEEDS))


def judge_untrained(
    world: int,
    *,
    effort: Effort = LITTLE,
    catalog: Sequence[Claim] = CATALOG,
    measures: Sequence[Measure] | None = None,
) -> tuple[NullVerdict, ...]:
    """Every claim in one world."""
    evidence = gather_subjects(untrained_world(world), effort, measures)
    return tuple(
        NullVerdict(world, one.task, one.claim, one.verdict, one.reason)
        for one in judge_all(catalog, evidence).verdicts
    )


LEVEL = 0.05
RENAMINGS = 19
COUNTED = {"as reported": "flagged", "corrected, no gate": "ungated", "not corrected": "uncorrected"}


class Saturating(FoldTask):
    """A sum that stops at 9: most long problems end there."""

    name = "saturating"
    operands = "0123456789"

    def step(self, total: Int[np.ndarray, " n"], operand: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        return np.asarray(np.minimum(total + operand, 9))


class Largest(FoldTask):
    """The largest operand so far: states have an order, and only rise."""

    name = "largest"
    operands = "0123456789"

    def step(self, total: Int[np.ndarray, " n"], operand: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        return np.asarray(np.maximum(total, operand))


class Absorbing(FoldTask):
    """A product modulo 10: a state divided by 2, by 5 or by both stays so, and 0 is never left."""

    name = "absorbing"
    operands = "0123456789"

    def step(self, total: Int[np.ndarray, " n"], operand: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        return np.asarray(total * operand % 10)


GROUPS: tuple[str, ...] = ("z6", "s3")
PROBED: tuple[str | type[Task], ...] = (
    *GROUPS,
    *("digit-sum", "affine-mod10", "polynomial-mod11", "random-labels", "pointers", "expressions-mod11"),
    *(Saturating, Largest, Absorbing),
    *("a5", "a4xz5", "z60", "s5"),
)
"""Every task that travels with the package but for parity and binary-copy, whose two symbols have no other names, and
s5-words, whose states are those of s5; and three whose states saturate, are ordered and are absorbed."""


@dataclass(frozen=True)
class Scanned:
    """One scan of one untrained model.

    Attributes:
        cells: How many cells were looked at.
        flagged: How many of them the scan reports at the level.
        ungated: How many have an adjusted p-value up to the level, whether or not the model does anything that could be
            explained (heads and patches are reported only where it tells answer from foil).
        uncorrected: How many have a p-value of their own up to the level.
    """

    scan: str
    task: str
    seed: int
    cells: int
    flagged: int
    ungated: int
    uncorrected: int


class Counts(NamedTuple):
    """The counts of `Scanned`."""

    cells: int
    flagged: int
    ungated: int
    uncorrected: int


@dataclass(frozen=True)
class FalsePositives(Result):
    """Scans of untrained models, and in which share of them anything was flagged."""

    scans: tuple[Scanned, ...]
    level: float = LEVEL

    def examples(self) -> pd.DataFrame:
        """One row for each model and scan: scan, task, seed, cells, flagged, ungated, uncorrected."""
        return pd.DataFrame([vars(scan) for scan in self.scans])

    def frame(self) -> pd.DataFrame:
        """One row for each scan and correction: models, cells a model, models with a flag, share, Wilson interval."""
        rows = []
        for scan, group in self.examples().groupby("scan", sort=False):
            for correction, column in COUNTED.items():
                hits, n = int((group[column] > 0).sum()), len(group)
                low, high = wilson(hits, n)
                rows.append((scan, correction, n, group["cells"].mean(), hits, hits / n, low, high, self.level))
        columns = ["scan", "correction", "models", "cells", "models_flagged", "share", "ci_low", "ci_high", "level"]
        return pd.DataFrame(rows, columns=columns)

    def by_task(self) -> pd.DataFrame:
        """As reported, one row for each scan and task: models, models with a flag, Wilson interval of their share."""
        rows = []
        for (scan, task), group in self.examples().groupby(["scan", "task"], sort=False):
            hits, n = int((group["flagged"] > 0).sum()), len(group)
            rows.append((scan, task, n, hits, hits / n, *wilson(hits, n)))
        return pd.DataFrame(rows, columns=["scan", "task", "models", "models_flagged", "share", "ci_low", "ci_high"])

    def figure(self) -> go.Figure:
        """Share of untrained models in which anything was flagged, beside the level."""
        figure = lines(
            self.frame(),
            x="scan",
            y="share",
            low="ci_low",
            high="ci_high",
            color="correction",
            bounds=(0.0, 1.0),
            references={f"level {self.level:g}": self.level},
            title="Untrained models in which a scan finds something",
            x_title="scan",
            y_title="share of models with anything flagged",
            hover=["models", "cells"],
        )
        # Scans are no steps of anything: nothing leads from one to the next.
        return figure.update_traces(mode="markers")


def false_positives(
    n_models: int = 50, *, level: float = LEVEL, scans: Sequence[str] | None = None, jobs: int = 1
) -> FalsePositives:
    """Scan `n_models` untrained models, of each of the scan's tasks in turn (SUBJECTS).

    Args:
        scans: Some of SCANS; by default all.
        jobs: Processes side by side, one thread each.

    Raises:
        ValueError: No models, or an unknown scan.
    """
    chosen = tuple(SCANS) if scans is None else tuple(scans)
    unknown = [name for name in chosen if name not in SCANS]
    if unknown or n_models < 1:
        raise ValueError(f"{n_models} models, unknown scans {unknown}: name at least one model, scans of {list(SCANS)}")
    if jobs == 1:
        found = [scan_model(seed, level=level, scans=chosen) for seed in range(n_models)]
    else:
        work = partial(_scan_on_one_thread, level=level, scans=chosen)
        found = [result.unwrap() for result in parallel_map(work, range(n_models), jobs=jobs)]
    return FalsePositives(tuple(scan for scans_of in found for scan in scans_of), level)


def _scan_on_one_thread(seed: int, *, level: float, scans: Sequence[str]) -> tuple[Scanned, ...]:
    with torch_threads(1):
        return scan_model(seed, level=level, scans=scans)


def scan_model(seed: int, *, level: float = LEVEL, scans: Sequence[str] = ()) -> tuple[Scanned, ...]:
    """All scans of the untrained models of this seed: one of the task that is each scan's turn, writing `cot`."""
    found = []
    for scan in scans or SCANS:
        task = SUBJECTS[scan][seed % len(SUBJECTS[scan])]
        model = untrained(task if isinstance(task, str) else task(), "cot", seed)
        found.append(Scanned(scan, model.task.name, seed, *SCANS[scan](replace(model, run_seed=seed), level)))
    return tuple(found)


def scan_heads(model: GroundTruth, level: float) -> Counts:
    """Heads that a total needs, by resample ablation."""
    result = head_table(model.model, Contrast.from_pairs(_pairs(model)))
    lost = result.ablation.double().numpy()
    lost = lost[:, np.isfinite(lost).all(axis=0)]
    return Counts(len(lost), len(result.flagged(level)), *_by_p(max_statistic(lost).p, lost, level))


def scan_patches(model: GroundTruth, level: float) -> Counts:
    """Heads and places that carry a written total, by patching z."""
    contrast = Contrast.from_pairs(_pairs(model))
    result = patch_sweep(model.model, contrast, kinds=(), heads=True, controls=PatchingControls(require_gap=False))
    changes = result.measured.changes[result.metrics[0]]
    flagged = int(result.scan(level=1 - level).frame()["flagged"].sum())
    return Counts(len(changes), flagged, *_by_p(max_statistic(changes).p, changes, level))


def scan_probes(model: GroundTruth, level: float) -> Counts:
    """Running totals decoded before they are written, at every site and place."""
    problems = (*model.trained(400), *model.heldout(200))
    controls = Controls(task=model.task, n_renamings=RENAMINGS, seed=model.run_seed)
    result = probe_totals(model.model, model.batch(problems), controls=controls)
    scan = result.scan(level).frame()
    flagged, alone = int(scan["flagged"].sum()), int((scan["accuracy"] > scan["null_max"]).sum())
    return Counts(len(scan), flagged, flagged, alone)


def _by_p(adjusted: Float[np.ndarray, " cells"], values: Float[np.ndarray, "cells n"], level: float) -> tuple[int, int]:
    """Cells up to the level by their adjusted p-values, and by a t-test of their own."""
    moving = values[values.std(axis=1) > 0]
    alone = ttest_1samp(moving, 0.0, axis=1).pvalue if len(moving) else np.ones(0)
    return int(np.count_nonzero(adjusted <= level)), int(np.count_nonzero(alone <= level))


SCANS: Mapping[str, Callable[[GroundTruth, float], Counts]] = {
    "heads": scan_heads,
    "patching": scan_patches,
    "probes": scan_probes,
}
"""What is scanned: one model at one level."""
SUBJECTS: Mapping[str, tuple[str | type[Task], ...]] = {"heads": GROUPS, "patching": GROUPS, "probes": PROBED}


def _pairs(model: GroundTruth) -> Pairs:
    """Total 3 with total 2 as written, or another one."""
    return head_pairs(model, 60, k=K)
