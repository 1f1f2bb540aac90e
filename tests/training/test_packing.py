"""A batch without padding holds each token of each sequence once, and knows where it stood."""

import numpy as np
import pytest
import torch

from cotinterp.tasks import get_task
from cotinterp.training.data import NOT_SCORED, TrainingSet
from cotinterp.training.packing import MAX_BUCKETS, NARROWEST, TOKENS_STEP, WIDTH_STEP, PackedBatch
from cotinterp.training.spec import RunSpec

ROWS = np.array([5, 0, 31, 2, 77, 8, 40])


@pytest.fixture(scope="module")
def data():
    spec = RunSpec(task="digit-sum", regime="cot", n_train=100)
    return TrainingSet.of(spec, get_task("digit-sum"), torch.device("cpu"))


@pytest.mark.parametrize("n_buckets", [1, 2, 3, 7, 20, None])
def test_every_sequence_is_there_once_and_whole(data, n_buckets):
    batch = PackedBatch.of(data, ROWS, n_buckets)
    assert batch.n_tokens == int(data.length[ROWS].sum())
    starts = (batch.positions[: batch.n_tokens] == 0).nonzero()[:, 0].tolist() + [batch.n_tokens]
    packed = [batch.tokens[a:b].tolist() for a, b in zip(starts, starts[1:], strict=False)]
    expected = [data.inputs[row, : data.length[row]].tolist() for row in ROWS]
    assert sorted(packed) == sorted(expected)
    assert [len(one) for one in packed] == sorted(len(one) for one in expected)
    assert all(batch.positions[a:b].tolist() == list(range(b - a)) for a, b in zip(starts, starts[1:], strict=False))


@pytest.mark.parametrize("n_buckets", [1, 3, 7])
def test_a_bucket_lays_its_tokens_out_and_takes_them_back(data, n_buckets):
    batch = PackedBatch.of(data, ROWS, n_buckets)
    assert len(batch.buckets) == n_buckets
    assert all(a.tokens.stop == b.tokens.start for a, b in zip(batch.buckets, batch.buckets[1:], strict=False))
    assert (batch.buckets[0].tokens.start, batch.buckets[-1].tokens.stop) == (0, batch.n_tokens)
    for bucket in batch.buckets:
        tokens, positions = batch.tokens[bucket.tokens], batch.positions[bucket.tokens]
        laid_out = tokens[bucket.grid].reshape(bucket.rows, bucket.width)
        real = bucket.real.reshape(bucket.rows, bucket.width)
        assert torch.equal(laid_out.flatten()[bucket.flat], tokens)
        assert torch.equal(positions[bucket.grid].reshape(real.shape)[real], torch.where(real)[1])
        assert real.sum() == len(tokens)
        assert torch.equal(bucket.flat, bucket.real[:, 0].nonzero()[:, 0])


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
        assert 0 <= len(batch.tokens) - batch.n_tokens < TOKENS_STEP
        assert len(batch.scored) == len(batch.targets)
        assert {size % TOKENS_STEP for size in (len(batch.tokens), len(batch.scored))} == {0}
        assert {bucket.width % WIDTH_STEP for bucket in batch.buckets} == {0}


def test_buckets_are_few_and_never_narrower_than_a_vector_register(data):
    long = PackedBatch.of(data, np.arange(100))
    assert len(long.buckets) == MAX_BUCKETS
    assert len(PackedBatch.of(data, ROWS[:2]).buckets) == 1
    assert all(bucket.width >= NARROWEST for bucket in long.buckets)
    shortest = int(data.length.argmin())
    assert data.length[shortest] <= NARROWEST
    assert PackedBatch.of(data, np.array([shortest])).buckets[0].width == NARROWEST


def test_less_is_padded_than_in_one_rectangle(data):
    rows = np.arange(64)
    cells = {n: sum(b.rows * b.width for b in PackedBatch.of(data, rows, n).buckets) for n in (1, 4)}
    assert cells[4] < 0.8 * cells[1]
