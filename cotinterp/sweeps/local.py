"""Training many runs on this machine, side by side."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from cotinterp.results import output_folder
from cotinterp.sweeps.engine import Answer
from cotinterp.sweeps.processes import deal
from cotinterp.sweeps.single_run import THREADS as THREADS
from cotinterp.sweeps.standing import Standing, Watch, standings
from cotinterp.tasks import get_task
from cotinterp.training.checkpoints import CheckpointError, is_finished
from cotinterp.training.loop import train
from cotinterp.training.metrics import METRICS_FILE, read_metrics
from cotinterp.training.spec import RunSpec
from cotinterp.training.spec_file import check_same_spec
from cotinterp.transcripts.render import longest_transcript


@dataclass(frozen=True)
class Outcome:
    """What became of one run of a sweep.

    Attributes:
        status: `trained` now, `present` (it was finished before and was left alone), or `failed`.
        error: Type and text of what went wrong; empty otherwise.
        seconds: Wall time of this sweep's part of the training; 0 for what was present. A run that went on where an
            earlier process left off took longer in all: its metrics say how long.
        attempts: How often it was begun by this sweep.
    """

    spec: RunSpec
    directory: Path
    status: Literal["trained", "present", "failed"]
    error: str
    seconds: float
    attempts: int = 0


def train_all(
    specs: Sequence[RunSpec],
    *,
    root: Path,
    jobs: int = 2,
    device: str = "cpu",
    progress: Watch | None = None,
) -> tuple[Outcome, ...]:
    """Trains every spec under `root/<slug>`, `jobs` at a time on one CPU thread each; one outcome for each spec.

    Those with the longest transcripts begin first, which keeps all processes busy to the end. A finished run is left as
    it is; a run that was killed goes on where it was. A run that fails (a loss that is not finite, a
    directory that holds another run, a process that died) is listed and stops no other. The weights do not depend on
    `jobs` or on the order of the specs.

    Args:
        specs: Equal ones are trained once.
        root: Folder of the checkpoints; made where it is missing.
        jobs: Processes; 0 trains in this one, one after the other.
        progress: Told twice a second how far each run is; `rich_standing` shows it on a terminal.

    Raises:
        ValueError: Fewer jobs than 0. NotADirectoryError, PermissionError: `root` cannot be written.
    """
    root = output_folder(root)
    ordered = sorted(dict.fromkeys(specs), key=transcript_length, reverse=True)
    present = [spec for spec in ordered if _is_present(spec, root / spec.slug)]
    absent = [spec for spec in ordered if spec not in present]
    directories = [root / spec.slug for spec in absent]

    def watch(done: frozenset[int]) -> None:
        if progress is not None:
            there = [Standing(spec.slug, "done", 1.0) for spec in present]
            under_way = standings([spec.slug for spec in absent], done, jobs)
            progress([*there, *map(_with_metrics, under_way, absent, directories)])

    work = [(spec, directory, device) for spec, directory in zip(absent, directories, strict=True)]
    answers = deal(_train, work, jobs=jobs, watch=watch)
    found = {spec: Outcome(spec, root / spec.slug, "present", "", 0.0) for spec in present}
    found |= {spec: outcome_of(spec, root, answer) for spec, answer in zip(absent, answers, strict=True)}
    return tuple(found[spec] for spec in specs)


def transcript_length(spec: RunSpec) -> int:
    """Tokens of the longest transcript of a run: what its training takes grows with it."""
    return longest_transcript(get_task(spec.task), spec.k_max, spec.regime)


def _is_present(spec: RunSpec, directory: Path) -> bool:
    try:
        check_same_spec(directory, spec)
    except (OSError, CheckpointError):
        return False
    return is_finished(directory)


def outcome_of(spec: RunSpec, root: Path, answer: Answer[None]) -> Outcome:
    """What an answer says of a run that was not finished before."""
    status: Literal["trained", "failed"] = "failed" if answer.error else "trained"
    return Outcome(spec, root / spec.slug, status, answer.error, answer.seconds, answer.attempts)


def _train(work: tuple[RunSpec, Path, str]) -> None:
    spec, directory, device = work
    train(spec, directory=directory, device=device, threads=THREADS)


def _with_metrics(standing: Standing, spec: RunSpec, directory: Path) -> Standing:
    if standing.state == "done" or not (logged := read_metrics(directory / METRICS_FILE)):
        return standing
    last = logged[-1]
    return replace(standing, share=last["step"] / spec.optimizer.steps, note=f"loss {last['loss']:.4f}")
