"""What a run's directory says of itself: its spec as a file, and the fingerprint of the task that it was trained on."""

import difflib
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from cotinterp.models.spec import DIGEST, CheckpointError, ModelSpec
from cotinterp.results import write_atomic
from cotinterp.results.shipped import shipped
from cotinterp.tasks import Task, get_task
from cotinterp.tasks.definition import task_definition
from cotinterp.training.spec import OptimizerSpec, RunSpec, changed_task, json_hash
from cotinterp.transcripts.problems import solve
from cotinterp.transcripts.render import render
from cotinterp.transcripts.vocabulary import Vocabulary

SPEC_FILE = "spec.json"
MODEL_FILE = "model.safetensors"
DEFAULT_ROOT = Path("checkpoints")
"""Where runs are looked for and trained; those that travel with the package are found where it has none of the name."""
KEYS = (*RunSpec.model_fields, *ModelSpec.model_fields, *OptimizerSpec.model_fields)


def write_spec(directory: Path, spec: RunSpec) -> None:
    """Writes every field, defaults included, so that the file reads the same when the defaults have moved."""
    write_atomic(directory / SPEC_FILE, json.dumps(spec.model_dump(mode="json"), indent=2) + "\n")


def list_runs(root: Path = DEFAULT_ROOT) -> tuple[str, ...]:
    """Slugs of the finished runs under `root`, sorted."""
    finished = (path.parent for path in root.glob(f"*/{MODEL_FILE}"))
    return tuple(sorted(directory.name for directory in finished if (directory / SPEC_FILE).exists()))


def find_run(slug_or_path: str | Path, root: Path = DEFAULT_ROOT) -> Path:
    """The directory of a run: a path, a slug under `root`, or under the default root one that travels with the package.

    Raises:
        FileNotFoundError: No such run; those of the same task and regime and the nearest names are given.
        CheckpointError: Weights without a spec.
    """
    roots = (root, shipped("checkpoints")) if root == DEFAULT_ROOT else (root,)
    for directory in (Path(slug_or_path), *(place / slug_or_path for place in roots)):
        if (directory / SPEC_FILE).exists():
            return directory
        if (directory / MODEL_FILE).exists():
            raise CheckpointError(f"{directory} holds {MODEL_FILE} but no {SPEC_FILE}; restore it or train again")
    wanted, runs = Path(slug_or_path).name, sorted({run for place in roots for run in list_runs(place)})
    kind = re.sub(r"-L\d+-s\d+-[0-9a-f]*$", "", wanted)
    same = [run for run in runs if re.fullmatch(re.escape(kind) + r"-L\d+-s\d+-[0-9a-f]{8}", run)]
    near = [run for run in difflib.get_close_matches(wanted, runs, n=3, cutoff=0.3) if run not in same]
    found = [f"Trained with the same task and regime: {same}."] if same else []
    found += [f"Nearest: {near}."] if near else []
    there = " ".join(found) or f"There are {len(runs)} checkpoints."
    raise FileNotFoundError(
        f"no checkpoint {str(slug_or_path)!r} under {root}. {there} Give a slug, or the path of a run's directory"
    )


def read_spec(directory: Path, task: str | Task | None = None) -> tuple[RunSpec, Task]:
    """The spec in `directory` and its task. A task that lies in a file has to be passed: reading a spec runs no code.

    Raises:
        CheckpointError: The file is no JSON, has unknown keys or impossible values, or its task cannot be found.
    """
    path = directory / SPEC_FILE
    fields = read_json(path)
    known_task = get_task(task) if task is not None else _registered(fields.get("task"), path)
    if fields.get("definition") not in (None, here := task_definition(known_task)):
        run = f"{directory} was trained on"
        raise CheckpointError(changed_task(known_task, str(fields["definition"]), here, run))
    try:
        return RunSpec.model_validate_json(json.dumps(fields), context={"task": known_task}), known_task
    except ValidationError as error:
        raise CheckpointError(f"{path} is no valid spec: {explained(error)}") from error
    except RecursionError as error:
        raise CheckpointError(f"{path} is no valid spec: its values are nested too deeply") from error


def task_of(spec: RunSpec) -> Task:
    """The task of a run, found again by its reference.

    Raises:
        CheckpointError: What is found there now is another task than the spec was made with.
    """
    task = get_task(spec.task)
    if spec.definition is not None and (here := task_definition(task)) != spec.definition:
        run = f"{spec.slug} was trained on, or is to be"
        raise CheckpointError(changed_task(task, spec.definition, here, run))
    return task


def check_same_spec(directory: Path, spec: RunSpec) -> None:
    """Raises CheckpointError, naming the fields that differ, unless spec.json in `directory` is `spec`."""
    there, here = _flat(read_json(directory / SPEC_FILE)), _flat(spec.model_dump(mode="json"))
    if spec.definition is not None and there.get("definition") == spec.definition:
        there["task"] = here["task"]
    words = {"definition": "definition (what its task computes)"}
    differing = [
        f"{words.get(name, name)} is {there.get(name, 'absent')!r} there, {here.get(name, 'absent')!r} here"
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
    except IsADirectoryError as error:
        raise CheckpointError(f"{path} is a folder, not a JSON file; restore it or train again") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds a JSON {type(value).__name__}, not an object; restore it or train again")
    return value


def with_digest(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields and, as the last one, the hash of their canonical JSON: a small file that can be checked when read."""
    return {**fields, DIGEST: json_hash(dict(fields))}


def without_digest(fields: Mapping[str, Any], place: str, remedy: str) -> dict[str, Any]:
    """The fields that `with_digest` was given.

    Raises:
        CheckpointError: They have no digest or are not what it was made of; names the place and says the remedy.
    """
    rest = {name: value for name, value in fields.items() if name != DIGEST}
    try:
        found = json_hash(rest)
    except ValueError:  # a number that overflows to infinity
        found = ""
    if DIGEST not in fields:
        raise CheckpointError(
            f"{place} has no digest (version 0.1 wrote none): it cannot be told from a damaged one. {remedy}"
        )
    if fields[DIGEST] != found:
        raise CheckpointError(f"{place} is damaged: its content is not what its digest was made of. {remedy}")
    return rest


def _registered(name: object, path: Path) -> Task:
    if not isinstance(name, str):
        raise CheckpointError(f"{path} names no task: its 'task' is {name!r:.80}")
    if ":" in name:
        raise CheckpointError(
            f"the task of {path.parent} lies in a file, {name!r:.200}. A checkpoint runs no code by itself: if the "
            f"file is yours, pass task={name!r:.200}, on the command line --task {name:.200}"
        )
    try:
        return get_task(name)
    except KeyError as error:
        raise CheckpointError(
            f"the task of {path.parent} is not registered: {error.args[0]:.1000}; or pass "
            "task='path/to/file.py:ClassName'"
        ) from error


def explained(error: ValidationError) -> str:
    """What is wrong with the fields of a spec, in one line: an unknown key with the one that it is nearest to."""
    lines = []
    for item in error.errors():
        name = ".".join(map(str, item["loc"])) or "spec"
        if item["type"] == "extra_forbidden":
            near = difflib.get_close_matches(str(item["loc"][-1]), KEYS, n=1)
            lines.append(f"unknown key {name!r:.80}" + (f", did you mean {near[0]!r}?" if near else ""))
        else:
            given = "" if isinstance(item["input"], dict) else f", not {item['input']!r:.80}"
            lines.append(f"{name:.80}: {item['msg'].removeprefix('Value error, '):.400}{given}")
    return "; ".join(lines)


def _flat(fields: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


FINGERPRINT_PROBLEMS = 256


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
    stream = hashlib.shake_256(f"fingerprint {k}".encode()).digest(4 * FINGERPRINT_PROBLEMS * k)
    return (np.frombuffer(stream, dtype="<u4").reshape(FINGERPRINT_PROBLEMS, k) % n_operands).astype(np.int64)
