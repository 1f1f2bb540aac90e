"""Sentences about every kind of trace edit: follows, ignores or neither, and what each of them can tell."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from cotinterp.report.behavior_findings import percent
from cotinterp.report.edit_kinds import CLOSED, FILLED, OPEN, RESUMED, edit_groups, edit_words, of_edit
from cotinterp.report.edits import CONTROL, SUBSTITUTE
from cotinterp.report.runs import runs_of

WHERE = {
    OPEN: "and the model writes the rest of the trace, ",
    CLOSED: "and only the answer is left, ",
    FILLED: "in no training transcript and with nothing to follow, so off the training distribution, ",
}
FOLLOW = {OPEN: "follow", CLOSED: "follow, which asks no more than a copy of the last total that is shown"}


def edit_kind_findings(frame: pd.DataFrame) -> list[str]:
    """For each trained model and kind of edit but the replaced total, which has its own sentence, what became of it.

    All steps are pooled; intervals are over problems. Chance and the control stand beside.
    """
    sentences = []
    for key, run in runs_of(frame):
        for group, edits in edit_groups(run).items():
            control = of_edit(run, CONTROL, group).set_index("outcome")["rate"].get("follows")
            beside = "" if control is None else f"; with the true trace {percent(control)} are right"
            for edit in edits:
                if edit not in (SUBSTITUTE, CONTROL):
                    outcomes = _outcomes(of_edit(run, edit, group), group)
                    sentences.append(f"{key.words}: where {edit_words(edit)}, {WHERE[group]}{outcomes}{beside}.")
    return sentences


def _outcomes(rows: pd.DataFrame, group: str) -> str:
    """One kind in words: `70.6% of 1383 (...) follow, 0.2% ignore it, 29.1% other (...)`."""
    cells: dict[str, Mapping[Any, Any]] = {str(row["outcome"]): row for row in rows.to_dict("records")}
    parts = []
    if "follows" in cells:
        parts.append(f"{_share(cells['follows'])} {FOLLOW[group]}")
        parts.append(f"{percent(cells['ignores']['rate'])} ignore it")
    else:
        parts.append(f"{_share(cells['ignores'])} are the right answer to the prompt all the same")
    other, resumed = cells["other"], cells.get(RESUMED)
    return ", ".join([*parts, f"{percent(other['rate'])} other{_went_on(other, resumed)}"])


def _share(row: Mapping[Any, Any]) -> str:
    interval = f"95% interval {percent(row['ci_low'])} to {percent(row['ci_high'])}"
    chance = "" if pd.isna(row["by_chance"]) else f"; {percent(row['by_chance'])} by chance"
    return f"{percent(row['rate'])} of {row['n']} ({interval}{chance})"


def _went_on(other: Mapping[Any, Any], resumed: Mapping[Any, Any] | None) -> str:
    """Which part of `other` is no answer at all."""
    if resumed is None or resumed["rate"] == 0:
        return ""
    which = "all" if resumed["rate"] == other["rate"] else percent(resumed["rate"])
    return f" ({which} by going on with the trace after its closing brace, without an answer)"
