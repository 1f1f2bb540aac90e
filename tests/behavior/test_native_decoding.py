"""Read from the weights or called on whole sequences, step by step or verified: one text."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cotinterp.behavior import decoding as native_decoding
from cotinterp.behavior.decoding import greedy, prefixes, text_of, verified, verified_greedy
from cotinterp.models.build import as_bridge
from cotinterp.tasks import get_task
from cotinterp.training.checkpoints import load_run
from cotinterp.transcripts.batch import collate
from cotinterp.transcripts.problems import sample_problems
from cotinterp.transcripts.render import render
from cotinterp.transcripts.vocabulary import Vocabulary

(CHECKPOINT,) = (Path(__file__).parents[2] / "checkpoints").glob("digit-sum-cot-L4-s0-*")


def batch_of(name, problems, regime="cot"):
    task = get_task(name)
    return collate([render(task, problem, regime) for problem in problems], Vocabulary.of(task))


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
    batch = batch_of("s3", some_problems("s3", 4, k_max=4))
    model = random_native("s3", seed=5, scale=0.4)
    start, stop = prefixes(model, batch), batch.vocabulary.end
    expected = greedy(model, start, stop=stop)
    monkeypatch.setattr(native_decoding, "WINDOW", window)
    monkeypatch.setattr(native_decoding, "NODES_ON_CPU", nodes)
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


def test_nan_is_refused(random_native, some_problems):
    model = random_native("digit-sum")
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.raises(ValueError, match="NaN logits"):
        verified_greedy(model, batch_of("digit-sum", some_problems("digit-sum", 2, k_max=3)))
