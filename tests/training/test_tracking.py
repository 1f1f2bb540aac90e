"""What a tracker holds is metrics.jsonl, once, and the weights do not know of it."""

import json
import os
import struct
import sys

import numpy as np
import pytest

from cotinterp.training import loop
from cotinterp.training.loop import train
from cotinterp.training.progress import METRICS_FILE, read_metrics
from cotinterp.training.tracking import tracker

pytestmark = pytest.mark.slow


def scalars(folder):
    """Every tag of a folder of TensorBoard's, with its steps and values."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def logged(directory):
    """The same of metrics.jsonl, in the single precision that TensorBoard stores."""
    lines = read_metrics(directory / METRICS_FILE)
    tags = [name for name in lines[0] if name != "step"]
    return {tag: [(line["step"], float(np.float32(line[tag]))) for line in lines] for tag in tags}


def leveldb_log(data, block=32768, begun=7):
    """The records of a file in the format of LevelDB's logs: in blocks, each with checksum, length and type."""
    at, parts = 0, b""
    while at + 7 <= len(data):
        left = block - (at + begun) % block
        if left < 7:
            at += left
            continue
        length, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield parts
            parts = b""


def histories(folder):
    """Steps and losses of each offline run of Weights & Biases under a folder, read from its own file."""
    from wandb.proto.wandb_internal_pb2 import Record

    found = {}
    for path in folder.glob("wandb/offline-run-*/*.wandb"):
        rows = []
        for data in leveldb_log(path.read_bytes()[7:]):
            record = Record.FromString(data)
            if record.WhichOneof("record_type") == "history":
                items = {
                    item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item
                }
                rows.append((items["_step"], items["loss"]))
        found[path.stem.removeprefix("run-")] = rows
    return found


@pytest.fixture
def quiet_wandb(tmp_path, monkeypatch):
    """Nothing of this machine's user is read or written, and whatever asks for the network finds none."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_MODE", "online")


def killed_at(step, monkeypatch):
    """The process ends, as far as Python can tell, after the update `step` has been logged and tracked."""
    update = loop.Learner.update

    def until(self, done, course):
        if done >= step:
            raise KeyboardInterrupt
        return update(self, done, course)

    monkeypatch.setattr(loop.Learner, "update", until)


def test_tensorboard_has_the_lines_of_the_log_and_the_weights_do_not_change(tiny, trained, tmp_path):
    run = train(tiny, directory=tmp_path / tiny.slug, device="cpu", threads=1, tracker=tracker("tensorboard"))
    assert run.weight_hash == trained.weight_hash
    assert (run.spec, run.directory.name) == (trained.spec, trained.directory.name)
    found = scalars(run.directory / "tensorboard")
    assert found == logged(run.directory)
    assert [step for step, _ in found["loss"]] == [20, 40, 60]
    assert found["grad_norm"] == logged(trained.directory)["grad_norm"]


def test_a_run_that_goes_on_has_every_step_once(tiny, trained, tmp_path, monkeypatch):
    """Step 40 was tracked, and is made again: the last saved state is that of step 30."""
    directory, logs = tmp_path / tiny.slug, tmp_path / "logs"
    settings = {"device": "cpu", "threads": 1, "checkpoint_every": 30}
    with monkeypatch.context() as patched:
        killed_at(45, patched)
        with pytest.raises(KeyboardInterrupt):
            train(tiny, directory=directory, tracker=tracker("tensorboard", logs), **settings)
    assert [step for step, _ in scalars(logs / tiny.slug)["loss"]] == [20, 40]
    run = train(tiny, directory=directory, tracker=tracker("tensorboard", logs), **settings)
    assert run.weight_hash == trained.weight_hash
    assert scalars(logs / tiny.slug) == logged(directory)
    assert not (directory / "tensorboard").exists()


def test_the_log_of_a_finished_run_can_be_looked_at_afterward(tiny, trained, tmp_path):
    train(tiny, directory=trained.directory, device="cpu", tracker=tracker("tensorboard", tmp_path))
    assert scalars(tmp_path / tiny.slug) == logged(trained.directory)


def test_wandb_is_offline_whatever_its_environment_says_and_has_every_step_once(
    tiny, trained, tmp_path, monkeypatch, quiet_wandb, capfd
):
    directory = tmp_path / tiny.slug
    with monkeypatch.context() as patched:
        killed_at(45, patched)
        with pytest.raises(KeyboardInterrupt):
            train(tiny, directory=directory, device="cpu", threads=1, checkpoint_every=30, tracker=tracker("wandb"))
    assert "Traceback" not in capfd.readouterr().err
    run = train(tiny, directory=directory, device="cpu", threads=1, tracker=tracker("wandb"))
    assert run.weight_hash == trained.weight_hash
    ((name, rows),) = histories(directory).items()
    assert name == tiny.sha256[:16]
    assert rows == [(line["step"], line["loss"]) for line in read_metrics(directory / METRICS_FILE)]


def test_what_is_not_there_is_said_before_anything_is_trained(monkeypatch):
    with pytest.raises(ValueError, match="no tracker 'mlflow'; there are tensorboard, wandb"):
        tracker("mlflow")
    for name in ("tensorboard", "wandb"):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(
            ModuleNotFoundError, match=rf'needs the package {name}.*pip install "cotinterp\[tracking\]"'
        ):
            tracker(name)
