"""No number of a sweep depends on what stands behind a row's readout, or on the order of the rows."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.patching.attribution_patching import attribution_patch
from cotinterp.mechanism.patching.path_patching import path_sweep
from cotinterp.mechanism.patching.paths import Path, head_paths
from cotinterp.mechanism.patching.run_predictions import run_predictions
from cotinterp.mechanism.patching.runs import Meter, PatchingControls, partners
from cotinterp.mechanism.patching.sweep import patch_sweep
from cotinterp.mechanism.sites import Site
from tests.mechanism.contrasts import contrast_with_gap, replaced
from tests.mechanism.padding import mixed_contrast, repadded, same_numbers

D_VOCAB = 20
EVERYTHING = PatchingControls(require_gap=False, unrelated_donor=True)
ANYHOW, BY_HOOKS = PatchingControls(require_gap=False), PatchingControls(require_gap=False, by_hooks=True)


@pytest.fixture(scope="module")
def model(make_tiny):
    return make_tiny(d_vocab=D_VOCAB, n_ctx=40)


@pytest.fixture(scope="module")
def contrast(model):
    """Sums of one digit and of two: four layouts, padding behind the shorter rows; asked what the model tells apart."""
    pairs = mixed_contrast()
    asked = contrast_with_gap(model, pairs.clean, pairs.corrupted, pairs.at)
    return replace(pairs, answer=asked.answer, foil=asked.foil)


def paths(model):
    sender = Site("z", 0, 1)
    return (*head_paths(model, senders=[sender], inputs=("k", "q")), Path(Site("resid_pre", 0), "any"))


INSTRUMENTS = {
    "sweep": lambda model, contrast: patch_sweep(model, contrast, heads=True, controls=ANYHOW).detail(),
    "noise": lambda model, contrast: patch_sweep(model, contrast, direction="noise", controls=ANYHOW).detail(),
    "by hooks": lambda model, contrast: patch_sweep(model, contrast, controls=BY_HOOKS).detail(),
    "unrelated donors": lambda model, contrast: patch_sweep(model, contrast, controls=EVERYTHING).detail(),
    "scan": lambda model, contrast: patch_sweep(model, contrast, controls=ANYHOW).scan().frame(),
    "attribution": lambda model, contrast: attribution_patch(model, contrast, controls=ANYHOW).frame(),
    "paths": lambda model, contrast: path_sweep(model, contrast, paths(model), controls=ANYHOW).frame(),
    "paths by hooks": lambda model, contrast: path_sweep(model, contrast, paths(model), controls=BY_HOOKS).frame(),
    "predictions": lambda model, contrast: run_predictions(model, contrast).frame(),
}
DRAWN = ["ci_low", "ci_high", "p_adjusted"]
"""Redraw the rows by their number: in another order they are the same up to the chance of the draw."""


@pytest.mark.parametrize("name", INSTRUMENTS)
def test_padding_says_nothing(model, contrast, name):
    expected = INSTRUMENTS[name](model, contrast)
    for wider in (0, 3):
        same_numbers(INSTRUMENTS[name](model, repadded(contrast, d_vocab=D_VOCAB, wider=wider, seed=wider)), expected)


@pytest.mark.parametrize("name", INSTRUMENTS)
def test_the_order_of_the_rows_says_nothing(model, contrast, name):
    order = torch.randperm(len(contrast), generator=torch.Generator().manual_seed(3))
    found, expected = (INSTRUMENTS[name](model, rows) for rows in (contrast.select(order), contrast))
    drawn = [column for column in DRAWN if column in expected and name != "predictions"]
    same_numbers(found.drop(columns=drawn), expected.drop(columns=drawn))


def test_donors_are_of_the_same_template(contrast):
    for noise in (False, True):
        partner = partners(contrast, np.random.default_rng(0), noise=noise)
        known = partner >= 0
        assert known.any()
        assert (contrast.templates[partner[known]] == contrast.templates[known]).all()
        assert (partner[known] != np.flatnonzero(known)).all()


def test_templates_that_places_cannot_tell_are_told():
    """Places and readout are the same in all rows; only the caller knows that there are two layouts."""
    tokens = torch.randint(0, D_VOCAB, (6, 7), generator=torch.Generator().manual_seed(0))
    other = replaced(tokens, [2], d_vocab=D_VOCAB)
    first = torch.zeros(6, dtype=torch.long)
    pairs = Contrast.by_position(tokens, other, first + 6, first, first + 1)
    told = replace(pairs, templates=np.array([0, 1, 0, 1, 0, 2]))
    partner = partners(told, np.random.default_rng(0))
    assert set(partner[[0, 2, 4]]) == {0, 2, 4}
    assert partner[[1, 3, 5]].tolist() == [3, 1, -1]


def test_a_row_of_the_same_run_is_no_other_example():
    """Two clean prompts, each against three others: a donor that is the row's own clean run would restore all of it."""
    clean = torch.tensor([[1, 2, 3]] * 3 + [[4, 5, 6]] * 3)
    corrupted = torch.tensor([[7 + i, 2 + i, 3] for i in range(6)])
    first = torch.zeros(6, dtype=torch.long)
    pairs = Contrast.by_position(clean, corrupted, first + 2, first, first + 1)
    partner = partners(pairs, np.random.default_rng(0))
    assert all((clean[i] != clean[j]).any() for i, j in enumerate(partner.tolist()))
    alone = pairs.select(slice(0, 3))
    assert partners(alone, np.random.default_rng(0)).tolist() == [-1] * 3
    assert sorted(partners(alone, np.random.default_rng(0), noise=True).tolist()) == [0, 1, 2]


def test_repeated_pairs_are_refused(tiny_model, tokens):
    """Twenty copies of one pair would flag anything; the same clean run against another corrupted one is no copy."""
    contrast = contrast_with_gap(tiny_model, tokens, replaced(tokens, [3], d_vocab=13), torch.full((5,), 6))
    twice = contrast.select(torch.tensor([0, 1, 0, 2]))
    for sweep in (patch_sweep, path_sweep, attribution_patch, run_predictions):
        with pytest.raises(ValueError, match=r"1 of 4 pairs are given again \(pair 2 is pair 0\)"):
            sweep(tiny_model, twice)
    behind = replace(twice, clean=twice.clean.clone())
    behind.clean[2, 7] = (behind.clean[2, 7] + 1) % 13
    with pytest.raises(ValueError, match="given again"):
        patch_sweep(tiny_model, behind)


def test_logits_of_no_numbers_are_said(tiny_model, tokens):
    contrast = contrast_with_gap(tiny_model, tokens, replaced(tokens, [3], d_vocab=13), torch.full((5,), 6))
    logits = tiny_model(tokens).detach()
    logits[1, 6] = float("nan")
    meter = Meter.against(contrast, ["logit_diff"], tiny_model(tokens).detach())
    with pytest.raises(ValueError, match=r"logit_diff is not a finite number in 1 of 5 runs: the logits of the model"):
        meter.of(logits)
