"""Evidence from many trained models: which ones a verdict needs; train, measure, keep their rows, list what failed."""

import hashlib
import sys
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from cotinterp.results import output_folder, write_atomic
from cotinterp.studies.evidence import (
    COLUMNS,
    CONVERGED_VARIANT,
    EARLY_VARIANT,
    MEMORY_TASK,
    REFUSED,
    RUN_COLUMNS,
    WIDTH_VARIANT,
    Evidence,
)
from cotinterp.studies.measuring import TRACE_TRAIN, Measure, measure, measures_of
from cotinterp.studies.subject import FULL, Effort, Subject
from cotinterp.sweeps.designs import DESIGNS, half_as_wide, in_proportion, until_learned
from cotinterp.sweeps.designs import Planned as Planned
from cotinterp.sweeps.designs import taught_plan as taught_plan
from cotinterp.sweeps.pool import parallel_map
from cotinterp.sweeps.progress import OnProgress, poll_in_order
from cotinterp.sweeps.single_run import THREADS
from cotinterp.sweeps.sweep import RunOutcome, train_all, transcript_length
from cotinterp.tasks import get_task
from cotinterp.tasks.definition import check_one_definition, task_definition
from cotinterp.training.checkpoints import MODEL_FILE, Run, is_finished, load_run, read_record
from cotinterp.training.curriculum import teachers_of
from cotinterp.training.loop import torch_threads
from cotinterp.training.progress import METRICS_FILE, read_metrics
from cotinterp.training.spec import RunSpec, json_hash
from cotinterp.training.spec_file import check_same_spec
from cotinterp.transcripts.render import longest_transcript

PARTS = ("regimes", "depths", "sizes", "memory", "converged", "early")
"""What a plan has by default."""
MORE_PARTS = tuple(DESIGNS)
"""What it has where it is asked for (`sweeps.designs`)."""
REGIMES = ("direct", "cot", "filler")
DEPTHS = (1, 2)
"""Layers of the shallower models without a trace."""
SIZES = (300, 10_000)
"""Training problems of the models without a trace that saw fewer or more (`designs.in_proportion`)."""
CONVERGED_SIZES = (1000, 100_000)
"""Training problems of the models that are trained until they have learned, in the same way. They have half the layers
and half the width of the base, which makes them affordable."""
EARLY = 0.075
"""Share of the updates after which the `early` models are done: cot on s3 and z6 still errs then. It was chosen by the
accuracy of seed 0 after 100 to 1,000 updates; of what kind the errors are was not looked at."""


def plan(
    task: str, *, seeds: Sequence[int], base: RunSpec | None = None, parts: Collection[str] = PARTS
) -> tuple[Planned, ...]:
    """The runs that the claims about a task are judged by, each at every seed.

    - `regimes`: direct, cot and filler, which differ in the response alone; the standard runs.
    - `depths`: direct with fewer layers (`L1`, `L2`), where the base has more.
    - `sizes`: direct on other numbers of training problems (`n300`, `n10000` of the reference design).
    - `memory`: direct on random labels, the ceiling of memory. It is the same run for every task of one base.
    - `converged`: direct on few problems and on many, and cot on many, trained until they have learned
      (`converged-n1000`, `converged-n100000`; `CONVERGED_SIZES`). They are half as deep and half as wide.
    - `early`: cot with few of the updates, so that there are errors to speak of (`early`, `EARLY`).
    - `widths`, `curricula`, `adapters`, `positions`, `encoder`, `search`, `rewards`, `circuits`, where they are
      asked for: `sweeps.designs`.

    Everything that is not named here is as in `base`, so the runs of a part differ in one thing; those of `converged`
    differ from the standard ones in size, precision and training, and are compared with one another alone.

    Args:
        task: A registered name, or `path/to/file.py:ClassName`.
        seeds: The trained model is the unit of replication: five or more for a claim that leads.
        base: The design; its task, regime and seed are not used. By default the reference design in bfloat16.

    Raises:
        ValueError: No seeds, a seed twice, an unknown part, `regimes` beside `curricula`, or a regime whose transcripts
            do not fit the base.
    """
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds must be distinct, and one at least; got {list(seeds)}")
    every = (*PARTS, *MORE_PARTS)
    if unknown := [part for part in parts if part not in every]:
        raise ValueError(f"unknown parts {unknown}; a plan has {list(every)}")
    standard = base or RunSpec(task=task, regime="direct", precision="bf16")
    standard = standard.model_copy(update={"task": task, "regime": "direct"})
    found = {
        "regimes": [Planned(standard.model_copy(update={"regime": regime})) for regime in REGIMES],
        "depths": [_of_depth(standard, layers) for layers in DEPTHS if layers < standard.model.n_layers],
        "sizes": [one for size in SIZES if (one := _of_size(standard, size)).spec != standard],
        "memory": [Planned(standard.model_copy(update={"task": MEMORY_TASK}))],
        "converged": [
            _until_converged(standard, regime, size)
            for regime, sizes in (("direct", CONVERGED_SIZES), ("cot", CONVERGED_SIZES[1:]))
            for size in sizes
        ],
        "early": [_early(standard)],
    }
    chosen = [one for part in PARTS if part in parts for one in found[part]]
    at_seeds = [replace(one, spec=one.spec.model_copy(update={"seed": seed})) for one in chosen for seed in seeds]
    for part in (one for one in MORE_PARTS if one in parts):
        at_seeds += [one for seed in seeds for one in DESIGNS[part](standard.model_copy(update={"seed": seed}))]
    planned = tuple(dict.fromkeys(at_seeds))
    named = [(one.spec.regime, one.variant, one.spec.seed) for one in planned if one.spec.task == task]
    if len(set(named)) < len(named):
        raise ValueError(
            "the parts regimes and curricula each have a run 'direct' of their own, of two widths, which "
            "evidence could not tell apart: ask for one part, then for the other, with another --out"
        )
    return planned


def joint_plan(
    tasks: Sequence[str], *, seeds: Sequence[int], base: RunSpec | None = None, parts: Collection[str] = PARTS
) -> tuple[Planned, ...]:
    """The plans of several tasks as one; a run that they share is in it once."""
    return tuple(dict.fromkeys(one for task in tasks for one in plan(task, seeds=seeds, base=base, parts=parts)))


def _of_depth(standard: RunSpec, layers: int) -> Planned:
    model = standard.model.model_copy(update={"n_layers": layers})
    return Planned(standard.model_copy(update={"model": model}), f"L{layers}")


def _of_size(standard: RunSpec, size: int) -> Planned:
    n_train = in_proportion(standard, size)
    return Planned(standard.model_copy(update={"n_train": n_train}), f"n{n_train}")


def _until_converged(standard: RunSpec, regime: str, size: int) -> Planned:
    learning = until_learned(standard, regime, half_as_wide(standard), in_proportion(standard, size))
    return Planned(learning, f"{CONVERGED_VARIANT}{learning.n_train}")


def _early(standard: RunSpec) -> Planned:
    optimizer = standard.optimizer
    steps = max(1, round(EARLY * optimizer.steps))
    shorter = optimizer.model_copy(update={"steps": steps, "warmup": min(optimizer.warmup, steps)})
    return Planned(standard.model_copy(update={"regime": "cot", "optimizer": shorter}), EARLY_VARIANT)


def base_spec(
    *tasks: str,
    k_max: int | None = None,
    n_layers: int | None = None,
    steps: int | None = None,
    n_train: int | None = None,
) -> RunSpec | None:
    """The reference design with some of it changed, as `base` of a plan; None where nothing is.

    Args:
        tasks: Those of the plan; they say how many operands there may be, and how long a transcript is.
        k_max: Most operands. Where transcripts get longer than the context of the reference design it grows with them.
        n_layers: Layers of the standard runs.
        steps: Updates; the warm-up is shortened to a tenth of them where it would take longer.
        n_train: Training problems; those of other sizes are as large a share of it as before.
    """
    if (k_max, n_layers, steps, n_train) == (None, None, None, None):
        return None
    spec = RunSpec(task=tasks[0], regime="direct", precision="bf16")
    model, optimizer = spec.model, spec.optimizer
    if k_max is not None:
        longest = max(longest_transcript(get_task(task), k_max, regime) for task in tasks for regime in REGIMES)
        model = model.model_copy(update={"n_ctx": max(model.n_ctx, longest)})
    if n_layers is not None:
        model = model.model_copy(update={"n_layers": n_layers})
    if steps is not None:
        warmup = min(optimizer.warmup, steps // 10)
        optimizer = optimizer.model_copy(update={"steps": steps, "warmup": warmup})
    sizes = {"k_max": k_max, "n_train": n_train}
    changed = {"model": model, "optimizer": optimizer} | {name: n for name, n in sizes.items() if n is not None}
    return spec.model_copy(update=changed)


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

    The name of a file holds a hash of the weights, of the training set and the task as it is now, of the effort, the
    variant and the device, and of the source of the package and of the measures: rows are found again only where they
    would come out the same. What a measure of one's own imports from elsewhere is not part of the hash.
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
                "definition": task_definition(run.task),
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
        """The rows stored there; None where there are none, or not those that were written."""
        if not path.is_file():
            return None
        text, _, digest = path.read_bytes().rpartition(b"# sha256 ")
        return read_rows(text.decode()) if digest == _digest(text) else None

    def write(self, path: Path, rows: pd.DataFrame) -> None:
        """Store rows, whole or not at all."""
        output_folder(self.folder)
        text = text_of(rows).encode()
        write_atomic(path, text + b"# sha256 " + _digest(text))


def _digest(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest().encode() + b"\n"


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


@dataclass(frozen=True, kw_only=True)
class Measuring:
    """How runs are measured. The evidence depends on effort, device and measures alone.

    Attributes:
        measures: Functions of a module, instead of those of the plan and those that apply (`measures_of`).
        jobs: Processes, one CPU thread each; 0 measures in this one.
        store: Folder in which the rows of each run are kept as soon as it is measured, and looked up (`RowStore`): a
            measurement that was killed goes on there. None: nothing is kept.
    """

    effort: Effort = FULL
    measures: Sequence[Measure] | None = None
    device: str = "cpu"
    jobs: int = 2
    store: Path | None = None


def replicate(
    planned: Sequence[Planned],
    *,
    root: Path,
    measuring: Measuring = Measuring(),
    progress: OnProgress | None = None,
) -> Evidence:
    """`gather`, after what is missing was trained under `root`. A run whose training failed is listed as `failed`.

    Teachers of these runs (`curriculum.teachers_of`) and what they start from (`Planned.before`) are trained too, and
    not measured.
    """
    specs = [spec for one in planned for spec in (*teachers_of(one.spec), *one.before, one.spec)]
    outcomes = train_all(specs, root=root, jobs=measuring.jobs, device=measuring.device, progress=progress)
    return gather(planned, root=root, measuring=measuring, progress=progress, outcomes=outcomes)


def gather(
    planned: Sequence[Planned],
    *,
    root: Path,
    measuring: Measuring = Measuring(),
    progress: OnProgress | None = None,
    outcomes: Sequence[RunOutcome] = (),
) -> Evidence:
    """Every applicable measure of every run, several runs at a time.

    The rows of the evidence are in the order of `planned`. A run that cannot be loaded or measured is `failed`, with
    the error as its note, and has no rows; one that does not answer its own training problems (`CONVERGED`) is
    `unconverged`, one that some measure refused is `incomplete`, and both have rows.

    Args:
        planned: Equal entries count once.
        root: Where the checkpoints lie, as `<slug>`.
        progress: Called twice a second with how far each run is.
        outcomes: What became of the trainings: a run that failed there is listed as failed, not asked for.

    Raises:
        FileNotFoundError: Runs are not trained; they are listed, with the command that trains them.
        ValueError: Two runs would have the same place in the evidence, two different tasks have one name, or fewer jobs
            than 0.
    """
    planned = tuple(dict.fromkeys(planned))
    check_one_definition(((one.spec.task_name, one.spec.definition or "") for one in planned), "the plan")
    _distinct([(one.spec.task_name, one.spec.regime, one.variant, one.spec.seed) for one in planned])
    errors = {outcome.spec: outcome.error for outcome in outcomes if outcome.status == "failed"}
    work = [one for one in planned if one.spec not in errors]
    _all_there(work, root)
    # What writes most is also asked most: begun last, it would be waited for by all the other processes.
    work.sort(key=lambda one: transcript_length(one.spec), reverse=True)
    slugs = [one.spec.slug for one in work]

    measured = partial(_rows, root=root, measuring=measuring)
    texts: dict[Planned, str] = {}
    notes = {one: errors.get(one.spec, "") for one in planned}
    results = parallel_map(measured, work, jobs=measuring.jobs, on_poll=poll_in_order(slugs, measuring.jobs, progress))
    for one, result in zip(work, results, strict=True):
        texts[one], notes[one] = result.value or "", result.error
    tables = {one: read_rows(text) for one, text in texts.items() if text}
    parts = [tables[one] for one in planned if one in tables and len(tables[one])]
    references = {(one.spec.task, one.spec.definition): one.spec.definition for one in planned}
    defined = {key: known or task_definition(get_task(key[0])) for key, known in references.items()}
    runs = [
        _listed(one, root, tables.get(one), notes[one])
        | {"definition": defined[one.spec.task, one.spec.definition], "draw": one.spec.seed}
        for one in planned
    ]
    return _evidence(parts, runs)


def gather_subjects(
    subjects: Iterable[Subject], effort: Effort = FULL, measures: Sequence[Measure] | None = None
) -> Evidence:
    """Every applicable measure of models that were not trained here: handmade ones, or one's own.

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
        named = {"slug": "", "final_loss": np.nan, "definition": task_definition(subject.task), "draw": subject.draw}
        named["core_seconds"] = np.nan
        runs.append(labels | named | _convergence(rows))
    return _evidence([part for part in parts if len(part)], runs)


def _rows(one: Planned, *, root: Path, measuring: Measuring) -> str:
    """What one process measures on one run; text, so that rows just measured and rows found again are the same."""
    directory, effort = root / one.spec.slug, measuring.effort
    with torch_threads(THREADS):
        check_same_spec(directory, one.spec)
        run = load_run(directory, device=measuring.device, task=one.spec.task)
        subject = Subject.of_run(run, variant=one.variant)
        measures = measuring.measures
        if measures is None:
            measures = one.measures or measures_of(subject)
        if measuring.store is None:
            return text_of(measure(subject, effort, measures))
        kept = RowStore(measuring.store)
        path = kept.path(run, one.variant, effort, measuring.device, measures)
        if (found := kept.read(path)) is None:
            kept.write(path, found := measure(subject, effort, measures))
        return text_of(found)


def _evidence(parts: Sequence[pd.DataFrame], runs: Sequence[dict[str, Any]]) -> Evidence:
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(COLUMNS))
    return Evidence(table, pd.DataFrame(runs, columns=list(RUN_COLUMNS)))


def _listed(one: Planned, root: Path, rows: pd.DataFrame | None, error: str) -> dict[str, Any]:
    """The row of a run in `Evidence.runs`."""
    spec = one.spec
    named = {
        "task": spec.task_name,
        "regime": spec.regime,
        "variant": one.variant,
        "n_layers": spec.model.depth,
        "run_seed": spec.seed,
        "slug": spec.slug,
        "final_loss": final_loss(root / spec.slug),
    }
    if rows is None:
        return named | {"status": "failed", "train_accuracy": np.nan, "note": " ".join(error.split())}
    record = read_record(root / spec.slug / MODEL_FILE)
    # A narrow model that has settled below that is what was asked for; any other may be on a plateau.
    settled = record.ended == "settled" and one.variant.startswith(WIDTH_VARIANT)
    still_moving = f"ended by its budget of {record.step:,} updates" if record.ended == "budget" else ""
    cost = float(f"{record.threads * record.elapsed_s:.4g}")
    shown = {one.regime for one in spec.mix or ()} or {spec.regime}
    return (
        named
        | {"core_seconds": cost}
        | _convergence(rows, still_moving, asked_as_shown=spec.regime in shown, settled=settled)
    )


def _convergence(
    rows: pd.DataFrame, still_moving: str = "", *, asked_as_shown: bool = True, settled: bool = False
) -> dict[str, Any]:
    """Status, accuracy on training problems at the K where it is least, and a note on what is wrong.

    `finished`; `unconverged` where that accuracy is too little, unless it is a narrow model that has `settled`, whose
    size may be what is short, or where a run until converged was still moving when its budget ended it; `incomplete`
    where a measure refused the model.
    """
    refusals = "; ".join(map(str, rows.loc[rows["measure"] == REFUSED, "condition"]))
    found = _fit(rows, asked_as_shown) | ({"status": "finished"} if settled else {})
    if still_moving:
        found |= {"status": "unconverged", "note": "; ".join(filter(None, (found["note"], still_moving)))}
    if not refusals:
        return found
    status = "incomplete" if found["status"] == "finished" else found["status"]
    return found | {"status": status, "note": "; ".join(filter(None, (found["note"], refusals)))}


def _fit(rows: pd.DataFrame, asked_as_shown: bool) -> dict[str, Any]:
    """A run that is asked otherwise than it was last shown has learned where it writes the trace that it was shown."""
    measure, condition = ("accuracy", "train") if asked_as_shown else ("exact", TRACE_TRAIN)
    chosen = rows[(rows["measure"] == measure) & (rows["condition"] == condition)]
    if chosen.empty:
        return {"status": "finished", "train_accuracy": np.nan, "note": "its training problems were not asked"}
    sums = chosen.assign(right=chosen["value"] * chosen["problems"], of=chosen["trials"] * chosen["problems"])
    by_k = sums.groupby("k")[["right", "of"]].sum()
    accuracy = by_k["right"] / by_k["of"]
    least = float(accuracy.min())
    reason = f"right on {least:.1%} of its training problems at K = {accuracy.idxmin()}, below {CONVERGED:.0%}"
    status, note = ("finished", "") if least >= CONVERGED else ("unconverged", reason)
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
