import pytest
import torch

from benchmarks.workload import FULL, QUICK, mixed_problems, probed_batches, trained_workload
from cotinterp.models.native.parts import why_not_native
from cotinterp.training.loop import train
from cotinterp.transcripts.problems import split_of


def test_mixed_problems_are_held_out_distinct_and_of_every_length(workload):
    problems = mixed_problems(workload, 60)
    assert len({problem.operands for problem in problems}) == len(problems) == 60
    assert {split_of(problem.operands) for problem in problems} == {"heldout"}
    assert {problem.k for problem in problems} == {2, 3}


def test_lengths_that_have_few_problems_leave_their_share_to_the_others(workload):
    problems = mixed_problems(workload, 150)
    assert len(problems) == 150
    assert sum(problem.k == 2 for problem in problems) < 30


def test_probed_batches_share_no_problem(workload):
    train_batch, test_batch = probed_batches(workload, 80, 3)
    assert (len(train_batch), len(test_batch)) == (60, 20)
    fitted, tested = ({x.problem.operands for x in batch.transcripts} for batch in (train_batch, test_batch))
    assert not fitted & tested


def test_a_hooked_model_is_no_native_one_and_is_put_back(workload):
    with workload.hooked():
        assert why_not_native(workload.model) == "hooks are attached to it"
    assert why_not_native(workload.model) is None


def test_a_trained_run_is_found_by_its_path(spec, tmp_path):
    run = train(spec, directory=tmp_path / "run", device="cpu", threads=1)
    found = trained_workload(str(tmp_path / "run"), tmp_path, torch.device("cpu"))
    assert found.spec == run.spec
    assert not found.model.training


def test_a_missing_reference_run_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="digit-sum-cot"):
        trained_workload(None, tmp_path, torch.device("cpu"))


def test_a_full_run_has_batches_of_1_16_and_256_and_a_thousand_problems():
    assert FULL.patched == (1, 16, 256)
    assert FULL.decoded == 1000
    assert QUICK.decoded < FULL.decoded
