"""Verified decoding is step-by-step decoding, whatever the model and whatever the guess."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from cotinterp.behavior.decoding import greedy, prefixes, text_of, verified, verified_greedy
from cotinterp.tasks import get_task
from cotinterp.transcripts.batch import collate
from cotinterp.transcripts.render import render
from cotinterp.transcripts.vocabulary import Vocabulary

REGIMES = ("direct", "cot", "totals", "filler")


def batch_of(name, problems, regime):
    task = get_task(name)
    return collate([render(task, problem, regime) for problem in problems], Vocabulary.of(task))


def both(model, batch, **options):
    """Texts by step-by-step and by verified decoding."""
    start = prefixes(model, batch, **options)
    stop = batch.vocabulary.end
    return tuple(
        tuple(text_of(batch.vocabulary, ids) for ids in decode(model, start, stop=stop, batch_size=7))
        for decode in (greedy, verified)
    )


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("name", ["digit-sum", "s3"])
def test_a_model_that_is_right_writes_the_expected_responses(scripted, some_problems, name, regime):
    batch = batch_of(name, some_problems(name, 6), regime)
    model = scripted.Model(get_task(name), scripted.recomputer(get_task(name), regime))
    expected = tuple(transcript.response for transcript in batch.transcripts)
    assert both(model, batch) == (expected, expected)
    assert verified_greedy(model, batch) == expected


def test_a_guess_that_is_right_takes_one_pass(scripted, some_problems):
    batch = batch_of("digit-sum", some_problems("digit-sum", 8), "cot")
    model = scripted.Model(get_task("digit-sum"), scripted.recomputer(get_task("digit-sum"), "cot"))
    verified_greedy(model, batch)
    assert (model.passes, model.rows) == (1, len(batch))


@pytest.mark.parametrize("regime", ["cot", "totals"])
def test_a_model_that_goes_wrong_halfway_is_followed_from_there(scripted, some_problems, regime):
    task = get_task("digit-sum")
    batch = batch_of("digit-sum", some_problems("digit-sum", 3), regime)
    model = scripted.Model(task, scripted.reader(task, regime, slip_at=2))
    by_step, by_guess = both(model, batch)
    assert by_step == by_guess
    slow, fast = (scripted.Model(task, model.policy) for _ in range(2))
    start = prefixes(slow, batch)
    greedy(slow, start, stop=batch.vocabulary.end, batch_size=64)
    verified(fast, start, stop=batch.vocabulary.end, batch_size=64)
    assert fast.passes < slow.passes
    wrong = [text for text, of in zip(by_step, batch.transcripts, strict=True) if text != of.response]
    assert len(wrong) == sum(transcript.problem.k > 2 for transcript in batch.transcripts)
    assert all(text.endswith("#") for text in wrong)


def test_a_slip_by_hand(scripted):
    task = get_task("digit-sum")
    problem, _ = scripted.asked(task, "<3+4+5+6>")
    model = scripted.Model(task, scripted.reader(task, "cot", slip_at=2))
    batch = collate([render(task, problem, "cot")], Vocabulary.of(task))
    assert both(model, batch) == (("{3+4=7;7+5=13;13+6=19}19#",),) * 2


@pytest.mark.parametrize("salt", ["a", "b", "c"])
@pytest.mark.parametrize("symbols", [None, "{}0123+=;", "{}01;#"])
def test_a_babbling_model(scripted, some_problems, salt, symbols):
    task = get_task("digit-sum")
    batch = batch_of("digit-sum", some_problems("digit-sum", 6), "cot")
    model = scripted.Model(task, scripted.babbler(task, salt=salt, symbols=symbols), n_ctx=60)
    by_step, by_guess = both(model, batch)
    assert by_step == by_guess
    ends = {text.endswith("#") for text in by_step}
    assert ends == ({False} if symbols == "{}0123+=;" else {True} if symbols == "{}01;#" else ends)


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize(("name", "seed", "scale"), [("digit-sum", 0, 0.5), ("digit-sum", 1, 0.1), ("a5", 2, 0.3)])
def test_a_random_native_model(random_native, some_problems, name, seed, scale, regime):
    batch = batch_of(name, some_problems(name, 3, k_max=4), regime)
    model = random_native(name, seed=seed, scale=scale)
    by_step, by_guess = both(model, batch, max_new=25)
    assert by_step == by_guess
    assert verified_greedy(model, batch[[0]], max_new=25) == by_step[:1]


def test_hooks_change_nothing(random_native, some_problems):
    batch = batch_of("digit-sum", some_problems("digit-sum", 3, k_max=3), "cot")
    plain, hooked = (random_native("digit-sum", n_ctx=24, hooked=hooked) for hooked in (False, True))
    assert verified_greedy(hooked, batch) == verified_greedy(plain, batch)


@pytest.mark.parametrize("max_new", [1, 2, 9, 25])
def test_any_limit_and_any_guess_give_the_same_text(random_native, some_problems, max_new):
    batch = batch_of("digit-sum", some_problems("digit-sum", 3, k_max=4), "cot")
    model = random_native("digit-sum", seed=3)
    start = prefixes(model, batch, max_new=max_new)
    expected = greedy(model, start, stop=batch.vocabulary.end)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, len(batch.vocabulary), start.tokens.shape, generator=generator)
    place = torch.arange(start.tokens.shape[1])
    scrambled = torch.where(place < start.given[:, None], start.tokens, noise)
    for tokens, guessed in ((start.tokens, start.guessed), (scrambled, start.guessed), (scrambled, start.given)):
        guess = replace(start, tokens=tokens, guessed=guessed)
        assert verified(model, guess, stop=batch.vocabulary.end) == expected
    assert all(len(written) <= max_new for written in expected)


def test_a_guess_cannot_leak_into_the_text(scripted, some_problems):
    """A model that would copy a symbol that it can see ahead: causal decoding shows it none."""
    task = get_task("s3")
    batch = batch_of("s3", some_problems("s3", 4), "cot")
    clean = scripted.Model(task, scripted.reader(task, "cot"))
    start = prefixes(clean, batch)
    wrong = replace(start, tokens=torch.where(start.tokens == batch.vocabulary.end, 1, start.tokens))
    assert verified(clean, wrong, stop=batch.vocabulary.end) == greedy(clean, start, stop=batch.vocabulary.end)


def test_padding_changes_no_real_logit(random_native, some_problems):
    batch = batch_of("digit-sum", some_problems("digit-sum", 3), "cot")
    model = random_native("digit-sum")
    real = torch.arange(batch.tokens.shape[1]) < batch.length[:, None]
    other = torch.where(real, batch.tokens, torch.full_like(batch.tokens, 5))
    assert not torch.equal(other, batch.tokens)
    with torch.inference_mode():
        padded, refilled = model(batch.tokens), model(other)
        torch.testing.assert_close(padded[real], refilled[real])
        assert not torch.allclose(padded[~real], refilled[~real])
        row = int(batch.length.argmin())
        length = int(batch.length[row])
        torch.testing.assert_close(model(batch.tokens[row : row + 1, :length])[0], padded[row, :length])


def test_ties_go_to_the_first_symbol(some_problems):
    batch = batch_of("digit-sum", some_problems("digit-sum", 2), "direct")
    vocabulary = batch.vocabulary
    first, second = sorted((vocabulary.token("7"), vocabulary.end))

    def tied(tokens):
        logits = torch.zeros(*tokens.shape, len(vocabulary))
        logits[..., [first, second]] = 1.0
        return logits

    assert vocabulary.end == first
    assert both(tied, batch) == (("#",) * len(batch),) * 2


def test_written_padding_stays_in_the_text(some_problems):
    batch = batch_of("digit-sum", some_problems("digit-sum", 2), "direct")

    def blank(tokens):
        return torch.zeros(*tokens.shape, len(batch.vocabulary))

    assert both(blank, batch, max_new=3) == (("___",) * len(batch),) * 2


def test_a_response_that_fills_the_context_never_ended(scripted):
    task = get_task("digit-sum")
    problem, _ = scripted.asked(task, "<3+4+5+6>")
    batch = collate([render(task, problem, "cot")], Vocabulary.of(task))
    policy = scripted.recomputer(task, "cot")
    response = batch.transcripts[0].response
    enough = int(batch.length[0])
    assert both(scripted.Model(task, policy, n_ctx=enough), batch) == ((response,),) * 2
    assert both(scripted.Model(task, policy, n_ctx=enough - 1), batch) == ((response[:-1],),) * 2
    assert both(scripted.Model(task, policy, n_ctx=12), batch) == ((response[:3],),) * 2
    with pytest.raises(ValueError, match="a prefix of 9 symbols leaves no room to answer in a context of 9"):
        verified_greedy(scripted.Model(task, policy, n_ctx=9), batch)


def test_the_limit_of_an_example_depends_on_that_example_alone(scripted, some_problems):
    task = get_task("digit-sum")
    batch = batch_of("digit-sum", some_problems("digit-sum", 2, k_max=4), "cot")
    texts = verified_greedy(scripted.Model(task, scripted.babbler(task, symbols="01")), batch)
    rest = (batch.length - batch.n_prompt).tolist()
    assert [len(text) for text in texts] == [2 * length + 8 for length in rest]


class Dropping(nn.Module):
    """In train mode it writes noise, in eval mode `#`."""

    def __init__(self, d_vocab, end):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(d_vocab).index_fill(0, torch.tensor([end]), 1.0))

    def forward(self, tokens):
        assert not torch.is_grad_enabled()
        logits = self.bias.expand(*tokens.shape, -1)
        return logits.flip(-1) if self.training else logits


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_read_in_eval_mode_and_left_as_it_was(some_problems, training):
    batch = batch_of("digit-sum", some_problems("digit-sum", 2), "direct")
    model = Dropping(len(batch.vocabulary), batch.vocabulary.end).train(training)
    assert set(verified_greedy(model, batch)) == {"#"}
    assert model.training is training


def test_bad_requests(some_problems):
    batch = batch_of("digit-sum", some_problems("digit-sum", 2), "direct")

    def broken(tokens):
        return torch.full((*tokens.shape, len(batch.vocabulary)), float("nan"))

    with pytest.raises(ValueError, match="NaN logits"):
        verified_greedy(broken, batch)
    with pytest.raises(ValueError, match="max_new must be 1 or more, got 0"):
        verified_greedy(broken, batch, max_new=0)
