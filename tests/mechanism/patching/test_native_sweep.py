"""The sweep from the weights against the sweep by hooks: the same runs, numbers and names."""

import dataclasses

import numpy as np
import pytest
import torch

from cotinterp.mechanism.activations import Budget
from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.patching import sweep_native
from cotinterp.mechanism.patching.runs import Cell, PatchingControls, Runs
from cotinterp.mechanism.patching.sweep import patch_sweep
from cotinterp.mechanism.patching.sweep_hooks import sweep_block
from cotinterp.mechanism.patching.sweep_native import Sizes, native_sweep
from cotinterp.mechanism.sites import KINDS, Site, head_sites
from cotinterp.models.native.parts import native_parts
from cotinterp.models.native.resume import resume_all
from tests.mechanism.contrasts import replaced, told_apart

NAMES = ("logit_diff", "probability", "kl")
AT = torch.tensor([6, 7, 7, 6, 5])
PARTNER = np.array([1, 2, 3, 4, -1])


def question(model, tokens):
    """Positions 2 and 4 differ; read at 5, 6 or 7; one place has two positions, one differs between examples."""
    pair = told_apart(model, tokens, replaced(tokens, [2, 4], d_vocab=13), AT)
    several = torch.zeros(5, 8, dtype=torch.bool)
    several[:, [2, 5]] = True
    slanted = torch.eye(8, dtype=torch.bool)[[2, 4, 3, 5, 4]]
    places = {**pair.places, "several": several, "slanted": slanted}
    return Contrast(pair.clean, pair.corrupted, pair.at, pair.answer, pair.foil, places)


def every_cell(model, contrast):
    """Every kind whole, and every kind that has heads head by head."""
    kinds = [kind for kind in KINDS if kind != "resid_mid"]
    sites = [Site(kind, layer) for kind in kinds for layer in range(int(model.cfg.n_layers))]
    sites += [site for kind in ("q", "k", "v", "pattern", "z") for site in head_sites(model, kind)]
    return tuple(Cell(site, place) for site in sites for place in contrast.places)


def both(model, contrast, cells, *, noise=False, unrelated_donor=False, **bounds):
    runs = Runs.of(contrast, slice(None), PARTNER, noise=noise)
    parts = native_parts(model)
    sizes = Sizes.of(parts, contrast.clean.shape[1], Budget(batch_size=bounds.get("most_rows")))
    return (
        native_sweep(parts, runs, cells, NAMES, sizes, unrelated_donor=unrelated_donor),
        sweep_block(model, runs, cells, NAMES, stack=40, unrelated_donor=unrelated_donor),
    )


def assert_same(found, expected):
    for name in NAMES:
        np.testing.assert_allclose(found.changes[name], expected.changes[name], atol=2e-5)
        np.testing.assert_allclose(found.gaps[name], expected.gaps[name], atol=2e-5)
        np.testing.assert_array_equal(found.changes[name] == 0, expected.changes[name] == 0)
        for key, values in expected.baselines.items():
            np.testing.assert_allclose(found.baselines[key][name], values[name], atol=2e-5)
    assert list(found.baselines) == list(expected.baselines)
    np.testing.assert_array_equal(found.live, expected.live)
    np.testing.assert_array_equal(found.ran, expected.ran)
    assert {run: codes.tolist() for run, codes in found.predicted.items()} == {
        run: codes.tolist() for run, codes in expected.predicted.items()
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"n_layers": 3},
        {"positional_embedding_type": "rotary", "normalization_type": "RMS", "act_fn": "silu"},
        {"normalization_type": "LNPre", "act_fn": "relu"},
        {"normalization_type": None, "act_fn": "gelu_new", "n_layers": 1},
    ],
)
def test_every_kind_of_patch_is_what_it_is_by_hooks(make_tiny, tokens, changes):
    model = make_tiny(**changes)
    contrast = question(model, tokens)
    found, expected = both(model, contrast, every_cell(model, contrast))
    assert_same(found, expected)
    moved = np.abs(found.changes["logit_diff"]) > 1e-3
    assert moved.any(axis=1).sum() > 40, "or the agreement would say nothing"


@pytest.mark.parametrize(
    "options", [{"noise": True}, {"unrelated_donor": True}, {"most_rows": 3}, {"most_rows": 1, "noise": True}]
)
def test_directions_donors_and_packs(tiny_model, tokens, options):
    contrast = question(tiny_model, tokens)
    cells = every_cell(tiny_model, contrast)[:: 20 if options.get("most_rows") == 1 else 4]
    found, expected = both(tiny_model, contrast, cells, **options)
    if not options.get("unrelated_donor"):
        assert_same(found, expected)
    for name in NAMES:
        np.testing.assert_allclose(found.changes[name], expected.changes[name], atol=2e-5)
    np.testing.assert_array_equal(found.live, expected.live)


def test_a_reference_sets_the_unit(tiny_model, tokens):
    contrast = dataclasses.replace(question(tiny_model, tokens), reference=replaced(tokens, [1], d_vocab=13))
    for noise in (False, True):
        assert_same(*both(tiny_model, contrast, every_cell(tiny_model, contrast)[::5], noise=noise))


def test_models_without_an_mlp(make_tiny, tokens):
    model = make_tiny(attn_only=True)
    contrast = question(model, tokens)
    cells = tuple(cell for cell in every_cell(model, contrast) if cell.site.kind != "mlp_out")
    assert_same(*both(model, contrast, cells))
    with pytest.raises(ValueError, match=r"the model has no \['L0.mlp_out', 'L1.mlp_out'\]"):
        patch_sweep(model, contrast, kinds=("mlp_out",))


def rounding(given, *args, **named):
    """As on hardware that picks its kernel by shape: each slot of each size of pass has an error of its own."""
    logits = resume_all(given, *args, **named)
    error = torch.arange(1.0, len(logits) + 1) / len(logits)
    return logits * (1 + 1e-6 * error[:, None])


def test_what_reaches_nothing_is_exactly_zero(make_tiny, tokens, monkeypatch):
    """Where the last layer's values are 0, no position but the one that is read can matter; each patch runs."""
    monkeypatch.setattr(sweep_native, "resume_all", rounding)
    model = make_tiny()
    contrast = question(model, tokens)
    cells = tuple(Cell(Site("resid_pre", 1), f"position {position}") for position in range(5))
    seen, expected = both(model, contrast, cells)
    assert (np.abs(seen.changes["logit_diff"][2:]) > 1e-4).any()
    np.testing.assert_allclose(seen.changes["logit_diff"], expected.changes["logit_diff"], atol=1e-4)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "layers.1." in name and ".v." in name:
                parameter.zero_()
    found, _ = both(model, contrast, cells)
    assert found.live[2:].any()
    assert not found.changes["logit_diff"].any()


def test_a_sweep_of_any_size_stays_within_its_memory(tiny_model, tokens):
    contrast = question(tiny_model, tokens)
    whole = patch_sweep(tiny_model, contrast)
    for by_hooks in (False, True):
        tight = patch_sweep(
            tiny_model, contrast, budget=Budget(max_bytes=300_000), controls=PatchingControls(by_hooks=by_hooks)
        )
        np.testing.assert_allclose(
            tight.measured.changes["logit_diff"], whole.measured.changes["logit_diff"], atol=2e-5
        )
        with pytest.raises(ValueError, match=r"max_bytes=1,000: one example of 8 tokens needs [\d,]+ in this model"):
            patch_sweep(
                tiny_model, contrast, budget=Budget(max_bytes=1000), controls=PatchingControls(by_hooks=by_hooks)
            )
