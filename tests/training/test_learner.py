"""One update: learning rate, loss, decay, clipping; and beginning from the weights of another run."""

import math
import shutil

import numpy as np
import pytest
import torch

from cotinterp.models.spec import ModelSpec
from cotinterp.models.weights import CheckpointError, load_weights, named_weights, read_weights, weight_hash
from cotinterp.tasks import get_task
from cotinterp.training.checkpoints import MODEL_FILE, load_run
from cotinterp.training.course import learning_rate
from cotinterp.training.data import NOT_SCORED, batch_rows
from cotinterp.training.learner import Learner, adamw, carry_over, response_loss
from cotinterp.training.loop import train
from cotinterp.training.packing import PackedBatch, packed_loss
from cotinterp.training.spec import OptimizerSpec
from cotinterp.training.spec_file import SPEC_FILE
from cotinterp.transcripts.vocabulary import Vocabulary

OPTIMIZER = OptimizerSpec(steps=21, warmup=4, lr=0.8, final_lr_fraction=0.25)


@pytest.mark.parametrize(
    ("step", "rate"),
    [(0, 0.2), (1, 0.4), (3, 0.8), (4, 0.8), (12, 0.5), (20, 0.2), (8, 0.2 + 0.6 * (1 + 2**-0.5) / 2)],
)
def test_rates_worked_out_by_hand(step, rate):
    assert learning_rate(OPTIMIZER, step) == pytest.approx(rate)


def test_the_rate_falls_at_every_step_after_the_warmup():
    rates = [learning_rate(OPTIMIZER, step) for step in range(4, 21)]
    assert all(later < earlier for earlier, later in zip(rates, rates[1:], strict=False))


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (1, 100), (5, 4), (5, 5), (2, 1)])
def test_short_runs_have_a_rate_at_every_step(steps, warmup):
    optimizer = OptimizerSpec(steps=steps, warmup=warmup, lr=0.8)
    assert all(0 < learning_rate(optimizer, step) <= 0.8 for step in range(steps))


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


def test_blocks_run_in_loops_stay_one_and_learn_from_the_sum_of_their_gradients(tiny):
    """Against the model of as many layers with the same weights, each of which has a gradient of its own."""
    looped, plain = (
        Learner.begin(tiny.model_copy(update={"model": tiny.model.model_copy(update=shape)}), get_task(tiny.task), CPU)
        for shape in ({"n_layers": 2, "loops": 2}, {"n_layers": 4})
    )
    load_weights(plain.module, named_weights(looped.module))
    batch = PackedBatch.of(looped.data, np.arange(8))
    tied, apart = ({}, {})
    for one, found in ((looped, tied), (plain, apart)):
        loss = packed_loss(one.module, batch)
        named = dict(one.module.named_parameters())
        found |= dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))
    for name, gradient in tied.items():
        again = name.replace("layers.0", "layers.2").replace("layers.1", "layers.3")
        total = apart[name] + apart[again] if again != name else apart[name]
        torch.testing.assert_close(gradient, total, atol=1e-6, rtol=1e-4)
    for step in range(3):
        looped.update(step)
    weights = named_weights(looped.module)
    assert torch.equal(weights["blocks.0.mlp.in.weight"], weights["blocks.2.mlp.in.weight"])
    assert not torch.equal(weights["blocks.0.mlp.in.weight"], named_weights(plain.module)["blocks.0.mlp.in.weight"])
    groups = looped.optimizer.param_groups
    assert sum(len(group["params"]) for group in groups) == len(tied) == len(apart) - 2 * 16


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


@pytest.fixture
def after(tiny, trained):
    """Parity in a shorter context, from the tiny run on z6."""
    model = tiny.model.model_copy(update={"n_ctx": 22})
    optimizer = tiny.optimizer.model_copy(update={"steps": 12})
    changes = {"task": "parity", "model": model, "optimizer": optimizer, "start_from": trained.spec.slug, "seed": 7}
    return tiny.model_copy(update=changes)


def begun(spec):
    return Learner.begin(spec, get_task(spec.task), CPU).module


def test_weights_go_by_name_embeddings_by_symbol_and_positions_by_place(after, root, trained):
    task, module = get_task("parity"), begun(after)
    fresh = {name: tensor.clone() for name, tensor in named_weights(module).items()}
    assert carry_over(module, after, task, root / after.slug) == trained.weight_hash
    given, found = named_weights(trained.model), named_weights(module)
    old, new = trained.vocabulary, Vocabulary.of(task)
    for name in ("embed.weight", "unembed.weight"):
        for symbol in new.symbols:
            expected = given[name][old.token(symbol)] if symbol in old.symbols else fresh[name][new.token(symbol)]
            assert torch.equal(found[name][new.token(symbol)], expected), (name, symbol)
    assert torch.equal(found["pos_embed.weight"], given["pos_embed.weight"][:22])
    others = [name for name in found if not name.endswith("embed.weight")]
    assert len(others) == len(found) - 3
    assert all(torch.equal(found[name], given[name]) for name in others)
    assert any(not torch.equal(found[name], fresh[name]) for name in others)


def test_symbols_and_places_that_the_earlier_run_never_had_stay_as_they_were_drawn(after, root):
    wider = after.model_copy(update={"task": "digit-sum", "model": after.model.model_copy(update={"n_ctx": 40})})
    module, drawn = begun(wider), named_weights(begun(wider))
    carry_over(module, wider, get_task("digit-sum"), root / wider.slug)
    found, nine = named_weights(module), Vocabulary.of(get_task("digit-sum")).token("9")
    assert torch.equal(found["pos_embed.weight"][24:], drawn["pos_embed.weight"][24:])
    assert not torch.equal(found["pos_embed.weight"][:24], drawn["pos_embed.weight"][:24])
    assert torch.equal(found["embed.weight"][nine], drawn["embed.weight"][nine])


def test_training_goes_on_from_there_is_recorded_and_resumes_bit_for_bit(after, root, trained):
    """The start is read once: it may be gone when a killed run goes on."""
    whole = train(after, directory=root / after.slug, device="cpu", threads=1)
    assert whole.metadata["start"] == trained.weight_hash
    assert whole.spec.start_from == trained.spec.slug
    scratch = train(after.model_copy(update={"start_from": None}), directory=root / "scratch", device="cpu", threads=1)
    assert "start" not in scratch.metadata
    assert scratch.weight_hash != whole.weight_hash

    class Killed(Exception):
        pass

    def kill(event):
        if event.step == 8:
            raise Killed

    again = root / "again"
    with pytest.raises(Killed):
        train(after, directory=again, device="cpu", threads=1, checkpoint_every=5, progress=kill)
    shutil.move(root / trained.spec.slug, root.parent / "elsewhere")
    resumed = train(after, directory=again, device="cpu", threads=1, checkpoint_every=5)
    assert resumed.weight_hash == whole.weight_hash
    assert resumed.metadata["start"] == trained.weight_hash
    assert weight_hash(load_run(again).model) == whole.weight_hash


def test_a_run_from_random_weights_says_nothing_of_a_start(trained):
    assert "start" not in read_weights(trained.directory / MODEL_FILE).metadata
    assert "start_from" not in (trained.directory / SPEC_FILE).read_text()


def test_a_missing_or_unfinished_start_is_refused_before_training(after, root, trained):
    absent = after.model_copy(update={"start_from": "z6-cot-L1-s0-00000000"})
    with pytest.raises(CheckpointError, match=r"no finished run in .*z6-cot-L1-s0-00000000; train that one first"):
        train(absent, directory=root / absent.slug, device="cpu")
    (root / trained.spec.slug / MODEL_FILE).unlink()
    with pytest.raises(CheckpointError, match="no finished run"):
        carry_over(begun(after), after, get_task("parity"), root / after.slug)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"n_layers": 2}, r"it has no 'blocks.1.ln1.weight'"),
        ({"d_mlp": 48}, r"it has \(32, 16\) for 'blocks.0.mlp.in.weight', the new model \(48, 16\)"),
        ({"d_model": 8}, r"it has \(16, 16\) for 'embed.weight', the new model \(12, 8\)"),
        ({"positions": "rotary"}, "it has 'pos_embed.weight', which the new model has not"),
        ({"positions": "alibi"}, "it has positions 'standard', the new model 'alibi'"),
        ({"loops": 2}, r"it has no 'blocks.1.ln1.weight'"),
    ],
    ids=str,
)
def test_a_model_of_another_shape_is_refused(after, root, change, said):
    spec = after.model_copy(update={"model": ModelSpec(**(after.model.model_dump() | change))})
    with pytest.raises(CheckpointError, match=said):
        carry_over(begun(spec), spec, get_task("parity"), root / spec.slug)
