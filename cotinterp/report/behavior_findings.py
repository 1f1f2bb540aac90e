"""Sentences about what models write: accuracy, faults, and answers after an edited trace."""

import pandas as pd

from cotinterp.report.edits import CHANCE, CONTROL, edit_words
from cotinterp.report.errors import CORRECT
from cotinterp.report.runs import runs_of, tasks_of


def percent(share: float) -> str:
    """A share as a percentage with one decimal; never rounded to 0% or 100% where it is neither."""
    shown = f"{share:.1%}"
    if shown == "100.0%" and share < 1:
        return ">99.9%"
    return "<0.1%" if shown == "0.0%" and share > 0 else shown


def accuracy_findings(frame: pd.DataFrame) -> list[str]:
    """Held-out accuracy at the largest K for each run, and the difference between two regimes of one task."""
    sentences = []
    for task, rows in tasks_of(frame[frame["split"] == "heldout"]):
        k = int(rows["k"].max())
        last = rows[rows["k"] == k]
        each = "; ".join(
            f"{row['regime']} (seed {row['seed']}) {percent(row['accuracy'])} of {row['n']} "
            f"(95% interval {percent(row['ci_low'])} to {percent(row['ci_high'])})"
            for row in last.to_dict("records")
        )
        sentences.append(f"{task}, held-out problems with K = {k}, right when decoding freely: {each}.")
        if {"direct", "cot"} <= set(last["regime"]):
            sentences.append(_gap(task, k, last))
    return sentences


def _gap(task: str, k: int, rows: pd.DataFrame) -> str:
    cot, direct = rows[rows["regime"] == "cot"], rows[rows["regime"] == "direct"]
    gap = 100 * float(cot["accuracy"].mean() - direct["accuracy"].mean())
    models = "one model a regime"
    if len(cot) > 1 or len(direct) > 1:
        models = f"means of {len(cot)} cot and {len(direct)} direct models"
    side = f"{abs(gap):.1f} points {'above' if gap > 0 else 'below'}" if f"{abs(gap):.1f}" != "0.0" else "level with"
    return (
        f"{task}: at K = {k} cot is {side} direct ({models}; the intervals above are over "
        "problems, not over training seeds)."
    )


def error_findings(frame: pd.DataFrame) -> list[str]:
    """How many outputs were faulty (answer wrong, or trace faulty), and the most frequent category among them."""
    sentences = []
    for key, rows in runs_of(frame):
        faulty = rows[rows["category"] != CORRECT].groupby("category", sort=False)["count"].sum()
        total, bad = int(rows["count"].sum()), int(faulty.sum())
        if not bad:
            sentences.append(f"{key.words}: none of {total} outputs was faulty.")
            continue
        top = str(faulty.idxmax()).replace("_", " ")
        sentences.append(
            f"{key.words}: {bad} of {total} outputs were faulty (a wrong answer or a faulty trace); most often "
            f"\N{LEFT DOUBLE QUOTATION MARK}{top}\N{RIGHT DOUBLE QUOTATION MARK} ({int(faulty.max())} of {bad})."
        )
    return sentences


def edit_findings(frame: pd.DataFrame) -> list[str]:
    """Of all transcripts whose total was replaced, how many followed the edit, ignored it, or did neither.

    Rates are pooled over steps without an interval: several edits of one problem are not independent, and the table
    does not say which belong together. The intervals by step do know.
    """
    sentences = []
    for key, run in runs_of(frame):
        by_chance = _pooled(run[run["edit"] == CHANCE])
        for edit, rows in run[~run["edit"].isin([CHANCE, CONTROL])].groupby("edit", sort=False):
            rates, n = _pooled(rows), int(rows.groupby("step")["n"].first().sum())
            by_step = rows.loc[rows["outcome"] == "follows", "rate"]
            chance = f"; by chance {percent(by_chance['follows'])}" if "follows" in by_chance else ""
            sentences.append(
                f"{key.words}: with {edit_words(str(edit))}, {percent(rates.get('follows', 0.0))} of {n} answers "
                f"followed the edit (by step {percent(by_step.min())} to {percent(by_step.max())}{chance}), "
                f"{percent(rates.get('ignores', 0.0))} were the original answer, "
                f"{percent(rates.get('other', 0.0))} neither."
            )
    return sentences


def _pooled(rows: pd.DataFrame) -> dict[str, float]:
    """Rate of each outcome over all steps."""
    hits = (rows["rate"] * rows["n"]).groupby(rows["outcome"]).sum()
    return {str(outcome): float(rate) for outcome, rate in (hits / rows.groupby("outcome")["n"].sum()).items()}
