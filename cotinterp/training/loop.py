"""The one training loop. It sees tokens and targets; what the response is, it never asks."""

import fcntl
import math
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import torch

from cotinterp.models.build import resolve_device
from cotinterp.models.weights import AGAIN, CheckpointError, Stored, read_weights
from cotinterp.results import output_folder
from cotinterp.tasks import Task
from cotinterp.training.checkpoints import (
    STATE_FILE,
    Record,
    Run,
    claim_directory,
    finish,
    is_finished,
    machine_of,
    read_record,
    read_run,
    restore_state,
    save_state,
)
from cotinterp.training.learner import Learner, Update, carry_over
from cotinterp.training.progress import METRICS_FILE, Callback, MetricsLog, StepEvent
from cotinterp.training.spec import RunSpec
from cotinterp.training.spec_file import SPEC_FILE, task_fingerprint, task_of

LOG_EVERY = 20


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
) -> Run:
    """Trains what `spec` describes in `directory`, going on where an earlier process left off.

    The loss is the cross-entropy of the response tokens, averaged over all of them in the batch. A process killed at
    any moment loses at most `checkpoint_every` updates, and the weights in the end are those of an uninterrupted run,
    bit for bit, on the same machine, device and thread count. A finished run is loaded, not trained again.

    Args:
        spec: What to train.
        directory: The run's own folder, by custom `checkpoints/<spec.slug>`; made where it is missing.
        device: "auto", "cpu", "cuda", ...
        threads: CPU threads; by default those of the run's last process, or torch's present number. Another number than
            the run had gives other weights: `ResumedOtherwiseWarning`, and the record says so (`Record.mixed`).
        checkpoint_every: Updates between two saved states.
        progress: Called after every update.

    Raises:
        CheckpointError: The directory holds another run, another process trains in it, the task is no longer the
            one that the run began with, or the run that it is to start from is missing or does not fit.
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
                learner = Learner.begin(spec, task, place)
                if saved is not None:
                    start = _resume(learner, saved, _first_record(spec, task, learner, place))
                else:
                    weights = carry_over(learner.module, spec, task, directory) if spec.start_from else ""
                    start = replace(_first_record(spec, task, learner, place), start=weights)
                saved = None  # its file is mapped into memory
                _run(learner, start, directory, checkpoint_every, progress)
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
    return Record(
        step=0,
        elapsed_s=0.0,
        threads=torch.get_num_threads(),
        spec=spec.sha256,
        task=task_fingerprint(task),
        data=learner.data.sha256,
        machine=machine_of(place),
    )


def _resume(learner: Learner, stored: Stored, start: Record) -> Record:
    """Puts the learner where the saved state was, and returns how far that is."""
    saved, state = Record.parse(stored.metadata, stored.path), stored.path
    if saved.spec != start.spec:
        raise CheckpointError(f"{state} is the state of another run than the {SPEC_FILE} beside it. {AGAIN}")
    for what, there, here in (("task", saved.task, start.task), ("training set", saved.data, start.data)):
        if there != here:
            raise CheckpointError(
                f"{state} belongs to a run whose {what} is no longer the same, so it cannot go on; restore the old "
                f"{what}, or delete {state.parent} to train anew"
            )
    restore_state(stored, learner.module, learner.optimizer)
    return replace(
        start, step=saved.step, elapsed_s=saved.elapsed_s, start=saved.start, mixed=_mixed(saved, start, state)
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


def _run(learner: Learner, start: Record, directory: Path, checkpoint_every: int, progress: Callback | None) -> None:
    total, pace = learner.spec.optimizer.steps, _Pace()
    with MetricsLog(directory / METRICS_FILE, after=start.step) as log:
        for step in range(start.step, total):
            update = learner.update(step)
            _check_finite(update, directory)
            pace.add(update.tokens)
            last = update.step == total
            record = replace(start, step=update.step, elapsed_s=start.elapsed_s + pace.elapsed)
            if last or update.step % LOG_EVERY == 0:
                log.write(
                    {
                        "step": update.step,
                        "loss": update.loss,
                        "lr": update.lr,
                        "grad_norm": update.grad_norm,
                        "tokens_per_second": round(pace.recent()),
                        "elapsed_s": round(record.elapsed_s, 3),
                    }
                )
            if last or update.step % checkpoint_every == 0:
                _save(learner, update, record, directory)
            if progress is not None:
                left = pace.elapsed / (update.step - start.step) * (total - update.step)
                progress(StepEvent(update.step, total, update.loss, update.lr, pace.mean, left))


def _check_finite(update: Update, directory: Path) -> None:
    for name, value in (("loss", update.loss), ("norm of the gradient", update.grad_norm)):
        if not math.isfinite(value):
            raise _failure(f"the {name} became {value}", update, directory)


def _save(learner: Learner, update: Update, record: Record, directory: Path) -> None:
    if not learner.is_finite():
        raise _failure("weights became NaN or infinite", update, directory)
    if update.step == learner.spec.optimizer.steps:
        finish(directory, learner.module, record)
    else:
        save_state(directory / STATE_FILE, learner.module, learner.optimizer, record)


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
