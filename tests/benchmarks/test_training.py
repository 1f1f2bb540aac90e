"""Training steps and whole runs: the same gradients and accuracies as the hand-written loop."""

from dataclasses import replace

import pytest
import torch

from benchmarks.training import (
    PEERS,
    PRECISIONS,
    PaddedLoop,
    gradients,
    same_accuracy,
    same_gradient,
    step_flops,
    training_step,
    training_steps,
    whole_run,
)
from benchmarks.workload import untrained_workload
from cotinterp.models.handmade import reader
from cotinterp.training.learner import Learner

CPU = torch.device("cpu")


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("peer", PEERS)
def test_the_first_gradient_is_the_peers(spec, peer, precision, once):
    row = once(training_step(spec, CPU, peer, precision))
    assert row.equal, row.note
    assert precision in row.work
    assert ("bf16" in row.note) == (precision == "bf16")


def test_both_precisions_stand_against_both_loops(workload, amounts):
    assert len({(x.work, x.peer) for x in training_steps(workload, amounts)}) == len(PEERS) * len(PRECISIONS)


def test_another_batch_has_another_gradient(spec, once):
    comparison = training_step(spec, CPU, next(iter(PEERS)), "fp32")
    other = PaddedLoop.begin(spec, "raw", CPU)
    assert not once(replace(comparison, theirs=lambda: other.step(1))).equal


def test_one_entry_off_by_more_than_the_tolerance_is_seen(spec):
    gradient = PaddedLoop.begin(spec, "raw", CPU).step(0)
    moved = {name: x.clone() for name, x in gradient.items()}
    next(iter(moved.values())).view(-1)[0] += 2e-5
    assert same_gradient(gradient, gradient).equal
    assert not same_gradient(gradient, moved).equal


def test_the_floor_grows_with_the_batch(spec):
    twice = spec.model_copy(update={"optimizer": spec.optimizer.model_copy(update={"batch_size": 16})})
    assert step_flops(twice) == 2 * step_flops(spec)


CPU = torch.device("cpu")


@pytest.mark.parametrize("kind", ["bridge", "raw"])
def test_a_few_steps_lead_to_the_same_weights_as_ours(spec, kind):
    from cotinterp.tasks import get_task

    loop, learner = PaddedLoop.begin(spec, kind, CPU), Learner.begin(spec, get_task(spec.task), CPU)
    before = {name: weight.detach().clone() for name, weight in loop.weights.items()}
    for number in range(3):
        loop.step(number)
        learner.update(number)
    for name, weight in learner.module.named_parameters():
        if name.endswith("k.bias"):
            continue  # no softmax feels it: its gradient is rounding, which AdamW makes a step of
        torch.testing.assert_close(loop.weights[name], weight, atol=2e-4, rtol=0)
    assert any(not weight.equal(before[name]) for name, weight in loop.weights.items())


def test_weights_without_a_gradient_are_named(spec):
    with pytest.raises(ValueError, match="no gradient lies at"):
        gradients(PaddedLoop.begin(spec, "raw", CPU).weights)


def test_both_train_from_one_spec(workload, amounts, once):
    row = once(whole_run(workload, amounts, 2))
    assert row.equal
    assert row.note.count("/12 [") == 2
    assert (row.unit, row.pairs) == ("s", 1)


def test_a_model_that_can_and_one_that_cannot_are_not_equal(spec):
    untrained = untrained_workload(spec.model_copy(update={"task": "s3"}), torch.device("cpu"))
    handmade = reader("s3", "cot", (2, 3))
    assert not same_accuracy(untrained, 40, handmade, untrained.model).equal
    assert same_accuracy(untrained, 40, handmade, handmade).equal
