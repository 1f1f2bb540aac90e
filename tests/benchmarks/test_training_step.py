from dataclasses import replace

import pytest
import torch

from benchmarks.padded_loop import PaddedLoop
from benchmarks.training_step import PEERS, PRECISIONS, same_gradient, step_flops, training_step, training_steps

CPU = torch.device("cpu")


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("peer", PEERS)
def test_the_first_gradient_is_the_peers(spec, peer, precision, once):
    row = once(training_step(spec, CPU, peer, precision))
    assert row.equal, row.note
    assert precision in row.work
    assert ("bf16" in row.note) == (precision == "bf16")


def test_both_precisions_stand_against_both_loops(subject, amounts):
    assert len({(x.work, x.peer) for x in training_steps(subject, amounts)}) == len(PEERS) * len(PRECISIONS)


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
