"""One update, checked against sums worked out one token at a time."""

import math

import numpy as np
import pytest
import torch

from cotinterp.models.weights import weight_hash
from cotinterp.tasks import get_task
from cotinterp.training.data import NOT_SCORED, batch_rows
from cotinterp.training.learner import Learner, adamw, response_loss
from cotinterp.training.spec import OptimizerSpec
from cotinterp.transcripts.vocabulary import Vocabulary

CPU = torch.device("cpu")


@pytest.fixture
def learner(tiny):
    return Learner.begin(tiny, get_task(tiny.task), CPU)


def test_the_loss_is_the_mean_over_response_tokens(learner):
    batch = learner.data.rows(np.arange(6))
    log_probs = learner.module(batch.inputs).log_softmax(-1)
    terms = [
        -log_probs[row, position, batch.targets[row, position]].item()
        for row in range(6)
        for position in range(batch.inputs.shape[1])
        if batch.targets[row, position] != NOT_SCORED
    ]
    assert response_loss(learner.module, batch).item() == pytest.approx(sum(terms) / len(terms), rel=1e-5)


def test_a_replaced_total_carries_no_gradient(tiny):
    """The model reads it, and nothing is asked of the logits that would have written it."""
    learner = Learner.begin(tiny.model_copy(update={"regime": "noisy"}), get_task(tiny.task), CPU)
    true = Learner.begin(tiny, get_task(tiny.task), CPU)
    batch, clean = learner.data.rows(np.arange(40)), true.data.rows(np.arange(40))
    kept = []
    handle = learner.module.register_forward_hook(lambda module, inputs, logits: kept.append(logits))
    loss = response_loss(learner.module, batch)
    handle.remove()
    (gradient,) = torch.autograd.grad(loss, kept)
    replaced = (batch.targets == NOT_SCORED) & (clean.targets != NOT_SCORED)
    assert replaced.any(1).sum() > 5
    assert not gradient[replaced].any()
    assert gradient[batch.targets != NOT_SCORED].any(-1).all()
    written = batch.inputs[:, 1:][replaced[:, :-1]]
    assert (written != clean.targets[:, :-1][replaced[:, :-1]]).any()


def test_a_model_that_knows_nothing_pays_the_log_of_the_vocabulary(learner):
    with torch.no_grad():
        learner.module.head.weight.zero_()
    loss = response_loss(learner.module, learner.data.rows(np.arange(6)))
    assert loss.item() == pytest.approx(math.log(learner.module.head.weight.shape[0]), rel=1e-6)


def test_padding_changes_neither_the_loss_nor_the_gradient(learner):
    """The mean over a ragged batch is the mean of its rows, each weighed by its response tokens."""
    rows = np.array([int(learner.data.length.argmin()), int(learner.data.length.argmax())])
    batch = learner.data.rows(rows)
    assert batch.length[0] < batch.length[1]
    together = torch.autograd.grad(response_loss(learner.module, batch), list(learner.module.parameters()))
    alone = [learner.data.rows(row[None]) for row in rows]
    scored = [(one.targets != NOT_SCORED).sum() for one in alone]
    weighed = sum(n * response_loss(learner.module, one) for n, one in zip(scored, alone, strict=True)) / sum(scored)
    apart = torch.autograd.grad(weighed, list(learner.module.parameters()))
    assert max(gradient.abs().max() for gradient in together) > 1e-2
    for first, second in zip(together, apart, strict=True):
        torch.testing.assert_close(first, second, atol=1e-6, rtol=1e-4)


def test_an_update_is_adamw_on_the_clipped_gradient(tiny, learner):
    """Against the equations of Loshchilov & Hutter (2019), first step, without torch's optimizer."""
    spec = tiny.optimizer
    before = {name: p.detach().clone().double() for name, p in learner.module.named_parameters()}
    update = learner.update(0)
    gradients = {name: p.grad.double() for name, p in learner.module.named_parameters()}
    norm = sum(g.square().sum() for g in gradients.values()).sqrt().item()
    assert update.grad_norm > spec.clip
    assert norm == pytest.approx(spec.clip, rel=1e-4)
    assert update.lr == spec.lr / spec.warmup
    for name, parameter in learner.module.named_parameters():
        decay = spec.weight_decay if parameter.ndim > 1 else 0.0
        step = gradients[name] / (gradients[name].abs() + 1e-8)
        expected = before[name] * (1 - update.lr * decay) - update.lr * step
        torch.testing.assert_close(parameter.detach().double(), expected, atol=1e-6, rtol=1e-5)


def test_matrices_are_decayed_and_vectors_are_not(learner):
    decayed, kept = adamw(learner.module, OptimizerSpec(weight_decay=0.3)).param_groups
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.3, 0.0)
    assert all(p.ndim == 2 for p in decayed["params"])
    assert all(p.ndim == 1 for p in kept["params"])
    assert len(decayed["params"]) + len(kept["params"]) == len(list(learner.module.parameters()))


def test_the_update_counts_tokens_without_padding(tiny, learner):
    vocabulary = Vocabulary.of(get_task(tiny.task))
    update = learner.update(7)
    assert update.step == 8
    rows = batch_rows(0, 7, 100, 8)
    ends = [(learner.data.targets[row] == vocabulary.end).nonzero().item() for row in rows]
    assert update.tokens == sum(end + 1 for end in ends)


def test_updates_are_a_function_of_the_spec(tiny, learner):
    other = Learner.begin(tiny, get_task(tiny.task), CPU)
    torch.rand(3)
    for step in range(3):
        assert learner.update(step) == other.update(step)
    assert weight_hash(learner.module) == weight_hash(other.module)


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_weights_stay_as_they_are_where_the_loss_is_not_finite(learner, poison):
    learner.update(0)
    with torch.no_grad():
        learner.module.ln_out.bias[0] = poison
    before = weight_hash(learner.module)
    update = learner.update(1)
    assert not math.isfinite(update.loss + update.grad_norm)
    assert weight_hash(learner.module) == before


def test_is_finite_sees_one_bad_weight(learner):
    assert learner.is_finite()
    with torch.no_grad():
        learner.module.layers[0].attn.q.bias[3] = math.inf
    assert not learner.is_finite()


def test_bf16_computes_nearly_the_same_loss_and_keeps_fp32_weights(tiny, learner):
    batch = learner.data.rows(np.arange(8))
    full, half = response_loss(learner.module, batch), response_loss(learner.module, batch, bf16=True)
    assert full.item() != half.item()
    assert half.item() == pytest.approx(full.item(), rel=0.02)
    coarse = Learner.begin(tiny.model_copy(update={"precision": "bf16"}), get_task(tiny.task), CPU)
    assert coarse.update(0).loss != learner.update(0).loss
    assert {p.dtype for p in coarse.module.parameters()} == {torch.float32}
