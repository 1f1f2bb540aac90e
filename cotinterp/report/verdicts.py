"""The verdicts on the claims: the table that the report opens with, what its words mean, and what else must be said.

It works from the stored tables alone, so that a finished folder's report can be written anew without any model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import pandas as pd
from markupsafe import Markup

from cotinterp.claims.claim import Claim
from cotinterp.claims.verdict import Verdicts, parse_rivals, shown
from cotinterp.figures.labels import tasks_of
from cotinterp.report.html import environment
from cotinterp.report.texts import TEXTS, VERDICT_WORDS

VERDICTS, CRITERIA, SEEDS, RUNS = "verdicts", "claim_criteria", "claim_seeds", "claim_runs"
REASON = "threshold_reason"
"""A column that `claim_criteria` may have beside the fixed ones: why the threshold lies where it does."""

ICONS: Mapping[str, str] = {
    "supported": '<circle cx="8" cy="8" r="7.5" fill="#0072b2"/><path d="M4 8.4l2.7 2.8 5.2-6" class="cut"/>',
    "partly supported": '<circle cx="8" cy="8" r="7" class="rim"/><path d="M8 1a7 7 0 0 0 0 14z" fill="#0072b2"/>',
    "not supported": '<path d="M0.5.5h15v15h-15z" fill="#d55e00"/><path d="M4.5 4.5l7 7m0-7l-7 7" class="cut"/>',
    "mixed": '<path d="M8 .5a7.5 7.5 0 0 0 0 15z" fill="#0072b2"/><path d="M8 .5h7.5v15H8z" fill="#d55e00"/>',
    "inconclusive": '<path d="M8 .8L15.2 8 8 15.2.8 8z" class="open"/><text x="8" y="11.6">?</text>',
}
"""What is drawn beside each word, 16 by 16: the shapes differ as well as the colors (Okabe and Ito 2008)."""


def verdict_tables(verdicts: Verdicts, claims: Sequence[Claim] = ()) -> dict[str, pd.DataFrame]:
    """The tables that a report shows verdicts from, by name: `verdicts`, `claim_criteria`, `claim_seeds`, `claim_runs`.

    Args:
        claims: What was judged. The reasons for their thresholds are put beside the criteria, as `threshold_reason`.
    """
    reasons = {(claim.name, one.name): one.threshold.reason for claim in claims for one in claim.criteria}
    criteria = verdicts.criteria_frame()
    keys = zip(criteria["claim"], criteria["criterion"], strict=True)
    return {
        VERDICTS: verdicts.frame(),
        CRITERIA: criteria.assign(**{REASON: [reasons.get(key, "") for key in keys]}),
        SEEDS: verdicts.by_seed_frame(),
        RUNS: verdicts.runs_frame(),
    }


@dataclass(frozen=True)
class Row:
    """One verdict, in words for the table."""

    task: str
    verdict: str
    icon: Markup
    effect: str
    interval: str
    sample: str
    kinds: str
    reason: str
    controls: str
    links: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class ClaimVerdicts:
    """One claim and its verdict on each task."""

    claim: str
    statement: str
    rows: tuple[Row, ...]


def verdicts_html(tables: Mapping[str, pd.DataFrame]) -> Markup:
    """The verdict table, what its words mean, and the rivals that are left; every text is escaped.

    Args:
        tables: At least `verdicts`.
    """
    frame = tables[VERDICTS]
    left = [(row["claim"], row["task"], _left(row["rivals"])) for row in frame.to_dict("records")]
    groups = [
        ClaimVerdicts(str(claim), str(rows["statement"].iloc[0]), tuple(_row(row) for row in rows.to_dict("records")))
        for claim, rows in frame.groupby("claim", sort=False)
    ]
    return _filled(
        "verdicts.html.j2",
        summary=verdict_summary(frame),
        groups=groups,
        words=[(word, icon(word), rule) for word, rule in VERDICT_WORDS.items()],
        rivals=[rival for rival in left if rival[-1]],
    )


LISTED = 3
"""Claims that the answer names of a kind; more are counted."""


def answer(frame: pd.DataFrame) -> str:
    """What the verdicts say together, in at most 40 words: which claims hold wherever they are decided, which fail."""
    words = {str(claim): set(rows["verdict"]) for claim, rows in frame.groupby("claim", sort=False)}
    held, failed = (
        [claim for claim in words if words[claim] - {"inconclusive"} == {word}]
        for word in ("supported", "not supported")
    )
    other = len(words) - len(held) - len(failed)
    n = frame["task"].nunique()
    everywhere = " on the task" if n == 1 else f" on all {n} tasks"

    def where(claims: Sequence[str]) -> str:
        return " wherever decided" if any("inconclusive" in words[claim] for claim in claims) else everywhere

    sentences = [
        f"{word}{where(claims)}: {', '.join(claims[:LISTED]).replace('-', ' ')}{_and_more(len(claims) - LISTED)}."
        for word, claims in (("Supported", held), ("Not supported", failed))
        if claims
    ]
    rest = [f"{other} of {len(words)} claims differ between tasks, hold in part or are open."] if other else []
    return " ".join([*sentences, *rest])


def _and_more(n: int) -> str:
    return f" and {n} more" if n > 0 else ""


def matrix_html(tables: Mapping[str, pd.DataFrame]) -> Markup:
    """The answer, and every claim on every task as a word; each leads to its numbers.

    Args:
        tables: At least `verdicts`.
    """
    frame = tables[VERDICTS]
    tasks = list(dict.fromkeys(frame["task"]))
    cells = {(row["claim"], row["task"]): row for row in frame.to_dict("records")}
    rows = [
        (claim, str(group["statement"].iloc[0]), [_cell(cells.get((claim, task))) for task in tasks])
        for claim, group in frame.groupby("claim", sort=False)
    ]
    seen = [(word, icon(word)) for word in VERDICT_WORDS if word in set(frame["verdict"])]
    return _filled("verdict_matrix.html.j2", answer=answer(frame), tasks=tasks, rows=rows, words=seen)


def _cell(row: Mapping[Any, Any] | None) -> tuple[str, Markup, str]:
    """Word, picture, and the effect with its interval."""
    if row is None:
        return "not asked", Markup(), ""
    interval = _interval(row)
    effect = shown(float(row["effect"]), str(row["unit"])) if isfinite(row["effect"]) else ""
    return str(row["verdict"]), icon(str(row["verdict"])), f"{effect} [{interval}]" if interval else effect


def details_html(tables: Mapping[str, pd.DataFrame]) -> Markup:
    """What stands below the forest: runs that failed or did not converge, every criterion with its threshold, controls.

    Args:
        tables: At least `verdicts`.
    """
    runs, criteria = tables.get(RUNS), tables.get(CRITERIA, pd.DataFrame())
    return _filled(
        "verdict_details.html.j2",
        runs=None if runs is None else [_run(run) for run in runs.to_dict("records")],
        criteria=_criteria(criteria),
        controls=[row for row in tables[VERDICTS].to_dict("records") if row["controls"]],
    )


def verdict_summary(frame: pd.DataFrame) -> str:
    """How many verdicts there are of each kind for each task, and on how many claims and seeds they rest."""
    seeds = sorted({int(n) for n in frame["seeds"] if n > 0}) or [0]
    over = f"{seeds[0]} seeds" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]} seeds"
    sentences = [f"{frame['claim'].nunique()} claims, judged over {over}."]
    for task, rows in tasks_of(frame):
        counts = rows["verdict"].value_counts()
        counted = [f"{counts[word]} {word}" for word in VERDICT_WORDS if word in counts]
        sentences.append(f"{task}: {', '.join(counted)}.")
    return " ".join(sentences)


def icon(verdict: str) -> Markup:
    """The mark of a verdict as an inline picture; an empty one for a word that is none. The word stands beside it."""
    drawn = ICONS.get(verdict, "")
    return Markup(f'<svg class="icon" viewBox="0 0 16 16" aria-hidden="true">{drawn}</svg>')


def _filled(template: str, **values: object) -> Markup:
    return Markup(environment().get_template(template).render(**values))


def _interval(row: Mapping[Any, Any]) -> str:
    unit = str(row["unit"])
    low, high = (shown(float(row[end]), unit).removesuffix(f" {unit}") for end in ("ci_low", "ci_high"))
    return f"{low} to {high}" if isfinite(row["ci_low"]) and isfinite(row["ci_high"]) else ""


def _row(row: Mapping[Any, Any]) -> Row:
    return Row(
        task=str(row["task"]),
        verdict=str(row["verdict"]),
        icon=icon(str(row["verdict"])),
        effect=shown(float(row["effect"]), str(row["unit"])),
        interval=_interval(row),
        sample=f"{int(row['seeds'])} seeds, n = {int(row['n']):,}",
        kinds=", ".join(str(row.get("kinds", "")).split()),
        reason=str(row["reason"]),
        controls=str(row["controls"]),
        links=tuple((name, TEXTS[name]["title"]) for name in str(row["evidence"]).split() if name in TEXTS),
    )


def _left(rivals: str) -> str:
    """Of the rivals those that stand, and those about which the numbers say nothing."""
    by_state: dict[str, list[str]] = {}
    for rival in parse_rivals(rivals):
        by_state.setdefault(rival.state, []).append(rival.name)
    words = {"stands": "stands", "open": "neither shown nor contradicted"}
    return "; ".join(f"{', '.join(by_state[state])}: {text}" for state, text in words.items() if state in by_state)


def _criteria(frame: pd.DataFrame) -> list[list[dict[str, object]]]:
    """Each criterion with what was measured of it on each task."""
    if frame.empty:
        return []
    groups = frame.groupby(["claim", "criterion"], sort=False)
    return [[_criterion(row) for row in rows.to_dict("records")] for _, rows in groups]


def _criterion(row: Mapping[Any, Any]) -> dict[str, object]:
    """One criterion with its numbers in words; its p-value is that of the predicted side, or of the likelier one."""
    unit, predicted = str(row["unit"]), str(row["predicted"])
    p = float(row[f"p_{predicted}"] if predicted else min(row["p_above"], row["p_below"]))
    threshold = shown(float(row["threshold"]), unit)
    return {
        **row,
        "rule": f"Predicted {predicted} {threshold}" if predicted else f"No prediction; rivals speak of {threshold}",
        "number": shown(float(row["estimate"]), unit) if isfinite(row["estimate"]) else "",
        "interval": _interval(row),
        "p": _p(p),
        "seen": shown(float(row["detectable"]), unit) if isfinite(row["detectable"]) else "",
        "n": f"{int(row['n']):,}",
        "reason": row.get(REASON, ""),
    }


def _p(value: float) -> str:
    if not isfinite(value):
        return ""
    return "< 0.0001" if value < 1e-4 else f"{value:.2g}"


def _run(run: Mapping[Any, Any]) -> dict[str, str]:
    name = ", ".join(str(part) for part in (run["task"], run["regime"], run["variant"]) if part)
    loss, right = (float(run[column]) for column in ("final_loss", "train_accuracy"))
    return {
        "name": f"{name}, seed {run['run_seed']}",
        "status": str(run["status"]),
        "loss": f"{loss:.3g}" if isfinite(loss) else "",
        "right": f"{right:.1%}" if isfinite(right) else "",
        "note": str(run["note"]),
    }
