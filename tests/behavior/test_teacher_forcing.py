"""Probabilities of given texts are those of a plain pass, however they are computed, and sum to one."""

import pytest
import torch

from cotinterp.behavior.sampling import continuation_log_prob, forced_logits
from cotinterp.tasks import get_task
from cotinterp.transcripts.vocabulary import Vocabulary

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
