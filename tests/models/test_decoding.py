"""Verified decoding against decoding symbol by symbol, on models with known outputs and on real ones."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cotinterp.models import decoding
from cotinterp.models.build import as_bridge
from cotinterp.models.decoding import Guesses, greedy, not_nan, prefixes, text_of, verified, verified_greedy
from cotinterp.tasks import get_task
from cotinterp.training.checkpoints import load_run
from cotinterp.transcripts.batch import collate
from cotinterp.transcripts.problems import sample_problems
from cotinterp.transcripts.render import render
from cotinterp.transcripts.vocabulary import Vocabulary

pytestmark = pytest.mark.slow

STOP = 9


def guesses(row, *, accepted, guessed, limit):
    buffer = torch.tensor([[*row, *[0] * (limit - len(row))]])
    one = [torch.tensor([n]) for n in (accepted, guessed, limit)]
    return Guesses(buffer, *one, torch.tensor([True]), STOP)


def accept(of, argmax, first=None):
    of.accept(torch.tensor([0]), torch.tensor([argmax]), None if first is None else torch.tensor([first]))
    state = (of.accepted[0], of.guessed[0], of.running[0])
    return of.buffer[0, : int(of.accepted[0])].tolist(), *(number.item() for number in state)


def test_a_right_guess_is_kept_to_its_stop_symbol_and_that_is_not_read():
    of = guesses([1, 2, 3, 9], accepted=1, guessed=4, limit=8)
    assert of.to_read(torch.tensor([0])).tolist() == [3]
    assert accept(of, [2, 3, 9]) == ([1, 2, 3, 9], 4, 4, False)


def test_the_first_departure_is_corrected_and_what_follows_is_the_next_guess():
    of = guesses([1, 2, 3, 4], accepted=1, guessed=4, limit=8)
    assert accept(of, [2, 5, 6, 7]) == ([1, 2, 5], 3, 5, True)
    assert of.buffer[0, :5].tolist() == [1, 2, 5, 6, 7]


def test_a_guess_without_an_end_is_written_on():
    assert accept(guesses([1, 2, 3], accepted=1, guessed=3, limit=8), [2, 3, 4]) == ([1, 2, 3, 4], 4, 4, True)


def test_a_correction_may_be_the_stop_symbol():
    assert accept(guesses([1, 2, 3], accepted=1, guessed=3, limit=8), [2, 9, 4]) == ([1, 2, 9], 3, 4, False)


def test_nothing_is_written_beyond_the_limit():
    assert accept(guesses([1, 2, 3], accepted=1, guessed=3, limit=3), [2, 3, 4]) == ([1, 2, 3], 3, 3, False)
    assert accept(guesses([1, 2, 3], accepted=1, guessed=3, limit=3), [2, 7, 9]) == ([1, 2, 7], 3, 3, False)


def test_a_window_accepts_what_it_shows():
    of = guesses([1, 2, 3, 4, 5, 6], accepted=3, guessed=6, limit=8)
    assert accept(of, [4, 5], first=2) == ([1, 2, 3, 4, 5], 5, 6, True)
    assert accept(of, [7, 8], first=4) == ([1, 2, 3, 4, 5, 7], 6, 7, True)


def test_what_is_given_is_not_judged():
    """The argmaxes within the given symbols are nothing of the model's writing, a stop symbol among them."""
    assert accept(guesses([1, 9, 3], accepted=3, guessed=3, limit=5), [9, 8, 4]) == ([1, 9, 3, 4], 4, 4, True)
    assert accept(guesses([1, 9], accepted=2, guessed=2, limit=5), [9, 4]) == ([1, 9, 4], 3, 3, True)


def test_nan_is_refused():
    with pytest.raises(ValueError, match="NaN logits"):
        not_nan(torch.tensor([0.0, float("nan")]))


REGIMES = ("direct", "cot", "totals", "filler")


def batch_of(name, problems, regime="cot"):
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


(CHECKPOINT,) = (Path(__file__).parents[2] / "checkpoints").glob("digit-sum-cot-L4-s0-*")


def generated(bridge, start, row, stop):
    """What TransformerLens writes after one prefix."""
    n = int(start.given[row])
    prefix = start.tokens[row : row + 1, :n]
    with torch.no_grad():
        out = bridge.generate(
            prefix,
            max_new_tokens=int(start.limit[row]) - n,
            do_sample=False,
            eos_token_id=stop,
            return_type="tokens",
            verbose=False,
        )
    return tuple(out[0, n:].tolist())


@pytest.mark.parametrize(("seed", "scale"), [(0, 0.5), (1, 0.1), (3, 0.3)])
def test_models_that_depart_write_what_transformer_lens_and_a_foreign_call_write(
    random_native, some_problems, seed, scale
):
    batch = batch_of("digit-sum", some_problems("digit-sum", 4, k_max=4))
    bridge = random_native("digit-sum", seed=seed, scale=scale, hooked=True)
    start, stop = prefixes(bridge, batch, max_new=20), batch.vocabulary.end
    expected = greedy(bridge, start, stop=stop)
    assert verified(bridge, start, stop=stop, batch_size=5) == expected
    assert verified(lambda tokens: bridge(tokens), start, stop=stop) == expected
    for row in range(0, len(batch), 3):
        assert generated(bridge, start, row, stop) == expected[row]


@pytest.mark.parametrize("window", [1, 2, 50])
@pytest.mark.parametrize("nodes", [1, 40])
def test_how_much_is_read_at_once_changes_nothing(random_native, some_problems, monkeypatch, window, nodes):
    batch = batch_of("s3", some_problems("s3", 2, k_max=4))
    model = random_native("s3", seed=5, scale=0.4)
    start, stop = prefixes(model, batch), batch.vocabulary.end
    expected = greedy(model, start, stop=stop)
    monkeypatch.setattr(decoding, "WINDOW", window)
    monkeypatch.setattr(decoding, "NODES_ON_CPU", nodes)
    for batch_size in (1, 3, 100):
        assert verified(model, start, stop=stop, batch_size=batch_size) == expected


def test_a_trained_model_writes_what_transformer_lens_writes():
    run = load_run(CHECKPOINT)
    rng = np.random.default_rng(0)
    problems = [x for k in (2, 4, 6) for x in sample_problems(run.task, k, 8, split="heldout", rng=rng)]
    batch = collate([render(run.task, problem, "cot") for problem in problems], run.vocabulary)
    start, stop = prefixes(run.model, batch), run.vocabulary.end
    written = verified(run.model, start, stop=stop)
    assert written == greedy(run.model, start, stop=stop)
    texts = [text_of(run.vocabulary, tokens) for tokens in written]
    assert texts == [transcript.response for transcript in batch.transcripts]
    for row in (0, 9, 23):
        assert generated(run.model, start, row, stop) == written[row]


def test_edited_guesses_of_a_trained_model_are_written_on_as_step_by_step():
    """Other guesses and other prefixes than the model's own responses: it departs and goes on after a cache."""
    run = load_run(CHECKPOINT)
    problems = sample_problems(run.task, 4, 12, split="heldout", rng=np.random.default_rng(0))
    batch = collate([render(run.task, problem, "cot") for problem in problems], run.vocabulary)
    tokens = batch.tokens.clone()
    tokens[::2, 14] = run.vocabulary.token("7")
    tokens[1::2, 20] = run.vocabulary.token("}")
    for given in (batch.n_prompt, torch.full_like(batch.n_prompt, 18)):
        start = prefixes(run.model, batch, given=given)
        start = type(start)(tokens, start.given, start.guessed, start.limit)
        stop = run.vocabulary.end
        assert verified(run.model, start, stop=stop) == greedy(run.model, start, stop=stop)


def test_a_model_with_hooks_attached_is_called(random_native, some_problems):
    """Reading the weights would pass its hooks by."""
    batch = batch_of("digit-sum", some_problems("digit-sum", 2, k_max=3))
    bridge = as_bridge(random_native("digit-sum"))
    plain = verified_greedy(bridge, batch, max_new=6)
    fired = []

    def silence(value, hook):
        fired.append(hook.name)
        return torch.zeros_like(value)

    with bridge.hooks(fwd_hooks=[("blocks.0.hook_resid_post", silence)]):
        changed = verified_greedy(bridge, batch, max_new=6)
    assert fired
    assert changed != plain == verified_greedy(bridge, batch, max_new=6)


def test_nan_of_a_native_model_is_refused(random_native, some_problems):
    model = random_native("digit-sum")
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.raises(ValueError, match="NaN logits"):
        verified_greedy(model, batch_of("digit-sum", some_problems("digit-sum", 2, k_max=3)))
