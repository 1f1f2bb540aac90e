"""Sentences about what happens inside: probes, patching, heads. A largest value says how many it was chosen from."""

import math
import re
from collections.abc import Mapping
from typing import Any

import pandas as pd

from cotinterp.report.behavior_findings import percent
from cotinterp.report.patching import LAYER_SITES, is_cell, kind_of, primary_metric
from cotinterp.report.places import Place
from cotinterp.report.probes import site_label, target_words
from cotinterp.report.runs import RunKey, runs_of
from cotinterp.transcripts.roles import Role

BEFORE_STEPS = frozenset({Role.PROMPT_START, Role.OPERAND, Role.OPERATOR, Role.PROMPT_END, Role.TRACE_START})
BEFORE_TOTAL = frozenset({Role.PREVIOUS_TOTAL, Role.STEP_OPERATOR, Role.STEP_OPERAND, Role.EQUALS})
AFTER_TOTAL = frozenset({Role.TOTAL, Role.STEP_END})


def target_step(target: str) -> int | None:
    """The step that a probe's target is the total of, from its name (`s_2`, `total 2`); None without a number."""
    digits = re.search(r"(\d+)$", target)
    return int(digits.group()) if digits else None


def is_before(role: str, step: int, target: int) -> bool:
    """Whether a place comes before total `target` has been written in any regime that writes it.

    The prompt does, and the parts of step `target` up to its equals sign. Its total, and all that follows, do not:
    reading the total there may be reading a symbol. The answer and what ends a response never count as before.
    """
    if role in BEFORE_STEPS:
        return True
    return step <= target if role in BEFORE_TOTAL else role in AFTER_TOTAL and step < target


def before_written(run: pd.DataFrame) -> pd.Series:
    """True for the rows of one run that probe a total at a place before that total is written."""
    columns = zip(run["role"], run["step"], map(target_step, run["target"]), strict=True)
    flags = [step is not None and is_before(str(role), int(at), step) for role, at, step in columns]
    return pd.Series(flags, index=run.index, dtype=bool)


def largest(frame: pd.DataFrame, column: str, *, absolute: bool = False) -> dict[str, Any]:
    """The row with the largest (or largest absolute) value of a column, as a plain mapping; the first of equals."""
    values = frame[column].astype(float)
    row = frame.iloc[int((values.abs() if absolute else values).to_numpy().argmax())]
    return {str(name): value for name, value in row.items()}


def probe_findings(frame: pd.DataFrame) -> list[str]:
    """The most selective probe of a trained model before the total is written, beside both baselines at that cell."""
    sentences = []
    for key, run in runs_of(frame):
        early = run[before_written(run)]
        learned = early[early["model"].eq("trained") & early["layer"].ge(0) & early["selectivity"].notna()]
        if len(learned):
            sentences.append(_probe_sentence(key, early, learned))
    return sentences


def _probe_sentence(key: RunKey, early: pd.DataFrame, learned: pd.DataFrame) -> str:
    best = largest(learned, "selectivity")
    same = early
    for column in ("role", "step", "target"):
        same = same[same[column] == best[column]]
    untrained = same[same["model"].eq("untrained") & same["layer"].eq(best["layer"]) & same["site"].eq(best["site"])]
    baselines = {"untrained model": untrained, "current token and position alone": same[same["site"] == "input"]}
    beside = [f"; {name} {percent(rows['accuracy'].iloc[0])}" for name, rows in baselines.items() if len(rows)]
    where = f"{Place(best['role'], int(best['step'])).words}, {site_label(int(best['layer']), best['site'])}"
    return (
        f"{key.words}: before a total is written, the most selective probe reads {target_words(best['target'])} "
        f"at {where}: accuracy {percent(best['accuracy'])}, selectivity {best['selectivity']:+.2f}; "
        f"majority class {percent(best['chance'])}{''.join(beside)} "
        f"(the largest of {len(learned)} cells, chosen after looking)."
    )


def patching_findings(frame: pd.DataFrame) -> list[str]:
    """The cell with the largest denoising effect beyond the first layer's input, for each run and family of pairs."""
    sentences = []
    cells = frame.assign(kind=kind_of(frame))[is_cell(frame)]
    # What enters layer 0 is the tokens themselves: restoring the changed token restores the problem.
    beyond = ~(cells["kind"].eq("resid_pre") & cells["layer"].eq(0)) & cells["kind"].isin([*LAYER_SITES, "z"])
    chosen = cells[beyond & cells["direction"].eq("denoise") & cells["effect"].notna()]
    for key, run in runs_of(chosen):
        for pair, of_pair in run.groupby("pair", sort=False):
            rows = of_pair[of_pair["metric"] == primary_metric(of_pair)]
            best = largest(rows, "effect")
            sentences.append(
                f"{key.words}: on pairs that differ in {str(pair).replace('_', ' ')}, the largest denoising effect "
                f"beyond the embedding is {best['effect']:.2f} ({_interval(best)}, n = {int(best['n'])}) "
                f"at {best['site']}, {Place(best['role'], int(best['step'])).words} "
                f"(the largest of {len(rows)} cells, chosen after looking)."
            )
    return sentences


def _interval(row: Mapping[str, Any]) -> str:
    if math.isnan(row["ci_low"]):
        return "no interval: clean and corrupted may not differ"
    return f"95% interval {row['ci_low']:.2f} to {row['ci_high']:.2f}"


def head_findings(frame: pd.DataFrame) -> list[str]:
    """How many heads have each label, and the head whose ablation changes the answer most."""
    sentences = []
    for key, rows in runs_of(frame):
        counts = rows["label"].replace("", "no label").value_counts()
        labels = ", ".join(f"{count} {str(label).replace('_', ' ')}" for label, count in counts.items())
        sentence = f"{key.words}: of {len(rows)} heads, {labels}"
        measured = rows[rows["ablation_effect"].notna()]
        if len(measured):
            top = largest(measured, "ablation_effect", absolute=True)
            head = f"L{int(top['layer'])}H{int(top['head'])}"
            sentence += f"; ablating {head} moves the answer most (effect {top['ablation_effect']:+.2f})"
        sentences.append(f"{sentence}.")
    return sentences
