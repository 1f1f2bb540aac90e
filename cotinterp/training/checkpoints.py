"""Trained models on disk: <root>/<slug>/{model.safetensors, spec.json, metrics.jsonl, evaluation.json}."""

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from cotinterp.models.build import Bridge, as_bridge, build_module
from cotinterp.models.device import resolve_device
from cotinterp.models.weights import CheckpointError as CheckpointError
from cotinterp.models.weights import load_weights, named_weights, read_metadata, read_tensors, write_tensors
from cotinterp.models.weights import weight_hash as weight_hash
from cotinterp.results import output_folder, write_atomic
from cotinterp.tasks import Task
from cotinterp.training.fingerprint import task_fingerprint
from cotinterp.training.spec import RunSpec, json_hash
from cotinterp.training.spec_file import SPEC_FILE, check_same_spec, read_json, read_spec, write_spec
from cotinterp.training.state import STATE_FILE, Record, read_record
from cotinterp.transcripts.vocabulary import Vocabulary

MODEL_FILE = "model.safetensors"
EVALUATION_FILE = "evaluation.json"
DEFAULT_ROOT = Path("checkpoints")


@dataclass(frozen=True, eq=False)
class Run:
    """A trained model and everything that says what it is.

    Attributes:
        spec: What was trained.
        task: The task itself, checked to be the one of the training.
        vocabulary: Its symbols in token order.
        model: The model with hooks, in eval mode.
        directory: Where it was loaded from.
        weight_hash: SHA-256 of the weights.
        metadata: What training recorded: steps, elapsed seconds, threads, hashes of spec, task and training set.
    """

    spec: RunSpec
    task: Task
    vocabulary: Vocabulary
    model: Bridge
    directory: Path
    weight_hash: str
    metadata: Mapping[str, str]

    @property
    def labels(self) -> dict[str, str | int]:
        """The columns that name this run in every table."""
        return {"task": self.task.name, "regime": self.spec.regime, "seed": self.spec.seed}


def load_run(
    slug_or_path: str | Path, *, root: Path = DEFAULT_ROOT, device: str = "cpu", task: str | Task | None = None
) -> Run:
    """The trained model of a slug under `root`, or of a directory, checked at every step before it is believed.

    Sizes are checked before anything is allocated, names and shapes of the weights before any is read, and the task
    against the fingerprint of the one that was trained. No file of a checkpoint can run code.

    Args:
        slug_or_path: Name of a directory under `root`, or a path.
        root: Where checkpoints live.
        device: "cpu", "auto", "cuda", ...
        task: Needed where the run's task lies in a file or is not registered: `path/to/file.py:ClassName` or a Task.

    Raises:
        FileNotFoundError: No such checkpoint; those of the same task and regime and the nearest names are given.
        CheckpointError: It is unfinished, damaged, or does not fit its spec or its task.
    """
    directory = _find(slug_or_path, root)
    place = resolve_device(device)
    spec, known_task = read_spec(directory, task)
    metadata = _checked_metadata(directory, spec, known_task)
    vocabulary = Vocabulary.of(known_task)
    expected = named_weights(build_module(spec.model, len(vocabulary), seed=0, device="meta"))
    tensors = read_tensors(directory / MODEL_FILE, {name: tuple(meta.shape) for name, meta in expected.items()})
    module = build_module(spec.model, len(vocabulary), seed=0)
    load_weights(module, tensors)
    model = as_bridge(module.to(place))
    return Run(spec, known_task, vocabulary, model, directory, weight_hash(model), metadata)


def list_runs(root: Path = DEFAULT_ROOT) -> tuple[str, ...]:
    """Slugs of the finished runs under `root`, sorted."""
    finished = (path.parent for path in root.glob(f"*/{MODEL_FILE}"))
    return tuple(sorted(directory.name for directory in finished if (directory / SPEC_FILE).exists()))


def read_evaluation(directory: Path) -> dict[str, Any] | None:
    """What evaluation.json holds; None where the run was not evaluated yet."""
    path = directory / EVALUATION_FILE
    return read_json(path) if path.exists() else None


def write_evaluation(directory: Path, evaluation: Mapping[str, Any]) -> Path:
    """Stores the evaluation of a run beside its weights."""
    text = json.dumps(dict(evaluation), indent=2, allow_nan=False)
    return write_atomic(directory / EVALUATION_FILE, text + "\n")


def claim_directory(directory: Path, spec: RunSpec) -> Path:
    """The folder made ready for a run of `spec`: new, or that of the same run.

    Raises:
        CheckpointError: It holds another run, or weights of unknown origin.
        NotADirectoryError: It is a file.
    """
    directory = output_folder(directory)
    for leftover in directory.glob(".*.tmp"):
        leftover.unlink()
    if (directory / SPEC_FILE).exists():
        check_same_spec(directory, spec)
    elif strays := [name for name in (MODEL_FILE, STATE_FILE) if (directory / name).exists()]:
        raise CheckpointError(f"{directory} holds {strays} but no {SPEC_FILE}: choose another directory")
    else:
        write_spec(directory, spec)
    return directory


def is_finished(directory: Path) -> bool:
    """Whether the run in this folder has its final weights."""
    return (directory / MODEL_FILE).exists()


def finish(directory: Path, module: nn.Module, record: Record) -> None:
    """Writes the final weights and drops the state that training would have resumed from."""
    write_tensors(directory / MODEL_FILE, named_weights(module), record.metadata())
    (directory / STATE_FILE).unlink(missing_ok=True)


def _checked_metadata(directory: Path, spec: RunSpec, task: Task) -> dict[str, str]:
    path = directory / MODEL_FILE
    if not path.exists():
        state = directory / STATE_FILE
        done = read_record(state).step if state.exists() else 0
        raise CheckpointError(
            f"{directory} is not finished: {done} of {spec.optimizer.steps} steps done. Train its spec in that "
            "directory again; it goes on from there"
        )
    metadata = read_metadata(path)
    record = Record.parse(metadata, path)
    if record.spec != json_hash(read_json(directory / SPEC_FILE)):
        raise CheckpointError(f"{path} was not trained with the {SPEC_FILE} beside it; restore both or train again")
    if record.task != task_fingerprint(task):
        raise CheckpointError(
            f"task {task.name!r} is not the one that {path} was trained on: its name, operands, states, symbols or "
            "transition differ. Restore the old task, pass the right one as task=..., or train again"
        )
    return metadata


def _find(slug_or_path: str | Path, root: Path) -> Path:
    for directory in (Path(slug_or_path), root / slug_or_path):
        if (directory / SPEC_FILE).exists():
            return directory
        if (directory / MODEL_FILE).exists():
            raise CheckpointError(f"{directory} holds {MODEL_FILE} but no {SPEC_FILE}; restore it or train again")
    wanted, runs = Path(slug_or_path).name, list_runs(root)
    kind = re.sub(r"-L\d+-s\d+-[0-9a-f]*$", "", wanted)
    same = [run for run in runs if re.fullmatch(re.escape(kind) + r"-L\d+-s\d+-[0-9a-f]{8}", run)]
    near = [run for run in difflib.get_close_matches(wanted, runs, n=3, cutoff=0.3) if run not in same]
    found = [f"Trained with the same task and regime: {same}."] if same else []
    found += [f"Nearest: {near}."] if near else []
    there = " ".join(found) or f"There are {len(runs)} checkpoints."
    raise FileNotFoundError(
        f"no checkpoint {str(slug_or_path)!r} under {root}. {there} Give a slug, or the path of a run's directory"
    )
