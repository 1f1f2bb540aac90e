"""A few hundred of what the drill tries by the thousand, and that its checks can fail."""

import pytest

from benchmarks import fuzz
from cotinterp.behavior.errors import Category, Diagnosis

pytestmark = pytest.mark.slow


def test_every_fuzzed_output_has_one_category():
    faults = [fault for output in fuzz.fuzzed_outputs(400) if (fault := fuzz.fault_of_output(output))]
    assert faults == []


def test_an_output_in_the_wrong_category_is_found(monkeypatch):
    monkeypatch.setattr(fuzz, "diagnose", lambda *_: Diagnosis(Category.CORRECT, None, 0))
    faults = [fault for output in fuzz.fuzzed_outputs(50) if (fault := fuzz.fault_of_output(output))]
    assert len(faults) > 25


def test_every_fuzzed_task_file_is_accepted_or_one_clear_error(tmp_path):
    found = [fuzz.outcome_of_task_file(content, tmp_path) for content in fuzz.fuzzed_task_files(300)]
    assert {accepted for accepted, _ in found} == {True, False}
    assert len({said for _, said in found}) > 30


def test_an_error_that_is_no_clear_one_is_found(tmp_path, monkeypatch):
    def broken(ref):
        raise TypeError("an internal error")

    monkeypatch.setattr(fuzz, "get_task", broken)
    with pytest.raises(AssertionError, match="TypeError"):
        fuzz.outcome_of_task_file(b"", tmp_path)


def test_the_same_seed_gives_the_same_files_and_outputs():
    assert list(fuzz.fuzzed_task_files(5)) == list(fuzz.fuzzed_task_files(5))
    assert list(fuzz.fuzzed_outputs(5)) == list(fuzz.fuzzed_outputs(5))
    assert list(fuzz.fuzzed_outputs(5)) != list(fuzz.fuzzed_outputs(5, seed=1))
