"""Composition scores are TransformerLens's, on bare and on folded weights, and 1 or 0 where that is known by hand."""

import copy

import pytest
import torch

from cotinterp.mechanism.heads.composition import INPUTS, composition_scores
from cotinterp.mechanism.sites import Site
from tests.mechanism.copier import previous_token_copier


@pytest.mark.parametrize("changes", [{}, {"normalization_type": "RMS"}, {"n_key_value_heads": 2}], ids=str)
@pytest.mark.parametrize("norms", [False, True], ids=["bare", "through norms"])
def test_the_scores_are_those_of_transformer_lens(make_tiny, norms, changes):
    model = make_tiny(n_layers=3, **changes)
    theirs = model
    if norms:
        theirs = copy.deepcopy(model)
        theirs.enable_compatibility_mode(disable_warnings=True, center_writing_weights=False, fold_value_biases=False)
    ours = composition_scores(model, norms=norms).scores
    for index, name in enumerate(INPUTS):
        expected = theirs.all_composition_scores(name.upper()).scores.detach()
        assert expected.max() > 0.1
        torch.testing.assert_close(ours[index], expected.float(), atol=1e-5, rtol=1e-5)


def test_a_pair_of_which_one_writes_what_the_other_reads_scores_one_and_others_zero(make_tiny):
    model = previous_token_copier(make_tiny, n_layers=2)
    native = model.original_model
    with torch.no_grad():
        second, output = native.layers[1].attn, slice(16, 24)
        for part in (second.q, second.k, second.v, second.o):
            part.weight.zero_()
        second.k.weight[:8, output] = torch.eye(8)
        second.q.weight[:8, :8] = torch.eye(8)
        second.v.weight[8:, 8:16] = torch.eye(8)
        second.o.weight[:8, 8:] = torch.eye(8)
    result = composition_scores(model)
    earlier, idle = Site("z", 0, 0), Site("z", 0, 1)
    # Of rank 8 and equal singular values: a full match has ||AB|| = sqrt(8), ||A|| ||B|| = 8.
    assert result.of(earlier, Site("z", 1, 0), "k") == pytest.approx(8**-0.5)
    assert result.of(earlier, Site("z", 1, 0), "q") == 0
    assert result.of(earlier, Site("z", 1, 1), "v") == 0
    assert result.of(idle, Site("z", 1, 0), "k") == 0


def test_unrelated_heads_score_chance(make_tiny):
    scores = [composition_scores(make_tiny(seed=seed, d_model=32, d_head=8), norms=False) for seed in range(8)]
    found = torch.stack([result.scores[:, 0, :, 1] for result in scores])
    assert scores[0].chance == pytest.approx(32**-0.5)
    assert float(found.square().mean().sqrt()) == pytest.approx(scores[0].chance, rel=0.1)


def test_the_table_has_pairs_in_order_alone_and_others_are_refused(make_tiny, tmp_path):
    result = composition_scores(make_tiny(), labels={"task": "z6"})
    table = result.frame()
    assert len(table) == 3 * 4 * 4
    assert set(table["earlier"].str[:2]) == {"L0"}
    assert table["score"].between(0, 1).all()
    assert len(result.save(tmp_path, "composition")) == 2
    with pytest.raises(KeyError, match="no pair L1H0, L0H0"):
        result.of(Site("z", 1, 0), Site("z", 0, 0), "q")
