"""spec.json is read as data, and only as what it should be."""

import json

import pytest

from cotinterp.models.weights import CheckpointError
from cotinterp.tasks import get_task
from cotinterp.training.spec_file import check_same_spec, read_json, read_spec, write_spec


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
