"""What the command `cotinterp calibrate` does: run, write tables and figures, say what came out."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from cotinterp.calibration.calibrate import CalibrationResult, CalibrationRow, calibrate
from cotinterp.calibration.claim_truths import calibrate_claims
from cotinterp.calibration.law_worlds import law_calibration
from cotinterp.calibration.mutations import MUTATIONS, trials_table, try_mutation
from cotinterp.calibration.peers import peer_table
from cotinterp.calibration.untrained import false_positives, null_claims
from cotinterp.calibration.verdict_level import verdict_level
from cotinterp.claims.claim import ALPHA
from cotinterp.results import output_folder, wilson, write_atomic
from cotinterp.sweeps.progress import progress_stages

Say = Callable[[str], None]

SIMULATED = 10
"""Simulated worlds of each kind for every world of untrained models."""
PEER_TOLERANCE = 1e-3
"""In logits, of changes of about 1: the two libraries stack their batches differently, and rounding follows."""


def calibration_session(
    *,
    out: Path,
    quick: bool,
    mutations: bool,
    untrained: int,
    peers: bool,
    jobs: int,
    say: Say,
    nulls: int = 0,
    scans: Sequence[str] = (),
) -> bool:
    """Whether every answer and every verdict is right, every planted bug was caught, and nothing was found in nothing.

    Args:
        untrained: Models that are scanned, in the ways of `scans`, by default all.
        nulls: Worlds of untrained models that the claims are judged in, ten times as many simulated worlds of each
            kind, and as many made-up sweeps of every law of depth.
    """
    out = output_folder(out)
    parts: dict[str, Callable[[], bool]] = {
        "instruments": partial(_questions, out, quick, say),
        "claims": partial(_claims, out, quick, say),
    }
    if mutations:
        parts["planted bugs"] = partial(_mutations, out, say)
    if untrained:
        parts["untrained models"] = partial(_untrained, out, untrained, scans or None, jobs, say)
    if nulls:
        parts["claims on nothing"] = partial(_nulls, out, nulls, jobs, say)
        parts["laws of depth"] = partial(_laws, out, nulls, say)
    if peers:
        parts["peers"] = partial(_peers, out, say)
    good: list[bool] = []
    with progress_stages("calibrate", tuple(parts)) as begin:
        for name, part in parts.items():
            begin(name)
            good.append(part())
    say(f"tables and figures: {out}")
    return all(good)


def _say_row(say: Say, row: CalibrationRow) -> None:
    mark = "right" if row.right else "WRONG"
    said = row.answer if row.right else f"{row.answer} (truth: {row.truth})"
    say(f"{mark}  {row.instrument:28}  {row.model:24}  {row.question} {said}  [{row.evidence}]")


def _claims(out: Path, quick: bool, say: Say) -> bool:
    result = calibrate_claims(quick=quick, progress=partial(_say_row, say))
    result.save(out, "claim_calibration")
    say(f"{len(result.rows) - len(result.wrong)} of {len(result.rows)} verdicts are right")
    return not result.wrong


def _nulls(out: Path, n: int, jobs: int, say: Say) -> bool:
    untrained = null_claims(n, jobs=jobs)
    untrained.save(out, "null_claims")
    _write(out, "null_claims_by_world", untrained.examples())
    say(untrained.frame().to_string(index=False, float_format="{:.3f}".format))
    say(f"{len(untrained.false)} of {len(untrained.verdicts)} verdicts on untrained models are false")
    level = verdict_level(SIMULATED * n)
    level.save(out, "verdict_level")
    say(level.frame().to_string(index=False, float_format="{:.3f}".format))
    return not untrained.false


def _laws(out: Path, n: int, say: Say) -> bool:
    """Whether wrong laws of depth are named no more often than the level allows."""
    result = law_calibration(n)
    result.save(out, "law_calibration")
    say(result.frame().to_string(index=False, float_format="{:.2f}".format))
    say(f"a wrong law of depth is named in {result.false} of {result.n} made-up sweeps")
    return wilson(result.false, result.n).low <= ALPHA


def _questions(out: Path, quick: bool, say: Say) -> bool:
    result = calibrate(quick=quick, progress=partial(_say_row, say))
    result.save(out, "calibration")
    say(f"{len(result.rows) - len(result.wrong)} of {len(result.rows)} answers are right")
    say(_before(result))
    return not result.wrong


def _before(result: CalibrationResult) -> str:
    """Which rows the rules of the first version get wrong, or could not be asked."""
    asked = [row for row in result.rows if row.before != "not asked"]
    wrong = [f"{row.instrument}, {row.model}: {row.before}" for row in asked if row.before != row.truth]
    return (
        f"by the rules of the first version: {len(asked) - len(wrong)} right, {len(wrong)} wrong, "
        f"{len(result.rows) - len(asked)} not asked. Wrong: {'; '.join(wrong) or 'none'}"
    )


def _mutations(out: Path, say: Say) -> bool:
    trials = []
    for mutation in MUTATIONS:
        trials.append(trial := try_mutation(mutation))
        said = "caught" if trial.proven else "NOT CAUGHT" if trial.sound else "NOT SOUND"
        say(f"{said}  {trial.bug}  |  {trial.control}  |  {trial.noticed}")
    _write(out, "mutations", trials_table(trials))
    say(f"{sum(trial.proven for trial in trials)} of {len(trials)} planted bugs are caught")
    return all(trial.proven for trial in trials)


def _untrained(out: Path, n: int, scans: Sequence[str] | None, jobs: int, say: Say) -> bool:
    result = false_positives(n, scans=scans, jobs=jobs)
    result.save(out, "false_positives")
    _write(out, "false_positives_by_model", result.examples())
    _write(out, "false_positives_by_task", result.by_task())
    table = result.frame()
    say(result.by_task().to_string(index=False, float_format="{:.3f}".format))
    say(table.to_string(index=False, float_format="{:.3f}".format))
    reported = table[table["correction"] == "as reported"]
    return bool((reported["ci_low"] <= result.level).all())


def _peers(out: Path, say: Say) -> bool:
    table = peer_table()
    _write(out, "peer_agreement", table)
    say(table.to_string(index=False, float_format="{:.2g}".format))
    worst = table.iloc[int(table["largest_difference"].argmax())]
    say(f"largest difference from TransformerLens: {worst['largest_difference']:.2g} logits, {worst['check']}")
    return bool(worst["largest_difference"] < PEER_TOLERANCE)


def _write(out: Path, name: str, table: pd.DataFrame) -> None:
    write_atomic(output_folder(out / "tables") / f"{name}.csv", table.to_csv(index=False))
