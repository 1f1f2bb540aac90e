"""A batch without padding: its layout, and the loss and gradient of the padded pass."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from cotinterp.models.build import as_bridge, build_module
from cotinterp.models.spec import ModelSpec
from cotinterp.tasks import get_task
from cotinterp.training.data import NOT_SCORED, TrainingSet
from cotinterp.training.learner import response_loss
from cotinterp.training.packing import MAX_BUCKETS, NARROWEST, TOKENS_STEP, WIDTH_STEP, PackedBatch, packed_loss
from cotinterp.training.spec import RunSpec
from cotinterp.transcripts.vocabulary import Vocabulary

pytestmark = pytest.mark.slow

ROWS = np.array([5, 0, 31, 2, 77, 8, 40])


@pytest.fixture(scope="module")
def data():
    spec = RunSpec(task="digit-sum", regime="cot", n_train=100)
    return TrainingSet.of(spec, get_task("digit-sum"), torch.device("cpu"))


@pytest.mark.parametrize("n_buckets", [1, 2, 3, 7, 20, None])
def test_every_sequence_is_there_once_and_whole(data, n_buckets):
    batch = PackedBatch.of(data, ROWS, n_buckets)
    assert batch.n_tokens == int(data.length[ROWS].sum())
    tokens, positions = batch.tokens[batch.row], batch.positions[batch.row]
    starts = (positions[: batch.n_tokens] == 0).nonzero()[:, 0].tolist() + [batch.n_tokens]
    packed = [tokens[a:b].tolist() for a, b in zip(starts, starts[1:], strict=False)]
    expected = [data.inputs[row, : data.length[row]].tolist() for row in ROWS]
    assert sorted(packed) == sorted(expected)
    assert [len(one) for one in packed] == sorted(len(one) for one in expected)
    assert all(positions[a:b].tolist() == list(range(b - a)) for a, b in zip(starts, starts[1:], strict=False))
    pairs = list(zip(batch.tokens.tolist(), batch.positions.tolist(), strict=True))[: int(batch.row.max()) + 1]
    assert len(set(pairs)) == len(pairs) < batch.n_tokens


@pytest.mark.parametrize("n_buckets", [1, 3, 7])
def test_a_bucket_lays_its_tokens_out_and_takes_them_back(data, n_buckets):
    batch = PackedBatch.of(data, ROWS, n_buckets)
    assert len(batch.buckets) == n_buckets
    for name, n in (("all", batch.n_tokens), ("scored", len(batch.rows))):
        parts = [getattr(bucket, name) for bucket in batch.buckets]
        assert all(a.tokens.stop == b.tokens.start for a, b in itertools.pairwise(parts))
        assert (parts[0].tokens.start, parts[-1].tokens.stop) == (0, n)
    positions = batch.positions[batch.row]
    for bucket in batch.buckets:
        for cells, place in ((bucket.all, positions), (bucket.scored, positions[batch.scored])):
            place = place[cells.tokens]
            real = cells.real.view(cells.rows, cells.width)
            laid_out = place[cells.grid].view(cells.rows, cells.width)
            assert torch.equal(laid_out.flatten()[cells.flat], place)
            assert torch.equal(cells.flat, cells.real[:, 0].nonzero()[:, 0])
            assert bool((laid_out.diff(dim=1)[real[:, 1:]] > 0).all())
            assert bool((real.sum(1) == real.cumsum(1).max(1).values).all())
            assert real.sum() == len(place)
        seen = bucket.mask[:, 0] == 0
        assert bool((seen | (bucket.mask[:, 0] == -torch.inf)).all())
        assert torch.equal(seen.sum(-1), laid_out + 1)
        assert bool((seen.int().diff(dim=-1) <= 0).all())


def test_what_is_scored_is_what_the_padded_targets_say(data):
    batch = PackedBatch.of(data, ROWS)
    order = ROWS[np.argsort(data.length.numpy()[ROWS], kind="stable")]
    targets = torch.cat([data.targets[row, : data.length[row]] for row in order])
    scored = (targets != NOT_SCORED).nonzero()[:, 0]
    assert torch.equal(batch.scored[: len(scored)], scored)
    assert torch.equal(batch.targets[: len(scored)], targets[scored])
    assert bool((batch.targets[len(scored) :] == NOT_SCORED).all())
    assert 0 < len(scored) < batch.n_tokens


def test_sizes_are_round_numbers_so_that_few_shapes_are_ever_seen(data):
    for rows in (ROWS, np.arange(64), np.arange(30, 47)):
        batch = PackedBatch.of(data, rows)
        assert len(batch.tokens) == len(batch.positions)
        assert 0 <= len(batch.row) - batch.n_tokens < TOKENS_STEP
        assert len(batch.scored) == len(batch.targets)
        assert {len(some) % TOKENS_STEP for some in (batch.tokens, batch.row, batch.scored)} == {0}
        assert {bucket.all.width % WIDTH_STEP for bucket in batch.buckets} == {0}


def test_buckets_are_few_and_never_narrower_than_a_vector_register(data):
    long = PackedBatch.of(data, np.arange(100))
    assert len(long.buckets) == MAX_BUCKETS
    assert len(PackedBatch.of(data, ROWS[:2]).buckets) == 1
    assert all(bucket.all.width >= NARROWEST for bucket in long.buckets)
    shortest = int(data.length.argmin())
    assert data.length[shortest] <= NARROWEST
    assert PackedBatch.of(data, np.array([shortest])).buckets[0].all.width == NARROWEST


def test_less_is_padded_than_in_one_rectangle(data):
    rows = np.arange(64)
    cells = {n: sum(b.all.rows * b.all.width for b in PackedBatch.of(data, rows, n).buckets) for n in (1, 4)}
    assert cells[4] < 0.8 * cells[1]


TASK = get_task("digit-sum")
SOME_ROWS = np.array([3, 14, 15, 9, 26, 5])
KINDS = [
    *itertools.product(("LN", "LNPre", "RMS", "RMSPre", None), ("standard", "rotary", "alibi"), ("gelu",)),
    *itertools.product(("LN",), ("standard",), ("gelu_new", "relu", "silu")),
]


def training_set(regime="cot"):
    return TrainingSet.of(RunSpec(task="digit-sum", regime=regime, n_train=40), TASK, torch.device("cpu"))


def random_module(norm="LN", positions="standard", act="gelu", task=TASK):
    """Every parameter random, biases and scales too, so that none can be forgotten unseen."""
    spec = ModelSpec(
        n_layers=2, d_model=16, n_heads=2, d_mlp=24, n_ctx=64, act_fn=act, normalization=norm, positions=positions
    )
    module = build_module(spec, len(Vocabulary.of(task)), seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return module


def gradient(module, loss):
    return torch.cat(
        [part.flatten() for part in torch.autograd.grad(loss, [p for p in module.parameters() if p.requires_grad])]
    )


@pytest.mark.parametrize(("norm", "positions", "act"), KINDS)
def test_loss_and_gradient_are_those_of_the_padded_pass(norm, positions, act):
    module, data = random_module(norm, positions, act), training_set()
    padded = response_loss(module, data.rows(SOME_ROWS))
    packed = packed_loss(module, PackedBatch.of(data, SOME_ROWS, 2))
    torch.testing.assert_close(packed, padded, atol=1e-6, rtol=1e-6)
    expected, found = gradient(module, padded), gradient(module, packed)
    assert expected.abs().max() > 0.01
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("n_buckets", [1, 3])
@pytest.mark.parametrize("positions", ["standard", "rotary"])
def test_thoughts_have_the_loss_and_gradient_of_the_padded_pass(positions, n_buckets):
    """Through every pass: the gradient reaches what earlier thoughts were made of. One row is in the batch twice."""
    task = get_task("digit-sum")
    spec = ModelSpec(n_layers=2, d_model=16, n_heads=2, d_mlp=32, positions=positions, thoughts=True)
    module = build_module(spec, len(Vocabulary.of(task)), seed=0)
    data, rows = training_set("dots"), np.append(SOME_ROWS, SOME_ROWS[0])
    padded = response_loss(module, data.rows(rows))
    packed = packed_loss(module, PackedBatch.of(data, rows, n_buckets))
    torch.testing.assert_close(packed, padded, atol=1e-6, rtol=1e-6)
    found, expected = gradient(module, packed), gradient(module, padded)
    assert expected.abs().max() > 0.01
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("regime", ["direct", "cot", "noisy"])
@pytest.mark.parametrize("n_buckets", [1, 2, 6])
def test_neither_regime_nor_number_of_buckets_changes_the_gradient(regime, n_buckets):
    module, data = random_module(), training_set(regime)
    expected = gradient(module, response_loss(module, data.rows(SOME_ROWS)))
    found = gradient(module, packed_loss(module, PackedBatch.of(data, SOME_ROWS, n_buckets)))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("n_buckets", [1, 3])
def test_states_at_operands_have_the_loss_and_gradient_of_the_padded_pass(n_buckets):
    task = get_task("s3")
    data = TrainingSet.of(RunSpec(task="s3", regime="tagging", n_train=40), task, torch.device("cpu"))
    module = random_module(task=task)
    padded, packed = (
        response_loss(module, data.rows(SOME_ROWS)),
        packed_loss(module, PackedBatch.of(data, SOME_ROWS, n_buckets)),
    )
    torch.testing.assert_close(packed, padded, atol=1e-6, rtol=1e-6)
    expected = gradient(module, padded)
    torch.testing.assert_close(gradient(module, packed), expected, atol=1e-5, rtol=1e-5)
    direct = TrainingSet.of(RunSpec(task="s3", regime="direct", n_train=40), task, torch.device("cpu"))
    assert (gradient(module, response_loss(module, direct.rows(SOME_ROWS))) - expected).abs().max() > 0.01


def test_the_reference_model_has_the_same_gradient_too():
    module, data = build_module(ModelSpec(), len(Vocabulary.of(TASK)), seed=0), training_set()
    rows = np.arange(16)
    expected = gradient(module, response_loss(module, data.rows(rows)))
    found = gradient(module, packed_loss(module, PackedBatch.of(data, rows)))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0.0)


def test_half_precision_rounds_as_much_as_the_padded_pass_does():
    """Relative to the fp32 gradient, bfloat16 is wrong by about a percent either way; the two agree on no less."""
    module, data = build_module(ModelSpec(), len(Vocabulary.of(TASK)), seed=0), training_set()
    rows = np.arange(16)
    exact = gradient(module, response_loss(module, data.rows(rows)))
    padded = gradient(module, response_loss(module, data.rows(rows), bf16=True))
    packed = gradient(module, packed_loss(module, PackedBatch.of(data, rows), bf16=True))
    error = {name: ((one - exact).norm() / exact.norm()).item() for name, one in (("a", padded), ("b", packed))}
    assert 0 < error["b"] < 2 * error["a"] < 0.04


def test_what_stands_in_the_padding_is_never_seen():
    """Another token at the place that padded cells are gathered from changes only the sequences that hold it."""
    module, data = random_module(), training_set()
    batch = PackedBatch.of(data, SOME_ROWS, 1)
    bucket = batch.buckets[0]
    poisoned = {}
    for name, last in (("all", batch.n_tokens - 1), ("scored", len(batch.rows) - 1)):
        cells = getattr(bucket, name)
        assert not bool(cells.real.all())
        poisoned[name] = replace(cells, grid=torch.where(cells.real[:, 0], cells.grid, last))
    other = replace(batch, buckets=(replace(bucket, **poisoned),))
    expected, found = (gradient(module, packed_loss(module, one)) for one in (batch, other))
    assert torch.equal(found, expected)


def test_a_blank_holds_nothing_and_receives_nothing():
    """Other tokens in the blanks behind the batch change neither loss nor gradient."""
    module, data = random_module(), training_set()
    batch = PackedBatch.of(data, SOME_ROWS)
    blank = torch.arange(len(batch.row)) >= batch.n_tokens
    unused = torch.arange(len(batch.tokens)) > batch.row.max()
    assert blank.any()
    assert unused.any()
    other = replace(
        batch,
        row=torch.where(blank, 1, batch.row),
        tokens=torch.where(unused, 5, batch.tokens),
        positions=torch.where(unused, 9, batch.positions),
    )
    losses = [packed_loss(module, one) for one in (batch, other)]
    assert torch.equal(*losses)
    assert torch.equal(*(gradient(module, loss) for loss in losses))


def test_a_module_whose_parts_are_not_known_is_refused():
    module, data = random_module(), training_set()
    module.layers[1].attn.kv_repeats = 2
    with pytest.raises(ValueError, match=r"no forward pass without padding .* attention of layer 1"):
        packed_loss(module, PackedBatch.of(data, SOME_ROWS))


def test_a_bridge_trains_like_the_module_it_wraps():
    module, data = random_module(), training_set()
    batch = PackedBatch.of(data, SOME_ROWS)
    alone = packed_loss(module, batch)
    assert torch.equal(packed_loss(as_bridge(module), batch), alone)
