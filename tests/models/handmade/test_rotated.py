"""A rotated model is the same function, and its stream is the old one turned."""

import numpy as np
import pytest
import torch

from cotinterp.mechanism.activations import run_and_read
from cotinterp.mechanism.sites import Site
from cotinterp.models.handmade import random_rotation, reader, rotated
from cotinterp.tasks import get_task
from cotinterp.transcripts.batch import collate
from cotinterp.transcripts.problems import solve
from cotinterp.transcripts.render import render
from cotinterp.transcripts.vocabulary import Vocabulary
from tests.mechanism.conftest import D_VOCAB, build_tiny

TASK = get_task("z6")
VARIANTS = {
    "LN": ({"normalization_type": "LN"}, True),
    "LNPre": ({"normalization_type": "LNPre"}, True),
    "RMS": ({"normalization_type": "RMS"}, False),
    "no norm": ({"normalization_type": None}, False),
    "attention only": ({"attn_only": True}, True),
    "rotary": ({"positional_embedding_type": "rotary"}, True),
    "alibi": ({"positional_embedding_type": "alibi"}, True),
}


@pytest.fixture
def tokens():
    return torch.randint(0, D_VOCAB, (5, 8), generator=torch.Generator().manual_seed(1))


def drawn(d_model=16, seed=0, keeps_mean=True):
    return random_rotation(d_model, torch.Generator().manual_seed(seed), keeps_mean=keeps_mean)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_logits_are_the_same_and_the_stream_is_turned(tokens, variant):
    changes, keeps_mean = VARIANTS[variant]
    model, rotation = build_tiny(**changes), drawn(keeps_mean=keeps_mean)
    sites = [Site("resid_pre", 0), Site("resid_post", 1), Site("mlp_out", 0), Site("attn_out", 1)]
    sites = [site for site in sites if not (changes.get("attn_only") and site.kind == "mlp_out")]
    logits, before = run_and_read(model, tokens, sites)
    same, after = run_and_read(rotated(model, rotation), tokens, sites)
    torch.testing.assert_close(same, logits, atol=1e-5 * float(logits.abs().max()), rtol=0)
    for site in sites:
        expected = (before[site].double() @ rotation).float()
        assert (before[site] - expected).abs().max() > 0.1
        torch.testing.assert_close(after[site], expected, atol=1e-5 * float(expected.abs().max()), rtol=0)


def test_the_model_that_was_given_is_left_as_it_was():
    model = build_tiny()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rotated(model, drawn())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_handmade_model_writes_the_same_in_any_basis():
    model = reader(TASK, "cot", (3, 3))
    problems = solve(TASK, np.array([[1, 2, 3], [5, 0, 4]]))
    batch = collate([render(TASK, problem, "cot") for problem in problems], Vocabulary.of(TASK))
    turned = rotated(model, drawn(int(model.cfg.d_model), keeps_mean=False))
    torch.testing.assert_close(turned(batch.tokens), model(batch.tokens), atol=2e-4, rtol=0)


def test_a_rotation_is_orthogonal_and_keeps_the_mean_where_asked():
    eye, ones = torch.eye(16, dtype=torch.float64), torch.ones(16, dtype=torch.float64)
    for keeps_mean in (True, False):
        rotation = drawn(keeps_mean=keeps_mean)
        torch.testing.assert_close(rotation @ rotation.T, eye)
        assert torch.allclose(ones @ rotation, ones) is keeps_mean
    assert not torch.allclose(drawn(seed=0), drawn(seed=1))


def test_what_would_be_another_function_is_refused():
    with pytest.raises(ValueError, match="it moves the mean over coordinates"):
        rotated(build_tiny(), drawn(keeps_mean=False))
    with pytest.raises(ValueError, match="it is not orthogonal"):
        rotated(build_tiny(), 2 * drawn())
    with pytest.raises(ValueError, match=r"shape \(8, 8\) for a stream of width 16"):
        rotated(build_tiny(), drawn(8))
    with pytest.raises(ValueError, match="gated|MLP of layer 0"):
        rotated(build_tiny(gated_mlp=True, act_fn="silu"), drawn())
    broken = build_tiny()
    with torch.no_grad():
        broken.original_model.layers[1].ln2.weight[3] = 0
    with pytest.raises(ValueError, match="a gain of 0"):
        rotated(broken, drawn())
