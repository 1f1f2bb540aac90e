"""Resample ablation of a head whose work is known, worked out by hand, and what must be exactly zero."""

import numpy as np
import pytest
import torch

from cotinterp.mechanism.contrast import templates_of
from cotinterp.mechanism.heads.ablation import ablate_heads
from cotinterp.mechanism.heads.losses import NO_DONOR, draw_donors
from cotinterp.mechanism.sites import Site, head_sites
from cotinterp.tasks.registry import get_task
from cotinterp.transcripts.batch import collate
from cotinterp.transcripts.problems import solve
from cotinterp.transcripts.render import render
from cotinterp.transcripts.vocabulary import Vocabulary
from tests.mechanism.contrasts import asked
from tests.mechanism.copier import previous_token_copier

COPIER, IDLE = Site("z", 0, 0), Site("z", 0, 1)
TOKENS = torch.tensor([[2, 5, 0], [3, 6, 0], [4, 7, 0]])
CONTRAST = asked(
    clean=TOKENS,
    at=torch.tensor([2, 2, 2]),
    answer=torch.tensor([5, 6, 7]),
    foil=torch.tensor([6, 5, 5]),
)


def lost(model, heads, donors):
    return ablate_heads(model, CONTRAST, [heads], np.array(donors))[0].tolist()


def test_what_the_copier_loses_by_hand(make_tiny):
    """Its answer always has 3 more than the foil. The donor's token may be the foil (6 lost) or neither (3 lost)."""
    model = previous_token_copier(make_tiny)
    assert lost(model, [COPIER], [[1, 0, 0]]) == [6.0, 6.0, 6.0]
    assert lost(model, [COPIER], [[2, 2, 1]]) == [3.0, 3.0, 3.0]


def test_draws_are_averaged(make_tiny):
    model = previous_token_copier(make_tiny)
    assert lost(model, [COPIER], [[1, 0, 0], [2, 2, 1]]) == [4.5, 4.5, 4.5]


def test_a_head_that_writes_nothing_loses_exactly_nothing(make_tiny, tokens):
    assert lost(previous_token_copier(make_tiny), [IDLE], [[1, 2, 0]]) == [0.0, 0.0, 0.0]
    model = make_tiny()
    with torch.no_grad():
        model.original_model.layers[0].attn.o.weight[:, 4:8] = 0
    contrast = asked(clean=tokens, at=torch.full((5,), 7), answer=torch.arange(1, 6), foil=torch.arange(6, 11))
    donors = np.array([[1, 2, 3, 4, 0]])
    without, other = ablate_heads(model, contrast, [[Site("z", 0, 1)], [Site("z", 0, 2)]], donors)
    assert torch.equal(without, torch.zeros(5))
    assert other.abs().min() > 1e-4


def test_giving_each_example_its_own_loses_exactly_nothing(tiny_model, tokens):
    contrast = asked(
        clean=tokens, at=torch.tensor([7, 3, 5, 7, 0]), answer=torch.arange(1, 6), foil=torch.arange(6, 11)
    )
    heads = [[site] for site in head_sites(tiny_model)] + [list(head_sites(tiny_model))]
    found = ablate_heads(tiny_model, contrast, heads, np.arange(5)[None])
    assert torch.equal(found, torch.zeros(9, 5))


@pytest.mark.parametrize("attention_dir", ["causal", "bidirectional"])
def test_all_heads_of_an_attention_only_model_give_the_donors_attention(make_tiny, tokens, attention_dir):
    """One layer, no norm: logits = unembed(embedding + attention), so what is lost is the attention's difference.

    Read in the middle: what stands behind it reaches the readout of a bidirectional model alone.
    """
    model = make_tiny(n_layers=1, attn_only=True, normalization_type=None, attention_dir=attention_dir)
    contrast = asked(clean=tokens, at=torch.full((5,), 3), answer=torch.arange(1, 6), foil=torch.arange(6, 11))
    donors = torch.tensor([1, 2, 3, 4, 0])
    _, cache = model.run_with_cache(tokens)
    attention = cache["blocks.0.hook_attn_out"][:, 3]
    direction = (model.W_U[:, contrast.answer] - model.W_U[:, contrast.foil]).T
    by_hand = ((attention - attention[donors]) * direction).sum(-1).detach()
    found = ablate_heads(model, contrast, [head_sites(model)], donors.numpy()[None])[0]
    torch.testing.assert_close(found, by_hand, atol=1e-4, rtol=1e-4)


def test_examples_without_a_donor_are_nan_and_the_others_unmoved_by_that(make_tiny):
    found = lost(previous_token_copier(make_tiny), [COPIER], [[1, 0, NO_DONOR]])
    assert found[:2] == [6.0, 6.0]
    assert np.isnan(found[2])


def test_pieces_give_the_same(tiny_model, tokens):
    contrast = asked(
        clean=tokens, at=torch.tensor([7, 3, 5, 7, 0]), answer=torch.arange(1, 6), foil=torch.arange(6, 11)
    )
    donors = np.array([[1, 2, 3, 4, 0], [2, 3, 4, 0, 1]])
    whole = ablate_heads(tiny_model, contrast, [[Site("z", 0, 0)]], donors)
    pieces = ablate_heads(tiny_model, contrast, [[Site("z", 0, 0)]], donors, batch_size=2)
    torch.testing.assert_close(whole, pieces, atol=1e-5, rtol=1e-4)


def test_only_heads_can_be_ablated_here(tiny_model):
    with pytest.raises(ValueError, match=r"at their z, as Site\('z', layer, head\); got \['L0.mlp_out', 'L1.z'\]"):
        ablate_heads(tiny_model, CONTRAST, [[Site("mlp_out", 0)], [Site("z", 1)]], np.array([[1, 0, 0]]))


def test_donors_are_others_of_the_same_template_and_each_gives_once():
    groups = np.array([0, 1, 0, 1, 0, 2, 1])
    donors = draw_donors(groups, 50, np.random.default_rng(0))
    grouped = groups != 2
    assert (donors[:, 5] == NO_DONOR).all()
    assert (donors[:, grouped] != np.flatnonzero(grouped)).all()
    assert (groups[donors[:, grouped]] == groups[grouped]).all()
    assert all(set(draw[grouped]) == set(np.flatnonzero(grouped)) for draw in donors)
    assert len(np.unique(donors, axis=0)) > 1


def test_a_batch_without_any_two_of_a_kind_is_refused():
    with pytest.raises(ValueError, match="no two of the 3 examples share a template"):
        draw_donors(np.arange(3), 1, np.random.default_rng(0))


def test_templates_tell_layouts_apart_and_nothing_else():
    task = get_task("digit-sum")
    problems = solve(task, np.array([[3, 4], [1, 2], [9, 8], [7, 6]]))
    batch = collate([render(task, problem, "totals") for problem in problems], Vocabulary.of(task))
    groups = templates_of(batch)
    assert groups[0] == groups[1] != groups[2] == groups[3]
