"""One run of a sweep: what a worker does with it, and what its directory says of how far it is."""

import contextlib
import fcntl
import glob
import json
import os
import re
import secrets
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import pandas as pd
import torch

from cotinterp.behavior.accuracy import AccuracyResult, evaluate_run, store_evaluation
from cotinterp.behavior.tagging import tag_accuracy
from cotinterp.models.weights import CheckpointError, Stored, read_weights
from cotinterp.results import output_folder, write_atomic
from cotinterp.sweeps.pool import error_text
from cotinterp.tasks import get_task
from cotinterp.training.checkpoints import (
    MODEL_FILE,
    STATE_FILE,
    Record,
    Run,
    is_finished,
    read_evaluation,
    read_model,
)
from cotinterp.training.loop import DirectoryBusyError, sole_trainer, train
from cotinterp.training.progress import METRICS_FILE, last_metrics
from cotinterp.training.spec import RunSpec
from cotinterp.training.spec_file import (
    SPEC_FILE,
    check_same_spec,
    read_json,
    task_fingerprint,
    with_digest,
    without_digest,
)

THREADS = 1
"""CPU threads of each process: the weights are those of one thread on any machine, and two processes do not contend."""

FAILURE_FILE = "failure.json"
ROOT_FILE = ".sweep-root"
TOKEN = r"[0-9a-f]{16}"
BUSY_SECONDS = 1.0
TAG_COLUMNS = ("split", "k", "n", "correct", "accuracy", "ci_low", "ci_high")

Status = Literal["finished", "unfinished", "failed", "absent"]
STATUSES: tuple[Status, ...] = get_args(Status)


@dataclass(frozen=True)
class RunStatus:
    """How far one run of a grid is, by its files.

    Attributes:
        status: `finished`: trained and evaluated. `unfinished`: started; also one that is trained and not evaluated, or
            evaluated on another number of problems. `failed`: given up, or its directory holds something else.
            `absent`: nothing is there.
        error: Why it failed, or why nothing is there where a run of the same task as it was before is; paths are
            relative to the root.
        step: Updates done; of a run that is not finished, as far as they are logged.
        ended: Why a finished run until it is converged ended: `solved`, `settled` or `budget`.
        loss: Of the last logged update, in nats per scored token; NaN where there is none.
        evaluation: What evaluation.json holds, of a finished run.
        conflict: It failed because its directory holds something else, which no sweep touches.
    """

    spec: RunSpec
    status: Status
    error: str = ""
    step: int = 0
    loss: float = float("nan")
    evaluation: dict[str, Any] = field(default_factory=dict)
    conflict: bool = False
    ended: str = ""


def run_status(spec: RunSpec, root: Path, problems_per_k: int, fingerprints: dict[str, str] | None = None) -> RunStatus:
    """How far the run of `spec` under `root` is. Reads its weights, to know that the evaluation is of them.

    Nothing is raised for files that are damaged or of another run: that is a status too, `failed`.

    Args:
        fingerprints: By task; what is computed is added, so that who asks about many runs computes each once.
    """
    conflict, weights = _inspected(spec, root, fingerprints)
    if conflict:
        return RunStatus(spec, "failed", conflict, conflict=True)
    try:
        return _of_files(spec, root / spec.slug, problems_per_k, weights)
    except (CheckpointError, OSError, ValueError) as error:
        return RunStatus(spec, "failed", without_root(error_text(error), root))


def directory_conflict(spec: RunSpec, root: Path) -> str:
    """Why the directory of this run cannot be used, because it holds another run or no readable one; else empty.

    A run that was trained when its task computed something else is another run.
    """
    return _inspected(spec, root, None)[0]


def _inspected(spec: RunSpec, root: Path, fingerprints: dict[str, str] | None) -> tuple[str, Stored | None]:
    """`directory_conflict`, and the weights or the state that were read to know it."""
    directory, weights = root / spec.slug, None
    try:
        if (directory / SPEC_FILE).exists():
            check_same_spec(directory, spec)
            weights = check_same_task(directory, spec, fingerprints)
        elif strays := [name for name in (MODEL_FILE, STATE_FILE) if (directory / name).exists()]:
            raise CheckpointError(f"{directory} holds {strays} but no {SPEC_FILE}: move it away")
    except (CheckpointError, OSError) as error:
        return without_root(error_text(error), root), None
    return "", weights


def check_same_task(directory: Path, spec: RunSpec, fingerprints: dict[str, str] | None = None) -> Stored | None:
    """Raises CheckpointError where what lies in `directory` was trained on another task or from other weights.

    What a task of one's own is, its spec says (`RunSpec.definition`); of those of cotinterp the run recorded it.
    Returns the weights, or the state, that were read; None where there are none that can be.
    """
    path = next((directory / name for name in (MODEL_FILE, STATE_FILE) if (directory / name).exists()), None)
    if path is None:
        return None
    try:
        stored = read_weights(path)
        record = Record.parse(stored.metadata, path)
    except CheckpointError:
        return None  # whoever needs the weights says what is wrong with the file
    for slug, then in ((spec.start_from, record.start), (spec.teacher, record.teacher)):
        now = directory.parent / (slug or "") / MODEL_FILE
        if then and now.exists() and then != read_weights(now).weight_hash:
            raise CheckpointError(
                f"{directory} was begun with other weights than {slug} has now. Restore those, or move {directory} "
                "away to train anew"
            )
    if spec.definition is not None:
        return stored
    known = {} if fingerprints is None else fingerprints
    if spec.task not in known:
        known[spec.task] = task_fingerprint(get_task(spec.task))
    if record.task != known[spec.task]:
        raise CheckpointError(
            f"task {spec.task!r} is not the one that {directory} was trained on: its symbols or what it computes have "
            f"changed. Restore the old task, or move {directory} away to train anew"
        )
    return stored


def earlier_task(spec: RunSpec, root: Path) -> str:
    """That a run under `root` differs from this one in what its task computed alone; empty where none does."""
    here = spec.model_dump(mode="json")
    beside = root.glob(f"{glob.escape(spec.slug[:-8])}*/{SPEC_FILE}") if spec.definition else ()
    for path in sorted(beside):
        with contextlib.suppress(CheckpointError, OSError):
            there = read_json(path)
            same = {name for name in {**there, **here} if there.get(name) == here.get(name)}
            if {*there, *here} - same - {"task"} == {"definition"}:
                return (
                    f"{path.parent.name} is a run of task {spec.task_name!r} as it was when that was trained. The task "
                    "has changed since: train the run anew, or restore the task"
                )
    return ""


def _of_files(spec: RunSpec, directory: Path, problems_per_k: int, weights: Stored | None) -> RunStatus:
    last = last_metrics(directory / METRICS_FILE)
    step, loss = int(last.get("step", 0)), float(last.get("loss", float("nan")))
    if is_finished(directory):
        # A state that was read a moment ago is not the weights of a run that has ended since.
        model = weights if weights and weights.path.name == MODEL_FILE else None
        evaluation = valid_evaluation(directory, problems_per_k, model)
        if evaluation is not None:
            record = Record.parse((model or read_weights(directory / MODEL_FILE)).metadata, directory / MODEL_FILE)
            return RunStatus(spec, "finished", "", record.step, loss, evaluation, ended=record.ended)
        step = Record.parse(model.metadata, model.path).step if model else spec.most_steps
    if (directory / FAILURE_FILE).exists():
        path = directory / FAILURE_FILE
        failure = without_digest(read_json(path), str(path), "Start the sweep again: it tries the run once more")
        error = ": ".join(filter(None, (failure.get("type"), failure.get("text"))))
        return RunStatus(spec, "failed", error, step, loss)
    if (directory / SPEC_FILE).exists():
        return RunStatus(spec, "unfinished", "", step, loss)
    return RunStatus(spec, "absent", earlier_task(spec, directory.parent), step, loss)


class UnseenRootError(OSError):
    """A worker does not see the folder of the sweep, so what it did would be lost."""


@dataclass(frozen=True)
class RunJob:
    """One run as a worker gets it.

    Attributes:
        root: Absolute; the run's directory is `root/<slug>`.
        token: What `root/.sweep-root` says, by which a worker knows that it sees the same folder.
        here: Working directory of the sweep, to which a task in a file is relative.
        problems_per_k: Most problems of each number of operands and side of the split in its evaluation.
    """

    spec: RunSpec
    root: Path
    token: str
    here: Path
    problems_per_k: int
    device: str = "cpu"

    @property
    def directory(self) -> Path:
        return self.root / self.spec.slug


def train_and_evaluate(job: RunJob) -> None:
    """Trains the run where it is not finished and evaluates it where that is missing.

    A run that another process is training is waited for: one that is lost to the network but alive gives its
    directory back only when it ends. Sets the CPU threads of the process to one for good.

    Raises:
        UnseenRootError: This machine does not see the folder of the sweep.
        CheckpointError, NonFiniteLossError: As `train`.
    """
    torch.set_num_threads(THREADS)
    check_root(job)
    (job.directory / FAILURE_FILE).unlink(missing_ok=True)
    with contextlib.chdir(job.here) if ":" in job.spec.task else contextlib.nullcontext():
        run = train_when_free(job.spec, job.directory, job.device)
        if not is_evaluated(job.directory, job.problems_per_k):
            evaluate(run, job.problems_per_k)


def train_when_free(spec: RunSpec, directory: Path, device: str) -> Run:
    """`train` on one thread, as soon as no other process is training in the directory."""
    while True:
        try:
            return train(spec, directory=directory, device=device, threads=THREADS)
        except DirectoryBusyError:
            time.sleep(BUSY_SECONDS)


def evaluate(run: Run, problems_per_k: int) -> Path:
    """Writes evaluation.json: free-running accuracy, and for the regime `tagging` that of the states it reads."""
    result = evaluate_run(run, max_per_k=problems_per_k)
    tags = _tags(run, result) if run.spec.regime == "tagging" else None
    return store_evaluation(run, result, problems_per_k=problems_per_k, tags=tags)


def _tags(run: Run, result: AccuracyResult) -> pd.DataFrame:
    """How often the state at the last operand is read right, on the problems of `result`, by split and k."""
    problems = {split: tuple(x.problem for x in result.of_split(split)) for split in ("train", "heldout")}
    frame = tag_accuracy(run.model, run.task, run.spec.regime, problems, run_seed=run.spec.seed).frame()
    return frame.loc[frame["reading"] == "tags", list(TAG_COLUMNS)]


def is_evaluated(directory: Path, problems_per_k: int) -> bool:
    """Whether evaluation.json is of the weights beside it and of that many problems."""
    return valid_evaluation(directory, problems_per_k) is not None


def valid_evaluation(directory: Path, problems_per_k: int, weights: Stored | None = None) -> dict[str, Any] | None:
    """What evaluation.json holds; None where there is none of the weights beside it and of so many problems.

    Args:
        weights: The file of weights, where it has been read already.

    Raises:
        CheckpointError: The weights are damaged, or of another run than the spec beside them.
    """
    try:
        record = read_evaluation(directory)
    except CheckpointError:
        return None
    if record is None or record.get("problems_per_k") != problems_per_k:
        return None
    model = read_model(directory, stored=weights)
    return record if record.get("weight_hash") == model.weight_hash else None


def mark_root(root: Path) -> str:
    """The token of a folder of runs, written into it by whoever comes first; one that is no token is replaced."""
    path = output_folder(root) / ROOT_FILE
    with _alone_in(path.parent):
        if not re.fullmatch(TOKEN, _token(path)):
            write_atomic(path, secrets.token_hex(8) + "\n")
        return _token(path)


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _token(path: Path) -> str:
    """What the file says; empty where it cannot be read."""
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def check_root(job: RunJob) -> None:
    """Raises UnseenRootError unless the folder of the sweep is the one that this process sees under its path."""
    with contextlib.suppress(OSError):
        os.listdir(job.root)  # a network file system looks again at a folder that is listed
    if _token(job.root / ROOT_FILE) != job.token:
        raise UnseenRootError(
            f"worker on {socket.gethostname()} does not see {job.root} as the sweep does: the folder of the runs must "
            "lie on a file system that all machines share, under the same path"
        )


def write_failure(job: RunJob, error: str, attempts: int) -> None:
    """Leaves failure.json in the run's directory: type and text of the error, and how often the run was started.

    Not where another process is training the run: it has not failed for good.
    """
    kind, _, text = without_root(error, job.root).partition(": ")
    if not kind.isidentifier():
        kind, text = "", without_root(error, job.root)
    record = {"type": kind, "text": text, "attempts": attempts}
    directory = output_folder(job.directory)
    with contextlib.suppress(DirectoryBusyError), sole_trainer(directory):
        write_atomic(directory / FAILURE_FILE, json.dumps(with_digest(record), indent=2) + "\n")


def without_root(text: str, root: Path) -> str:
    """A message in one line, with paths under `root` relative to it: it reads the same wherever the root lies."""
    return " ".join(text.replace(f"{root}/", "").replace(str(root), "the root").split())
