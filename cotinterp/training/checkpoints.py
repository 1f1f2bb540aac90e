"""Trained models on disk, `<root>/<slug>/{model.safetensors, spec.json, metrics.jsonl, evaluation.json}`.

A run that is not finished has its training state instead of its weights: both moments of AdamW and the step, in one
file that is whole or absent. A finished run is checked at every step before it is believed.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cotinterp.models.adapters import merged
from cotinterp.models.build import Bridge, as_bridge, build_module, fast_bfloat16, resolve_device
from cotinterp.models.spec import DIGEST
from cotinterp.models.weights import (
    AGAIN,
    CheckpointError,
    Stored,
    load_weights,
    named_weights,
    read_unsealed,
    read_weights,
    write_weights,
)
from cotinterp.models.weights import weight_hash as weight_hash
from cotinterp.results import facts_html, output_folder, short_repr, write_atomic
from cotinterp.tasks import Task
from cotinterp.training.progress import METRICS_FILE, sealed_metrics
from cotinterp.training.spec import RunSpec, fields_hash
from cotinterp.training.spec_file import DEFAULT_ROOT as DEFAULT_ROOT
from cotinterp.training.spec_file import MODEL_FILE as MODEL_FILE
from cotinterp.training.spec_file import (
    SPEC_FILE,
    check_same_spec,
    find_run,
    read_json,
    read_spec,
    task_fingerprint,
    with_digest,
    without_digest,
    write_spec,
)
from cotinterp.training.spec_file import list_runs as list_runs
from cotinterp.transcripts.vocabulary import Vocabulary

STATE_FILE = "training_state.safetensors"
STABLE_FILE = "stable_state.safetensors"
"""Of a run until it is converged, the state at which its decay began: a longer budget goes on from there."""
MOMENTS = ("exp_avg", "exp_avg_sq")


def installed_version() -> str:
    """Version of this package, "unknown" where it runs from a source tree that was never installed."""
    try:
        return version("cotinterp")
    except PackageNotFoundError:
        return "unknown"


OPTIONAL = ("start", "adapter", "teacher", "machine", "mixed", "course", "ended", "stable", "spent")
"""Fields of `Record` that a file may lack."""


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
        adapter: Of a run with one, what it is and how many values are trained of how many, and that it is merged, once
            it is; "" of others, and not stored.
        teacher: Hash of the weights of the teacher that `distill` names; "" without one, and not stored.
        machine: What computed them (`machine_of`); "" where a file of version 0.1 does not say.
        mixed: What changed between the processes that worked on the run, such as their threads, so that its weights are
            not bit for bit those of one process; "" where nothing did, and not stored.
        course: Of a run with stages or until it is converged, where it is (`training.course.Course`) as JSON; "" of
            others, and not stored.
        ended: Why it ended: "solved", "settled" or "budget"; "" of a fixed number of updates, and not stored.
        stable: Of a run until it is converged, the hash of what decides its stable phase; else "", and not stored.
        spent: Of a run that is taught by rewards, the tokens that were drawn for it and the FLOPs of drawing and
            training, as JSON; "" of others, and not stored.
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
    adapter: str = ""
    teacher: str = ""
    machine: str = ""
    mixed: str = ""
    course: str = ""
    ended: str = ""
    stable: str = ""
    spent: str = ""
    cotinterp: str = field(default_factory=installed_version)
    torch: str = torch.__version__

    def metadata(self) -> dict[str, str]:
        """As safetensors stores it."""
        fields = {name: repr(value) if isinstance(value, float) else str(value) for name, value in vars(self).items()}
        return {name: text for name, text in fields.items() if text or name not in OPTIONAL}

    @classmethod
    def parse(cls, metadata: Mapping[str, str], path: Path) -> "Record":
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
                adapter=metadata.get("adapter", ""),
                teacher=metadata.get("teacher", ""),
                machine=metadata.get("machine", ""),
                mixed=metadata.get("mixed", ""),
                course=metadata.get("course", ""),
                ended=metadata.get("ended", ""),
                stable=metadata.get("stable", ""),
                spent=metadata.get("spent", ""),
                cotinterp=metadata["cotinterp"],
                torch=metadata["torch"],
            )
        except (KeyError, ValueError) as error:
            raise CheckpointError(f"{path} does not say how far its run had come ({error!r}); delete it") from error


def machine_of(device: torch.device) -> str:
    """The kind of processor and whether it multiplies bfloat16 in hardware: another kind rounds in another way."""
    kind = torch.backends.cpu.get_cpu_capability() if device.type == "cpu" else _accelerator(device)
    return f"{device.type} {kind}{' bfloat16' if fast_bfloat16(device) else ''}"


def _accelerator(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "accelerator"


def read_record(path: Path) -> Record:
    """How far the run had come whose weights or state are in `path`; the file is read, to know that it is sound."""
    return Record.parse(read_weights(path).metadata, path)


def save_state(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, record: Record) -> None:
    """Replaces the state on disk by the present one."""
    write_weights(path, _tensors(module, optimizer), record.metadata())


def restore_state(stored: Stored, module: nn.Module, optimizer: torch.optim.AdamW, *, passes: int = 1) -> None:
    """Puts weights and moments back as they were, bit for bit; the step count of every parameter is the run's.

    `passes` are the steps of the optimizer in an update.

    Values are copied into memory that torch allocated: sums over memory of another alignment can round otherwise.
    """
    step = passes * Record.parse(stored.metadata, stored.path).step
    learned = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    expected = {name: tuple(tensor.shape) for name, tensor in _weights(module).items()}
    expected |= {f"{moment}.{name}": shape for name, shape in expected.items() if name in learned for moment in MOMENTS}
    saved = stored.fitting(expected)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(saved[name])
            if name not in learned:
                continue
            state = {moment: torch.empty_like(parameter).copy_(saved[f"{moment}.{name}"]) for moment in MOMENTS}
            optimizer.state[parameter] = {"step": torch.tensor(float(step), device=parameter.device), **state}


def _weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach() for name, parameter in module.named_parameters()}


def _tensors(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    moments = {
        f"{moment}.{name}": optimizer.state[parameter][moment]
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
        for moment in MOMENTS
    }
    return {**_weights(module), **moments}


EVALUATION_FILE = "evaluation.json"
EVALUATE_AGAIN = (
    "The weights are not concerned: delete it and evaluate the run again (`cotinterp evaluate --store`, or the sweep)"
)
SLUG = r".+-L\d+-s\d+-[0-9a-f]{8}"


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

    def _repr_html_(self) -> str:
        """What was trained, for a notebook."""
        spec, shape = self.spec, self.spec.model
        facts = {
            "slug": spec.slug,
            "task": self.task.name,
            "regime": spec.regime,
            "problems": f"{spec.n_train:,} of {spec.k_min} to {spec.k_max} operands",
            "model": f"{shape.depth} layers, {shape.n_heads} heads, d_model {shape.d_model}, d_mlp {shape.d_mlp}",
            "architecture": shape.architecture,
            "adapter": self.metadata.get("adapter", ""),
            "updates": self.metadata.get("step", ""),
            "ended": self.metadata.get("ended", ""),
            "directory": str(self.directory),
        }
        return facts_html(self, {name: value for name, value in facts.items() if value})

    @property
    def labels(self) -> dict[str, str | int]:
        """The columns that name this run in every table."""
        return {"task": self.task.name, "regime": self.spec.regime, "run_seed": self.spec.seed}


def load_run(
    slug_or_path: str | Path,
    *,
    root: Path = DEFAULT_ROOT,
    device: str = "cpu",
    task: str | Task | None = None,
    step: int | None = None,
) -> Run:
    """The trained model of a slug under `root`, or of a directory, checked at every step before it is believed.

    The weights are held against the digest in their file, the spec against the hash there, the task against the
    fingerprint there, and sizes are checked before anything is allocated. No file of a checkpoint can run code.

    Args:
        slug_or_path: Name of a directory under `root`, or a path.
        root: Where checkpoints live.
        device: "cpu", "auto", "cuda", ...
        task: Needed where the run's task lies in a file or is not registered: `path/to/file.py:ClassName` or a Task.
        step: The weights after so many updates, of a run that kept them (`RunSpec.snapshots`, `kept_snapshots`); by
            default the final ones.

    Raises:
        FileNotFoundError: No such checkpoint; those of the same task and regime and the nearest names are given. No
            such snapshot; those that were kept are given.
        CheckpointError: It is unfinished, damaged, or does not fit its spec or its task.
    """
    directory = find_run(slug_or_path, root)
    run = read_run(directory, device=device, task=task, step=step)
    # By the file: a run of a task of one's own from before there were definitions has the slug that it then had.
    slug = run.spec.slug[:-8] + _spec_hash(directory)[:8]
    if re.fullmatch(SLUG, directory.name) and directory.name != slug:
        raise CheckpointError(
            f"{directory} holds the run {slug}, not the one of its name: restore its files or rename the directory"
        )
    return run


def load_beside(directory: Path, slug: str, field: str, spec: RunSpec, task: Task, *, device: str = "cpu") -> Run:
    """The finished run beside `directory` that a field of `spec` names by its slug.

    Raises:
        CheckpointError: It is missing, unfinished or damaged.
    """
    there = directory.parent / slug
    if not is_finished(there):
        raise CheckpointError(
            f"{field} of {spec.slug} is {slug!r}, and there is no finished run in {there}; train that one first, in a "
            "directory of that name beside this one"
        )
    fields = read_json(there / SPEC_FILE)
    same = fields.get("task") == spec.task or (spec.definition and fields.get("definition") == spec.definition)
    return load_run(there, device=device, task=task if same else None)


def read_run(directory: Path, *, device: str = "cpu", task: str | Task | None = None, step: int | None = None) -> Run:
    """`load_run` of a directory whatever its name, which its owner knows to be that of the run."""
    place = resolve_device(device)
    spec, known_task = read_spec(directory, task)
    if not is_finished(directory):
        state = directory / STATE_FILE
        done = read_record(state).step if state.exists() else 0
        raise CheckpointError(
            f"{directory} is not finished: {done} of {spec.most_steps} steps done. Train its spec in that "
            "directory again; it goes on from there"
        )
    kept = None if step is None else _snapshot(directory, step)
    stored = read_model(directory, known_task, stored=kept)
    vocabulary = Vocabulary.of(known_task)
    tensors = stored.fitting(_shapes(spec, vocabulary))
    module = build_module(spec.model, len(vocabulary), seed=0)
    load_weights(module, tensors)
    model = as_bridge(module.to(place))
    return Run(spec, known_task, vocabulary, model, directory, stored.weight_hash, stored.metadata)


SNAPSHOTS = "snapshots"
"""Folder of a run with the weights that it had along the way, a file for each update of `RunSpec.snapshots`."""


def keep_snapshot(directory: Path, module: nn.Module, record: Record) -> None:
    """Writes the present weights of a run that goes on, an adapter merged."""
    output_folder(directory / SNAPSHOTS)
    _write_merged(_snapshot_file(directory, record.step), module, record)


def _write_merged(path: Path, module: nn.Module, record: Record) -> None:
    if record.adapter:
        module, record = merged(module), replace(record, adapter=f"{record.adapter}, merged")
    write_weights(path, named_weights(module), record.metadata())


def kept_snapshots(directory: Path) -> tuple[int, ...]:
    """The updates after which a run kept its weights, ascending; its final ones are not among them."""
    names = [path.stem for path in (directory / SNAPSHOTS).glob("*.safetensors")]
    return tuple(sorted(int(name) for name in names if name.isdigit()))


def _snapshot_file(directory: Path, step: int) -> Path:
    return directory / SNAPSHOTS / f"{step:08d}.safetensors"


def _snapshot(directory: Path, step: int) -> Stored:
    if not (path := _snapshot_file(directory, step)).is_file():
        raise FileNotFoundError(
            f"{directory} kept no weights after {step} updates; kept: {list(kept_snapshots(directory)) or 'none'}. "
            "RunSpec.snapshots says when a run keeps them"
        )
    stored = read_weights(path)
    if (there := Record.parse(stored.metadata, path).step) != step:
        raise CheckpointError(f"{path} holds the weights after {there} updates, not those of its name: rename it")
    return stored


def _shapes(spec: RunSpec, vocabulary: Vocabulary) -> dict[str, tuple[int, ...]]:
    expected = named_weights(build_module(spec.model, len(vocabulary), seed=0, device="meta"))
    return {name: tuple(meta.shape) for name, meta in expected.items()}


def read_model(directory: Path, task: Task | None = None, *, stored: Stored | None = None) -> Stored:
    """The weights of a finished run as they are in their file; no model is built.

    Args:
        stored: That file, or a snapshot, where it has been read already.

    Raises:
        CheckpointError: The file is damaged, or was not trained with the spec.json beside it, or not on `task`, where
            one is given.
    """
    stored = read_weights(directory / MODEL_FILE) if stored is None else stored
    record = Record.parse(stored.metadata, stored.path)
    if record.spec != _spec_hash(directory):
        raise CheckpointError(
            f"{stored.path} was not trained with the {SPEC_FILE} beside it; restore both or train again"
        )
    if task is not None and record.task != task_fingerprint(task):
        raise CheckpointError(
            f"task {task.name!r} is not the one that {stored.path} was trained on: its name, operands, states, symbols "
            "or transition differ. Restore the old task, pass the right one as task=..., or train again"
        )
    return stored


def _spec_hash(directory: Path) -> str:
    try:
        return fields_hash(read_json(directory / SPEC_FILE))
    except CheckpointError:
        raise
    except ValueError:  # NaN or infinity, which no spec holds
        return ""


def read_evaluation(directory: Path) -> dict[str, Any] | None:
    """What evaluation.json holds; None where the run was not evaluated yet.

    Raises:
        CheckpointError: It is not what `write_evaluation` wrote.
    """
    path = directory / EVALUATION_FILE
    return without_digest(read_json(path), str(path), EVALUATE_AGAIN) if path.exists() else None


def write_evaluation(directory: Path, evaluation: Mapping[str, Any]) -> Path:
    """Stores the evaluation of a run beside its weights, with a digest of it."""
    text = json.dumps(with_digest(evaluation), indent=2, allow_nan=False)
    return write_atomic(directory / EVALUATION_FILE, text + "\n")


def claim_directory(directory: Path, spec: RunSpec) -> Path:
    """The folder made ready for a run of `spec`: new, or that of the same run.

    Raises:
        CheckpointError: It holds another run, or weights of unknown origin.
        NotADirectoryError: It is a file.
    """
    directory = output_folder(directory)
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
    """Writes the final weights, an adapter merged, and drops the state that training would have resumed from."""
    _write_merged(directory / MODEL_FILE, module, record)
    (directory / STATE_FILE).unlink(missing_ok=True)


def seal(directory: Path | str, task: str | Task | None = None) -> Run:
    """Adds the digests that version 0.1 did not write to a finished run, and loads it. What has one is only checked.

    Before that the weights are held against what is known of them: the spec beside them, the shapes that it says, and
    the hash in evaluation.json, where there is one. Damage that none of these shows is sealed with the rest.

    Args:
        directory: The run's own folder.
        task: As for `load_run`.

    Raises:
        CheckpointError: Something does not fit; nothing was written.
    """
    directory = Path(directory)
    spec, known_task = read_spec(directory, task)
    stored = read_model(directory, known_task, stored=read_unsealed(directory / MODEL_FILE))
    tensors = stored.fitting(_shapes(spec, Vocabulary.of(known_task)))
    path = directory / EVALUATION_FILE
    evaluation = read_json(path) if path.exists() else None
    if evaluation is not None and DIGEST in evaluation:
        evaluation = read_evaluation(directory)
    if evaluation is not None and evaluation.get("weight_hash") != stored.weight_hash:
        raise CheckpointError(f"{stored.path} does not hold the weights that {path} is about: one is damaged. {AGAIN}")
    metrics = directory / METRICS_FILE
    log = sealed_metrics(metrics) if metrics.exists() else ""
    write_weights(stored.path, tensors, stored.metadata)
    if evaluation is not None:
        write_evaluation(directory, evaluation)
    if log:
        write_atomic(metrics, log)
    return load_run(directory, task=known_task)
