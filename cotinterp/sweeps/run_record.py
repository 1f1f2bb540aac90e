"""What the directory of a run says: how far it is, how it ended, what was measured on it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from cotinterp.models.weights import CheckpointError
from cotinterp.sweeps.engine import error_text
from cotinterp.sweeps.single_run import FAILURE_FILE, valid_evaluation, without_root
from cotinterp.training.checkpoints import MODEL_FILE, is_finished
from cotinterp.training.metrics import METRICS_FILE, last_metrics
from cotinterp.training.spec import RunSpec
from cotinterp.training.spec_file import SPEC_FILE, check_same_spec, read_json
from cotinterp.training.state import STATE_FILE

Status = Literal["finished", "unfinished", "failed", "absent"]
STATUSES: tuple[Status, ...] = get_args(Status)


@dataclass(frozen=True)
class RunRecord:
    """One run of a grid, as its files tell it.

    Attributes:
        status: `finished`: trained and evaluated. `unfinished`: begun; also one that is trained and not evaluated, or
            evaluated on another number of problems. `failed`: given up, or its directory holds something else.
            `absent`: nothing is there.
        error: Why it failed; paths are told from the root.
        step: Updates done, as far as they are logged.
        loss: Of the last logged update, in nats per scored token; NaN where there is none.
        evaluation: What evaluation.json holds, of a finished run.
    """

    spec: RunSpec
    status: Status
    error: str = ""
    step: int = 0
    loss: float = float("nan")
    evaluation: dict[str, Any] = field(default_factory=dict)


def read_record_of(spec: RunSpec, root: Path, problems_per_k: int) -> RunRecord:
    """How far the run of `spec` under `root` is. Reads its weights, to know that the evaluation is of them.

    Nothing is raised for files that are damaged or of another run: that is a record too, `failed`.
    """
    if foreign := is_foreign(spec, root):
        return RunRecord(spec, "failed", foreign)
    try:
        return _of_files(spec, root / spec.slug, problems_per_k)
    except (CheckpointError, OSError, ValueError) as error:
        return RunRecord(spec, "failed", without_root(error_text(error), root))


def is_foreign(spec: RunSpec, root: Path) -> str:
    """Why the directory of this run cannot be used, because it holds another run or no readable one; else empty."""
    directory = root / spec.slug
    try:
        if (directory / SPEC_FILE).exists():
            check_same_spec(directory, spec)
        elif strays := [name for name in (MODEL_FILE, STATE_FILE) if (directory / name).exists()]:
            raise CheckpointError(f"{directory} holds {strays} but no {SPEC_FILE}: move it away")
    except (CheckpointError, OSError) as error:
        return without_root(error_text(error), root)
    return ""


def _of_files(spec: RunSpec, directory: Path, problems_per_k: int) -> RunRecord:
    last = last_metrics(directory / METRICS_FILE)
    step, loss = int(last.get("step", 0)), float(last.get("loss", float("nan")))
    if is_finished(directory):
        step = spec.optimizer.steps
        evaluation = valid_evaluation(directory, problems_per_k)
        if evaluation is not None:
            return RunRecord(spec, "finished", "", step, loss, evaluation)
    if (directory / FAILURE_FILE).exists():
        failure = read_json(directory / FAILURE_FILE)
        error = ": ".join(filter(None, (failure.get("type"), failure.get("text"))))
        return RunRecord(spec, "failed", error, step, loss)
    return RunRecord(spec, "unfinished" if (directory / SPEC_FILE).exists() else "absent", "", step, loss)
