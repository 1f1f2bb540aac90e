"""A looped model is read, patched and decoded like the unlooped one with its weights copied; ALiBi decodes by hooks."""

import numpy as np
import pandas as pd
import pytest
import torch

from cotinterp.mechanism.patching.path_patching import path_sweep
from cotinterp.mechanism.patching.paths import head_paths
from cotinterp.mechanism.patching.sweep import patch_sweep
from cotinterp.mechanism.probing.controls import Controls
from cotinterp.mechanism.probing.totals import probe_totals
from cotinterp.mechanism.sites import Site
from cotinterp.models.build import as_bridge, build_module
from cotinterp.models.decoding import greedy, prefixes, verified
from cotinterp.models.spec import ModelSpec
from cotinterp.models.weights import load_weights, named_weights
from cotinterp.tasks import get_task
from cotinterp.transcripts.batch import collate
from cotinterp.transcripts.problems import sample_problems
from cotinterp.transcripts.render import render
from cotinterp.transcripts.vocabulary import Vocabulary
from tests.mechanism.contrasts import contrast_with_gap, replaced

Z6 = get_task("z6")
SHAPE = ModelSpec(n_layers=2, d_model=16, n_heads=2, d_mlp=32, n_ctx=24)


@pytest.fixture(scope="module")
def batch():
    problems = sample_problems(Z6, 3, 60, split="train", rng=np.random.default_rng(0))
    return collate([render(Z6, problem, "cot") for problem in problems], Vocabulary.of(Z6))


def module_of(**shape):
    """Every parameter random."""
    module = build_module(SHAPE.model_copy(update=shape), len(Vocabulary.of(Z6)), seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.4 * torch.randn(parameter.shape, generator=generator))
    return module.eval()


@pytest.fixture(scope="module")
def looped_and_plain():
    looped, plain = module_of(loops=2), module_of(n_layers=4)
    load_weights(plain, named_weights(looped))
    return as_bridge(looped), as_bridge(plain)


def test_patches_and_paths_of_every_layer(looped_and_plain, batch):
    tokens = batch.tokens[:6]
    at = batch.length[:6] - 2
    frames = []
    for model in looped_and_plain:
        contrast = contrast_with_gap(model, tokens, replaced(tokens, [2], d_vocab=len(batch.vocabulary)), at)
        paths = head_paths(model, senders=[Site("z", 0, 1), Site("z", 2, 1)], inputs=("q", "v"))
        frames.append((patch_sweep(model, contrast, heads=True).frame(), path_sweep(model, contrast, paths).frame()))
    for looped, plain in zip(*frames, strict=True):
        pd.testing.assert_frame_equal(looped, plain)
    assert {0, 1, 2, 3} <= set(frames[0][0]["layer"])


def test_probes_of_every_layer(looped_and_plain, batch):
    looped, plain = (
        probe_totals(model, batch, targets=[1], controls=Controls(n_shuffles=0)).frame() for model in looped_and_plain
    )
    pd.testing.assert_frame_equal(looped, plain)
    assert {0, 1, 2, 3} <= set(looped["layer"])


@pytest.mark.parametrize("shape", [{"loops": 2}, {"positions": "alibi"}], ids=str)
def test_decoding_from_the_weights_is_decoding_by_the_hooked_path(batch, shape):
    model = as_bridge(module_of(**shape))
    start = prefixes(model, batch[:20])
    written = verified(model, start, stop=batch.vocabulary.end)
    assert written == greedy(model, start, stop=batch.vocabulary.end)
    assert len(set(written)) > 2
