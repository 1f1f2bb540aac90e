import numpy as np
import pytest

from benchmarks import memory
from benchmarks.memory import added_memory


def test_what_a_block_takes_and_gives_back_is_counted():
    with added_memory() as added:
        held = np.ones(2**23)
        del held
    assert added() == pytest.approx(64, abs=16)


def test_a_block_that_takes_nothing_adds_nothing():
    with added_memory() as added:
        pass
    assert added() < 4


def test_a_system_that_does_not_tell(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_CLEAR", tmp_path / "missing" / "clear_refs")
    with added_memory() as added:
        pass
    assert added() is None
