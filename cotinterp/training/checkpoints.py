"""Trained models on disk, `<root>/<slug>/{model.safetensors, spec.json, metrics.jsonl, evaluation.json}`.

A run that is not finished has its training state instead of its weights: both moments of AdamW and the step, in one
file that is whole or absent. A finished run is checked at every step before it is believed.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cotinterp.models.build import Bridge, as_bridge, build_module, resolve_device
from cotinterp.models.weights import (
    CheckpointError,
    load_weights,
    named_weights,
    read_metadata,
    read_tensors,
    write_tensors,
)
from cotinterp.models.weights import weight_hash as weight_hash
from cotinterp.results import output_folder, short_repr, write_atomic
from cotinterp.tasks import Task
from cotinterp.training.spec import RunSpec, json_hash
from cotinterp.training.spec_file import DEFAULT_ROOT as DEFAULT_ROOT
from cotinterp.training.spec_file import MODEL_FILE as MODEL_FILE
from cotinterp.training.spec_file import (
    SPEC_FILE,
    check_same_spec,
    find_run,
    read_json,
    read_spec,
    task_fingerprint,
    write_spec,
)
from cotinterp.training.spec_file import list_runs as list_runs
from cotinterp.transcripts.vocabulary import Vocabulary

STATE_FILE = "training_state.safetensors"
MOMENTS = ("exp_avg", "exp_avg_sq")


def installed_version() -> str:
    """Version of this package, "unknown" where it runs from a source tree that was never installed."""
    try:
        return version("cotinterp")
    except PackageNotFoundError:
        return "unknown"


@dataclass(frozen=True, kw_only=True)
class Record:
    """How far a run has come and what it was made of: the metadata of its safetensors files.

    Attributes:
        step: Updates done.
        elapsed_s: Seconds spent on them, over all processes that worked on the run.
        threads: CPU threads that computed them.
        spec: Hash of the run's spec.
        task: Fingerprint of its task.
        data: Hash of its training set.
        start: Hash of the weights that `start_from` names; "" where the run began with random ones, and not stored.
        cotinterp: Version that trained it.
        torch: Version of torch that computed it.
    """

    step: int
    elapsed_s: float
    threads: int
    spec: str
    task: str
    data: str
    start: str = ""
    cotinterp: str = field(default_factory=installed_version)
    torch: str = torch.__version__

    def metadata(self) -> dict[str, str]:
        """As safetensors stores it."""
        fields = {name: repr(value) if isinstance(value, float) else str(value) for name, value in vars(self).items()}
        return fields if self.start else {name: text for name, text in fields.items() if name != "start"}

    @classmethod
    def parse(cls, metadata: dict[str, str], path: Path) -> "Record":
        """From what safetensors stored. Raises CheckpointError where a field is missing or no number."""
        try:
            return cls(
                step=int(metadata["step"]),
                elapsed_s=float(metadata["elapsed_s"]),
                threads=int(metadata["threads"]),
                spec=metadata["spec"],
                task=metadata["task"],
                data=metadata["data"],
                start=metadata.get("start", ""),
                cotinterp=metadata["cotinterp"],
                torch=metadata["torch"],
            )
        except (KeyError, ValueError) as error:
            raise CheckpointError(f"{path} does not say how far its run had come ({error!r}); delete it") from error


def read_record(path: Path) -> Record:
    """How far the run had come whose state is in `path`."""
    return Record.parse(read_metadata(path), path)


def save_state(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, record: Record) -> None:
    """Replaces the state on disk by the present one."""
    write_tensors(path, _tensors(module, optimizer), record.metadata())


def restore_state(path: Path, module: nn.Module, optimizer: torch.optim.AdamW) -> None:
    """Puts weights and moments back as they were, bit for bit; the step count of every parameter is the run's.

    Values are copied into memory that torch allocated: sums over memory of another alignment can round otherwise.
    """
    step = read_record(path).step
    expected = {name: tuple(tensor.shape) for name, tensor in _weights(module).items()}
    expected |= {f"{moment}.{name}": shape for name, shape in expected.items() for moment in MOMENTS}
    saved = read_tensors(path, expected)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(saved[name])
            state = {moment: torch.empty_like(parameter).copy_(saved[f"{moment}.{name}"]) for moment in MOMENTS}
            optimizer.state[parameter] = {"step": torch.tensor(float(step), device=parameter.device), **state}


def _weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach() for name, parameter in module.named_parameters()}


def _tensors(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    moments = {
        f"{moment}.{name}": optimizer.state[parameter][moment]
        for name, parameter in module.named_parameters()
        for moment in MOMENTS
    }
    return {**_weights(module), **moments}


EVALUATION_FILE = "evaluation.json"


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

    def __repr__(self) -> str:
        return short_repr(self)

    @property
    def labels(self) -> dict[str, str | int]:
        """The columns that name this run in every table."""
        return {"task": self.task.name, "regime": self.spec.regime, "run_seed": self.spec.seed}


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
    directory = find_run(slug_or_path, root)
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
    # Of a finished run another process may be writing the evaluation.
    for leftover in () if is_finished(directory) else directory.glob(".*.tmp"):
        leftover.unlink(missing_ok=True)
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
