"""The whole reference experiment: models in, every table, figure and the report out.

The work is spread over a few processes with one CPU thread each; what comes out does not depend on how many there are.
"""

import shlex
import sys
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import pandas as pd
from rich.console import Console

from cotinterp.claims.catalog import CATALOG
from cotinterp.claims.judge import judge_stored
from cotinterp.claims.verdict import Verdicts
from cotinterp.depth.compute import accuracy_against_compute
from cotinterp.depth.cost import serial_budget
from cotinterp.depth.frontier import depth_frontier
from cotinterp.depth.simulator import length_table
from cotinterp.mechanism.heads.labels import HEAD_LABELS
from cotinterp.report.inputs import ReportInputs, collect_manifest
from cotinterp.report.page import write_report
from cotinterp.report.verdicts import verdict_tables
from cotinterp.results import output_folder
from cotinterp.results.shipped import here_or_shipped
from cotinterp.studies.evidence import EVIDENCE_FILE, read_evidence
from cotinterp.studies.instruments import (
    Skipped,
    StudyName,
    applicable,
    attention_example,
    store_accuracy,
    study,
    table_of,
)
from cotinterp.studies.subject import FULL, QUICK, Effort, Subject
from cotinterp.sweeps.pool import JobFailedError, parallel_map
from cotinterp.sweeps.progress import poll_in_order, progress_bars, progress_stages
from cotinterp.sweeps.single_run import THREADS
from cotinterp.sweeps.sweep import train_all
from cotinterp.sweeps.table import read_sweep_table
from cotinterp.training.checkpoints import Run, load_run
from cotinterp.training.loop import torch_threads
from cotinterp.training.spec import RunSpec, reference_directories, reference_specs

Tables = dict[str, pd.DataFrame]
"""Rows by table name."""

SWEEP_FILE = "depth_frontier.csv"
"""The collected table of the sweep over depth and length."""


def reproduce(
    *,
    out: Path,
    root: Path = Path("checkpoints"),
    from_scratch: bool = False,
    device: str = "auto",
    jobs: int = 2,
    quick: bool = False,
    specs: Sequence[RunSpec] | None = None,
    evidence: Path | None = Path("analyses/out"),
    console: Console | None = None,
) -> Path:
    """Load or train the runs, apply every study, write report, tables, figures, verdicts and manifest under `out`.

    Args:
        out: Made where it is missing. With `from_scratch` the checkpoints are written under it too.
        root: Where the checkpoints of the reference runs lie.
        from_scratch: Train instead of loading; a training that was killed goes on where it was.
        device: "auto", "cpu", "cuda", ...
        jobs: Processes side by side.
        quick: Small samples.
        specs: Other runs than the reference ones; they are loaded from `root` or trained. A task file that a spec
            names is run. There are no verdicts on them.
        evidence: Folder of the stored evidence, from several seeds, by which the catalog of claims is judged. Where it
            holds none there are no verdicts, and the report says how to come by them. The same folder holds the table
            of the sweep over depth and length (`depth_frontier.csv`), from which the simulator and prices are drawn.
        console: Where progress is shown; standard error by default.

    Returns:
        The path of report.html.

    Raises:
        FileNotFoundError: A checkpoint is missing. JobFailedError: A training or a study failed.
        NotADirectoryError, PermissionError: `out` cannot be written.
        ValueError: The stored evidence, or the table of the sweep, lacks a column.
    """
    if jobs < 1:
        raise ValueError(f"jobs must be 1 or more, got {jobs}")
    began = time.perf_counter()
    out = output_folder(out)
    if evidence is not None:
        evidence = here_or_shipped("tables", evidence, EVIDENCE_FILE).parent
    with progress_stages("judge", ("claims", "depth"), console) as begin:
        verdicts = _verdicts(evidence) if evidence is not None and specs is None else None
        begin("depth")
        swept = sweep_tables(evidence) if evidence is not None and specs is None else {}
    effort = QUICK if quick else FULL
    wanted = tuple(specs or reference_specs())
    if from_scratch:
        directories = tuple(output_folder(out / "checkpoints") / spec.slug for spec in wanted)
    else:
        directories = reference_directories(root) if specs is None else tuple(root / spec.slug for spec in wanted)
    if from_scratch:
        with progress_bars("train", console) as progress:
            outcomes = train_all(wanted, root=out / "checkpoints", jobs=jobs, device=device, progress=progress)
        if failed := [f"{outcome.spec.slug}: {outcome.error}" for outcome in outcomes if outcome.error]:
            raise JobFailedError(f"training failed: {'; '.join(failed)}")
    runs = [load_run(place, device=device, task=spec.task) for spec, place in zip(wanted, directories, strict=True)]
    tables = _measure_all(runs, device, effort, jobs=jobs, store=from_scratch and not quick, console=console)
    views = tuple(attention_example(Subject.of_run(run), effort) for run in runs)
    tables["budget"] = pd.concat([_budget(run) for run in runs], ignore_index=True)
    tables |= swept
    tables["label_rules"] = pd.DataFrame([(rule.label, str(rule)) for rule in HEAD_LABELS], columns=["label", "rule"])
    if verdicts is not None:
        tables |= verdict_tables(verdicts, CATALOG)
    manifest = collect_manifest(
        command=shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        specs={run.spec.slug: run.spec.model_dump(mode="json") for run in runs},
        weight_hashes={run.spec.slug: run.weight_hash for run in runs},
        data_hashes={run.spec.slug: run.metadata["data"] for run in runs},
        threads=THREADS,
        wall_time_seconds=time.perf_counter() - began,
    )
    text = verdicts.json() if verdicts is not None else None
    with progress_stages("report", ("write",), console):
        return write_report(ReportInputs(tables, views, manifest, verdicts_json=text), out)[0]


def _verdicts(folder: Path) -> Verdicts | None:
    """The verdicts on the catalog of claims by the evidence that is stored in `folder`; None where there is none."""
    return judge_stored(CATALOG, read_evidence(folder))[0] if (folder / EVIDENCE_FILE).is_file() else None


def sweep_tables(folder: Path) -> Tables:
    """The frontier, the lengths of answers and the prices, from the table of a sweep in `folder`; none without one.

    Raises:
        ValueError: The table lacks a column. KeyError: A task in it is not registered.
    """
    if not (folder / SWEEP_FILE).is_file():
        return {}
    table = read_sweep_table(folder / SWEEP_FILE)
    runs = depth_frontier(table).frame()
    return {
        "frontier": runs,
        "answer_lengths": length_table(list(dict.fromkeys(runs["task"]))),
        "compute": accuracy_against_compute(table).frame(),
    }


def _measure_all(
    runs: Sequence[Run], device: str, effort: Effort, *, jobs: int, store: bool, console: Console | None
) -> Tables:
    """Every applicable study of every run, in parallel; rows come back in the order of the runs."""
    asked = [(run, name) for run in runs for name in applicable(run.spec.regime)]
    work = [(run.directory, run.spec.task, run.weight_hash, name, device, effort, store) for run, name in asked]
    names = [f"{name} {run.spec.slug}" for run, name in asked]
    with progress_bars("measure", console) as progress:
        results = parallel_map(_measure, work, jobs=jobs, on_poll=poll_in_order(names, jobs, progress))
    frames: dict[str, list[pd.DataFrame]] = {}
    for result in results:
        for table, frame in result.unwrap().items():
            frames.setdefault(table, []).append(frame)
    return {table: pd.concat(parts, ignore_index=True) for table, parts in frames.items()}


def _measure(work: tuple[Path, str, str, StudyName, str, Effort, bool]) -> Tables:
    directory, task, weight_hash, name, device, effort, store = work
    with torch_threads(THREADS):
        run = _loaded(directory, task, weight_hash, device)
        subject = Subject.of_run(run)
        try:
            results = study(name, subject, effort)
        except ValueError as error:
            # What cannot be measured of one run takes nothing else with it: it is listed, with the reason.
            return {"skipped": Skipped.whole(name, error, subject.labels).frame()}
        if store and "accuracy" in results:
            store_accuracy(run, results)
        return {table: table_of(parts) for table, parts in results.items()}


@lru_cache(maxsize=4)
def _loaded(directory: Path, task: str, weight_hash: str, device: str) -> Run:
    """The run in `directory`, loaded once for all of its studies that one process is given."""
    run = load_run(directory, device=device, task=task)
    if run.weight_hash != weight_hash:
        raise RuntimeError(f"the weights in {directory} changed while they were measured")
    return run


def _budget(run: Run) -> pd.DataFrame:
    ks = range(run.spec.k_min, run.spec.k_max + 1)
    return serial_budget(run.task, run.spec.regime, n_layers=run.spec.model.n_layers, ks=ks)
