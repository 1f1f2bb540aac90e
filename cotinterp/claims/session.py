"""What the command `cotinterp claims` does with evidence: judge, write, say what came out."""

from collections.abc import Callable, Sequence
from io import StringIO
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from cotinterp.claims.catalog import CATALOG
from cotinterp.claims.claim import Claim
from cotinterp.claims.evidence import Evidence
from cotinterp.claims.judge import decide, judged_tasks, moved, unfinished, weigh
from cotinterp.claims.verdict import Verdict, Verdicts, shown
from cotinterp.results import output_folder, write_atomic

Say = Callable[[str], None]

MOVED = 0.1
"""By how much each threshold is moved, alone and either way, to see which verdicts hang on it."""


def claims_session(
    evidence: Evidence, *, out: Path, say: Say, tasks: Sequence[str] = (), claims: Sequence[Claim] = CATALOG
) -> Verdicts:
    """Judges the claims, writes tables, figure and verdicts.json under `out`, and says all of it in words.

    Args:
        tasks: Names; by default all but `random-labels`, which is a yardstick.

    Raises:
        ValueError: A task without evidence.
    """
    folder = output_folder(out)
    chosen = tuple(tasks) or judged_tasks(evidence)
    if missing := [task for task in chosen if task not in evidence.tasks]:
        raise ValueError(
            f"no evidence on {missing}; there is some on {list(evidence.tasks)}. `cotinterp claims --from checkpoints "
            "--train --task ...` trains and measures a task"
        )
    weighed = weigh(claims, evidence, chosen)
    verdicts = Verdicts(decide(weighed), unfinished(evidence))
    rows = [(*row, factor) for factor in (1 - MOVED, 1 + MOVED) for row in moved(weighed, factor)]
    changes = pd.DataFrame(rows, columns=["claim", "task", "part", "kind", "verdict", "moved_verdict", "factor"])
    for line in told(verdicts, changes, evidence):
        say(line)
    for path in written(verdicts, changes, folder):
        say(str(path))
    return verdicts


def written(verdicts: Verdicts, changes: pd.DataFrame, folder: Path) -> list[Path]:
    """verdicts.json, its tables, and the figure of all criteria, each whole or absent."""
    tables = output_folder(folder / "tables")
    frames = {
        "claim_criteria": verdicts.criteria_frame(),
        "claim_seeds": verdicts.by_seed_frame(),
        "claim_runs": verdicts.runs_frame(),
        "claim_thresholds": changes,
    }
    paths = [write_atomic(folder / "verdicts.json", verdicts.json()), *verdicts.save(folder, "verdicts")]
    return paths + [write_atomic(tables / f"{name}.csv", frame.to_csv(index=False)) for name, frame in frames.items()]


def told(verdicts: Verdicts, changes: pd.DataFrame, evidence: Evidence) -> list[str]:
    """The verdicts in words: a table, the reasons, the runs that failed, the thresholds that matter."""
    lines = [_table(verdicts.verdicts)]
    for one in verdicts.verdicts:
        lines += [f"{one.task}, {one.claim}: {one.verdict}. {one.reason}", f"    rivals: {one.rivals}"]
        if one.controls:
            lines.append(f"    controls: {one.controls}")
    counts = evidence.runs["status"].value_counts()
    lines.append("runs: " + (", ".join(f"{n} {status}" for status, n in counts.items()) or "not listed"))
    for row in verdicts.runs_frame().to_dict("records"):
        lines.append(f"    {row['status']}: {row['slug'] or row['task']}: {row['note']}")
    lines.append(f"thresholds moved by {MOVED:.0%}, one at a time: {len(changes)} changed verdicts")
    for row in changes.to_dict("records"):
        lines.append(
            f"    {row['task']}, {row['claim']}: {row['part']} times {row['factor']:g}: {row['verdict']} becomes "
            f"{row['moved_verdict']}"
        )
    return lines


def _table(verdicts: Sequence[Verdict]) -> str:
    table = Table("task", "claim", "verdict", "effect", "threshold", "seeds", "n", "p", show_lines=False)
    for one in verdicts:
        low, high = (shown(end, one.unit).removesuffix(f" {one.unit}") for end in (one.ci_low, one.ci_high))
        effect = f"{shown(one.effect, one.unit)} [{low}, {high}]" if one.seeds else "not measured"
        p = "" if one.p != one.p else "< 0.001" if one.p < 0.001 else f"{one.p:.3f}"
        cells = (effect, shown(one.threshold, one.unit), str(one.seeds), f"{one.n:,}", p)
        table.add_row(one.task, one.claim, one.verdict, *cells)
    console = Console(width=150, record=True, file=StringIO())
    console.print(table, markup=False)
    return console.export_text().rstrip()
