"""Training states and finished runs on disk: whole or absent, checked when they are read."""

import json
import random
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from cotinterp.models import build
from cotinterp.models.weights import CheckpointError, read_weights, weight_hash, write_weights
from cotinterp.tasks import FoldTask, get_task
from cotinterp.training import checkpoints
from cotinterp.training.checkpoints import (
    Record,
    installed_version,
    list_runs,
    load_run,
    read_evaluation,
    read_record,
    restore_state,
    save_state,
    seal,
    write_evaluation,
)
from cotinterp.training.learner import Learner
from cotinterp.training.loop import train
from cotinterp.training.spec import RunSpec
from cotinterp.training.spec_file import task_fingerprint

RECORD = Record(step=3, elapsed_s=0.1 + 0.2, threads=2, spec="a", task="b", data="c")


@pytest.fixture
def begin(tiny):
    return lambda: Learner.begin(tiny, get_task(tiny.task), torch.device("cpu"))


@pytest.fixture
def saved(begin, tmp_path):
    learner, path = begin(), tmp_path / "training_state.safetensors"
    for step in range(3):
        learner.update(step)
    save_state(path, learner.module, learner.optimizer, RECORD)
    return learner, path


def test_a_restored_learner_goes_on_bit_for_bit(begin, saved):
    learner, path = saved
    other = begin()
    restore_state(read_weights(path), other.module, other.optimizer)
    assert weight_hash(other.module) == weight_hash(learner.module)
    for step in range(3, 9):
        assert other.update(step) == learner.update(step)
    assert weight_hash(other.module) == weight_hash(learner.module)


def test_weights_without_their_moments_go_elsewhere(begin, saved):
    """The negative control of the test above: it would notice a lost moment."""
    learner, path = saved
    other = begin()
    restore_state(read_weights(path), other.module, other.optimizer)
    other.optimizer.state.clear()
    assert other.update(3).loss == learner.update(3).loss
    assert weight_hash(other.module) != weight_hash(learner.module)


def test_a_restored_learner_keeps_nothing_of_the_file(begin, saved):
    learner, path = saved
    other = begin()
    restore_state(read_weights(path), other.module, other.optimizer)
    moments = [tensor for state in other.optimizer.state.values() for tensor in state.values() if tensor.numel() > 1]
    assert all(tensor.data_ptr() % 64 == 0 for tensor in (*moments, *other.module.parameters()))


def test_where_a_run_started_is_stored_only_if_it_started_somewhere(saved):
    learner, path = saved
    assert "start" not in read_weights(path).metadata
    moved = replace(RECORD, start="d")
    save_state(path, learner.module, learner.optimizer, moved)
    assert read_weights(path).metadata["start"] == "d"
    assert read_record(path) == moved


def test_the_record_survives_the_file_exactly(saved):
    assert read_record(saved[1]) == RECORD
    assert RECORD.cotinterp == installed_version()
    assert RECORD.torch == torch.__version__


@pytest.mark.parametrize("damage", [{"step": "three"}, {"threads": ""}])
def test_a_record_without_numbers_is_refused(saved, damage):
    path = saved[1]
    write_weights(path, {"x": torch.zeros(1)}, {**read_weights(path).metadata, **damage})
    with pytest.raises(CheckpointError, match="does not say how far its run had come"):
        read_record(path)


def test_a_file_without_a_record_is_refused(tmp_path):
    write_weights(tmp_path / "other.safetensors", {"x": torch.zeros(1)}, {})
    with pytest.raises(CheckpointError, match="does not say how far"):
        read_record(tmp_path / "other.safetensors")


def test_a_state_of_another_model_is_refused(tiny, begin, saved):
    wide = tiny.model_copy(update={"model": tiny.model.model_copy(update={"d_mlp": 33})})
    other = Learner.begin(wide, get_task(wide.task), torch.device("cpu"))
    before = weight_hash(other.module)
    with pytest.raises(CheckpointError, match=r"fc_in.weight' is \(32, 16\), the spec says \(33, 16\)"):
        restore_state(read_weights(saved[1]), other.module, other.optimizer)
    assert weight_hash(other.module) == before


def test_records_differ_where_a_field_does():
    assert replace(RECORD, step=4) != RECORD


TASK_FILE = """
from cotinterp.tasks import FoldTask

class Shift(FoldTask):
    name = "shift"
    operands = "0123456"
    commutative = True
    max_k = 4
    def step(self, total, operand):
        return (total + operand + {by}) % 7
"""


def rewrite(path, change) -> None:
    """The same safetensors file with changed tensors or metadata, and the digest of those."""
    tensors, metadata = load_file(path), dict(read_weights(path).metadata)
    change(tensors, metadata)
    write_weights(path, tensors, metadata)


def test_a_slug_and_a_path_load_the_same_run(trained, root):
    by_slug = load_run(trained.spec.slug, root=root)
    by_path = load_run(root / trained.spec.slug)
    assert by_slug.weight_hash == by_path.weight_hash == trained.weight_hash == weight_hash(by_slug.model)
    assert by_slug.spec == trained.spec
    assert by_slug.task is get_task("z6")
    assert by_slug.directory == by_path.directory == root / trained.spec.slug
    assert by_slug.labels == {"task": "z6", "regime": "cot", "run_seed": 0}
    assert not by_slug.model.training


def test_the_loaded_model_has_the_logits_of_the_trained_one(trained, root):
    tokens = torch.randint(len(trained.vocabulary), (3, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(load_run(trained.spec.slug, root=root).model(tokens), trained.model(tokens))


def test_the_weights_say_where_they_come_from(trained):
    metadata = trained.metadata
    assert metadata["step"] == "60"
    assert metadata["spec"] == trained.spec.sha256
    assert metadata["task"] == task_fingerprint(trained.task)
    assert metadata["threads"] == "1"
    assert set(metadata) == {"step", "elapsed_s", "threads", "spec", "task", "data", "machine", "cotinterp", "torch"}


def test_a_missing_checkpoint_names_those_of_the_same_kind_first(trained, root):
    for other in ("z6-direct-L1-s0-00000000", "z6-cot-L1-s7-11111111", "parity-cot-L1-s0-22222222"):
        shutil.copytree(root / trained.spec.slug, root / other)
    with pytest.raises(FileNotFoundError) as error:
        load_run("z6-cot-L1-s0-deadbeef", root=root)
    text = str(error.value)
    same = sorted([trained.spec.slug, "z6-cot-L1-s7-11111111"])
    assert f"no checkpoint 'z6-cot-L1-s0-deadbeef' under {root}. Trained with the same task and regime: {same}." in text
    assert text.index("z6-cot-L1-s7-11111111") < text.index("Nearest:") < text.index("z6-direct-L1-s0-00000000")


def test_a_misspelt_slug_names_the_nearest(trained, root):
    with pytest.raises(FileNotFoundError, match=rf"Nearest: \['{trained.spec.slug}'\]"):
        load_run("z6-cto-L1", root=root)


def test_an_empty_root_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="There are 0 checkpoints"):
        load_run("z6-cot-L1-s0-deadbeef", root=tmp_path)


def test_runs_are_listed_when_they_are_finished(trained, root):
    unfinished = root / "z6-cot-L1-s9-00000000"
    unfinished.mkdir()
    shutil.copy(root / trained.spec.slug / "spec.json", unfinished)
    assert list_runs(root) == (trained.spec.slug,)
    assert list_runs(root / "nowhere") == ()


def test_an_unfinished_run_says_how_far_it_came(tiny, tmp_path):
    def interrupt(event) -> None:
        if event.step == 35:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tiny, directory=tmp_path / "run", device="cpu", checkpoint_every=10, progress=interrupt)
    with pytest.raises(CheckpointError, match="run is not finished: 30 of 60 steps done. Train its spec"):
        load_run(tmp_path / "run")


@pytest.mark.parametrize("length", [0, 9, 2000, -4])
def test_a_truncated_file_is_refused(trained, root, length):
    path = root / trained.spec.slug / "model.safetensors"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(CheckpointError, match="truncated or not a safetensors file"):
        load_run(trained.spec.slug, root=root)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tensors, _: tensors.pop("embed.weight"), "misses 'embed.weight'"),
        (lambda tensors, _: tensors.update(stray=torch.zeros(2)), "unknown 'stray'"),
        (lambda tensors, _: tensors.update({"unembed.weight": torch.zeros(2, 2)}), r"'unembed.weight' is \(2, 2\)"),
        (
            lambda tensors, _: tensors["embed.weight"][0].fill_(torch.nan),
            r"NaN or infinite values in \['embed.weight'\]",
        ),
        (lambda _, metadata: metadata.update(task="0" * 64), "task 'z6' is not the one that .* was trained on"),
        (lambda _, metadata: metadata.update(spec="0" * 64), "was not trained with the spec.json beside it"),
        (lambda _, metadata: metadata.pop("step"), "does not say how far its run had come"),
    ],
)
def test_weights_that_do_not_fit_are_refused(trained, root, change, said):
    rewrite(root / trained.spec.slug / "model.safetensors", change)
    with pytest.raises(CheckpointError, match=said):
        load_run(trained.spec.slug, root=root)


def test_a_spec_changed_by_hand_is_refused(trained, root):
    path = root / trained.spec.slug / "spec.json"
    spec = json.loads(path.read_text())
    spec["seed"] = 1
    path.write_text(json.dumps(spec))
    with pytest.raises(CheckpointError, match="was not trained with the spec.json beside it"):
        load_run(trained.spec.slug, root=root)


def test_a_missing_spec_is_refused(trained, root):
    (root / trained.spec.slug / "spec.json").unlink()
    with pytest.raises(CheckpointError, match="holds model.safetensors but no spec.json"):
        load_run(trained.spec.slug, root=root)


def test_nothing_is_allocated_for_weights_that_do_not_fit(trained, root, monkeypatch):
    """Absurd sizes within the bounds of a spec are compared on torch's meta device."""
    built: list[str] = []

    def recorded(*arguments, device="cpu", **options):
        built.append(str(device))
        return build.build_module(*arguments, device=device, **options)

    monkeypatch.setattr(checkpoints, "build_module", recorded)
    rewrite(root / trained.spec.slug / "model.safetensors", lambda tensors, _: tensors.pop("embed.weight"))
    with pytest.raises(CheckpointError, match="misses 'embed.weight'"):
        load_run(trained.spec.slug, root=root)
    assert built == ["meta"]


def test_no_file_of_a_checkpoint_is_unpickled(trained, root, monkeypatch):
    monkeypatch.setattr(torch, "load", None)
    monkeypatch.setattr(torch, "save", None)
    assert load_run(trained.spec.slug, root=root).weight_hash == trained.weight_hash


@pytest.fixture
def file_run(tiny, tmp_path):
    """A run whose task lies in a file."""
    file = tmp_path / "shift.py"
    file.write_text(TASK_FILE.format(by=1))
    optimizer = tiny.optimizer.model_copy(update={"steps": 3})
    spec = RunSpec(task=f"{file}:Shift", regime="cot", k_max=3, n_train=20, model=tiny.model, optimizer=optimizer)
    run = train(spec, directory=tmp_path / "checkpoints" / spec.slug, device="cpu", threads=1)
    return run, file


def test_a_task_in_a_file_trains_and_loads(file_run):
    run, file = file_run
    assert run.task.name == "shift"
    assert run.directory.name.startswith("shift-cot-L1-s0-")
    assert load_run(run.directory, task=f"{file}:Shift").weight_hash == run.weight_hash
    assert load_run(run.directory, task=run.task).weight_hash == run.weight_hash


def test_loading_runs_no_file_that_it_was_not_given(file_run):
    run, file = file_run
    file.write_text("raise SystemExit('this ran')")
    with pytest.raises(CheckpointError, match="A checkpoint runs no code by itself: if the file is yours, pass task="):
        load_run(run.directory)


def test_a_changed_task_file_is_noticed(file_run):
    run, file = file_run
    file.write_text(TASK_FILE.format(by=2))
    with pytest.raises(CheckpointError, match="task 'shift' is not the one that .* was trained on"):
        load_run(run.directory, task=f"{file}:Shift")
    with pytest.raises(CheckpointError, match="task 'shift' is not the one that .* was trained on"):
        train(run.spec, directory=run.directory, device="cpu")


def test_another_task_is_noticed(trained, root):
    class Other(FoldTask):
        name = "z6"
        operands = "012345"
        commutative = False

        def step(self, total, operand):
            return (total + 5 * operand) % 6

    with pytest.raises(CheckpointError, match="not the one that .* was trained on"):
        load_run(trained.spec.slug, root=root, task=Other())


def test_an_evaluation_is_kept_beside_the_weights(trained, root):
    directory = root / trained.spec.slug
    assert read_evaluation(directory) is None
    path = write_evaluation(directory, {"accuracy": [1.0, 0.5]})
    assert path == directory / "evaluation.json"
    assert read_evaluation(directory) == {"accuracy": [1.0, 0.5]}
    with pytest.raises(ValueError, match="JSON compliant"):
        write_evaluation(directory, {"accuracy": float("nan")})
    assert read_evaluation(directory) == {"accuracy": [1.0, 0.5]}


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("0.5", "0.6", "is damaged: its content is not what its digest was made of. The weights are not concerned"),
        ("0.5", "1e999", "is damaged"),
        ('"accuracy"', '"accuracx"', "is damaged"),
        ('"digest"', '"digesu"', r"has no digest \(version 0.1 wrote none\): it cannot be told from a damaged one"),
        ("{", "", "is no JSON"),
    ],
)
def test_a_changed_evaluation_is_refused(trained, root, before, after, said):
    directory = root / trained.spec.slug
    path = write_evaluation(directory, {"accuracy": [1.0, 0.5]})
    path.write_text(path.read_text().replace(before, after))
    with pytest.raises(CheckpointError, match=f"evaluation.json {said}"):
        read_evaluation(directory)


def test_one_flipped_bit_anywhere_is_noticed(trained, root):
    """Of the weights and of what the file says of them; accepted alike would be only what says the same."""
    path, generator = root / trained.spec.slug / "model.safetensors", random.Random(0)
    whole = path.read_bytes()
    for place in generator.sample(range(len(whole)), 150):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << generator.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="model.safetensors"):
            load_run(trained.spec.slug, root=root)


def test_files_of_another_run_are_refused(tiny, trained, root):
    """Sound files in the wrong place: the weights alone, and a whole directory under the name of another run."""
    other = tiny.model_copy(update={"seed": 1, "optimizer": tiny.optimizer.model_copy(update={"steps": 2})})
    run = train(other, directory=root / other.slug, device="cpu", threads=1)
    shutil.copy(run.directory / "model.safetensors", root / trained.spec.slug)
    with pytest.raises(CheckpointError, match="was not trained with the spec.json beside it"):
        load_run(trained.spec.slug, root=root)
    shutil.copytree(run.directory, root / trained.spec.slug, dirs_exist_ok=True)
    with pytest.raises(CheckpointError, match=f"holds the run {other.slug}, not the one of its name"):
        load_run(trained.spec.slug, root=root)


def as_version_0_1(directory) -> None:
    """Takes the digests away."""
    path = directory / "model.safetensors"
    save_file(load_file(path), path, dict(read_weights(path).metadata))
    for name in ("evaluation.json", "metrics.jsonl"):
        lines = (directory / name).read_text().splitlines() if name.endswith("l") else [(directory / name).read_text()]
        fields = [{key: value for key, value in json.loads(line).items() if key != "digest"} for line in lines]
        (directory / name).write_text("".join(json.dumps(line) + "\n" for line in fields))


def test_a_run_of_the_first_version_is_sealed_and_then_believed(trained, root):
    directory = root / trained.spec.slug
    write_evaluation(directory, {"weight_hash": trained.weight_hash, "accuracy": [0.5]})
    sealed = {path.name: path.read_bytes() for path in directory.iterdir()}
    as_version_0_1(directory)
    with pytest.raises(CheckpointError, match="has no digest"):
        load_run(directory)
    for _ in range(2):
        assert seal(directory).weight_hash == trained.weight_hash
        assert dict(load_run(directory).metadata) == dict(trained.metadata)
        assert read_evaluation(directory)["accuracy"] == [0.5]
        assert (directory / "metrics.jsonl").read_bytes() == sealed["metrics.jsonl"]


def test_what_is_known_to_be_damaged_is_not_sealed(trained, root):
    directory = root / trained.spec.slug
    write_evaluation(directory, {"weight_hash": "0" * 64})
    as_version_0_1(directory)
    before = {path: path.read_bytes() for path in directory.iterdir()}
    with pytest.raises(CheckpointError, match="does not hold the weights that .*evaluation.json is about"):
        seal(directory)
    assert {path: path.read_bytes() for path in directory.iterdir()} == before
