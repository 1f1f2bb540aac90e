"""What known heads write when a symbol is read: the symbol, a step from it, nothing."""

import numpy as np
import pytest
import torch

from cotinterp.mechanism.activations import activations
from cotinterp.mechanism.heads.ov import NOTHING, ov_circuits
from cotinterp.mechanism.sites import Site
from cotinterp.tasks.registry import get_task
from cotinterp.transcripts.batch import collate
from cotinterp.transcripts.problems import sample_problems
from cotinterp.transcripts.render import render
from cotinterp.transcripts.roles import Role
from cotinterp.transcripts.vocabulary import Vocabulary

TASK = get_task("z6")
SYMBOLS = Vocabulary.of(TASK)
SRC, DEST = (Role.TOTAL, 1), (Role.EQUALS, 2)


@pytest.fixture
def batch():
    problems = sample_problems(TASK, 3, 48, split="train", rng=np.random.default_rng(0))
    return collate([render(TASK, problem, "cot") for problem in problems], SYMBOLS)


def writer(make_tiny, moved, **changes):
    """Head 0 writes 3 to the logit of `moved[token]` when it reads a token; head 1 writes nothing, b_O something."""
    n = len(SYMBOLS)
    sizes = {"n_layers": 1, "n_heads": 2, "d_head": n, "d_model": 2 * n, "d_vocab": n, "n_ctx": 40}
    model = make_tiny(**{**sizes, "attn_only": True, "normalization_type": None, **changes})
    native, eye = model.original_model, torch.eye(n)
    with torch.no_grad():
        for parameter in native.parameters():
            parameter.zero_()
        native.tok_embed.weight[:, :n] = eye
        attn = native.layers[0].attn
        attn.v.weight[:n, :n] = eye
        attn.o.weight[n:, :n] = 3 * eye[:, moved]
        attn.o.bias[n:] = torch.linspace(-1, 1, n)
        attn.v.bias[:n] = torch.linspace(2, -1, n)
        native.head.weight[:, n:] = eye
    return model


def step_by(operand):
    """Where each token goes: a state to that state and operand, other symbols to themselves."""
    moved = list(range(len(SYMBOLS)))
    for state in range(TASK.n_states):
        after = int(TASK.step(np.array([state]), np.array([operand]))[0])
        moved[SYMBOLS.token(TASK.states[state])] = SYMBOLS.token(TASK.states[after])
    return moved


HEAD, IDLE = Site("z", 0, 0), Site("z", 0, 1)


@pytest.mark.parametrize("reading", ["stream", "embedding"])
@pytest.mark.parametrize(("operand", "label"), [(0, "copy"), (2, "* 2"), (5, "* 5")])
def test_a_head_that_copies_and_heads_that_shift_are_told_from_one_another(make_tiny, batch, reading, operand, label):
    result = ov_circuits(writer(make_tiny, step_by(operand)), batch, TASK, SRC, DEST, reading=reading)
    assert result.symbols == TASK.states
    assert (result.classify(HEAD), result.classify(IDLE)) == (label, NOTHING)
    by_hand = 3.0 * (np.eye(6)[np.roll(np.arange(6), -operand)] - 1 / 6)
    np.testing.assert_allclose(result.matrices[0, 0], by_hand, atol=1e-6)
    assert not result.matrices[0, 1].any()


def test_a_head_that_lowers_the_symbol_it_reads_does_not_copy_it(make_tiny, batch):
    model = writer(make_tiny, step_by(0))
    with torch.no_grad():
        model.original_model.layers[0].attn.o.weight *= -1
    assert ov_circuits(model, batch, TASK, SRC, DEST).classify(HEAD) == NOTHING


def test_shuffled_symbols_are_no_relation(make_tiny, batch):
    """A head that raises a symbol for each symbol read, by no step of the task."""
    moved = step_by(0)
    places = [SYMBOLS.token(symbol) for symbol in TASK.states]
    for place, image in zip(places, [1, 3, 0, 2, 5, 4], strict=True):
        moved[place] = places[image]
    result = ov_circuits(writer(make_tiny, moved), batch, TASK, SRC, DEST)
    assert result.classify(HEAD) == NOTHING
    assert float(result.frame()["spread"].iloc[0]) == pytest.approx(3.0)


def test_random_heads_have_labels_no_more_often_than_declared(make_tiny, batch):
    labels = []
    for seed in range(10):
        model = make_tiny(seed=seed, d_vocab=len(SYMBOLS), n_ctx=40, n_layers=2)
        labels.append(set(ov_circuits(model, batch, TASK, SRC, DEST, reading="embedding").frame()["label"]))
    assert sum(found != {NOTHING} for found in labels) <= 2


@pytest.mark.parametrize("changes", [{}, {"normalization_type": "RMS"}, {"n_key_value_heads": 2}], ids=str)
def test_rows_are_what_each_head_adds_to_the_logits_with_all_attention_there(make_tiny, batch, changes):
    """Against the model's own final norm, at one example whose scale is the mean because it is the only one twice."""
    pair = batch[[0, 1]]
    model = make_tiny(d_vocab=len(SYMBOLS), n_ctx=40, **changes)
    result = ov_circuits(model, pair, TASK, SRC, DEST)
    rows, src, dest = torch.arange(2), pair.where(*SRC), pair.where(*DEST)
    found = activations(model, pair.tokens, [Site("v", 1), Site("resid_post", 1)])
    stream = found[Site("resid_post", 1)][rows, dest]
    for head in range(4):
        v = found[Site("v", 1)][rows, src]
        v = v.repeat_interleave(4 // v.shape[1], dim=1)[:, head]
        written = v @ model.W_O[1, head]
        if not changes.get("normalization_type"):
            written = written - written.mean(dim=-1, keepdim=True)
            stream = stream - stream.mean(dim=-1, keepdim=True)
        scale = (stream.square().mean(dim=-1) + model.cfg.eps).sqrt().mean()
        tokens = [SYMBOLS.token(symbol) for symbol in result.symbols]
        expected = (written * model.ln_final.weight / scale) @ model.W_U[:, tokens]
        torch.testing.assert_close(result.logits[1, head], expected.detach(), atol=1e-5, rtol=1e-4)


def test_digits_of_a_sum_shift_by_their_last_symbol(make_tiny):
    task = get_task("digit-sum")
    problems = sample_problems(task, 3, 60, split="train", rng=np.random.default_rng(0))
    batch = collate([render(task, problem, "cot") for problem in problems], Vocabulary.of(task))
    model = make_tiny(d_vocab=len(batch.vocabulary), n_ctx=60)
    result = ov_circuits(model, batch, task, (Role.STEP_OPERAND, 1), (Role.EQUALS, 2))
    assert result.symbols == tuple("0123456789")
    assert list(result.relations) == ["copy", *(f"+ {digit}" for digit in range(1, 10))]
    np.testing.assert_array_equal(result.relations["+ 3"], np.roll(np.arange(10), -3))


def test_the_table_and_the_refusals(make_tiny, batch, tmp_path):
    result = ov_circuits(writer(make_tiny, step_by(0)), batch, TASK, SRC, DEST, labels={"task": "z6"})
    assert result.frame()["label"].tolist() == ["copy", NOTHING]
    assert result.sentence(HEAD) == "L0H0, reading total 1, raises most the symbol itself for 100% of 6 symbols"
    assert "writes no declared relation" in result.sentence(IDLE)
    assert len(result.save(tmp_path, "ov")) == 2
    with pytest.raises(KeyError, match="no head L1H0; there are 1 layers of 2 heads"):
        result.classify(Site("z", 1, 0))
    with pytest.raises(ValueError, match="holds one symbol in all examples"):
        ov_circuits(writer(make_tiny, step_by(0)), batch, TASK, (Role.PROMPT_END, -1), DEST)
    with pytest.raises(ValueError, match="a batch of another task"):
        ov_circuits(writer(make_tiny, step_by(0)), batch, get_task("digit-sum"), SRC, DEST)
