"""What the command `cotinterp claims` does: gather or read evidence, judge, write, say what came out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from cotinterp.claims.catalog import CATALOG
from cotinterp.claims.claim import LEAST_SEEDS, Claim
from cotinterp.claims.judge import (
    Looks,
    decide,
    estimate_claims,
    judge_in_stages,
    judged_tasks,
    look_factors,
    of_first_seeds,
    threshold_changes,
    unfinished,
    what_failed,
)
from cotinterp.claims.verdict import Verdict, Verdicts, rivals_text, shown
from cotinterp.results import output_folder, write_atomic
from cotinterp.studies.evidence import EVIDENCE_FILE, MEMORY_TASK, Evidence, read_evidence
from cotinterp.studies.subject import FULL, QUICK_EVIDENCE
from cotinterp.sweeps.progress import progress_bars, progress_stages
from cotinterp.sweeps.replication import PARTS, Measuring, Planned, gather, joint_plan, replicate
from cotinterp.tasks import get_task
from cotinterp.training.spec import REFERENCE_TASKS, RunSpec


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Which trained models are measured, and how.

    Attributes:
        tasks: References; by default the reference tasks.
        seeds: The lowest so many.
        root: Folder of the checkpoints.
        tables: Folder of stored evidence that is brought up to date; None for none.
        train: Train runs that are missing under `root`.
        jobs: Processes, one CPU thread each.
        quick: Small samples: a look, not a measurement.
        base: The design of the runs where it is not the reference one.
        parts: Which of the plan is trained and measured (`replication.PARTS`).
    """

    tasks: tuple[str, ...] = ()
    seeds: int = LEAST_SEEDS
    root: Path = Path("out/replication")
    tables: Path | None = None
    train: bool = False
    jobs: int = 2
    device: str = "cpu"
    quick: bool = False
    base: RunSpec | None = None
    parts: tuple[str, ...] = PARTS


def gather_evidence(sources: Sources, folder: Path, console: Console | None = None) -> Evidence:
    """The evidence of trained models, measured now.

    It is kept in `folder`/evidence, and the rows of each run in `folder`/rows as soon as there are any, so that a
    gathering that was killed goes on. In the stored evidence of `sources.tables` it takes the place of the same runs,
    and all others stay as they are.

    Raises:
        FileNotFoundError: Runs are missing and `train` was not asked for.
        ValueError: The stored evidence on other tasks has its random labels from another design.
    """
    tasks = sources.tasks or REFERENCE_TASKS
    planned = joint_plan(tasks, seeds=range(sources.seeds), base=sources.base, parts=sources.parts)
    tables = sources.tables
    known = tables is not None and (tables / EVIDENCE_FILE).is_file()
    if tables is not None and known:
        _check_memory(planned, read_evidence(tables))
    work = replicate if sources.train else gather
    with progress_bars("claims", console) as progress:
        evidence = work(
            planned,
            root=sources.root,
            measuring=Measuring(
                effort=QUICK_EVIDENCE if sources.quick else FULL,
                device=sources.device,
                jobs=sources.jobs,
                store=output_folder(folder / "rows"),
            ),
            progress=progress,
        )
    evidence.save(output_folder(folder / "evidence"))
    if tables is not None:
        (read_evidence(tables).updated(evidence) if known else evidence).save(tables)
    return evidence


def _check_memory(planned: Sequence[Planned], stored: Evidence) -> None:
    """Refuses runs on random labels that would take the place of those that other tasks are compared with."""
    there = set(stored.runs.loc[stored.runs["task"] == MEMORY_TASK, "slug"])
    here = {one.spec.slug for one in planned if one.spec.task_name == MEMORY_TASK}
    others = [task for task in judged_tasks(stored) if task not in {one.spec.task_name for one in planned}]
    if there and here and not there & here and others:
        raise ValueError(
            f"the stored evidence on {others} is compared with {MEMORY_TASK!r} of another design ({min(there)}; now "
            f"{min(here)}), which these runs would replace: leave that part out (--part "
            f"{' '.join(part for part in PARTS if part != 'memory')}), or give other --tables"
        )


@dataclass(frozen=True)
class Stages:
    """Seeds until decided: `evidence_of` so many seeds and of some tasks, at each look (`judge.judge_in_stages`)."""

    evidence_of: Callable[[int, tuple[str, ...]], Evidence]
    looks: Callable[[str], Looks]

    @classmethod
    def of_tables(cls, evidence: Evidence, looks: Callable[[str], Looks]) -> "Stages":
        """What is stored, the lowest seeds first."""
        return cls(of_first_seeds(evidence), looks)

    @classmethod
    def of_models(cls, sources: Sources, folder: Path, most: int) -> "Stages":
        """Trained models, more of them at each stage; `folder`/evidence grows, and holds the decided tasks too."""
        references = {get_task(task).name: task for task in sources.tasks or REFERENCE_TASKS}
        so_far: list[Evidence] = []

        def evidence_of(n: int, tasks: tuple[str, ...]) -> Evidence:
            more = gather_evidence(replace(sources, seeds=n, tasks=tuple(references[one] for one in tasks)), folder)
            so_far.append(so_far[-1].updated(more) if so_far else more)
            so_far[-1].save(folder / "evidence")
            return so_far[-1]

        return cls(evidence_of, lambda _: look_factors(most))


THRESHOLD_STEP = 0.1
"""By how much each threshold is moved, alone and either way, to see which verdicts depend on it."""


def claims_session(
    evidence: Evidence,
    *,
    out: Path,
    say: Callable[[str], None],
    tasks: Sequence[str] = (),
    claims: Sequence[Claim] = CATALOG,
    stages: Stages | None = None,
) -> Verdicts:
    """Judges the claims, writes tables, figure and verdicts.json under `out`, and says all of it in words.

    Args:
        tasks: Names; by default all but `random-labels`, which is a yardstick.
        stages: Where more seeds come from until all is decided; `evidence` then only says which tasks there are.

    Raises:
        ValueError: A task without evidence.
    """
    folder = output_folder(out)
    chosen = tuple(dict.fromkeys(tasks)) or judged_tasks(evidence)
    if not chosen:
        raise ValueError(f"the evidence has no rows, so there is nothing to judge: {what_failed(evidence)}")
    if missing := [task for task in chosen if task not in evidence.tasks]:
        tried = evidence.runs["task"].isin(missing).any()
        raise ValueError(
            f"no evidence on {missing}; there is some on {list(evidence.tasks)}. "
            + (
                f"It was tried: {what_failed(evidence, missing)}"
                if tried
                else "`cotinterp claims --from checkpoints --train --task ...` trains and measures a task"
            )
        )
    evidence = evidence.of_tasks(chosen)
    if stages is None:
        with progress_stages("claims", ("judge",)):
            estimates = estimate_claims(claims, evidence, chosen)
            verdicts = Verdicts(decide(estimates), unfinished(evidence))
    else:
        verdicts, estimates = judge_in_stages(claims, stages.evidence_of, chosen, stages.looks)
        looked = {task: ", ".join(map(str, stages.looks(task))) for task in chosen if len(stages.looks(task)) > 1}
        for counts in dict.fromkeys(looked.values()):
            those = ", ".join(task for task, own in looked.items() if own == counts)
            say(f"looked at {counts} seeds until decided: {those}")
    with progress_stages("claims", ("move the thresholds",)):
        changes = threshold_changes(estimates, (1 - THRESHOLD_STEP, 1 + THRESHOLD_STEP))
    for line in verdict_lines(verdicts, changes, evidence):
        say(line)
    for path in save_verdicts(verdicts, changes, folder):
        say(str(path))
    return verdicts


def save_verdicts(verdicts: Verdicts, changes: pd.DataFrame, folder: Path) -> list[Path]:
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


def verdict_lines(verdicts: Verdicts, changes: pd.DataFrame, evidence: Evidence) -> list[str]:
    """The verdicts in words: a table, the reasons, the runs that failed, the thresholds that matter."""
    lines = [_table(verdicts.verdicts)]
    for one in verdicts.verdicts:
        lines += [
            f"{one.task}, {one.claim}: {one.verdict}. {one.reason}",
            f"    rests on: {one.rests_on}",
            f"    rivals: {rivals_text(one.rivals)}",
        ]
        if one.controls:
            lines.append(f"    controls: {one.controls}")
    counts = evidence.runs["status"].value_counts()
    lines.append("runs: " + (", ".join(f"{n} {status}" for status, n in counts.items()) or "not listed"))
    for row in verdicts.runs_frame().to_dict("records"):
        lines.append(f"    {row['status']}: {row['slug'] or row['task']}: {row['note']}")
    lines.append(f"thresholds moved by {THRESHOLD_STEP:.0%}, one at a time: {len(changes)} changed verdicts")
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
