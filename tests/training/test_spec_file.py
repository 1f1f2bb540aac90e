"""The spec of a directory and the fingerprint of its task: what is noticed when either has changed."""

import json
import random
from typing import ClassVar

import numpy as np
import pytest

from cotinterp.models.weights import CheckpointError
from cotinterp.tasks import FoldTask, get_task, task_names
from cotinterp.training.spec_file import check_same_spec, read_json, read_spec, task_fingerprint, write_spec

GARBAGE = [None, True, -1, 0, 2.5, float("nan"), 10**30, "", "z6", "a:b", "\ud800", [], [[]], {}, {"a": 1}, "9" * 9999]


def fuzzed(fields, rng):
    """The fields with one of them, at any depth, dropped, given another value, or joined by one that is not known."""
    inner = rng.choice([fields, *(value for value in fields.values() if isinstance(value, dict))])
    name = rng.choice([*inner, "definition", "zebra", "start_from"])
    if rng.random() < 0.2:
        inner.pop(name, None)
    else:
        inner[name] = rng.choice(GARBAGE)


@pytest.fixture
def directory(tiny, tmp_path):
    write_spec(tmp_path, tiny)
    return tmp_path


def change(directory, **fields) -> None:
    spec = json.loads((directory / "spec.json").read_text())
    for name, value in fields.items():
        target = spec
        *parents, last = name.split("__")
        for parent in parents:
            target = target[parent]
        target[last] = value
    (directory / "spec.json").write_text(json.dumps(spec))


def test_what_is_written_is_read_back(tiny, directory):
    assert read_spec(directory) == (tiny, get_task("z6"))


def test_every_field_is_written_so_that_defaults_may_move(directory):
    assert json.loads((directory / "spec.json").read_text())["optimizer"]["weight_decay"] == 0.01


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"model__n_layers": 10**9}, "model.n_layers: Input should be less than or equal to 64, not 1000000000"),
        ({"model__n_layres": 4}, "unknown key 'model.n_layres', did you mean 'n_layers'"),
        ({"zzz": 4}, "unknown key 'zzz'"),
        ({"model__d_model": "16"}, "model.d_model: Input should be a valid integer, not '16'"),
        ({"model__n_heads": 3}, "model: d_model 16 is not divisible by n_heads 3"),
        ({"regime": "sideways"}, "spec: unknown regime 'sideways'"),
        ({"k_max": 99}, "spec: k_min 2 to k_max 99 is not a range inside"),
        ({"optimizer__lr": float("nan")}, "optimizer.lr: "),
        ({"task": None}, "names no task: its 'task' is None"),
        ({"task": 7}, "names no task: its 'task' is 7"),
        (
            {"task": "z66"},
            r"is not registered: unknown task 'z66'. Nearest: \['z6'.*import the module that registers it",
        ),
        ({"task": "z66"}, "or pass task='path/to/file.py:ClassName'"),
        ({"task": "evil.py:Task"}, "lies in a file, 'evil.py:Task'. A checkpoint runs no code by itself"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_spec_that_cannot_be_is_refused(directory, fields, said):
    change(directory, **fields)
    with pytest.raises(CheckpointError, match=said):
        read_spec(directory)


@pytest.mark.parametrize("text", ["", "{", "not json", "\0\1", "[" * 100_000, '{"task": }'], ids=lambda text: text[:9])
def test_what_is_no_json_is_refused(directory, text):
    (directory / "spec.json").write_text(text)
    with pytest.raises(CheckpointError, match="spec.json is no JSON"):
        read_spec(directory)


def test_bytes_that_are_no_text_are_refused(directory):
    (directory / "spec.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(CheckpointError, match="spec.json is no JSON"):
        read_spec(directory)


def test_json_that_is_no_object_is_refused(directory):
    (directory / "spec.json").write_text("[1, 2]")
    with pytest.raises(CheckpointError, match="holds a JSON list, not an object"):
        read_json(directory / "spec.json")


def test_a_task_that_is_passed_stands_for_an_unregistered_name(tiny, directory):
    change(directory, task="z66")
    spec, task = read_spec(directory, "z6")
    assert (spec.task, task.name) == ("z66", "z6")


def test_the_same_spec_may_have_its_directory(tiny, directory):
    check_same_spec(directory, tiny)


def test_differences_are_named_and_a_place_is_offered(tiny, directory):
    other = tiny.model_copy(update={"regime": "direct", "n_train": 5})
    with pytest.raises(CheckpointError, match="regime is 'cot' there, 'direct' here; n_train is 100 there, 5") as error:
        check_same_spec(directory, other)
    assert other.slug in str(error.value)


def test_a_field_that_one_side_lacks_is_a_difference(tiny, directory):
    change(directory, flavor="new")
    with pytest.raises(CheckpointError, match="flavor is 'new' there, 'absent' here"):
        check_same_spec(directory, tiny)


TREE = type(get_task("expressions-mod11"))


class Shift(FoldTask):
    """s -> s + x + 1 mod 7."""

    name: ClassVar[str] = "shift"
    operands = "0123456"
    commutative = True
    max_k = 9

    def step(self, total: np.ndarray, operand: np.ndarray) -> np.ndarray:
        return (total + operand + 1) % 7


class Twin(Shift):
    """The same, in another class."""


class Renamed(Shift):
    name = "shifted"


class Relabeled(Shift):
    operands = "0123465"


class OtherOperator(Shift):
    operator = "+"


class OneEntryDiffers(Shift):
    def step(self, total: np.ndarray, operand: np.ndarray) -> np.ndarray:
        return np.where((total == 6) & (operand == 6), 0, super().step(total, operand))


class OtherStart(Shift):
    def initial(self, operand: np.ndarray) -> np.ndarray:
        return 6 - operand


class Longer(Shift):
    max_k = 20


class OtherBrackets(TREE):
    brackets = "[]"


class Backward(TREE):
    """The same trees, written from the other end."""

    def prompt(self, operands):
        return iter([*super().prompt(operands)][::-1])


class OtherPrompt(Shift):
    def prompt(self, operands):
        return iter([*super().prompt(operands)][::-1])


def test_equal_tasks_have_equal_fingerprints():
    assert task_fingerprint(Shift()) == task_fingerprint(Shift()) == task_fingerprint(Twin())


def test_more_room_for_operands_leaves_a_task_the_same():
    assert task_fingerprint(Longer()) == task_fingerprint(Shift())


@pytest.mark.parametrize("changed", [Renamed, Relabeled, OtherOperator, OneEntryDiffers, OtherStart])
def test_a_changed_task_has_another(changed):
    assert task_fingerprint(changed()) != task_fingerprint(Shift())


def test_how_a_tree_is_written_belongs_to_the_task():
    tree = task_fingerprint(TREE())
    assert tree == task_fingerprint(TREE())
    assert tree not in (task_fingerprint(OtherBrackets()), task_fingerprint(Backward()))
    assert task_fingerprint(OtherPrompt()) != task_fingerprint(Shift())


def test_all_built_in_tasks_differ():
    assert len({task_fingerprint(get_task(name)) for name in task_names()}) == len(task_names())


def test_a_fingerprint_is_the_same_everywhere():
    assert task_fingerprint(get_task("s3")) == "7578a8dcf67ef5bedfd31629f404eb2d37f5ee5063724ca3db814d9bfed13547"


def test_a_spec_that_is_garbage_has_one_clear_error(tiny, directory):
    whole, said = (directory / "spec.json").read_text(), []
    for seed in range(300):
        rng, fields = random.Random(seed), json.loads(whole)
        for _ in range(rng.randint(1, 3)):
            fuzzed(fields, rng)
        text = json.dumps(fields)
        text = text[: rng.randrange(len(text))] if rng.random() < 0.1 else text
        (directory / "spec.json").write_text(text)
        try:
            read_spec(directory)
        except CheckpointError as error:
            said.append(str(error))
    assert len(said) > 200
    assert max(map(len, said)) < 2000
    (directory / "spec.json").write_text('{"task": "z6", "seed": ' + "[" * 900 + "]" * 900 + "}")
    with pytest.raises(CheckpointError, match="is no valid spec|is no JSON"):
        read_spec(directory)
