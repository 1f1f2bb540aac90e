"""Evidence from many trained models: train what is missing, measure each, keep its rows, list what failed."""

import hashlib
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from cotinterp.results import output_folder, write_atomic
from cotinterp.studies.evidence import COLUMNS, RUN_COLUMNS, Evidence
from cotinterp.studies.measuring import REFUSED, Measure, measure, measures_of
from cotinterp.studies.subject import FULL, Effort, Subject
from cotinterp.sweeps.planning import Planned as Planned
from cotinterp.sweeps.planning import joint_plan as joint_plan
from cotinterp.sweeps.planning import plan as plan
from cotinterp.sweeps.pool import parallel_map
from cotinterp.sweeps.progress import OnProgress, poll_in_order
from cotinterp.sweeps.single_run import THREADS
from cotinterp.sweeps.sweep import RunOutcome, train_all, transcript_length
from cotinterp.tasks import get_task
from cotinterp.training.checkpoints import Run, is_finished, load_run
from cotinterp.training.loop import torch_threads
from cotinterp.training.progress import METRICS_FILE, read_metrics
from cotinterp.training.spec import json_hash
from cotinterp.training.spec_file import check_same_spec

PACKAGE = Path(__file__).parents[1]
MEASURING = tuple(
    PACKAGE / name
    for name in ("tasks", "transcripts", "models", "training", "behavior", "mechanism", "results", "studies")
)
"""Folders and files that decide what is measured; a claim or a threshold may change and the rows stay."""

NUMBERS = {"n_layers": int, "run_seed": int, "k": int, "step": int, "value": float, "trials": float, "problems": int}


@dataclass(frozen=True)
class RowStore:
    """A folder of rows, one file for each run and way to measure it.

    The name of a file holds a hash of the weights, of the training set and the task, of the effort, the variant and the
    device, and of the source of the package and of the measures: rows are found again only where they would come out
    the same. What a measure of one's own imports from elsewhere is not part of the hash.
    """

    folder: Path

    def path(self, run: Run, variant: str, effort: Effort, device: str, measures: Sequence[Measure]) -> Path:
        """Where the rows of this measurement belong."""
        names = [f"{each.__module__}.{each.__qualname__}" for each in measures]
        sources = {Path(str(sys.modules[each.__module__].__file__)) for each in measures}
        key = json_hash(
            {
                "weights": run.weight_hash,
                "task": run.metadata["task"],
                "data": run.metadata["data"],
                "variant": variant,
                "effort": asdict(effort),
                "device": device,
                "torch": torch.__version__,
                "measures": names,
                "source": source_hash((*MEASURING, *sorted(sources))),
            }
        )
        return self.folder / f"{run.spec.slug}-rows-{key[:16]}.csv"

    def read(self, path: Path) -> pd.DataFrame | None:
        """The rows stored there; None where there are none."""
        return read_rows(path.read_text(encoding="utf-8")) if path.is_file() else None

    def write(self, path: Path, rows: pd.DataFrame) -> None:
        """Store rows, whole or not at all."""
        output_folder(self.folder)
        write_atomic(path, text_of(rows))


def text_of(rows: pd.DataFrame) -> str:
    """Rows as text, from which `read_rows` makes the same rows: every digit is kept."""
    return rows[list(COLUMNS)].to_csv(index=False, lineterminator="\n")


def read_rows(text: str) -> pd.DataFrame:
    """The rows of a text."""
    return pd.read_csv(StringIO(text), dtype=str, keep_default_na=False).astype(NUMBERS)


def source_hash(places: Sequence[Path]) -> str:
    """SHA-256 of the Python files in these places, folders with all that is in them; their order does not matter."""
    files = {path for place in places for path in (place.rglob("*.py") if place.is_dir() else (place,))}
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


CONVERGED = 0.9
"""Least accuracy on its own training problems, at every K, of a run that counts as converged. Below it the run has not
fitted what it was shown, so what it lacks on other problems may be training that it lacks. The run is listed, with the
K, and judged like the others: to drop it would be to choose runs by what came out."""

FINAL_SHARE = 0.1
"""Share of the logged steps, the last ones, whose mean loss is the final loss: one batch alone is noise."""


def replicate(
    planned: Sequence[Planned],
    *,
    root: Path,
    jobs: int = 2,
    effort: Effort = FULL,
    device: str = "cpu",
    progress: OnProgress | None = None,
    store: Path | None = None,
) -> Evidence:
    """`gather`, after what is missing was trained under `root`. A run whose training failed is listed as `failed`."""
    specs = [one.spec for one in planned]
    outcomes = train_all(specs, root=root, jobs=jobs, device=device, progress=progress)
    return gather(
        planned, root=root, jobs=jobs, effort=effort, device=device, progress=progress, store=store, outcomes=outcomes
    )


def gather(
    planned: Sequence[Planned],
    *,
    root: Path,
    jobs: int = 2,
    effort: Effort = FULL,
    device: str = "cpu",
    progress: OnProgress | None = None,
    store: Path | None = None,
    outcomes: Sequence[RunOutcome] = (),
    measures: Sequence[Measure] | None = None,
) -> Evidence:
    """Every applicable measure of every run, `jobs` runs at a time on one CPU thread each.

    The evidence does not depend on `jobs`: its rows are in the order of `planned`. A run that cannot be loaded or
    measured is `failed`, with the error as its note, and has no rows; one that does not answer its own training
    problems (`CONVERGED`) is `unconverged`, one that some measure refused is `incomplete`, and both have rows.

    Args:
        planned: Equal entries count once.
        root: Where the checkpoints lie, as `<slug>`.
        jobs: Processes; 0 measures in this one.
        progress: Called twice a second with how far each run is.
        store: Folder in which the rows of each run are kept as soon as it is measured, and looked up (`RowStore`): a
            gathering that was killed goes on there. None: nothing is kept.
        outcomes: What became of the trainings: a run that failed there is listed as failed, not asked for.
        measures: Functions of a module, instead of those that apply (`measures_of`).

    Raises:
        FileNotFoundError: Runs are not trained; they are listed, with the command that trains them.
        ValueError: Two runs would have the same place in the evidence, or fewer jobs than 0.
    """
    planned = tuple(dict.fromkeys(planned))
    _distinct([(get_task(one.spec.task).name, one.spec.regime, one.variant, one.spec.seed) for one in planned])
    errors = {outcome.spec: outcome.error for outcome in outcomes if outcome.status == "failed"}
    work = [one for one in planned if one.spec not in errors]
    _all_there(work, root)
    # What writes most is also asked most: begun last, it would be waited for by all the other processes.
    work.sort(key=lambda one: transcript_length(one.spec), reverse=True)
    slugs = [one.spec.slug for one in work]

    measured = partial(_rows, root=root, effort=effort, device=device, store=store, measures=measures)
    texts: dict[Planned, str] = {}
    notes = {one: errors.get(one.spec, "") for one in planned}
    results = parallel_map(measured, work, jobs=jobs, on_poll=poll_in_order(slugs, jobs, progress))
    for one, result in zip(work, results, strict=True):
        texts[one], notes[one] = result.value or "", result.error
    tables = {one: read_rows(text) for one, text in texts.items() if text}
    parts = [tables[one] for one in planned if one in tables and len(tables[one])]
    runs = [_listed(one, root, tables.get(one), notes[one]) for one in planned]
    return _evidence(parts, runs)


def gather_subjects(
    subjects: Iterable[Subject], effort: Effort = FULL, measures: Sequence[Measure] | None = None
) -> Evidence:
    """Every applicable measure of models that are no runs of this bench: handmade ones, or one's own.

    In this process, one after the other, so that a generator need not hold more than one model. What a measure refuses
    is listed as `incomplete`; any other error is raised.

    Raises:
        ValueError: Two subjects of one task, regime, variant and seed.
    """
    parts, runs, names = [], [], []
    for subject in subjects:
        labels = subject.evidence_labels
        names.append((subject.task.name, subject.regime, subject.variant, subject.run_seed))
        _distinct(names)
        rows = measure(subject, effort, measures)
        parts.append(rows)
        runs.append(labels | {"slug": "", "final_loss": np.nan} | _convergence(rows))
    return _evidence([part for part in parts if len(part)], runs)


def _rows(
    one: Planned,
    *,
    root: Path,
    effort: Effort,
    device: str,
    store: Path | None,
    measures: Sequence[Measure] | None,
) -> str:
    """What one process measures on one run; text, so that rows just measured and rows found again are the same."""
    directory = root / one.spec.slug
    with torch_threads(THREADS):
        check_same_spec(directory, one.spec)
        run = load_run(directory, device=device, task=one.spec.task)
        subject = Subject.of_run(run, variant=one.variant)
        chosen = measures_of(subject) if measures is None else measures
        if store is None:
            return text_of(measure(subject, effort, chosen))
        kept = RowStore(store)
        path = kept.path(run, one.variant, effort, device, chosen)
        if (found := kept.read(path)) is None:
            kept.write(path, found := measure(subject, effort, chosen))
        return text_of(found)


def _evidence(parts: Sequence[pd.DataFrame], runs: Sequence[dict[str, Any]]) -> Evidence:
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(COLUMNS))
    return Evidence(table, pd.DataFrame(runs, columns=list(RUN_COLUMNS)))


def _listed(one: Planned, root: Path, rows: pd.DataFrame | None, error: str) -> dict[str, Any]:
    """The row of a run in `Evidence.runs`."""
    spec = one.spec
    named = {
        "task": get_task(spec.task).name,
        "regime": spec.regime,
        "variant": one.variant,
        "n_layers": spec.model.n_layers,
        "run_seed": spec.seed,
        "slug": spec.slug,
        "final_loss": final_loss(root / spec.slug),
    }
    if rows is None:
        return named | {"status": "failed", "train_accuracy": np.nan, "note": " ".join(error.split())}
    return named | _convergence(rows)


def _convergence(rows: pd.DataFrame) -> dict[str, Any]:
    """Status, accuracy on training problems at the K where it is least, and a note on what is wrong.

    `finished`; `unconverged` where that accuracy is too little; `incomplete` where a measure refused the model.
    """
    refusals = "; ".join(map(str, rows.loc[rows["measure"] == REFUSED, "condition"]))
    found = _fit(rows)
    if not refusals:
        return found
    status = "incomplete" if found["status"] == "finished" else found["status"]
    return found | {"status": status, "note": "; ".join(filter(None, (found["note"], refusals)))}


def _fit(rows: pd.DataFrame) -> dict[str, Any]:
    chosen = rows[(rows["measure"] == "accuracy") & (rows["condition"] == "train")]
    if chosen.empty:
        return {"status": "finished", "train_accuracy": np.nan, "note": "its training problems were not asked"}
    sums = chosen.assign(right=chosen["value"] * chosen["problems"], of=chosen["trials"] * chosen["problems"])
    by_k = sums.groupby("k")[["right", "of"]].sum()
    accuracy = by_k["right"] / by_k["of"]
    least = float(accuracy.min())
    told = f"right on {least:.1%} of its training problems at K = {accuracy.idxmin()}, below {CONVERGED:.0%}"
    status, note = ("finished", "") if least >= CONVERGED else ("unconverged", told)
    return {"status": status, "train_accuracy": float(f"{least:.6g}"), "note": note}


def final_loss(directory: Path) -> float:
    """Mean loss per response token, in nats, over the last tenth of the logged steps; NaN where none is logged."""
    logged = [line["loss"] for line in read_metrics(directory / METRICS_FILE)]
    last = logged[-max(1, round(FINAL_SHARE * len(logged))) :]
    return float(f"{np.mean(last):.6g}") if last else float("nan")


def _all_there(planned: Sequence[Planned], root: Path) -> None:
    slugs = dict.fromkeys(one.spec.slug for one in planned)
    if missing := [slug for slug in slugs if not is_finished(root / slug)]:
        raise FileNotFoundError(
            f"{len(missing)} of {len(slugs)} runs are not trained under {root}: {', '.join(missing)}. "
            "`cotinterp claims --from checkpoints --train` trains them, and goes on with those that were begun; "
            "--root says where they lie"
        )


def _distinct(names: Sequence[tuple[str, str, str, int]]) -> None:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(
            f"two models of the same task, regime, variant and seed: {twice}. Their rows could not be told apart; give "
            "one of them a variant or a seed of its own"
        )
