"""Samples that follow the greedy text as far as they agree with it: the same distribution, from fewer passes."""

from collections import Counter
from itertools import product

import numpy as np
import pytest
import torch

from cotinterp.behavior.decoding import Prefixes, greedy, prefixes
from cotinterp.behavior.sampling import sample_around_greedy, sample_continuations
from cotinterp.tasks import get_task
from cotinterp.transcripts.batch import collate
from cotinterp.transcripts.render import render
from cotinterp.transcripts.vocabulary import Vocabulary


@pytest.fixture
def batch(some_problems):
    task = get_task("s3")
    return collate([render(task, problem, "cot") for problem in some_problems("s3", 3, k_max=3)], Vocabulary.of(task))


def draw(model, start, batch, *, seed=0, **options):
    return sample_around_greedy(model, start, stop=batch.vocabulary.end, rng=np.random.default_rng(seed), **options)


@pytest.mark.parametrize(("scale", "temperature"), [(0.2, 1.0), (0.6, 0.7), (0.6, 2.0)])
def test_log_probabilities_are_those_of_a_teacher_forced_pass(random_native, batch, scale, temperature):
    """Of samples that stop, depart early, late or never: models from unsure to nearly sure."""
    model = random_native("s3", scale=scale)
    start = prefixes(model, batch, max_new=10)
    found = draw(model, start, batch, n_samples=4, temperature=temperature)
    for row, sample in product(range(len(batch)), range(4)):
        given, n = int(start.given[row]), int(found.length[row, sample])
        written = found.tokens[row, sample, :n]
        with torch.no_grad():
            logits = model(torch.cat([start.tokens[row, :given], written])[None])[0, given - 1 : -1].double()
        for divisor, column in ((1.0, found.log_prob), (temperature, found.drawn_log_prob)):
            expected = (logits / divisor).log_softmax(-1).gather(1, written[:, None])[:, 0]
            torch.testing.assert_close(column[row, sample, :n], expected, atol=1e-4, rtol=1e-4)
            assert not column[row, sample, n:].any()
        assert not found.tokens[row, sample, n:].any()
        stop = batch.vocabulary.end
        assert bool(found.ended[row, sample]) == (int(written[-1]) == stop)
        assert stop not in written[:-1]
        assert bool(found.ended[row, sample]) or given + n == int(start.limit[row])


@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_texts_come_as_often_as_they_are_probable(temperature):
    """A Markov chain over three symbols, 2 the stop: the share of each of its texts of up to three symbols."""
    chain = torch.tensor([[0.1, 0.6, 0.3], [0.5, 0.2, 0.3], [1 / 3, 1 / 3, 1 / 3]]).log()
    start = Prefixes(*map(torch.tensor, ([[0]], [1], [1], [4])))
    found = sample_around_greedy(
        lambda tokens: chain[tokens],
        start,
        stop=2,
        rng=np.random.default_rng(1),
        n_samples=4000,
        temperature=temperature,
    )
    texts = Counter(tuple(row[:n]) for row, n in zip(found.tokens[0].tolist(), found.length[0].tolist(), strict=True))
    drawn = (chain / temperature).log_softmax(-1).exp()
    likely = {}
    for text in product(range(3), repeat=3):
        text = text[: text.index(2) + 1] if 2 in text else text
        p = np.prod([float(drawn[before, after]) for before, after in zip((0, *text), text, strict=False)])
        likely[text] = p
    assert sum(likely.values()) == pytest.approx(1, abs=1e-6)
    for text, p in likely.items():
        assert texts[text] / 4000 == pytest.approx(p, abs=4 * np.sqrt(p * (1 - p) / 4000))


def test_it_has_the_mean_of_the_plain_sampler(random_native, batch):
    model = random_native("s3", scale=0.4)
    start = prefixes(model, batch[:2], max_new=5)
    fast = draw(model, start, batch, n_samples=1500)
    plain = sample_continuations(model, start, stop=batch.vocabulary.end, rng=np.random.default_rng(5), n_samples=1500)
    a, b = (of.log_prob.sum(-1) for of in (fast, plain))
    spread = ((a.var(1) + b.var(1)) / 1500).sqrt()
    assert ((a.mean(1) - b.mean(1)).abs() < 4 * spread).all()
    assert (spread > 0).all()


def test_a_sure_model_is_read_a_few_times_whatever_the_number_of_samples(scripted, batch):
    task = get_task("s3")
    model = scripted.Model(task, scripted.reader(task, "cot"))

    def sure(tokens):
        return 60 * model(tokens)

    start = prefixes(sure, batch)
    found = draw(sure, start, batch, n_samples=50)
    assert model.passes <= 4
    for row, expected in enumerate(greedy(sure, start, stop=batch.vocabulary.end)):
        assert (found.tokens[row, :, : len(expected)] == torch.tensor(expected)).all()
        assert (found.length[row] == len(expected)).all()
    assert found.ended.all()


def test_equal_generators_give_equal_samples(random_native, batch):
    model = random_native("s3", scale=0.3)
    start = prefixes(model, batch, max_new=8)
    once, again, other = (draw(model, start, batch, seed=seed, n_samples=3) for seed in (0, 0, 1))
    assert torch.equal(once.tokens, again.tokens)
    assert not torch.equal(once.tokens, other.tokens)


def test_bad_requests(random_native, batch):
    model = random_native("s3")
    start = prefixes(model, batch, max_new=2)
    for options in ({"n_samples": 0}, {"temperature": 0.0}, {"temperature": -1.0}, {"temperature": float("nan")}):
        with pytest.raises(ValueError, match="n_samples must be 1 or more and temperature finite and above 0"):
            draw(model, start, batch, **options)
