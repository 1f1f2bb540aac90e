import pytest
import torch

from benchmarks.padded_loop import PaddedLoop, gradients
from cotinterp.training.learner import Learner

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
