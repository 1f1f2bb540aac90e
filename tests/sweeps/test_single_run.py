"""One run: trained, evaluated where that is missing, never in another folder; and what its directory says of it."""

import json
import math
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event

import pytest

from cotinterp.sweeps.single_run import (
    FAILURE_FILE,
    RunJob,
    UnseenRootError,
    directory_conflict,
    is_evaluated,
    mark_root,
    run_status,
    train_and_evaluate,
    without_root,
    write_failure,
)
from cotinterp.sweeps.sweep import run_sweep
from cotinterp.training.checkpoints import load_run, read_evaluation, write_evaluation
from cotinterp.training.loop import sole_trainer, train
from cotinterp.training.spec import json_hash
from tests.sweeps.tiny import PROBLEMS, grid_of, tiny


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    root = tmp_path_factory.mktemp("root").resolve()
    one = RunJob(tiny("tagging"), root, mark_root(root), root, PROBLEMS)
    write_failure(one, "OSError: an earlier attempt", 2)
    train_and_evaluate(one)
    return one


def modified(work, name):
    return (work.directory / name).stat().st_mtime_ns


def test_a_run_is_trained_and_evaluated_and_an_earlier_failure_is_over(work):
    record = read_evaluation(work.directory)
    assert record["weight_hash"] == load_run(work.directory).weight_hash
    assert record["problems_per_k"] == PROBLEMS
    assert {row["n"] <= PROBLEMS for row in record["accuracy"]} == {True}
    assert not (work.directory / FAILURE_FILE).exists()


def test_the_states_that_tagging_reads_are_evaluated_on_the_same_problems(work):
    record = read_evaluation(work.directory)
    places = [[(row["split"], row["k"], row["n"]) for row in record[key]] for key in ("accuracy", "tags")]
    assert places[0] == places[1]
    assert "tags" not in (read_evaluation(work.directory.parent / "absent") or {})


def test_what_is_finished_is_left_alone(work):
    before = [modified(work, name) for name in ("model.safetensors", "evaluation.json")]
    train_and_evaluate(work)
    assert [modified(work, name) for name in ("model.safetensors", "evaluation.json")] == before


@pytest.mark.parametrize("change", [{"weight_hash": "0" * 64}, {"problems_per_k": 3}, None])
def test_an_evaluation_of_other_weights_or_problems_is_made_anew(work, change):
    record = read_evaluation(work.directory)
    if change is None:
        (work.directory / "evaluation.json").write_text("{half")
    else:
        write_evaluation(work.directory, record | change)
    assert not is_evaluated(work.directory, PROBLEMS)
    train_and_evaluate(work)
    assert read_evaluation(work.directory) == record


def test_an_evaluation_that_does_not_say_its_problems_is_made_anew(work):
    record = read_evaluation(work.directory)
    write_evaluation(work.directory, {key: value for key, value in record.items() if key != "problems_per_k"})
    assert not is_evaluated(work.directory, PROBLEMS)
    train_and_evaluate(work)
    assert read_evaluation(work.directory) == record


def test_a_worker_that_sees_another_folder_says_so_and_writes_nothing(work, tmp_path):
    for other in (replace(work, token="0000"), replace(work, root=tmp_path / "elsewhere")):
        with pytest.raises(UnseenRootError, match="a file system that all machines share"):
            train_and_evaluate(other)
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_keeps_the_token_of_whoever_came_first(work):
    assert mark_root(work.root) == work.token


def test_a_run_that_another_process_is_training_is_waited_for(tmp_path, monkeypatch):
    work = RunJob(tiny(), tmp_path, mark_root(tmp_path), tmp_path, PROBLEMS)
    work.directory.mkdir()
    asked = Event()
    monkeypatch.setattr("time.sleep", lambda _: asked.set())
    with ThreadPoolExecutor(1) as thread:
        with sole_trainer(work.directory):
            waiting = thread.submit(train_and_evaluate, work)
            assert asked.wait(60)
            assert not waiting.done()
        assert waiting.result() is None


def test_a_task_in_a_file_is_found_from_where_the_sweep_was_begun(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "from cotinterp.tasks import FoldTask\n"
        "class Mine(FoldTask):\n"
        "    name, operands, commutative = 'mine', '012345', True\n"
        "    def step(self, total, operand):\n"
        "        return (total + operand) % 6\n"
    )
    monkeypatch.chdir(tmp_path)
    spec = tiny(task="mine.py:Mine")
    monkeypatch.chdir("/")
    train_and_evaluate(RunJob(spec, tmp_path / "root", mark_root(tmp_path / "root"), tmp_path, PROBLEMS))
    assert os.getcwd() == "/"
    assert read_evaluation(tmp_path / "root" / spec.slug)["accuracy"][0]["task"] == "mine"


def test_a_failure_is_told_without_the_place_of_the_root(tmp_path):
    one = RunJob(tiny(), tmp_path, "", tmp_path, PROBLEMS)
    write_failure(one, f"OSError: cannot read {tmp_path}/slug/state\nin {tmp_path}", 3)
    found = json.loads((one.directory / FAILURE_FILE).read_text())
    digest = found.pop("digest")
    assert found == {"type": "OSError", "text": "cannot read slug/state in the root", "attempts": 3}
    assert digest == json_hash(found)
    assert without_root("ValueError: nothing", tmp_path) == "ValueError: nothing"


def test_a_failure_is_not_left_where_another_process_is_training(tmp_path):
    """It has not failed for good; and whoever begins to train there removes no file that is being written."""
    one = RunJob(tiny(), tmp_path, "", tmp_path, PROBLEMS)
    one.directory.mkdir()
    with sole_trainer(one.directory):
        write_failure(one, "OSError: nothing", 1)
    assert not list(one.directory.iterdir())
    write_failure(one, "OSError: nothing", 1)
    assert [path.name for path in one.directory.iterdir()] == [FAILURE_FILE]


@pytest.mark.parametrize("content", ["", "half", "\xff\n"])
def test_a_folder_whose_token_is_none_gets_a_new_one(tmp_path, content):
    """Left by a process that was killed between making the file and filling it: an empty token would fit any folder."""
    (tmp_path / ".sweep-root").write_bytes(content.encode("latin-1"))
    token = mark_root(tmp_path)
    assert len(token) == 16
    assert mark_root(tmp_path) == token
    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(mark_root, [tmp_path / "new"] * 8))) == 1


SPEC = tiny()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    root = tmp_path_factory.mktemp("finished")
    with ThreadPoolExecutor(1) as thread:
        run_sweep(grid_of(SPEC), root, thread)
    return root


@pytest.fixture
def root(finished, tmp_path):
    """A copy that a test may spoil."""
    return shutil.copytree(finished, tmp_path / "root")


def status(root, problems=PROBLEMS):
    return run_status(SPEC, root, problems)


def test_a_run_that_is_trained_and_evaluated_is_finished(root):
    found = status(root)
    assert (found.status, found.error, found.step) == ("finished", "", 20)
    assert found.loss > 0
    assert found.evaluation["problems_per_k"] == PROBLEMS
    assert directory_conflict(SPEC, root) == ""


def test_nothing_there_is_absent(tmp_path):
    found = status(tmp_path)
    assert (found.status, found.step, found.evaluation) == ("absent", 0, {})
    assert math.isnan(found.loss)
    assert directory_conflict(SPEC, tmp_path) == ""


@pytest.mark.parametrize("missing", ["evaluation.json", "model.safetensors"])
def test_without_its_weights_or_evaluation_it_is_unfinished(root, missing):
    (root / SPEC.slug / missing).unlink()
    assert (status(root).status, status(root).step) == ("unfinished", 20)


def test_evaluated_on_other_problems_it_is_unfinished(root):
    assert status(root, problems=PROBLEMS + 1).status == "unfinished"


def test_a_run_that_was_killed_counts_its_logged_updates(tmp_path):
    class Killed(Exception):
        pass

    def kill(event):
        if event.step == 30:
            raise Killed

    spec = tiny(steps=60)
    with pytest.raises(Killed):
        train(spec, directory=tmp_path / spec.slug, device="cpu", progress=kill)
    found = run_status(spec, tmp_path, PROBLEMS)
    assert (found.status, found.step) == ("unfinished", 20)


def test_a_failure_counts_until_the_run_is_finished(root):
    write_failure(RunJob(SPEC, root, "", root, PROBLEMS), "OSError: no space", 2)
    assert status(root).status == "finished"
    (root / SPEC.slug / "evaluation.json").unlink()
    assert (status(root).status, status(root).error) == ("failed", "OSError: no space")


def test_a_directory_of_another_run_is_failed_and_foreign(root):
    shutil.move(root / SPEC.slug, root / tiny(seed=1).slug)
    found = run_status(tiny(seed=1), root, PROBLEMS)
    assert found.status == "failed"
    assert found.error.startswith("CheckpointError: s3-direct")
    assert "holds another run: seed is 0 there, 1 here" in found.error
    assert str(root) not in found.error
    assert directory_conflict(tiny(seed=1), root) == found.error


@pytest.mark.parametrize(
    ("name", "foreign"), [("spec.json", True), ("model.safetensors", False), ("failure.json", False)]
)
def test_damage_is_told_and_not_raised(root, name, foreign):
    (root / SPEC.slug / "evaluation.json").unlink()
    (root / SPEC.slug / name).write_text("half")
    found = status(root)
    assert found.status == ("unfinished" if name == "model.safetensors" else "failed")
    assert bool(directory_conflict(SPEC, root)) is foreign


def test_damaged_weights_below_an_evaluation_are_told(root):
    (root / SPEC.slug / "model.safetensors").write_text("half")
    assert "model.safetensors is truncated" in status(root).error


def test_sound_files_of_another_run_are_not_this_run(root):
    """Weights and evaluation agree with each other, and not with the spec beside them."""
    other = tiny(seed=1)
    with ThreadPoolExecutor(1) as thread:
        run_sweep(grid_of(other), root, thread)
    for name in ("model.safetensors", "evaluation.json"):
        shutil.copy(root / other.slug / name, root / SPEC.slug / name)
    assert status(root).status == "failed"
    assert "was not trained with the spec.json beside it" in status(root).error


def test_a_changed_digit_is_told_or_measured_again(root):
    directory = root / SPEC.slug
    metrics, evaluation = directory / "metrics.jsonl", directory / "evaluation.json"
    sound = metrics.read_text()
    metrics.write_text(sound.replace('"step": 20', '"step": 21'))
    assert "metrics.jsonl, last line is damaged" in status(root).error
    metrics.write_text(sound)
    evaluation.write_text(evaluation.read_text().replace('"correct": ', '"correct": 1', 1))
    assert status(root).status == "unfinished"
    before = json.loads(evaluation.read_text())
    train_and_evaluate(RunJob(SPEC, root, mark_root(root), root, PROBLEMS))
    assert status(root).status == "finished"
    assert json.loads(evaluation.read_text())["digest"] == before["digest"], "the digest was the true one's"


def test_weights_of_unknown_origin_are_foreign(root):
    (root / SPEC.slug / "spec.json").unlink()
    assert "holds ['model.safetensors'] but no spec.json" in directory_conflict(SPEC, root)
    assert status(root).status == "failed"
