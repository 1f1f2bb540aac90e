"""The one training loop. It sees tokens and targets; what the response is, it never asks."""

import fcntl
import glob
import json
import math
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import torch

from cotinterp.models.build import resolve_device
from cotinterp.models.weights import AGAIN, CheckpointError, Stored, read_weights
from cotinterp.results import output_folder, write_atomic
from cotinterp.tasks import Task
from cotinterp.training.checkpoints import (
    STABLE_FILE,
    STATE_FILE,
    Record,
    Run,
    claim_directory,
    finish,
    is_finished,
    keep_snapshot,
    machine_of,
    read_record,
    read_run,
    restore_state,
    save_state,
)
from cotinterp.training.course import BEGINNING, Course
from cotinterp.training.distillation import teacher_states
from cotinterp.training.learner import Learner, Update, carry_over
from cotinterp.training.progress import METRICS_FILE, Callback, MetricsLog, StepEvent, read_metrics
from cotinterp.training.rewards import Verifier
from cotinterp.training.spec import OptimizerSpec, RunSpec
from cotinterp.training.spec_file import MODEL_FILE, SPEC_FILE, read_json, task_fingerprint, task_of
from cotinterp.training.tracking import Tracker

LOG_EVERY = 20
SPENT = ("sampled_tokens", "flops")
"""Of what is measured with rewards, what is summed up over the run."""


class NonFiniteLossError(ArithmeticError):
    """Training met NaN or infinity and stopped before it could spoil the last checkpoint.

    Attributes:
        step: The update that failed, from 1.
        lr: Its learning rate.
        checkpoint: File with the last good state and the updates done in it; None where none was written yet.
    """

    def __init__(self, what: str, *, step: int, lr: float, checkpoint: tuple[Path, int] | None) -> None:
        self.step, self.lr, self.checkpoint = step, lr, checkpoint
        good = f"{checkpoint[0]} (step {checkpoint[1]})" if checkpoint else "none was written yet"
        super().__init__(
            f"{what} at step {step}, learning rate {lr:.3g}. Last good checkpoint: {good}. "
            "Lower optimizer.lr, lengthen optimizer.warmup or lower optimizer.clip; the changed spec trains in a "
            "directory of its own"
        )


def train(
    spec: RunSpec,
    *,
    directory: Path,
    device: str = "auto",
    threads: int | None = None,
    checkpoint_every: int = 200,
    progress: Callback | None = None,
    tracker: Tracker | None = None,
) -> Run:
    """Trains what `spec` describes in `directory`, going on where an earlier process left off.

    The loss is the cross-entropy of the response tokens, averaged over all of them in the batch. A process killed at
    any moment loses at most `checkpoint_every` updates, and the weights in the end are those of an uninterrupted run,
    bit for bit, on the same machine, device and thread count. A finished run is loaded, not trained again.

    A run until it is converged keeps the state from which its decay began. Where that of a run with a shorter budget,
    or less patience, lies beside `directory` and the way to it was the same, training goes on from there: the weights
    are those that it would have had from the beginning.

    Args:
        spec: What to train.
        directory: The run's own folder, by custom `checkpoints/<spec.slug>`; made where it is missing.
        device: "auto", "cpu", "cuda", ...
        threads: CPU threads; by default those of the run's last process, or torch's present number. Another number than
            the run had gives other weights: `ResumedOtherwiseWarning`, and the record says so (`Record.mixed`).
        checkpoint_every: Updates between two saved states.
        progress: Called after every update.
        tracker: Also given what metrics.jsonl is given (`tracking.tracker`); of a finished run, all of it.

    Raises:
        CheckpointError: The directory holds another run, another process trains in it, the task is no longer the
            one that the run began with, or the run that it is to start from or its teacher is missing or does not
            fit.
        NonFiniteLossError: Loss, gradient or weights became NaN or infinite.
    """
    if checkpoint_every < 1 or (threads is not None and threads < 1):
        raise ValueError(f"checkpoint_every {checkpoint_every} and threads {threads} must be at least 1")
    place = resolve_device(device)
    task = task_of(spec)
    directory = output_folder(directory)
    with nullcontext() if is_finished(directory) else sole_trainer(directory):
        directory = claim_directory(directory, spec)
        if not is_finished(directory):
            state = directory / STATE_FILE
            saved = read_weights(state) if state.exists() else None
            record = Record.parse(saved.metadata, state) if saved else None
            with torch_threads(threads or (record.threads if record else None)):
                teacher = teacher_states(spec, task, directory, place) if spec.distill else None
                verifier = Verifier.of(spec, task, directory, place) if spec.rewards else None
                learner = Learner.begin(spec, task, place, teacher, verifier)
                first = _first_record(spec, task, learner, place)
                if saved is None and (saved := _shared_phase(first, spec, directory)) is not None:
                    first = replace(first, spec=Record.parse(saved.metadata, saved.path).spec)
                if saved is not None:
                    start = replace(_resume(learner, saved, first), spec=spec.sha256)
                else:
                    weights = carry_over(learner.module, spec, task, directory) if spec.start_from else ""
                    start = replace(first, start=weights)
                saved = None  # its file is mapped into memory
                _run(learner, start, directory, checkpoint_every, progress, tracker)
        elif tracker is not None:
            with tracker(spec, directory, read_metrics(directory / METRICS_FILE)):
                pass
    run = read_run(directory, device=str(place), task=task)
    # A process that was killed after it wrote the weights left it; now they are known to be sound.
    (directory / STATE_FILE).unlink(missing_ok=True)
    return run


class ResumedOtherwiseWarning(UserWarning):
    """A run goes on with other threads, another torch or another kind of processor: its weights will be others."""


class DirectoryBusyError(CheckpointError):
    """Another process is training in the directory."""


@contextmanager
def sole_trainer(directory: Path) -> Iterator[None]:
    """Keeps other processes from training in `directory` while the block runs; the lock goes with its process.

    Raises:
        DirectoryBusyError: Another process is at work there.
    """
    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise DirectoryBusyError(
            f"another process is training in {directory}: wait for it, or choose another directory"
        ) from error
    else:
        yield
    finally:
        os.close(handle)


@contextmanager
def torch_threads(threads: int | None) -> Iterator[int]:
    """Computes with so many CPU threads inside the block; None leaves the number alone. Yields the number."""
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def _first_record(spec: RunSpec, task: Task, learner: Learner, place: torch.device) -> Record:
    """What the run is made of, before its first update."""
    verifier = learner.verifier
    reference = verifier.reference if verifier else None
    teacher = learner.teacher or (verifier.teacher if verifier else None)
    return Record(
        step=0,
        elapsed_s=0.0,
        threads=torch.get_num_threads(),
        spec=spec.sha256,
        task=task_fingerprint(task),
        data=learner.data.sha256,
        adapter=learner.adapter,
        start=reference.weight_hash if reference else "",
        teacher=teacher.weight_hash if teacher else "",
        machine=machine_of(place),
        stable=spec.stable_sha256 if spec.optimizer.until == "converged" else "",
    )


def _shared_phase(first: Record, spec: RunSpec, directory: Path) -> Stored | None:
    """The furthest state beside `directory` that this run would have come to as well, bit for bit; and its log."""
    found: tuple[int, Stored] | None = None
    shares = first.stable and not spec.snapshots  # those of the way there would be missing
    for path in sorted(directory.parent.glob(f"{glob.escape(spec.slug[:-8])}*/{STABLE_FILE}")) if shares else ():
        try:
            stored = read_weights(path)
            there = Record.parse(stored.metadata, path)
            other = OptimizerSpec.model_validate(read_json(path.parent / SPEC_FILE)["optimizer"], strict=False)
        except (CheckpointError, OSError, KeyError, ValueError):
            continue  # it is another run's file: this one can do without it
        same = all(getattr(there, name) == getattr(first, name) for name in SHARED)
        longer = all(getattr(other, name) <= getattr(spec.optimizer, name) for name in ("patience", "settle_after"))
        in_time = Course.loads(there.course).began_by(spec, there.step)
        if same and longer and in_time and not there.mixed and (found is None or there.step > found[0]):
            found = there.step, stored
    if found is None:
        return None
    log = found[1].path.parent / METRICS_FILE
    if log.exists():
        write_atomic(directory / METRICS_FILE, log.read_bytes())
    return found[1]


SHARED = ("stable", "task", "data", "teacher", "threads", "machine", "torch", "cotinterp")
"""What two runs must have in common for the one to go on from the other's state."""


def _resume(learner: Learner, stored: Stored, start: Record) -> Record:
    """Puts the learner where the saved state was, and returns how far that is."""
    saved, state = Record.parse(stored.metadata, stored.path), stored.path
    if saved.spec != start.spec:
        raise CheckpointError(f"{state} is the state of another run than the {SPEC_FILE} beside it. {AGAIN}")
    parts = {"task": (saved.task, start.task), "training set": (saved.data, start.data)}
    parts |= {"start_from": (saved.start, start.start)} if start.start else {}
    for what, (there, here) in (parts | {"teacher": (saved.teacher, start.teacher)}).items():
        if there != here:
            raise CheckpointError(
                f"{state} belongs to a run whose {what} is no longer the same, so it cannot go on; restore the old "
                f"{what}, or delete {state.parent} to train anew"
            )
    passes = learner.spec.rewards.passes if learner.spec.rewards else 1
    restore_state(stored, learner.module, learner.optimizer, passes=passes)
    return replace(
        start,
        step=saved.step,
        elapsed_s=saved.elapsed_s,
        start=saved.start,
        course=saved.course,
        spent=saved.spent,
        mixed=_mixed(saved, start, state),
    )


def _mixed(saved: Record, here: Record, state: Path) -> str:
    """What is not as it was for the first updates of the run, for its record; warns of it."""
    changes = [
        f"{what} {there} to step {saved.step}, then {now}"
        for what, there, now in (
            ("threads", saved.threads, here.threads),
            ("torch", saved.torch, here.torch),
            ("machine", saved.machine, here.machine),
        )
        if there != now and there != ""
    ]
    if changes:
        warnings.warn(
            f"the run in {state.parent} goes on otherwise than it began: {'; '.join(changes)}. Its weights will not "
            "be, bit for bit, those of a run that was computed in one way; to have those, go on as it began, or delete "
            f"{state.name} and begin anew",
            ResumedOtherwiseWarning,
            stacklevel=4,
        )
    return "; ".join(filter(None, (saved.mixed, *changes)))


def _run(
    learner: Learner,
    start: Record,
    directory: Path,
    checkpoint_every: int,
    progress: Callback | None,
    tracker: Tracker | None,
) -> None:
    spec, pace = learner.spec, _Pace()
    every = spec.optimizer.check_every if spec.optimizer.until == "converged" else 0
    course, step = Course.loads(start.course).decided(spec, start.step), start.step
    spent: dict[str, float] = json.loads(start.spent or "{}")
    with MetricsLog(directory / METRICS_FILE, after=start.step) as log, ExitStack() as tracked:
        logs: list[Callable[[Mapping[str, int | float]], None]] = [log.write]
        if tracker is not None:
            logs.append(tracked.enter_context(tracker(spec, directory, read_metrics(directory / METRICS_FILE))))
        if step == 0 and step in spec.snapshots:
            keep_snapshot(directory, learner.module, start)
        while step < course.last(spec):
            update = learner.update(step, course)
            step = update.step
            _check_finite(update, directory)
            check = learner.check(step, course) if every and step % every == 0 and course.decay < 0 else None
            pace.add(update.tokens)
            seen = course.seen(check, every) if check else course
            course = seen.decided(spec, step)
            total = course.last(spec)
            spent = {name: spent.get(name, 0) + update.rewards[name] for name in SPENT if name in update.rewards}
            record = replace(start, step=step, elapsed_s=start.elapsed_s + pace.elapsed, ended=course.ended)
            record = replace(record, spent=json.dumps(spent)) if spent else record
            if course != BEGINNING:
                record = replace(record, course=course.dumps())
            if step == total or check or step % LOG_EVERY == 0:
                line = {
                    "step": step,
                    "loss": update.loss,
                    "lr": update.lr,
                    "grad_norm": update.grad_norm,
                    "tokens_per_second": round(pace.recent()),
                    "elapsed_s": round(record.elapsed_s, 3),
                    **({} if update.distance is None else {"distance": update.distance}),
                    **(check.logged() if check else {}),
                    **update.rewards,
                    **spent,
                }
                for write in logs:
                    write(line)
            if seen.decay < 0 <= course.decay:
                stable = replace(record, course=seen.dumps(), ended="")
                _save(learner, update, stable, directory / STABLE_FILE)
            if step in spec.snapshots and step < total:
                keep_snapshot(directory, learner.module, record)
            if step == total:
                _save(learner, update, record, directory / MODEL_FILE)
            elif step % checkpoint_every == 0:
                _save(learner, update, record, directory / STATE_FILE)
            if progress is not None:
                left = pace.elapsed / (step - start.step) * (total - step)
                progress(StepEvent(step, total, update.loss, update.lr, pace.mean, left))


def _check_finite(update: Update, directory: Path) -> None:
    for name, value in (("loss", update.loss), ("norm of the gradient", update.grad_norm)):
        if not math.isfinite(value):
            raise _failure(f"the {name} became {value}", update, directory)


def _save(learner: Learner, update: Update, record: Record, path: Path) -> None:
    if not learner.is_finite():
        raise _failure("weights became NaN or infinite", update, path.parent)
    if path.name == MODEL_FILE:
        finish(path.parent, learner.module, record)
    else:
        save_state(path, learner.module, learner.optimizer, record)


def _failure(what: str, update: Update, directory: Path) -> NonFiniteLossError:
    state = directory / STATE_FILE
    good = (state, read_record(state).step) if state.exists() else None
    return NonFiniteLossError(what, step=update.step, lr=update.lr, checkpoint=good)


class _Pace:
    """Counts tokens against the clock."""

    def __init__(self) -> None:
        self.began = self.marked = self.now = time.perf_counter()
        self.tokens = self.marked_tokens = 0

    def add(self, tokens: int) -> None:
        self.tokens += tokens
        self.now = time.perf_counter()

    @property
    def elapsed(self) -> float:
        return self.now - self.began

    @property
    def mean(self) -> float:
        """Tokens per second so far."""
        return self.tokens / max(self.elapsed, 1e-9)

    def recent(self) -> float:
        """Tokens per second since this was last asked."""
        rate = (self.tokens - self.marked_tokens) / max(self.now - self.marked, 1e-9)
        self.marked, self.marked_tokens = self.now, self.tokens
        return rate
