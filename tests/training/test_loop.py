"""The loop ends where the spec says, whatever happens to its process on the way."""

import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from cotinterp.behavior import error_taxonomy, evaluate_run
from cotinterp.behavior.edits import trace_edits
from cotinterp.models.build import build_module
from cotinterp.models.weights import CheckpointError, read_weights, weight_hash, write_weights
from cotinterp.training.checkpoints import MODEL_FILE, STATE_FILE, kept_snapshots, load_run, read_record
from cotinterp.training.course import Course
from cotinterp.training.data import problems_of
from cotinterp.training.learner import Learner
from cotinterp.training.loop import (
    NonFiniteLossError,
    ResumedOtherwiseWarning,
    sole_trainer,
    torch_threads,
    train,
)
from cotinterp.training.progress import METRICS_FILE, StepEvent, read_metrics
from cotinterp.training.spec import OptimizerSpec, log_spaced

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]

CHILD = """
import json, os, signal, sys
from pathlib import Path
from cotinterp.training.loop import train
from cotinterp.training.spec import RunSpec

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def train_until(spec, directory, moment, count):
    really_replace, renames = os.replace, []

    def replace(source, target):
        renames.append(Path(target).name)
        if moment == "in state" and renames.count("training_state.safetensors") == count:
            die()
        really_replace(source, target)
        if moment == "after model" and renames[-1] == "model.safetensors":
            die()

    def progress(event):
        if moment == "after step" and event.step == count:
            die()

    os.replace = replace
    train(spec, directory=Path(directory), device="cpu", threads=1, checkpoint_every=10, progress=progress)

spec, jobs = RunSpec.model_validate_json(sys.argv[1]), json.loads(sys.argv[2])
children = []
for job in jobs:
    child = os.fork()
    if child == 0:
        try:
            train_until(spec, *job)
        finally:
            os._exit(1)
    children.append(child)
print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]))
"""

KILLS = {
    "before the first checkpoint": ("after step", 4, 0),
    "between two checkpoints": ("after step", 47, 40),
    "while the state of step 20 is being replaced, its line logged": ("in state", 2, 10),
    "after the final weights, before the state is dropped": ("after model", 1, 50),
}


@pytest.fixture(scope="module")
def killed(tiny, tmp_path_factory):
    """The tiny run in a process of its own for each moment, killed by SIGKILL there."""
    directories = {name: tmp_path_factory.mktemp("killed") / tiny.slug for name in KILLS}
    jobs = [(str(directories[name]), moment, count) for name, (moment, count, _) in KILLS.items()]
    finished = subprocess.run(
        [sys.executable, "-c", CHILD, tiny.model_dump_json(), json.dumps(jobs)],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert finished.stdout, finished.stderr
    assert json.loads(finished.stdout) == [-signal.SIGKILL] * len(KILLS), finished.stderr
    return directories


@pytest.mark.parametrize("moment", KILLS)
def test_a_killed_run_goes_on_to_the_weights_of_an_uninterrupted_one(tiny, trained, killed, moment):
    directory, saved = killed[moment], KILLS[moment][2]
    state = directory / STATE_FILE
    assert (read_record(state).step if state.exists() else 0) == saved
    seen: list[int] = []
    remembered = None if state.exists() else 1
    run = train(
        tiny, directory=directory, device="cpu", threads=remembered, progress=lambda event: seen.append(event.step)
    )
    finished = moment.startswith("after the final")
    assert seen == ([] if finished else list(range(saved + 1, 61)))
    assert run.weight_hash == trained.weight_hash
    assert [line["step"] for line in read_metrics(directory / "metrics.jsonl")] == [20, 40, 60]
    losses = [[line["loss"] for line in read_metrics(d / "metrics.jsonl")] for d in (directory, trained.directory)]
    assert losses[0] == losses[1]


def test_killed_and_uninterrupted_runs_leave_the_same_files(tiny, trained, killed):
    for directory in killed.values():
        train(tiny, directory=directory, device="cpu")
        assert {path.name for path in directory.iterdir()} == {path.name for path in trained.directory.iterdir()}


def test_snapshots_are_the_weights_of_the_way_and_change_nothing(tiny, trained, tmp_path):
    spec = tiny.model_copy(update={"snapshots": (0, 10, 45)})
    assert spec.slug != tiny.slug
    directory = tmp_path / spec.slug

    def stop(event):
        if event.step == 47:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        train(spec, directory=directory, device="cpu", threads=1, checkpoint_every=40, progress=stop)
    before = kept_hashes(directory)
    assert train(spec, directory=directory, device="cpu").weight_hash == trained.weight_hash
    assert kept_hashes(directory) == before
    with torch_threads(1):
        learner = Learner.begin(spec, trained.task, torch.device("cpu"))
        assert before[0] == weight_hash(learner.module)
        for step in range(10):
            learner.update(step)
        assert before[10] == weight_hash(learner.module)
    with pytest.raises(FileNotFoundError, match=r"kept no weights after 11 updates; kept: \[0, 10, 45\]"):
        load_run(directory, step=11)
    (directory / "snapshots/00000010.safetensors").rename(directory / "snapshots/00000011.safetensors")
    with pytest.raises(CheckpointError, match="the weights after 10 updates, not those of its name"):
        load_run(directory, step=11)
    with pytest.raises(ValueError, match=r"snapshots \[60\] are not updates in ascending order before the last, 60"):
        tiny.model_copy(update={"snapshots": (60,)})
    assert log_spaced(101, 4) == (0, 1, 3, 10, 32, 100)


def kept_hashes(directory):
    """Hash of the weights that were kept, by update."""
    folder = directory / "snapshots"
    return {step: read_weights(folder / f"{step:08d}.safetensors").weight_hash for step in kept_snapshots(directory)}


def test_training_learns(trained):
    first, *_, last = read_metrics(trained.directory / "metrics.jsonl")
    assert last["loss"] < 0.7 * first["loss"] < 0.7 * math.log(len(trained.vocabulary))


def test_a_finished_run_leaves_its_four_files_and_no_state(trained):
    assert {path.name for path in trained.directory.iterdir()} == {"model.safetensors", "spec.json", "metrics.jsonl"}


def test_the_trained_model_is_the_learner_after_all_steps(tiny, trained):
    """Checkpoints, log and files are beside the point: the weights are those of 60 bare updates."""
    with torch_threads(1):
        learner = Learner.begin(tiny, trained.task, torch.device("cpu"))
        for step in range(60):
            learner.update(step)
    assert weight_hash(learner.module) == trained.weight_hash == weight_hash(trained.model)


@pytest.mark.parametrize("regime", ["direct", "filler"])
def test_a_matched_pair_starts_from_the_same_weights(tiny, trained, regime):
    d_vocab = len(trained.vocabulary)
    other = Learner.begin(tiny.model_copy(update={"regime": regime}), trained.task, torch.device("cpu"))
    assert weight_hash(other.module) == weight_hash(build_module(tiny.model, d_vocab, seed=tiny.seed))


def test_a_finished_run_is_loaded_not_trained(tiny, trained, monkeypatch):
    monkeypatch.setattr(Learner, "update", None)
    again = train(tiny, directory=trained.directory, device="cpu")
    assert again.weight_hash == trained.weight_hash


def test_another_spec_may_not_have_the_directory(tiny, root):
    directory = root / tiny.slug
    other = tiny.model_copy(update={"optimizer": tiny.optimizer.model_copy(update={"lr": 0.5}), "seed": 3})
    with pytest.raises(
        CheckpointError, match="holds another run: optimizer.lr is 0.003 there, 0.5 here; seed is 0 there, 3"
    ) as error:
        train(other, directory=directory, device="cpu")
    assert other.slug in str(error.value)


def test_weights_of_unknown_origin_are_not_written_over(tiny, root):
    (root / tiny.slug / "spec.json").unlink()
    with pytest.raises(CheckpointError, match=r"holds \['model.safetensors'\] but no spec.json"):
        train(tiny, directory=root / tiny.slug, device="cpu")


def test_a_directory_that_is_a_file_is_refused(tiny, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="file is a file; choose another folder"):
        train(tiny, directory=tmp_path / "file", device="cpu")


@pytest.mark.parametrize("arguments", [{"checkpoint_every": 0}, {"threads": 0}])
def test_numbers_below_one_are_refused(tiny, tmp_path, arguments):
    with pytest.raises(ValueError, match="must be at least 1"):
        train(tiny, directory=tmp_path / "run", device="cpu", **arguments)
    assert not (tmp_path / "run").exists()


def test_ctrl_c_leaves_whole_files_from_which_the_run_goes_on(tiny, trained, tmp_path):
    def interrupt(event: StepEvent) -> None:
        if event.step == 35:
            raise KeyboardInterrupt

    directory = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(tiny, directory=directory, device="cpu", threads=1, checkpoint_every=10, progress=interrupt)
    assert {path.name for path in directory.iterdir()} == {"spec.json", "metrics.jsonl", STATE_FILE}
    assert read_record(directory / STATE_FILE).step == 30
    assert train(tiny, directory=directory, device="cpu").weight_hash == trained.weight_hash


def test_ctrl_c_during_a_write_keeps_the_last_state(tiny, trained, tmp_path, monkeypatch):
    directory, fsync, calls = tmp_path / "run", os.fsync, itertools.count()

    def interrupt(descriptor: int) -> None:
        # spec.json, the empty metrics.jsonl and the states of steps 10 and 20 are written before
        if next(calls) == 4:
            raise KeyboardInterrupt
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(tiny, directory=directory, device="cpu", threads=1, checkpoint_every=10)
    assert {path.name for path in directory.iterdir()} == {"spec.json", "metrics.jsonl", STATE_FILE}
    assert read_record(directory / STATE_FILE).step == 20
    assert train(tiny, directory=directory, device="cpu").weight_hash == trained.weight_hash


def test_a_full_disk_keeps_the_last_state(tiny, tmp_path, monkeypatch):
    directory, replace, calls = tmp_path / "run", os.replace, itertools.count()

    def full(source: object, target: object) -> None:
        if next(calls) == 3:
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match=f"cannot write .*{STATE_FILE}: No space left on device"):
        train(tiny, directory=directory, device="cpu", threads=1, checkpoint_every=10)
    assert {path.name for path in directory.iterdir()} == {"spec.json", "metrics.jsonl", STATE_FILE}
    assert read_record(directory / STATE_FILE).step == 10


def test_a_loss_that_explodes_names_step_rate_and_the_last_good_checkpoint(tiny, tmp_path):
    wild = tiny.model_copy(update={"optimizer": OptimizerSpec(steps=60, batch_size=8, warmup=30, lr=1e38)})
    directory = tmp_path / "wild"
    with pytest.raises(NonFiniteLossError) as caught:
        train(wild, directory=directory, device="cpu", checkpoint_every=1)
    error, text = caught.value, str(caught.value)
    assert error.checkpoint == (directory / STATE_FILE, error.step - 1)
    assert error.lr == pytest.approx(1e38 * error.step / 30)
    for part in (
        f"at step {error.step}",
        f"{error.lr:.3g}",
        f"{STATE_FILE} (step {error.step - 1})",
        "Lower optimizer.lr",
    ):
        assert part in text
    assert not (directory / MODEL_FILE).exists()


@pytest.mark.parametrize(("failing", "saved"), [(7, None), (23, 20)])
def test_a_loss_that_becomes_nan_never_reaches_a_checkpoint(tiny, tmp_path, monkeypatch, failing, saved):
    update = Learner.update

    def poisoned(learner: Learner, step: int, course: Course) -> object:
        if step + 1 == failing:
            with torch.no_grad():
                learner.module.head.weight[0, 0] = math.nan
        return update(learner, step, course)

    monkeypatch.setattr(Learner, "update", poisoned)
    with pytest.raises(NonFiniteLossError, match=f"the loss became nan at step {failing}, learning rate") as caught:
        train(tiny, directory=tmp_path / "run", device="cpu", checkpoint_every=10)
    assert caught.value.checkpoint == (None if saved is None else (tmp_path / "run" / STATE_FILE, saved))
    assert ("none was written yet" in str(caught.value)) == (saved is None)


def test_weights_that_became_infinite_are_not_saved(tiny, tmp_path, monkeypatch):
    update = Learner.update

    def poisoned(learner: Learner, step: int, course: Course) -> object:
        seen = update(learner, step)
        if step + 1 == 20:
            with torch.no_grad():
                learner.module.head.weight[0, 0] = math.inf
        return seen

    monkeypatch.setattr(Learner, "update", poisoned)
    with pytest.raises(NonFiniteLossError, match=r"weights became NaN or infinite at step 20, .*\(step 10\)"):
        train(tiny, directory=tmp_path / "run", device="cpu", checkpoint_every=10)


def test_a_changed_training_set_is_not_gone_on_with(tiny, tmp_path, monkeypatch):
    def interrupt(event: StepEvent) -> None:
        if event.step == 15:
            raise KeyboardInterrupt

    directory = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(tiny, directory=directory, device="cpu", checkpoint_every=10, progress=interrupt)
    monkeypatch.setattr("cotinterp.training.learner.problems_of", lambda spec, task: _reversed(spec, task))
    with pytest.raises(CheckpointError, match="whose training set is no longer the same"):
        train(tiny, directory=directory, device="cpu")
    monkeypatch.setattr("cotinterp.training.loop.task_fingerprint", lambda task: "other")
    with pytest.raises(CheckpointError, match="whose task is no longer the same"):
        train(tiny, directory=directory, device="cpu")


def _reversed(spec, task):
    from cotinterp.transcripts.problems import training_problems

    return training_problems(task, (spec.k_min, spec.k_max), spec.n_train, np.random.default_rng(99))[::-1]


def test_progress_tells_every_step(tiny, tmp_path):
    events: list[StepEvent] = []
    train(tiny, directory=tmp_path / "run", device="cpu", threads=1, progress=events.append)
    assert [event.step for event in events] == list(range(1, 61))
    assert {event.total for event in events} == {60}
    assert events[-1].seconds_left == 0 < events[0].seconds_left
    assert all(event.tokens_per_second > 0 for event in events)
    by_step = {line["step"]: line for line in read_metrics(tmp_path / "run" / "metrics.jsonl")}
    assert by_step[40]["loss"] == events[39].loss
    assert by_step[40]["lr"] == events[39].lr


def test_every_line_of_the_log_has_its_six_fields_and_a_digest(trained):
    lines = [json.loads(line) for line in (trained.directory / "metrics.jsonl").read_text().splitlines()]
    assert [sorted(line) for line in lines] == [
        ["digest", "elapsed_s", "grad_norm", "loss", "lr", "step", "tokens_per_second"]
    ] * 3
    assert lines[0]["elapsed_s"] < lines[1]["elapsed_s"] < lines[2]["elapsed_s"]


def test_training_touches_no_global_state(tiny, tmp_path):
    threads, torch_state, numpy_state = torch.get_num_threads(), torch.get_rng_state(), np.random.get_state()[1].copy()
    deterministic = torch.are_deterministic_algorithms_enabled()
    short = tiny.model_copy(update={"optimizer": OptimizerSpec(steps=2)})
    train(short, directory=tmp_path / "run", device="cpu", threads=threads + 1)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)
    assert torch.are_deterministic_algorithms_enabled() == deterministic


def test_threads_are_recorded_kept_on_resumption_and_given_back(tiny, tmp_path):
    def interrupt(event: StepEvent) -> None:
        if event.step == 3:
            raise KeyboardInterrupt

    short = tiny.model_copy(update={"optimizer": OptimizerSpec(steps=5, batch_size=2)})
    before = torch.get_num_threads()
    directory = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(short, directory=directory, device="cpu", threads=before + 1, checkpoint_every=2, progress=interrupt)
    assert torch.get_num_threads() == before
    seen: set[int] = set()
    run = train(short, directory=directory, device="cpu", progress=lambda _: seen.add(torch.get_num_threads()))
    assert seen == {before + 1}
    assert run.metadata["threads"] == str(before + 1)
    assert torch.get_num_threads() == before


def begun(spec, directory, *, threads=1, upto=15) -> Path:
    """A run that was interrupted after the state of step 10 was saved."""

    def interrupt(event: StepEvent) -> None:
        if event.step == upto:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(spec, directory=directory, device="cpu", threads=threads, checkpoint_every=10, progress=interrupt)
    return directory / STATE_FILE


def test_other_threads_than_the_run_had_are_told_and_recorded(tiny, tmp_path):
    begun(tiny, tmp_path / "run")
    with pytest.warns(ResumedOtherwiseWarning, match="threads 1 to step 10, then 2. Its weights will not be"):
        run = train(tiny, directory=tmp_path / "run", device="cpu", threads=2)
    assert run.metadata["mixed"] == "threads 1 to step 10, then 2"
    assert train(tiny, directory=tmp_path / "run", device="cpu", threads=1).metadata == run.metadata, "it is finished"


@pytest.mark.parametrize(
    ("target", "other", "said"),
    [
        (
            "cotinterp.training.loop.machine_of",
            lambda place: "cpu ABACUS",
            r"machine cpu .* 10, then cpu ABACUS",
        ),
        ("cotinterp.training.checkpoints.Record.torch", None, "torch 0.1 to step 10, then"),
    ],
)
def test_another_machine_or_torch_is_told(tiny, trained, tmp_path, monkeypatch, target, other, said):
    state = begun(tiny, tmp_path / "run")
    if other is None:
        stored = read_weights(state)
        write_weights(state, stored.tensors, {**stored.metadata, "torch": "0.1"})
    else:
        monkeypatch.setattr(target, other)
    with pytest.warns(ResumedOtherwiseWarning, match=said):
        run = train(tiny, directory=tmp_path / "run", device="cpu")
    assert run.weight_hash == trained.weight_hash, "these are this machine's all the same"
    assert "to step 10, then" in run.metadata["mixed"]


def test_a_damaged_state_is_not_gone_on_from(tiny, trained, tmp_path):
    """Every kind of damage that a disk does; the message says what to do, and that is enough."""
    state = begun(tiny, tmp_path / "run")
    whole, generator = state.read_bytes(), np.random.default_rng(0)
    for place in map(int, generator.choice(len(whole), 30, replace=False)):
        state.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
        with pytest.raises(CheckpointError, match=f"{STATE_FILE} is .* Delete it and train its spec again in the same"):
            train(tiny, directory=tmp_path / "run", device="cpu")
    assert not (tmp_path / "run" / MODEL_FILE).exists()
    state.unlink()
    assert train(tiny, directory=tmp_path / "run", device="cpu", threads=1).weight_hash == trained.weight_hash


def test_the_state_of_another_run_is_not_gone_on_from(tiny, tmp_path):
    """Same task, same training problems, same shapes: another learning rate."""
    other = tiny.model_copy(update={"optimizer": tiny.optimizer.model_copy(update={"lr": 1e-3})})
    shutil.copy(begun(other, tmp_path / "other"), begun(tiny, tmp_path / "run"))
    with pytest.raises(CheckpointError, match=f"{STATE_FILE} is the state of another run than the spec.json beside it"):
        train(tiny, directory=tmp_path / "run", device="cpu")


def test_a_finished_run_is_loaded_by_any_number_of_processes_at_once(tiny, root):
    with sole_trainer(root / tiny.slug):
        assert train(tiny, directory=root / tiny.slug, device="cpu").spec == tiny


def test_torch_threads_are_given_back_even_after_an_error():
    before = torch.get_num_threads()
    with torch_threads(before + 2) as threads:
        assert threads == torch.get_num_threads() == before + 2
    assert torch.get_num_threads() == before
    with pytest.raises(KeyboardInterrupt), torch_threads(before + 2):
        raise KeyboardInterrupt
    assert torch.get_num_threads() == before


def test_two_processes_do_not_train_in_one_directory(tiny, tmp_path):
    """The second is refused while the first is at work, and not a moment longer."""
    with sole_trainer(tmp_path), pytest.raises(CheckpointError, match="another process is training in"):
        train(tiny, directory=tmp_path, device="cpu", threads=1)
    assert not list(tmp_path.iterdir())
    with sole_trainer(tmp_path):
        pass


def test_a_noisy_run_is_trained_evaluated_and_edited_like_any_other(tiny, tmp_path):
    spec = tiny.model_copy(update={"regime": "noisy"})
    run = train(spec, directory=tmp_path / spec.slug, device="cpu", threads=1)
    assert spec.slug.startswith("z6-noisy-L1-s0-")
    losses = [row["loss"] for row in read_metrics(run.directory / METRICS_FILE)]
    assert losses[-1] < losses[0]
    assert run.weight_hash != train(tiny, directory=tmp_path / tiny.slug, device="cpu", threads=1).weight_hash
    accuracy = evaluate_run(run, max_per_k=4)
    assert error_taxonomy(run.task, "noisy", accuracy.of_split("heldout")).frame()["share"].sum() == pytest.approx(2.0)
    problems = problems_of(spec, run.task)[:6]
    edited = trace_edits(run.model, run.task, "noisy", problems, rng=np.random.default_rng(0)).frame()
    assert edited["regime"].unique().tolist() == ["noisy"]
    assert {"substitute_total", "swap", "truncate", "edit_prompt"} <= set(edited["edit"])
