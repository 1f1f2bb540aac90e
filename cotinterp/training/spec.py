"""Everything that decides a trained model, as a value: its file, its hash, and the specs of the reference models."""

import difflib
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, PrivateAttr, ValidationError, field_validator, model_serializer, model_validator

from cotinterp.models.spec import ModelSpec, Spec
from cotinterp.models.weights import CheckpointError
from cotinterp.results import write_atomic
from cotinterp.tasks import Task, get_task
from cotinterp.transcripts.problems import solve
from cotinterp.transcripts.regimes import get_regime
from cotinterp.transcripts.render import longest_transcript, render
from cotinterp.transcripts.vocabulary import Vocabulary

Fraction = Annotated[float, Field(ge=0, le=1)]
Beta = Annotated[float, Field(ge=0, lt=1)]
Precision = Literal["fp32", "bf16"]


class OptimizerSpec(Spec):
    """AdamW (Loshchilov & Hutter, 2019, arXiv 1711.05101) with linear warm-up and cosine decay.

    Attributes:
        steps: Updates.
        batch_size: Transcripts per update.
        lr: Highest learning rate, reached at the end of the warm-up.
        warmup: Updates over which the rate rises from zero.
        final_lr_fraction: The last update's rate as a fraction of the highest.
        weight_decay: Decoupled decay of matrices; biases and normalization scales are not decayed.
        betas: Decay of the two moment estimates.
        clip: Largest norm of the gradient over all parameters; longer ones are scaled down to it.
    """

    steps: Annotated[int, Field(ge=1, le=10_000_000)] = 2000
    batch_size: Annotated[int, Field(ge=1, le=65536)] = 64
    lr: Annotated[float, Field(gt=0)] = 1e-3
    warmup: Annotated[int, Field(ge=0)] = 100
    final_lr_fraction: Fraction = 0.1
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    betas: tuple[Beta, Beta] = (0.9, 0.98)
    clip: Annotated[float, Field(gt=0)] = 1.0


class RunSpec(Spec):
    """One training run: equal specs on one machine with one thread count give the same weights, bit for bit.

    `seed` decides the initial weights, the training problems and the order of the batches. It does not depend on the
    regime, so two specs that differ in the regime alone are a matched pair: same problems, same initial weights.

    Attributes:
        task: A registered name, or `path/to/file.py:ClassName`.
        regime: How a response is written: "direct", "cot", "totals", "filler", "noisy", "tagging", "chain".
        k_min: Fewest operands of a training problem.
        k_max: Most operands.
        n_train: Training problems, drawn independently.
        precision: "bf16" computes under bfloat16 autocast and keeps fp32 weights: faster where `fast_bfloat16` says so,
            slower elsewhere. "fp32" is what it is held to.
        start_from: Slug of a finished run whose directory stands beside this run's: its weights are the initial ones
            (`training.start`), in place of random ones. None starts from `seed` and stands in no dump, hash or
            file, so a spec without it is what it was before the field existed.
    """

    task: str
    regime: str
    k_min: int = 2
    k_max: int = 6
    n_train: Annotated[int, Field(ge=1, le=10_000_000)] = 3000
    model: ModelSpec = ModelSpec()
    optimizer: OptimizerSpec = OptimizerSpec()
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    precision: Precision = "fp32"
    start_from: str | None = None
    _task_name: str = PrivateAttr("")

    @field_validator("start_from")
    @classmethod
    def _is_a_slug(cls, value: str | None) -> str | None:
        if value is not None and (value in ("", ".", "..") or "/" in value or "\\" in value or "\0" in value):
            raise ValueError(
                "start_from is the slug of a run beside this one, such as 'z6-cot-L4-s0-0123abcd', and no path"
            )
        return value

    @model_serializer(mode="wrap")
    def _without_absent_start(self, dump: Callable[..., dict[str, Any]]) -> dict[str, Any]:
        fields = dump(self)
        if self.start_from is None:
            fields.pop("start_from", None)
        return fields

    @model_validator(mode="after")
    def _can_be_trained(self, info: Any) -> "RunSpec":  # a ValidationInfo, whose protocol beartype cannot check
        task = (info.context or {}).get("task") or _resolve(self.task)
        try:
            refusal = get_regime(self.regime).refusal(task)
        except KeyError as error:
            raise ValueError(error.args[0]) from error
        if refusal is not None:
            raise ValueError(f"regime {self.regime!r} cannot be trained on task {task.name!r}: {refusal}")
        if not task.min_k <= self.k_min <= self.k_max <= task.max_k:
            raise ValueError(
                f"k_min {self.k_min} to k_max {self.k_max} is not a range inside the {task.min_k} to {task.max_k} "
                f"operands of task {task.name!r}"
            )
        longest = longest_transcript(task, self.k_max, self.regime)
        if longest > self.model.n_ctx:
            raise ValueError(
                f"a {self.regime!r} transcript of {task.name!r} with {self.k_max} operands takes up to {longest} "
                f"tokens, model.n_ctx is {self.model.n_ctx}; raise it to {longest} or lower k_max"
            )
        self._task_name = task.name
        return self

    @property
    def slug(self) -> str:
        """Name of the run's directory: the fields one reads first, then eight digits of the hash of all of them."""
        return f"{self._task_name}-{self.regime}-L{self.model.n_layers}-s{self.seed}-{self.sha256[:8]}"

    @property
    def sha256(self) -> str:
        """Hash of the canonical JSON of the whole spec."""
        return json_hash(self.model_dump(mode="json"))


def json_hash(value: object) -> str:
    """SHA-256 of a value's canonical JSON: keys sorted, no spaces."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _resolve(reference: str) -> Task:
    try:
        return get_task(reference)
    except KeyError as error:
        raise ValueError(error.args[0]) from error
    except FileNotFoundError as error:
        raise ValueError(str(error)) from error


SPEC_FILE = "spec.json"
KEYS = (*RunSpec.model_fields, *ModelSpec.model_fields, *OptimizerSpec.model_fields)


def write_spec(directory: Path, spec: RunSpec) -> None:
    """Writes every field, defaults included, so that the file reads the same when the defaults have moved."""
    write_atomic(directory / SPEC_FILE, json.dumps(spec.model_dump(mode="json"), indent=2) + "\n")


def read_spec(directory: Path, task: str | Task | None = None) -> tuple[RunSpec, Task]:
    """The spec in `directory` and its task. A task that lies in a file has to be passed: reading a spec runs no code.

    Raises:
        CheckpointError: The file is no JSON, has unknown keys or impossible values, or its task cannot be found.
    """
    path = directory / SPEC_FILE
    fields = read_json(path)
    known_task = get_task(task) if task is not None else _registered(fields.get("task"), path)
    try:
        return RunSpec.model_validate_json(json.dumps(fields), context={"task": known_task}), known_task
    except ValidationError as error:
        raise CheckpointError(f"{path} is no valid spec: {explained(error)}") from error


def check_same_spec(directory: Path, spec: RunSpec) -> None:
    """Raises CheckpointError, naming the fields that differ, unless spec.json in `directory` is `spec`."""
    there, here = _flat(read_json(directory / SPEC_FILE)), _flat(spec.model_dump(mode="json"))
    differing = [
        f"{name} is {there.get(name, 'absent')!r} there, {here.get(name, 'absent')!r} here"
        for name in {**there, **here}
        if name not in there or name not in here or there[name] != here[name]
    ]
    if differing:
        raise CheckpointError(
            f"{directory} holds another run: {'; '.join(differing[:5])}. Train in a directory of its own, such as "
            f"{directory.parent / spec.slug}"
        )


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises CheckpointError where it holds anything else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is no JSON ({error}); restore it or train again") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds a JSON {type(value).__name__}, not an object; restore it or train again")
    return value


def _registered(name: object, path: Path) -> Task:
    if not isinstance(name, str):
        raise CheckpointError(f"{path} names no task: its 'task' is {name!r}")
    if ":" in name:
        raise CheckpointError(
            f"the task of {path.parent} lies in a file, {name!r}. A checkpoint runs no code by itself: if the file is "
            f"yours, pass task={name!r}"
        )
    try:
        return get_task(name)
    except KeyError as error:
        raise CheckpointError(
            f"the task of {path.parent} is not registered: {error.args[0]}; or pass task='path/to/file.py:ClassName'"
        ) from error


def explained(error: ValidationError) -> str:
    """What is wrong with the fields of a spec, in one line: an unknown key with the one that it is nearest to."""
    lines = []
    for item in error.errors():
        name = ".".join(map(str, item["loc"])) or "spec"
        if item["type"] == "extra_forbidden":
            near = difflib.get_close_matches(str(item["loc"][-1]), KEYS, n=1)
            lines.append(f"unknown key {name!r}" + (f", did you mean {near[0]!r}?" if near else ""))
        else:
            given = "" if isinstance(item["input"], dict) else f", not {item['input']!r:.80}"
            lines.append(f"{name}: {item['msg'].removeprefix('Value error, ')}{given}")
    return "; ".join(lines)


def _flat(fields: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


SAMPLE = 256


def task_fingerprint(task: Task) -> str:
    """SHA-256 over the task's name, operands, states, symbols in token order, and the totals of a fixed sample.

    Of a task that writes its own prompts, has codes that stand for one problem, several operators or steps that do not
    follow the operands in order, also over the sample as the regime `cot` writes it.

    The sample has 256 problems of each of the six shortest lengths, the same on every machine and for every version of
    numpy. A task that was changed in a way that no problem of the sample shows keeps its fingerprint.
    """
    samples = [_sample(task.n_operands, k) for k in _lengths(task)]
    totals = [task.steps(sample).total.tolist() for sample in samples]
    facts = [task.name, list(task.operands), list(task.states), Vocabulary.of(task).symbols, totals]
    if not _is_plain(task):
        facts.append([[render(task, problem, "cot").text for problem in solve(task, sample)] for sample in samples])
    return json_hash(facts)


def _is_plain(task: Task) -> bool:
    """Whether name, symbols and totals say all: the prompt is the operands, and the steps follow them in order."""
    own = type(task)
    return (
        task.in_order
        and (own.prompt, own.canonical, own.resume_from) == (Task.prompt, Task.canonical, Task.resume_from)
        and len(task.operators) == 1
    )


def _lengths(task: Task) -> range:
    return range(task.min_k, min(task.max_k, task.min_k + 5) + 1)


def _sample(n_operands: int, k: int) -> np.ndarray:
    stream = hashlib.shake_256(f"fingerprint {k}".encode()).digest(4 * SAMPLE * k)
    return (np.frombuffer(stream, dtype="<u4").reshape(SAMPLE, k) % n_operands).astype(np.int64)


REFERENCE_TASKS = ("digit-sum", "s3")
REFERENCE_REGIMES = ("direct", "cot")


def reference_specs(seed: int = 0, precision: Precision = "bf16") -> tuple[RunSpec, ...]:
    """The matched pairs: for each task two runs that differ in the response string and in nothing else.

    They are trained in bfloat16, which takes a third of the time on processors that have it and costs no accuracy that
    three seeds would show (docs/performance.md).
    """
    return tuple(
        RunSpec(task=task, regime=regime, seed=seed, precision=precision)
        for task in REFERENCE_TASKS
        for regime in REFERENCE_REGIMES
    )


def reference_directories(root: Path) -> tuple[Path, ...]:
    """The directories of the reference runs under `root`.

    Raises:
        FileNotFoundError: Some are missing; they are named, and how to train them.
    """
    directories = tuple(root / spec.slug for spec in reference_specs())
    missing = [directory.name for directory in directories if not directory.is_dir()]
    if missing:
        raise FileNotFoundError(
            f"no reference checkpoints {missing} under {root}. `cotinterp reproduce --from-scratch` trains all four; "
            "--root says where they lie"
        )
    return directories
