"""What an unfinished run leaves on disk is all that it needs."""

from dataclasses import replace

import pytest
import torch

from cotinterp.models.weights import CheckpointError, read_metadata, weight_hash, write_tensors
from cotinterp.tasks import get_task
from cotinterp.training.checkpoints import Record, installed_version, read_record, restore_state, save_state
from cotinterp.training.learner import Learner

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
    restore_state(path, other.module, other.optimizer)
    assert weight_hash(other.module) == weight_hash(learner.module)
    for step in range(3, 9):
        assert other.update(step) == learner.update(step)
    assert weight_hash(other.module) == weight_hash(learner.module)


def test_weights_without_their_moments_go_elsewhere(begin, saved):
    """The negative control of the test above: it would notice a lost moment."""
    learner, path = saved
    other = begin()
    restore_state(path, other.module, other.optimizer)
    other.optimizer.state.clear()
    assert other.update(3).loss == learner.update(3).loss
    assert weight_hash(other.module) != weight_hash(learner.module)


def test_a_restored_learner_keeps_nothing_of_the_file(begin, saved):
    learner, path = saved
    other = begin()
    restore_state(path, other.module, other.optimizer)
    moments = [tensor for state in other.optimizer.state.values() for tensor in state.values() if tensor.numel() > 1]
    assert all(tensor.data_ptr() % 64 == 0 for tensor in (*moments, *other.module.parameters()))


def test_where_a_run_started_is_stored_only_if_it_started_somewhere(saved):
    learner, path = saved
    assert "start" not in read_metadata(path)
    moved = replace(RECORD, start="d")
    save_state(path, learner.module, learner.optimizer, moved)
    assert read_metadata(path)["start"] == "d"
    assert read_record(path) == moved


def test_the_record_survives_the_file_exactly(saved):
    assert read_record(saved[1]) == RECORD
    assert RECORD.cotinterp == installed_version()
    assert RECORD.torch == torch.__version__


@pytest.mark.parametrize("damage", [{"step": "three"}, {"threads": ""}])
def test_a_record_without_numbers_is_refused(saved, damage):
    path = saved[1]
    write_tensors(path, {"x": torch.zeros(1)}, read_metadata(path) | damage)
    with pytest.raises(CheckpointError, match="does not say how far its run had come"):
        read_record(path)


def test_a_file_without_a_record_is_refused(tmp_path):
    write_tensors(tmp_path / "other.safetensors", {"x": torch.zeros(1)}, {})
    with pytest.raises(CheckpointError, match="does not say how far"):
        read_record(tmp_path / "other.safetensors")


def test_a_state_of_another_model_is_refused(tiny, begin, saved):
    wide = tiny.model_copy(update={"model": tiny.model.model_copy(update={"d_mlp": 33})})
    other = Learner.begin(wide, get_task(wide.task), torch.device("cpu"))
    before = weight_hash(other.module)
    with pytest.raises(CheckpointError, match=r"fc_in.weight' is \(32, 16\), the spec says \(33, 16\)"):
        restore_state(saved[1], other.module, other.optimizer)
    assert weight_hash(other.module) == before


def test_records_differ_where_a_field_does():
    assert replace(RECORD, step=4) != RECORD
