"""Sentences about what is inside a model: probes, patching, heads; and all sentences that a report begins with.

Every sentence is built from the numbers of one table. It says what was counted, of how many, and with what interval
where there is one; a largest value says how many it was chosen from. None says why: a difference between two trained
models is reported as a difference between two trained models. Where a model is wrong on most held-out problems,
the sentences about patching and heads name none, for what moves a guess is no finding, and those about probes say how
often the model is right.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from cotinterp.figures.labels import RunKey, percent, place_words, runs_of
from cotinterp.figures.patching import HEAD_SITES, distinguished_pairs, is_cell, pair_words, primary_metric
from cotinterp.figures.probing import is_before, target_step, target_words
from cotinterp.report.behavior_findings import (
    accuracy_findings,
    edit_findings,
    edit_kind_findings,
    error_findings,
    family_findings,
    mostly_wrong,
)

COMPONENTS = ("attn_out", "mlp_out")
CELL = ("layer", "site", "role", "step", "target")
SELECTIVE = 0.05
"""Below it a probe is not called selective: a twentieth of the test problems."""
Weak = Mapping[RunKey, str]
"""Runs that are wrong on most held-out problems, and how often each is right, in words."""


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


def probe_findings(frame: pd.DataFrame, weak: Weak | None = None) -> list[str]:
    """For each run and running total the probe before it is written that is furthest above an untrained model.

    Without an untrained model, the most selective one, of the rows whose test leaves out problems. The rows `input` are
    a baseline and never the best. Selectivity
    stands beside it, and what it means where there is none: the probe reads a random label of the same input as well.
    """
    sentences = []
    for key, run in runs_of(frame[frame["left_out"] == "problems"]):
        early = run[before_written(run)]
        learned = early[early["model"].eq("trained") & early["layer"].ge(0) & early["selectivity"].notna()]
        caveat = f" This model is {weak[key]}." if weak and key in weak else ""
        for target in sorted(learned["target"].unique(), key=lambda name: target_step(str(name)) or 0):
            found = _best_probe(early, learned[learned["target"] == target])
            sentences.append(f"{key.words}: {target_words(target)}, before it is written: {found}{caveat}")
    return sentences


def _best_probe(early: pd.DataFrame, learned: pd.DataFrame) -> str:
    cells = learned.assign(untrained=_same_cell(early[early["model"] == "untrained"], learned))
    compared = bool(cells["untrained"].notna().any())
    cells["margin"] = cells["accuracy"] - cells["untrained"] if compared else cells["selectivity"]
    best = largest(cells[cells["margin"].notna()], "margin")
    where = f"{place_words((best['role'], int(best['step'])))}, {best['site']}"
    tokens = early[early["site"].eq("input") & early["model"].eq("trained")]
    tokens = tokens[[all(row[name] == best[name] for name in CELL[2:]) for row in tokens.to_dict("records")]]
    beside = [f"untrained model {percent(best['untrained'])}"] if compared else []
    if compared and best["ci_low"] <= best["untrained"]:
        beside[0] += ", not clearly below"
    beside.append(f"majority class {percent(best['chance'])}")
    if len(tokens):
        beside.append(f"current token and position alone {percent(tokens['accuracy'].iloc[0])}")
    beside.append(f"selectivity {best['selectivity']:+.2f}")
    if best["selectivity"] < SELECTIVE:
        beside[-1] += (
            f": a random label of the same input is read as well ({percent(best['control_accuracy'])}), so that it may "
            "be the input that is there"
        )
    return (
        f"{'furthest above an untrained model' if compared else 'most selective'} at {where}, accuracy "
        f"{percent(best['accuracy'])} ({percent(float(best['ci_low']))} to "
        f"{percent(float(best['ci_high']))}); {'; '.join(beside)} (the largest of {len(learned)} cells, chosen after "
        "looking)."
    )


def _same_cell(others: pd.DataFrame, cells: pd.DataFrame) -> list[float]:
    """Accuracy of the other model at each cell, NaN where it was not probed."""
    known = {tuple(row[name] for name in CELL): float(row["accuracy"]) for row in others.to_dict("records")}
    return [known.get(tuple(row[name] for name in CELL), math.nan) for row in cells.to_dict("records")]


def patching_findings(frame: pd.DataFrame, weak: Weak | None = None) -> list[str]:
    """For each run and family of pairs the layer output and the head that alone restore most, and their noising.

    The residual stream is left out: at the place of the readout it holds everything that was found by then. No site is
    named where the top prediction tells clean from corrupted in fewer than half of the pairs, or the run is in `weak`.
    """
    sentences = []
    for key, run in runs_of(frame):
        for pair, of_pair in run.groupby("pair", sort=False):
            pairs, subject = distinguished_pairs(of_pair), f"{key.words}: {pair_words(str(pair))}"
            if (pairs and 2 * pairs[0] < max(pairs[1], 1)) or (weak and key in weak):
                why = (
                    [f"the top prediction tells clean from corrupted in {pairs[0]} of {pairs[1]} pairs"]
                    if pairs
                    else []
                )
                why += [f"the model is {weak[key]}"] if weak and key in weak else []
                sentences.append(
                    f"{subject}: undetermined; {', and '.join(why)}. "
                    "What the figures show there is what moves a guess, so no site is named."
                )
                continue
            rows = of_pair[
                is_cell(of_pair) & (of_pair["metric"] == primary_metric(of_pair)) & of_pair["effect"].notna()
            ]
            outputs, heads = rows[rows["kind"].isin(COMPONENTS)], rows[rows["kind"].isin(HEAD_SITES)]
            best = [_strongest(of_kind, noun) for of_kind, noun in ((outputs, "layer outputs"), (heads, "heads"))]
            if any(best):
                sentences.append(f"{subject}: {'; '.join(filter(None, best))} (each chosen after looking).")
    return sentences


def _strongest(rows: pd.DataFrame, noun: str) -> str:
    """The cell that restores most when it alone is denoised, and the same cell's effect when it is noised."""
    denoised = rows[rows["direction"] == "denoise"]
    if denoised.empty:
        return ""
    best = largest(denoised, "effect")
    noised = rows[rows["direction"].eq("noise") & rows["site"].eq(best["site"])]
    noised = noised[noised["role"].eq(best["role"]) & noised["step"].eq(best["step"])]
    lost = f"; noising it {float(noised['effect'].iloc[0]):.2f}" if len(noised) else ""
    return (
        f"of {len(denoised)} cells of {noun}, {best['site']} at {place_words((best['role'], int(best['step'])))} alone "
        f"restores most, {best['effect']:.2f} of the logit difference ({_interval(best)}, n = {int(best['n'])}{lost})"
    )


def _interval(row: Mapping[str, Any]) -> str:
    if math.isnan(row["ci_low"]):
        return "no interval: clean and corrupted may not differ"
    return f"{row['ci_low']:.2f} to {row['ci_high']:.2f}"


def head_findings(frame: pd.DataFrame, weak: Weak | None = None) -> list[str]:
    """How many heads have each label, and the head whose ablation costs most; for a run in `weak`, neither."""
    sentences = []
    for key, rows in runs_of(frame):
        if weak and key in weak:
            sentences.append(
                f"{key.words}: undetermined; the model is {weak[key]}. The table's numbers are about what moves a "
                "guess, so no head is named and its labels are not counted."
            )
            continue
        if rows["label"].eq("undetermined").all():
            sentences.append(f"{key.words}: undetermined; the model does not tell answer from foil on these pairs.")
            continue
        if rows["label"].eq("undecided").all():
            sentences.append(f"{key.words}: undecided; too few examples for a label (column `note`).")
            continue
        counts = rows["label"].replace("", "no label").value_counts()
        labels = ", ".join(f"{count} {str(label).replace('_', ' ')}" for label, count in counts.items())
        sentence = f"{key.words}: of {len(rows)} heads, {labels}"
        measured = rows[rows["ablation_effect"].notna()]
        if len(measured):
            top = largest(measured, "ablation_effect", absolute=True)
            head = f"L{int(top['layer'])}H{int(top['head'])}"
            size = float(top["ablation_effect"])
            sentence += (
                f"; ablating {head} alone {'loses' if size >= 0 else 'adds'} most, {abs(size):.2f} of the clean logit "
                f"difference (label: {str(top['label']).replace('_', ' ') or 'none'}; the largest of {len(measured)}, "
                "chosen after looking)"
            )
        sentences.append(f"{sentence}.")
    return sentences


KEPT = 0.9
"""Of the logit difference, the share that a circuit is asked to keep."""


def circuit_findings(frame: pd.DataFrame, weak: Weak | None = None) -> list[str]:
    """For each run and family of pairs the smallest of the measured circuits that keeps KEPT; none of a run in `weak`.

    Circuits are first edges of one ranking, at the sizes that were measured, on the pairs that they were ranked on.
    """
    sentences = []
    for key, run in runs_of(frame):
        if weak and key in weak:
            sentences.append(f"{key.words}: undetermined; the model is {weak[key]}, so no circuit is named.")
            continue
        for pair, sizes in run.groupby("pair", sort=False):
            enough = sizes[sizes["faithfulness"] >= KEPT].sort_values("size")
            if enough.empty:
                continue
            best = largest(enough.head(1), "faithfulness")
            sentences.append(
                f"{key.words}: {pair_words(str(pair))}: of {int(sizes['size'].max())} edges the {int(best['size'])} of "
                f"the largest effect ({int(best['connected'])} of them connected) keep {best['faithfulness']:.2f} of "
                f"the logit difference ({_interval(best)}, n = {int(best['n'])}) with all others corrupted, and put "
                f"the answer first in {percent(best['accuracy'])}."
            )
    return sentences


BEHAVIOR: Mapping[str, Callable[[pd.DataFrame], list[str]]] = {
    "accuracy": accuracy_findings,
    "errors": error_findings,
    "trace_edits": edit_findings,
    "trace_edit_kinds": edit_kind_findings,
    "pair_families": family_findings,
}
MECHANISM: Mapping[str, Callable[[pd.DataFrame, Weak], list[str]]] = {
    "probes": probe_findings,
    "patching": patching_findings,
    "heads": head_findings,
    "faithfulness": circuit_findings,
}


@dataclass(frozen=True)
class Finding:
    """One sentence and the table that it was computed from."""

    text: str
    table: str


def findings(tables: Mapping[str, pd.DataFrame]) -> tuple[Finding, ...]:
    """Every sentence that the tables at hand support, in the order of the report; none for a table that is missing.

    What is said about the inside of a model also looks at its accuracy, where that table is there.
    """
    weak = mostly_wrong(tables["accuracy"]) if "accuracy" in tables else {}
    behavior = [(name, maker(tables[name])) for name, maker in BEHAVIOR.items() if name in tables]
    mechanism = [(name, maker(tables[name], weak)) for name, maker in MECHANISM.items() if name in tables]
    return tuple(Finding(text, name) for name, texts in (*behavior, *mechanism) for text in texts)
