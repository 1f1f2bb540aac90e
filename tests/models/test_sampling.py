"""Probabilities of given texts, and sampled continuations, against what the logits say."""

from collections import Counter
from itertools import product

import numpy as np
import pytest
import torch

from cotinterp.models.decoding import Prefixes, greedy, prefixes
from cotinterp.models.sampling import (
    continuation_log_prob,
    forced_logits,
    sample_around_greedy,
    sample_continuations,
    sample_responses,
)
from cotinterp.tasks import get_task
from cotinterp.transcripts.batch import collate
from cotinterp.transcripts.render import render
from cotinterp.transcripts.vocabulary import Vocabulary

pytestmark = pytest.mark.slow

N = len(Vocabulary.of(get_task("s3")))


@pytest.fixture(scope="module")
def texts():
    """Twelve texts, some of which begin alike, of several lengths, asked about from several places on."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(1, N, (12, 11), generator=generator)
    tokens[4:8, :6] = tokens[4, :6]
    tokens[9] = tokens[8]
    length = torch.randint(7, 12, (12,), generator=generator)
    given = torch.randint(1, 7, (12,), generator=generator)
    return torch.where(torch.arange(11) < length[:, None], tokens, 0), given, length


def expected(model, tokens, given, length):
    with torch.no_grad():
        log_p = model(tokens).double().log_softmax(-1)
    return torch.stack(
        [
            sum(log_p[row, place - 1, tokens[row, place]] for place in range(int(given[row]), int(length[row])))
            for row in range(len(tokens))
        ]
    )


@pytest.mark.parametrize("batch_size", [1, 5, 256])
def test_it_is_the_sum_over_a_plain_pass(random_native, texts, batch_size):
    model = random_native("s3", scale=0.3)
    plain = expected(model, *texts)
    assert plain.std() > 1
    for other in (model, lambda tokens: model(tokens), random_native("s3", scale=0.3, hooked=True)):
        found = continuation_log_prob(other, *texts, batch_size=batch_size)
        torch.testing.assert_close(found, plain, atol=1e-4, rtol=1e-4)


def test_it_looks_at_nothing_beyond_the_end(random_native, texts):
    tokens, given, length = texts
    model = random_native("s3", scale=0.3)
    other = torch.where(torch.arange(11) < length[:, None], tokens, 3)
    for of in (model, lambda tokens: model(tokens)):
        assert torch.equal(continuation_log_prob(of, other, given, length), continuation_log_prob(of, *texts))


def test_a_text_is_as_probable_as_its_symbols_one_by_one(random_native, texts):
    """The chain rule; and one symbol's probabilities, over the vocabulary, sum to one."""
    tokens, given, length = (of[:1] for of in texts)
    model = random_native("s3", scale=0.3)
    ends = [continuation_log_prob(model, tokens, torch.tensor([n]), torch.tensor([n + 1])) for n in range(3, 7)]
    whole = continuation_log_prob(model, tokens, torch.tensor([3]), torch.tensor([7]))
    torch.testing.assert_close(sum(ends), whole, atol=1e-4, rtol=1e-4)
    every = tokens.repeat(N, 1)
    every[:, 3] = torch.arange(N)
    log_p = continuation_log_prob(model, every, torch.full((N,), 3), torch.full((N,), 4))
    assert float(log_p.exp().sum()) == pytest.approx(1, abs=1e-6)


def test_bad_requests(random_native, texts):
    model, (tokens, given, length) = random_native("s3"), texts
    for wrong in (torch.zeros_like(given), length):
        with pytest.raises(ValueError, match="one given symbol or more"):
            list(forced_logits(model, tokens, wrong, length))
    none = torch.zeros(0, dtype=torch.long)
    for of in (model, lambda tokens: model(tokens)):
        assert continuation_log_prob(of, none.reshape(0, 4), none, none).shape == (0,)
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    for broken in (model, lambda tokens: model(tokens)):
        with pytest.raises(ValueError, match="NaN logits"):
            continuation_log_prob(broken, tokens, given, length)


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


def test_bad_requests_sampling(random_native, batch):
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


def draw_around_greedy(model, start, batch, *, seed=0, **options):
    return sample_around_greedy(model, start, stop=batch.vocabulary.end, rng=np.random.default_rng(seed), **options)


@pytest.mark.parametrize(("scale", "temperature"), [(0.2, 1.0), (0.6, 0.7), (0.6, 2.0)])
def test_samples_around_greedy_have_the_log_probabilities_of_a_pass(random_native, batch, scale, temperature):
    """Of samples that stop, depart early, late or never: models from unsure to nearly sure."""
    model = random_native("s3", scale=scale)
    start = prefixes(model, batch, max_new=10)
    found = draw_around_greedy(model, start, batch, n_samples=4, temperature=temperature)
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
    fast = draw_around_greedy(model, start, batch, n_samples=1500)
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
    found = draw_around_greedy(sure, start, batch, n_samples=50)
    assert model.passes <= 4
    for row, expected in enumerate(greedy(sure, start, stop=batch.vocabulary.end)):
        assert (found.tokens[row, :, : len(expected)] == torch.tensor(expected)).all()
        assert (found.length[row] == len(expected)).all()
    assert found.ended.all()


def test_equal_generators_give_equal_samples(random_native, batch):
    model = random_native("s3", scale=0.3)
    start = prefixes(model, batch, max_new=8)
    once, again, other = (draw_around_greedy(model, start, batch, seed=seed, n_samples=3) for seed in (0, 0, 1))
    assert torch.equal(once.tokens, again.tokens)
    assert not torch.equal(once.tokens, other.tokens)


def test_bad_requests_around_greedy(random_native, batch):
    model = random_native("s3")
    start = prefixes(model, batch, max_new=2)
    for options in ({"n_samples": 0}, {"temperature": 0.0}, {"temperature": -1.0}, {"temperature": float("nan")}):
        with pytest.raises(ValueError, match="n_samples must be 1 or more and temperature finite and above 0"):
            draw_around_greedy(model, start, batch, **options)
