"""Every instrument with its standard settings, applied to one trained run: what the commands and the report measure.

A budget says how much is measured; nothing in it depends on what comes out. Problems are held-out ones wherever the
answer could be a memory, and the same for all runs of a task.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pandas as pd

from cotinterp.behavior.accuracy import AccuracyResult, evaluate_run, store_evaluation
from cotinterp.behavior.edit_kinds import all_edits
from cotinterp.behavior.edits import trace_edits
from cotinterp.behavior.errors import error_taxonomy
from cotinterp.figures.runs import RunKey
from cotinterp.mechanism.activations import activations
from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.heads.attention import attention_by_role
from cotinterp.mechanism.heads.table import head_table
from cotinterp.mechanism.patching.result import PatchingResult, PatchingScan
from cotinterp.mechanism.patching.run_predictions import family_predictions
from cotinterp.mechanism.patching.sweep import DIRECTIONS, patch_sweep
from cotinterp.mechanism.probing.totals import probe_totals
from cotinterp.mechanism.sites import residual_sites
from cotinterp.models.build import build_model
from cotinterp.report.attention import AttentionView
from cotinterp.report.edit_kinds import EditKinds
from cotinterp.results import Result
from cotinterp.studies.subject import UNTRAINED_SEED
from cotinterp.training.checkpoints import Run
from cotinterp.transcripts.batch import Batch, collate
from cotinterp.transcripts.pair_families import pair_families
from cotinterp.transcripts.pairs import Pairs, operand_pairs, written_total_pairs
from cotinterp.transcripts.problems import EmptySplitError, Problem, sample_problems
from cotinterp.transcripts.regimes import get_regime
from cotinterp.transcripts.render import render
from cotinterp.transcripts.roles import Role

StudyName = Literal["evaluate", "edit", "probe", "patch", "attribute"]
STUDIES: tuple[StudyName, ...] = get_args(StudyName)

Results = dict[str, dict[str, Result]]
"""For each table that a study fills, the results that make it up, by a name for their figures."""

FAMILIES_K = 4
"""Fewest operands of `standard_families`: one before the total that is read, its own, and one after it."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much each instrument is given.

    Attributes:
        k: Operands of the problems that the mechanism is studied on, as near to it as the run's range allows.
        evaluated: Most problems of each k and side of the split for accuracy and errors.
        edited: Problems of each k whose trace is edited, in every way that there is.
        edits_per_step: Wrong totals for each problem and step; every other kind of edit is made once for each.
        probed: Problems for the probes, a quarter of them for the test.
        patched: Minimal pairs for each patching sweep.
        headed: Minimal pairs for the head table.
        max_bytes: Most memory that activations of a patching sweep, or of the probes, may take by estimate; None leaves
            it to the instrument.
    """

    k: int = 4
    evaluated: int = 1000
    edited: int = 100
    edits_per_step: int = 3
    probed: int = 1600
    patched: int = 48
    headed: int = 100
    max_bytes: int | None = None

    def length(self, run: Run) -> int:
        """Number of operands that the mechanism of `run` is studied on."""
        return min(max(self.k, run.spec.k_min), run.spec.k_max)


FULL = Budget()
QUICK = Budget(evaluated=20, edited=6, edits_per_step=1, probed=240, patched=6, headed=12)


def study(name: StudyName, run: Run, budget: Budget = FULL) -> Results:
    """One instrument with its standard settings on one run.

    Raises:
        KeyError: An unknown study; those that exist are named.
        ValueError: The study makes no sense for the run (`edit` in a regime that writes no totals).
    """
    if name not in _STUDIES:
        raise KeyError(f"unknown study {name!r}; there are {', '.join(STUDIES)}")
    return _STUDIES[name](run, budget)


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


def heldout_problems(run: Run, n: int, *, k: int, seed: int = 0) -> tuple[Problem, ...]:
    """Up to `n` distinct held-out problems of `k` operands."""
    return sample_problems(run.task, k, n, split="heldout", rng=np.random.default_rng([seed, k]))


def transcripts_of(run: Run, problems: tuple[Problem, ...]) -> Batch:
    """The problems as the run's regime writes them, on the model's device."""
    batch = collate([render(run.task, problem, run.spec.regime) for problem in problems], run.vocabulary)
    return batch.to(next(run.model.parameters()).device)


def standard_pairs(run: Run, n: int, *, k: int) -> dict[str, Pairs]:
    """The minimal pairs that every run of a regime is patched on, by a name for each, declared before any was run.

    A prompt operand is changed in every regime, and read where the response first differs; at the answer for a task
    whose steps do not follow its operands in order. Where totals are written, one written total is changed as well:
    read where the next total is computed, and the last one read where the answer is copied.
    """
    problems = heldout_problems(run, n, k=k)
    regime, rng = get_regime(run.spec.regime), np.random.default_rng(0)
    middle = k // 2
    readout = None if run.task.in_order else (Role.ANSWER, k - 1)
    pairs = {
        f"operand-{middle}": operand_pairs(
            run.task, problems, regime, index=middle, rng=rng, readout=readout, first_symbol=True
        )
    }
    if regime.writes_totals:
        if k > 2:
            pairs[f"total-{k - 2}-next"] = written_total_pairs(
                run.task, problems, regime, step=k - 2, rng=rng, readout=(Role.TOTAL, k - 1), first_symbol=True
            )
        pairs[f"total-{k - 1}-answer"] = written_total_pairs(
            run.task, problems, regime, step=k - 1, rng=rng, first_symbol=True
        )
    else:
        pairs[f"operand-{k - 1}"] = operand_pairs(run.task, problems, regime, index=k - 1, rng=rng, first_symbol=True)
    return pairs


def standard_families(run: Run, n: int, *, k: int) -> dict[str, Pairs] | None:
    """Total 2 under the four families of pairs; None where a regime writes no totals, or problems are too short.

    None as well for a task whose steps do not follow its operands in order.
    """
    if not run.task.in_order or not get_regime(run.spec.regime).writes_totals or k < FAMILIES_K:
        return None
    problems = heldout_problems(run, n, k=k)
    return pair_families(run.task, problems, run.spec.regime, step=2, rng=np.random.default_rng(0))


def head_pairs(run: Run, n: int, *, k: int) -> Pairs:
    """The pairs of the head table: the last step's total where totals are written, else the answer.

    With written totals the one before is changed, so the logit difference asks which total the step starts from.
    """
    problems, regime, rng = heldout_problems(run, n, k=k), get_regime(run.spec.regime), np.random.default_rng(0)
    if regime.writes_totals and k > 2:
        readout = (Role.TOTAL, k - 1)
        return written_total_pairs(run.task, problems, regime, step=k - 2, rng=rng, readout=readout, first_symbol=True)
    return operand_pairs(
        run.task, problems, regime, index=k - 1, rng=rng, readout=(Role.ANSWER, k - 1), first_symbol=True
    )


def attention_example(run: Run, budget: Budget = FULL) -> AttentionView:
    """Attention of every head on the first held-out problem: chosen before looking, one example and no statistic."""
    batch = transcripts_of(run, heldout_problems(run, 1, k=budget.length(run)))
    sites = residual_sites(run.model, "pattern")
    read = activations(run.model, batch.tokens, sites)
    tokens = batch.transcripts[0].tokens
    return AttentionView(
        run=RunKey(run.task.name, run.spec.regime, run.spec.seed),
        tokens=tuple(token.symbol for token in tokens),
        roles=tuple(str(token.role) for token in tokens),
        steps=tuple(token.step for token in tokens),
        patterns=np.stack([read[site][0].cpu().numpy() for site in sites]),
    )


def _evaluate(run: Run, budget: Budget) -> Results:
    accuracy = evaluate_run(run, max_per_k=budget.evaluated)
    errors = error_taxonomy(run.task, run.spec.regime, accuracy.of_split("heldout"), run_seed=run.spec.seed)
    return {"accuracy": {"accuracy": accuracy}, "errors": {"errors": errors}}


def _edit(run: Run, budget: Budget) -> Results:
    problems: list[Problem] = []
    for k in range(run.spec.k_min, run.spec.k_max + 1):
        try:
            problems += heldout_problems(run, budget.edited, k=k)
        except EmptySplitError:
            continue
    result = trace_edits(
        run.model,
        run.task,
        run.spec.regime,
        problems,
        edits=all_edits(values_per_step=budget.edits_per_step),
        rng=np.random.default_rng(0),
        run_seed=run.spec.seed,
    )
    return {"trace_edits": {"trace_edits": result}, "trace_edit_kinds": {"trace_edit_kinds": EditKinds(result)}}


def _probe(run: Run, budget: Budget) -> Results:
    k = budget.length(run)
    rng = np.random.default_rng(0)
    train = sample_problems(run.task, k, budget.probed * 3 // 4, split="train", rng=rng)
    test = sample_problems(run.task, k, budget.probed // 4, split="heldout", rng=rng)
    device = next(run.model.parameters()).device
    untrained = build_model(
        run.spec.model, len(run.vocabulary), seed=(run.spec.seed + UNTRAINED_SEED) % 2**32, device=device
    )
    result = probe_totals(
        run.model,
        transcripts_of(run, train),
        test=transcripts_of(run, test),
        untrained=untrained,
        max_bytes=budget.max_bytes,
        labels=run.labels,
    )
    return {"probes": {"probes": result}}


def _patch(run: Run, budget: Budget) -> Results:
    sweeps: dict[str, PatchingResult] = {}
    for name, pairs in standard_pairs(run, budget.patched, k=budget.length(run)).items():
        contrast = Contrast.from_pairs(pairs)
        for direction in DIRECTIONS:
            sweeps[f"{name}-{direction}"] = patch_sweep(
                run.model,
                contrast,
                heads=True,
                direction=direction,
                require_gap=False,
                max_bytes=budget.max_bytes,
                labels=run.labels,
            )
    results: Results = {
        "patching": {f"patching-{name}": sweep for name, sweep in sweeps.items()},
        "patching_scan": {f"patching-scan-{name}": PatchingScan(sweep) for name, sweep in sweeps.items()},
    }
    if (families := standard_families(run, budget.headed, k=budget.length(run))) is not None:
        results["pair_families"] = {"pair_families": family_predictions(run.model, families, labels=run.labels)}
    return results


def _attribute(run: Run, budget: Budget) -> Results:
    pairs = head_pairs(run, budget.headed, k=budget.length(run))
    attention = attention_by_role(run.model, pairs.clean, labels=run.labels)
    return {
        "heads": {"heads": head_table(run.model, pairs, labels=run.labels)},
        "attention_by_role": {"attention_by_role": attention},
    }


_STUDIES: Mapping[StudyName, Callable[[Run, Budget], Results]] = {
    "evaluate": _evaluate,
    "edit": _edit,
    "probe": _probe,
    "patch": _patch,
    "attribute": _attribute,
}
