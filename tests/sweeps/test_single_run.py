"""The work of one run: train, evaluate what is not evaluated, and never in a folder that is another one."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event

import pytest

from cotinterp.sweeps.single_run import (
    FAILURE_FILE,
    RunWork,
    UnseenRootError,
    carry_run,
    is_evaluated,
    mark_root,
    without_root,
    write_failure,
)
from cotinterp.training.checkpoints import load_run, read_evaluation, write_evaluation
from cotinterp.training.loop import sole_trainer
from tests.sweeps.tiny import PROBLEMS, tiny


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    root = tmp_path_factory.mktemp("root").resolve()
    one = RunWork(tiny("tagging"), root, mark_root(root), root, PROBLEMS)
    write_failure(one, "OSError: an earlier attempt", 2)
    carry_run(one)
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
    carry_run(work)
    assert [modified(work, name) for name in ("model.safetensors", "evaluation.json")] == before


@pytest.mark.parametrize("change", [{"weight_hash": "0" * 64}, {"problems_per_k": 3}, None])
def test_an_evaluation_of_other_weights_or_problems_is_made_anew(work, change):
    record = read_evaluation(work.directory)
    if change is None:
        (work.directory / "evaluation.json").write_text("{half")
    else:
        write_evaluation(work.directory, record | change)
    assert not is_evaluated(work.directory, PROBLEMS)
    carry_run(work)
    assert read_evaluation(work.directory) == record


def test_an_evaluation_that_does_not_say_its_problems_is_made_anew(work):
    record = read_evaluation(work.directory)
    write_evaluation(work.directory, {key: value for key, value in record.items() if key != "problems_per_k"})
    assert not is_evaluated(work.directory, PROBLEMS)
    carry_run(work)
    assert read_evaluation(work.directory) == record


def test_a_worker_that_sees_another_folder_says_so_and_writes_nothing(work, tmp_path):
    for other in (replace(work, token="0000"), replace(work, root=tmp_path / "elsewhere")):
        with pytest.raises(UnseenRootError, match="a file system that all machines share"):
            carry_run(other)
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_keeps_the_token_of_whoever_came_first(work):
    assert mark_root(work.root) == work.token


def test_a_run_that_another_process_is_training_is_waited_for(work, monkeypatch):
    asked = Event()
    monkeypatch.setattr("time.sleep", lambda _: asked.set())
    with ThreadPoolExecutor(1) as thread:
        with sole_trainer(work.directory):
            waiting = thread.submit(carry_run, work)
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
    carry_run(RunWork(spec, tmp_path / "root", mark_root(tmp_path / "root"), tmp_path, PROBLEMS))
    assert os.getcwd() == "/"
    assert read_evaluation(tmp_path / "root" / spec.slug)["accuracy"][0]["task"] == "mine"


def test_a_failure_is_told_without_the_place_of_the_root(tmp_path):
    one = RunWork(tiny(), tmp_path, "", tmp_path, PROBLEMS)
    write_failure(one, f"OSError: cannot read {tmp_path}/slug/state\nin {tmp_path}", 3)
    assert json.loads((one.directory / FAILURE_FILE).read_text()) == {
        "type": "OSError", "text": "cannot read slug/state in the root", "attempts": 3,
    }  # fmt: skip
    assert without_root("ValueError: nothing", tmp_path) == "ValueError: nothing"
