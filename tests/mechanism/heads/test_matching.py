"""Heads that were dealt out anew, in another basis, are found again; heads of unrelated models are not."""

import copy

import numpy as np
import pytest
import torch

from cotinterp.mechanism.heads.matching import match_heads
from cotinterp.mechanism.sites import Site
from cotinterp.models.handmade import random_rotation, rotated
from cotinterp.tasks import get_task
from cotinterp.transcripts.batch import collate
from cotinterp.transcripts.problems import sample_problems
from cotinterp.transcripts.render import render
from cotinterp.transcripts.roles import Role
from cotinterp.transcripts.vocabulary import Vocabulary

TASK = get_task("z6")
VOCABULARY = Vocabulary.of(TASK)
DESTS = [(Role.EQUALS, 1), (Role.EQUALS, 2), (Role.STEP_END, 1)]
ORDER = [2, 0, 3, 1]


@pytest.fixture(scope="module")
def batch():
    problems = sample_problems(TASK, 3, 80, split="train", rng=np.random.default_rng(0))
    return collate([render(TASK, problem, "cot") for problem in problems], VOCABULARY)


def tiny(make_tiny, **changes):
    return make_tiny(**{"d_vocab": len(VOCABULARY), "n_ctx": 40, **changes})


def dealt_out(model):
    """The same function with the heads of each layer in another order: head h is what head ORDER[h] was."""
    other = copy.deepcopy(model)
    rows = torch.cat([torch.arange(4) + 4 * head for head in ORDER])
    with torch.no_grad():
        for layer in other.original_model.layers:
            for part in (layer.attn.q, layer.attn.k, layer.attn.v):
                part.weight.copy_(part.weight[rows].clone())
                part.bias.copy_(part.bias[rows].clone())
            layer.attn.o.weight.copy_(layer.attn.o.weight[:, rows].clone())
    return other


@pytest.mark.parametrize("by", ["pattern", "output"])
def test_heads_in_another_order_and_basis_are_matched_exactly(make_tiny, batch, by):
    model = tiny(make_tiny)
    rotation = random_rotation(16, torch.Generator().manual_seed(0), keeps_mean=True)
    other = rotated(dealt_out(model), rotation)
    torch.testing.assert_close(other(batch.tokens), model(batch.tokens), atol=1e-4, rtol=1e-4)
    result = match_heads(model, other, batch, DESTS, by=by)
    expected = [4 * layer + ORDER.index(head) for layer in range(2) for head in range(4)]
    assert result.match.tolist() == expected
    np.testing.assert_allclose(result.similarity, 1, atol=1e-4)
    assert (result.p <= 0.05).all()
    assert result.matched(Site("z", 1, 2)) == Site("z", 1, 0)


def test_without_the_rotation_what_is_written_has_no_match(make_tiny, batch, monkeypatch):
    model = tiny(make_tiny)
    other = rotated(model, random_rotation(16, torch.Generator().manual_seed(0), keeps_mean=True))
    eye = torch.eye(16, dtype=torch.float64)
    monkeypatch.setattr("cotinterp.mechanism.heads.matching._rotation", lambda *_: eye)
    assert match_heads(model, other, batch, DESTS).similarity.mean() < 0.6


def test_heads_of_an_unrelated_model_do_not_hold(make_tiny, batch):
    """Matches of two random models are the best there are, and no better than random pairings can be."""
    held = []
    for seed in range(1, 6):
        result = match_heads(tiny(make_tiny), tiny(make_tiny, seed=seed), batch, DESTS)
        held.append((result.p <= 0.05).mean())
        assert result.similarity.max() < 0.9
    assert np.mean(held) <= 0.3


def test_similarity_by_pattern_is_the_shared_attention(make_tiny, batch):
    from cotinterp.mechanism.activations import activations

    model, other = tiny(make_tiny), tiny(make_tiny, seed=3)
    result = match_heads(model, other, batch, DESTS[:1], by="pattern", test=0.5)
    at, rows = batch.where(*DESTS[0]), torch.arange(len(batch))
    mine, theirs = (activations(one, batch.tokens, [site])[site][rows, at] for one, site in (
        (model, Site("pattern", 1, 2)), (other, Site("pattern", 0, 3))))  # fmt: skip
    shared = 1 - 0.5 * (mine - theirs).abs().sum(dim=-1)
    n = result.n
    mean = (result.fitted[6, 3] * (len(batch) - n) + result.held[6, 3] * n) / len(batch)
    assert mean == pytest.approx(float(shared.mean()), abs=1e-5)


def test_random_pairings_never_give_a_head_its_match(make_tiny, batch):
    result = match_heads(tiny(make_tiny), tiny(make_tiny), batch, DESTS)
    np.testing.assert_allclose(result.similarity, 1, atol=1e-5)
    assert result.null().max() < 0.999


def test_two_heads_match_in_one_of_two_ways_which_tells_nothing(make_tiny, batch):
    model = tiny(make_tiny, n_layers=1, n_heads=2, d_head=8)
    result = match_heads(model, model, batch, DESTS)
    np.testing.assert_allclose(result.similarity, 1, atol=1e-5)
    assert result.p.tolist() == [0.5, 0.5]
    assert result.matched(Site("z", 0, 0)) is None


def test_the_table_the_figure_and_the_refusals(make_tiny, batch, tmp_path):
    model = tiny(make_tiny)
    result = match_heads(model, tiny(make_tiny, seed=1), batch, DESTS, names=("0", "1"), labels={"task": "z6"})
    table = result.frame()
    assert table["head"].tolist() == [f"L{layer}H{head}" for layer in range(2) for head in range(4)]
    assert sorted(table["match"]) == sorted(table["head"])
    assert len(result.save(tmp_path, "matches")) == 2
    with pytest.raises(KeyError, match="no head L7H0"):
        result.matched(Site("z", 7, 0))
    with pytest.raises(ValueError, match="compare their heads by='pattern'"):
        match_heads(model, tiny(make_tiny, d_model=32, d_head=8), batch, DESTS)
    with pytest.raises(ValueError, match="8 heads cannot be matched one to one with 4"):
        match_heads(model, tiny(make_tiny, n_layers=1), batch, DESTS)
    with pytest.raises(ValueError, match="dests: none were given"):
        match_heads(model, model, batch, [])
