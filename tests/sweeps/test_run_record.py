"""What a directory says of its run, in every state that it can be in."""

import math
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

from cotinterp.sweeps.single_run import RunWork, is_foreign, read_record_of, write_failure
from cotinterp.sweeps.sweep import run_sweep
from cotinterp.training.loop import train
from tests.sweeps.tiny import PROBLEMS, grid_of, tiny

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


def record(root, problems=PROBLEMS):
    return read_record_of(SPEC, root, problems)


def test_a_run_that_is_trained_and_evaluated_is_finished(root):
    found = record(root)
    assert (found.status, found.error, found.step) == ("finished", "", 20)
    assert found.loss > 0
    assert found.evaluation["problems_per_k"] == PROBLEMS
    assert is_foreign(SPEC, root) == ""


def test_nothing_there_is_absent(tmp_path):
    found = record(tmp_path)
    assert (found.status, found.step, found.evaluation) == ("absent", 0, {})
    assert math.isnan(found.loss)
    assert is_foreign(SPEC, tmp_path) == ""


@pytest.mark.parametrize("missing", ["evaluation.json", "model.safetensors"])
def test_without_its_weights_or_evaluation_it_is_unfinished(root, missing):
    (root / SPEC.slug / missing).unlink()
    assert (record(root).status, record(root).step) == ("unfinished", 20)


def test_evaluated_on_other_problems_it_is_unfinished(root):
    assert record(root, problems=PROBLEMS + 1).status == "unfinished"


def test_a_run_that_was_killed_counts_its_logged_updates(tmp_path):
    class Killed(Exception):
        pass

    def kill(event):
        if event.step == 30:
            raise Killed

    spec = tiny(steps=60)
    with pytest.raises(Killed):
        train(spec, directory=tmp_path / spec.slug, device="cpu", progress=kill)
    found = read_record_of(spec, tmp_path, PROBLEMS)
    assert (found.status, found.step) == ("unfinished", 20)


def test_a_failure_counts_until_the_run_is_finished(root):
    write_failure(RunWork(SPEC, root, "", root, PROBLEMS), "OSError: no space", 2)
    assert record(root).status == "finished"
    (root / SPEC.slug / "evaluation.json").unlink()
    assert (record(root).status, record(root).error) == ("failed", "OSError: no space")


def test_a_directory_of_another_run_is_failed_and_foreign(root):
    shutil.move(root / SPEC.slug, root / tiny(seed=1).slug)
    found = read_record_of(tiny(seed=1), root, PROBLEMS)
    assert found.status == "failed"
    assert found.error.startswith("CheckpointError: s3-direct")
    assert "holds another run: seed is 0 there, 1 here" in found.error
    assert str(root) not in found.error
    assert is_foreign(tiny(seed=1), root) == found.error


@pytest.mark.parametrize(
    ("name", "foreign"), [("spec.json", True), ("model.safetensors", False), ("failure.json", False)]
)
def test_damage_is_told_and_not_raised(root, name, foreign):
    (root / SPEC.slug / "evaluation.json").unlink()
    (root / SPEC.slug / name).write_text("half")
    found = record(root)
    assert found.status == ("unfinished" if name == "model.safetensors" else "failed")
    assert bool(is_foreign(SPEC, root)) is foreign


def test_damaged_weights_below_an_evaluation_are_told(root):
    (root / SPEC.slug / "model.safetensors").write_text("half")
    assert "model.safetensors is truncated" in record(root).error


def test_weights_of_unknown_origin_are_foreign(root):
    (root / SPEC.slug / "spec.json").unlink()
    assert "holds ['model.safetensors'] but no spec.json" in is_foreign(SPEC, root)
    assert record(root).status == "failed"
