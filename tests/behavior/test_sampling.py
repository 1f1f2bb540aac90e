"""Drawn text: the same on every path, distributed as the model says, and as probable as it says."""

from itertools import product

import numpy as np
import pytest
import torch

from cotinterp.behavior.decoding import greedy, prefixes
from cotinterp.behavior.sampling import sample_continuations, sample_responses
from cotinterp.tasks import get_task
from cotinterp.transcripts.batch import collate
from cotinterp.transcripts.render import render
from cotinterp.transcripts.vocabulary import Vocabulary


@pytest.fixture
def batch(some_problems):
    task = get_task("s3")
    return collate([render(task, problem, "cot") for problem in some_problems("s3", 3, k_max=3)], Vocabulary.of(task))


def draw(model, start, batch, *, seed=0, **options):
    return sample_continuations(model, start, stop=batch.vocabulary.end, rng=np.random.default_rng(seed), **options)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 3.0])
def test_the_cache_and_the_batch_change_nothing(random_native, batch, temperature):
    model = random_native("s3", scale=0.2)
    start = prefixes(model, batch, max_new=12)
    options = {"temperature": temperature, "n_samples": 3}
    kept = draw(model, start, batch, **options)
    for other, size in ((model, 2), (model, 5), (lambda tokens: model(tokens), 4), (lambda tokens: model(tokens), 99)):
        again = draw(other, start, batch, batch_size=size, **options)
        assert torch.equal(again.tokens, kept.tokens)
        assert torch.equal(again.length, kept.length)
        assert torch.equal(again.ended, kept.ended)
        torch.testing.assert_close(again.log_prob, kept.log_prob, atol=1e-4, rtol=1e-4)
    assert len(torch.unique(kept.tokens.flatten(0, 1), dim=0)) > len(batch)
    assert not torch.equal(draw(model, start, batch, seed=1, **options).tokens, kept.tokens)


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_log_probabilities_are_those_of_a_teacher_forced_pass(random_native, batch, temperature):
    model = random_native("s3", scale=0.2)
    start = prefixes(model, batch, max_new=10)
    found = draw(model, start, batch, n_samples=2, temperature=temperature)
    for row, sample in product(range(len(batch)), range(2)):
        given, n = int(start.given[row]), int(found.length[row, sample])
        written = found.tokens[row, sample, :n]
        with torch.no_grad():
            logits = model(torch.cat([start.tokens[row, :given], written])[None])[0, given - 1 : -1].double()
        for scale, column in ((1.0, found.log_prob), (temperature, found.drawn_log_prob)):
            expected = (logits / scale).log_softmax(-1).gather(1, written[:, None])[:, 0]
            torch.testing.assert_close(column[row, sample, :n], expected, atol=1e-4, rtol=1e-4)
            assert not column[row, sample, n:].any()
        assert not found.tokens[row, sample, n:].any()
        stop = batch.vocabulary.end
        assert bool(found.ended[row, sample]) == (int(written[-1]) == stop)
        assert stop not in written[:-1]
        assert bool(found.ended[row, sample]) or given + n == int(start.limit[row])


@pytest.mark.parametrize("temperature", [0.0, None])
def test_temperature_0_is_greedy(random_native, batch, temperature):
    model = random_native("s3", seed=2)
    start = prefixes(model, batch, max_new=9)
    found = draw(model, start, batch, temperature=temperature, n_samples=2)
    for row, expected in enumerate(greedy(model, start, stop=batch.vocabulary.end)):
        for sample in range(2):
            assert tuple(found.tokens[row, sample, : len(expected)].tolist()) == expected
            assert int(found.length[row, sample]) == len(expected)
    assert not found.drawn_log_prob.any()
    assert (found.log_prob.sum(-1) < 0).all()


def fixed(batch, probabilities):
    """The same distribution over the first symbols at every place."""
    logits = torch.full((len(batch.vocabulary),), -torch.inf)
    logits[: len(probabilities)] = torch.tensor(probabilities).log()
    return lambda tokens: logits.expand(*tokens.shape, -1)


def test_symbols_come_as_often_as_they_are_probable(batch):
    """4,500 draws of each: at 0.1, 0.6 and 0.3 the standard error is below 0.008. What is impossible never comes."""
    start = prefixes(lambda tokens: tokens, batch[:1], max_new=9)
    found = draw(fixed(batch, [0.1, 0.0, 0.6, 0.3]), start, batch, n_samples=500, batch_size=500)
    shares = torch.bincount(found.tokens.flatten(), minlength=5) / found.tokens.numel()
    assert shares.tolist() == pytest.approx([0.1, 0.0, 0.6, 0.3, 0.0, *[0] * (len(shares) - 5)], abs=0.04)
    assert shares[1] == shares[4:].sum() == 0
    symbols = torch.tensor([0.1, 1.0, 0.6, 0.3]).double().log()
    torch.testing.assert_close(found.log_prob, symbols[found.tokens], atol=1e-6, rtol=1e-6)
    sharper = draw(fixed(batch, [0.1, 0.0, 0.6, 0.3]), start, batch, n_samples=500, temperature=0.5, batch_size=500)
    squares = np.array([0.01, 0.36, 0.09]) / 0.46
    often = torch.bincount(sharper.tokens.flatten(), minlength=4)[[0, 2, 3]] / sharper.tokens.numel()
    assert often.tolist() == pytest.approx(squares.tolist(), abs=0.04)


def test_probabilities_of_all_one_symbol_answers_sum_to_one(random_native, batch):
    """P(answer | prompt) over every answer of one symbol, from the log-probabilities of what was drawn."""
    model = random_native("s3", scale=0.1)
    start = prefixes(model, batch[:1], max_new=1)
    found = draw(model, start, batch, n_samples=600)
    p_of = {int(t): float(p.exp()) for t, p in zip(found.tokens.flatten(), found.log_prob.flatten(), strict=True)}
    assert sum(p_of.values()) == pytest.approx(1, abs=0.05)
    assert sum(p_of.values()) <= 1 + 1e-6


def test_responses_as_text(random_native, batch):
    model = random_native("s3", scale=0.2)
    rng = np.random.default_rng(0)
    responses = sample_responses(model, batch, rng=rng, n_samples=2, max_new=12)
    found = draw(model, prefixes(model, batch, max_new=12), batch, n_samples=2)
    assert [len(of_prompt) for of_prompt in responses] == [2] * len(batch)
    for row, sample in product(range(len(batch)), range(2)):
        response, n = responses[row][sample], int(found.length[row, sample])
        assert batch.vocabulary.encode(response.text) == found.tokens[row, sample, :n].tolist()
        assert response.ended == response.text.endswith("#")
        assert sum(response.log_prob) == pytest.approx(float(found.log_prob[row, sample].sum()))


def test_bad_requests(random_native, batch):
    model = random_native("s3")
    start = prefixes(model, batch, max_new=2)
    for options in ({"n_samples": 0}, {"temperature": -1.0}, {"temperature": float("nan")}):
        with pytest.raises(ValueError, match="n_samples must be 1 or more and temperature finite and not negative"):
            draw(model, start, batch, **options)
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    for broken in (model, lambda tokens: model(tokens)):
        with pytest.raises(ValueError, match="NaN logits"):
            draw(broken, start, batch)
