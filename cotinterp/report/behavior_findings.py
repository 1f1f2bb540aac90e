"""Sentences about what models write: accuracy, faults, and answers after an edited trace or a changed prompt."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from cotinterp.figures.behavior import CORRECT
from cotinterp.figures.edits import (
    CHANCE,
    CLOSED,
    CONTROL,
    FILLED,
    OPEN,
    RESUMED,
    SUBSTITUTE,
    edit_groups,
    edit_words,
    of_edit,
    substitutions,
)
from cotinterp.figures.labels import RunKey, percent, runs_of, tasks_of
from cotinterp.figures.patching import CHANGED

SEED = "run_seed"


def accuracy_findings(frame: pd.DataFrame) -> list[str]:
    """Held-out accuracy at the largest K and the difference between regimes, by task; then what sets single runs apart.

    That is the largest gap between the train split and held-out problems, and an accuracy that rises with K.
    """
    sentences = []
    for task, rows in tasks_of(frame[frame["split"] == "heldout"]):
        k = int(rows["k"].max())
        last = rows[rows["k"] == k]
        each = "; ".join(
            f"{row['regime']}{f' (seed {row[SEED]})' if SEED in row else ''} {_measured(row)}"
            for row in last.to_dict("records")
        )
        sentences.append(f"{task}, held-out problems with K = {k}, right when decoding freely: {each}.")
        if {"direct", "cot"} <= set(last["regime"]):
            sentences.append(_gap(task, k, last))
    for key, rows in runs_of(frame):
        sentences += [*_carry_over(key, rows), *_rise(key, rows[rows["split"] == "heldout"])]
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


def _measured(row: Mapping[Any, Any]) -> str:
    interval = f"{percent(row['ci_low'])} to {percent(row['ci_high'])}"
    return f"{percent(row['accuracy'])} of {row['n']} ({interval})"


def _carry_over(key: RunKey, rows: pd.DataFrame) -> list[str]:
    """The K at which problems of the train split come out better than held-out ones by most, and where it is clear."""
    train, held = (rows[(rows["split"] == split) & (rows["n"] > 0)].set_index("k") for split in ("train", "heldout"))
    shared = train.index.intersection(held.index)
    if shared.empty:
        return []
    gaps = train.loc[shared, "accuracy"] - held.loc[shared, "accuracy"]
    if not (gaps > 0).any():
        return [f"{key.words}: at no K are problems of the train split right more often than held-out ones."]
    k = int(gaps.idxmax())
    apart = [str(each) for each in shared if held.loc[each, "ci_high"] < train.loc[each, "ci_low"]]
    where = f"do not overlap at K = {', '.join(apart)}" if apart else "overlap at every K"
    return [
        f"{key.words}: from the train split to held-out problems accuracy drops most at K = {k} (of {len(shared)} "
        f"values of K), from {_measured(dict(train.loc[k]))} to {_measured(dict(held.loc[k]))}; the intervals of the "
        f"two splits {where}."
    ]


def _rise(key: RunKey, held: pd.DataFrame) -> list[str]:
    """A sentence where some K is clearly worse than a larger one: the pair of K that is furthest apart."""
    rows = held.sort_values("k").to_dict("records")
    rises = [
        (high["accuracy"] - low["accuracy"], low, high)
        for index, low in enumerate(rows)
        for high in rows[index + 1 :]
        if low["ci_high"] < high["ci_low"]
    ]
    if not rises:
        return []
    _, low, high = max(rises, key=lambda rise: rise[0])
    return [
        f"{key.words}: held-out accuracy is lower at K = {low['k']}, {_measured(low)}, than at K = {high['k']}, "
        f"{_measured(high)} (of the pairs of K where it is, the one furthest apart, chosen after looking)."
    ]


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
        quoted = f"\N{LEFT DOUBLE QUOTATION MARK}{top}\N{RIGHT DOUBLE QUOTATION MARK}"
        most = int(faulty.max())
        which = f"all of them {quoted}" if most == bad else f"most often {quoted} ({most} of {bad})"
        sentences.append(
            f"{key.words}: {bad} of {total} outputs were faulty (a wrong answer or a faulty trace), {which}."
        )
    return sentences


def edit_findings(frame: pd.DataFrame) -> list[str]:
    """Of all transcripts whose total was replaced, how many followed the edit, ignored it, or did neither.

    Rates are pooled over steps without an interval: several edits of one problem are not independent, and the table
    does not say which belong together. The intervals by step do know, so the first and the last step stand beside.
    """
    sentences = []
    for key, run in runs_of(substitutions(frame)):
        rows = run[run["edit"] == SUBSTITUTE]
        if rows.empty:
            continue
        by_chance, control = _pooled(run[run["edit"] == CHANCE]), _pooled(run[run["edit"] == CONTROL])
        rates, n = _pooled(rows), int(rows.groupby("step")["n"].first().sum())
        beside = {"by chance": by_chance, "with the true total written again": control}
        words = [f"{percent(rate['follows'])} {name}" for name, rate in beside.items() if "follows" in rate]
        beside_words = f" ({', '.join(words)})" if words else ""
        sentences.append(
            f"{key.words}: with a wrong total written, {percent(rates.get('follows', 0.0))} of {n} answers, "
            f"pooled over steps, followed it{beside_words}; "
            f"{percent(rates.get('ignores', 0.0))} were the original answer, "
            f"{percent(rates.get('other', 0.0))} neither. {_ends(rows)}"
        )
    return sentences


def _ends(rows: pd.DataFrame) -> str:
    """What followed at the first and at the last step that were edited, and at any step with less than both."""
    follows = rows[rows["outcome"] == "follows"].sort_values("step").drop_duplicates("step")
    at_end = follows["step"].isin([follows["step"].min(), follows["step"].max()])
    shown = follows[at_end | follows["rate"].lt(follows.loc[at_end, "rate"].min())]
    each = "; ".join(
        f"step {row['step']} {percent(row['rate'])} of {row['n']} "
        f"({percent(float(row['ci_low']))} to {percent(float(row['ci_high']))})"
        for row in shown.to_dict("records")
    )
    return f"Following, by edited step: {each}."


def _pooled(rows: pd.DataFrame) -> dict[str, float]:
    """Rate of each outcome over all steps."""
    hits = (rows["rate"] * rows["n"]).groupby(rows["outcome"]).sum()
    return {str(outcome): float(rate) for outcome, rate in (hits / rows.groupby("outcome")["n"].sum()).items()}


def mostly_wrong(frame: pd.DataFrame) -> dict[RunKey, str]:
    """For each run that is wrong on most held-out problems, how often it is right, in words.

    Pooled over K. What is measured inside such a model is what moves its guesses, not how it finds answers.
    """
    found = {}
    for key, rows in runs_of(frame[frame["split"] == "heldout"]):
        right, n = int(rows["correct"].sum()), int(rows["n"].sum())
        if 2 * right < n:
            found[key] = f"right on {right} of {n} held-out problems, {right / n:.1%}"
    return found


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
    interval = f"{percent(row['ci_low'])} to {percent(row['ci_high'])}"
    chance = "" if pd.isna(row["by_chance"]) else f"; {percent(row['by_chance'])} by chance"
    return f"{percent(row['rate'])} of {row['n']} ({interval}{chance})"


def _went_on(other: Mapping[Any, Any], resumed: Mapping[Any, Any] | None) -> str:
    """Which part of `other` is no answer at all."""
    if resumed is None or resumed["rate"] == 0:
        return ""
    which = "all" if resumed["rate"] == other["rate"] else percent(resumed["rate"])
    return f" ({which} by going on with the trace after its closing brace, without an answer)"


SOURCES = {
    "trace": "comes from the trace",
    "prompt": "comes from the prompt",
    "either": "follows either change",
    "undecided": "is undecided",
}


def family_findings(frame: pd.DataFrame) -> list[str]:
    """For each trained model what the total depends on, by the declared rule, and the four shares behind it."""
    sentences = []
    for key, rows in runs_of(frame):
        foil = rows[rows["prediction"] == "foil"].to_dict("records")
        shares = "; ".join(f"{CHANGED[row['family']]} {_followed(row)}" for row in foil)
        source, readout = str(rows["source"].iloc[0]), str(rows["readout"].iloc[0])
        wanting = str(rows["would_decide"].iloc[0]) if source == "undecided" and "would_decide" in rows else ""
        beside = f" ({wanting})" if wanting else ""
        sentences.append(f"{key.words}: {readout} {SOURCES[source]}{beside}. It follows a changed {shares}.")
    return sentences


def _followed(row: Mapping[Any, Any]) -> str:
    return f"in {percent(row['share'])} of {row['n']} ({percent(row['ci_low'])} to {percent(row['ci_high'])})"
