"""Paths of native models computed from their weights, against the same paths computed through hooks."""

import numpy as np
import pytest
import torch

from cotinterp.mechanism.activations import Budget
from cotinterp.mechanism.patching import path_patching
from cotinterp.mechanism.patching.path_patching import path_sweep
from cotinterp.mechanism.patching.paths import Path, head_paths
from cotinterp.mechanism.patching.runs import PatchingControls
from cotinterp.mechanism.sites import Site, head_sites
from tests.mechanism.contrasts import ANY_GAP, BY_HOOKS, replaced, told_apart
from tests.mechanism.path_changes import HERE, SENDER, THERE, contrast_of

SENDERS = (Site("z", 0, 1), Site("z", 1, 2), Site("resid_pre", 0), Site("resid_pre", 1), Site("attn_out", 0))
ALL_METRICS = ("logit_diff", "kl", "probability", "accuracy")


def every_path(model):
    """All kinds of sender, receiver, source and destination, and one receiver of each layer and input."""
    mlps = not model.cfg.attn_only
    senders = [*SENDERS, *([Site("mlp_out", 0), Site("mlp_out", model.cfg.n_layers - 1)] if mlps else [])]
    layers = range(model.cfg.n_layers)
    receivers = [Site(kind, layer, layer) for kind in ("q", "k", "v") for layer in layers]
    receivers += [Site("mlp_out", layer) for layer in layers if mlps]
    wide = head_paths(model, senders=senders, receivers=receivers)
    placed = head_paths(
        model, senders=senders[:2], receivers=receivers, sources=(HERE, THERE), destinations=(THERE, "position 5")
    )
    return tuple(dict.fromkeys((*wide, *placed)))


def both(model, contrast, paths, *, unrelated_donor=False, **options):
    """The sweep from the weights and the one through hooks; the same numbers up to rounding."""
    ways = (PatchingControls(by_hooks=by_hooks, unrelated_donor=unrelated_donor) for by_hooks in (False, True))
    fast, slow = (path_sweep(model, contrast, paths, controls=way, **options) for way in ways)
    with torch.no_grad():
        rounding = 1e-5 * max(1.0, float(model(contrast.clean).abs().max()) / 10)
    for name in fast.metrics:
        np.testing.assert_allclose(fast.measured.changes[name], slow.measured.changes[name], atol=rounding)
        np.testing.assert_allclose(fast.measured.gaps[name], slow.measured.gaps[name], atol=rounding)
        for key, baseline in slow.measured.baselines.items():
            np.testing.assert_allclose(fast.measured.baselines[key][name], baseline[name], atol=rounding)
    np.testing.assert_array_equal(fast.measured.ran, slow.measured.ran)
    for run, codes in slow.measured.predicted.items():
        np.testing.assert_array_equal(fast.measured.predicted[run], codes)
    assert {"clean", "corrupted"} <= set(fast.measured.predicted) == set(slow.measured.predicted)
    # What is 0 by identity is exactly 0 in both.
    for name in fast.metrics:
        slow_zero = (slow.measured.changes[name] == 0).all(axis=1)
        assert not fast.measured.changes[name][slow_zero].any()
    return fast, slow


@pytest.mark.parametrize("through_mlps", [True, False])
@pytest.mark.parametrize("direction", ["denoise", "noise"])
def test_every_kind_of_path(make_tiny, tokens, direction, through_mlps):
    model = make_tiny(n_layers=3)
    contrast = contrast_of(model, tokens)
    fast, _ = both(
        model, contrast, every_path(model), direction=direction, through_mlps=through_mlps, metrics=ALL_METRICS
    )
    assert (np.abs(fast.measured.changes["logit_diff"]) > 1e-4).any(axis=1).mean() > 0.3


@pytest.mark.parametrize(
    ("norm", "positions"),
    [("LN", "rotary"), ("LNPre", "standard"), ("RMS", "standard"), ("RMSPre", "rotary"), (None, "standard")],
)
def test_norms_and_positions(make_tiny, tokens, norm, positions):
    model = make_tiny(normalization_type=norm, positional_embedding_type=positions)
    both(model, contrast_of(model, tokens, changed=(1, 3)), every_path(model))


@pytest.mark.parametrize("changes", [{"act_fn": "relu"}, {"act_fn": "solu"}, {"attn_only": True}, {"n_layers": 1}])
def test_other_blocks(make_tiny, tokens, changes):
    model = make_tiny(**changes)
    senders = [site for site in SENDERS if site.layer < model.cfg.n_layers]
    paths = every_path(model) if model.cfg.n_layers > 1 else head_paths(model, senders=senders, inputs=("q", "mlp_out"))
    both(model, contrast_of(model, tokens), paths)


def test_readouts_at_different_positions(make_tiny, tokens):
    model = make_tiny(n_layers=3)
    at = torch.tensor([6, 4, 7, 5, 3])
    contrast = told_apart(model, tokens, replaced(tokens, [2, 3], d_vocab=13), at)
    both(model, contrast, every_path(model))


@pytest.mark.parametrize("batch_size", [2, 40])
def test_passes_of_any_size(make_tiny, tokens, batch_size):
    model = make_tiny(n_layers=3)
    contrast = contrast_of(model, tokens)
    fast = path_sweep(model, contrast, every_path(model)[::2], budget=Budget(batch_size=batch_size))
    slow = path_sweep(model, contrast, every_path(model)[::2], controls=BY_HOOKS)
    np.testing.assert_allclose(fast.measured.changes["logit_diff"], slow.measured.changes["logit_diff"], atol=1e-5)
    assert not fast.measured.baselines["self"]["logit_diff"].any()


def test_memory_is_bounded(make_tiny, tokens):
    """Room for three examples of the five gives the same numbers; none at all is refused, from weights or by hooks."""
    model = make_tiny(n_layers=3)
    contrast = contrast_of(model, tokens)
    whole = path_sweep(model, contrast, every_path(model)[:20])
    for by_hooks in (False, True):
        with pytest.raises(ValueError, match="max_bytes=1,000: one example of 7 tokens needs") as raised:
            path_sweep(model, contrast, budget=Budget(max_bytes=1000), controls=PatchingControls(by_hooks=by_hooks))
        least = int(str(raised.value).split("needs ")[1].split(" ")[0].replace(",", ""))
        part = path_sweep(
            model,
            contrast,
            every_path(model)[:20],
            budget=Budget(max_bytes=3 * least),
            controls=PatchingControls(by_hooks=by_hooks),
        )
        expected = whole.measured.changes["logit_diff"]
        np.testing.assert_allclose(part.measured.changes["logit_diff"], expected, atol=1e-5)


def test_unrelated_donors(make_tiny, tokens):
    model = make_tiny(n_layers=3)
    both(model, contrast_of(model, tokens), every_path(model), unrelated_donor=True)


def test_a_wrong_run_shows(make_tiny, tokens, monkeypatch):
    """Negative control: with another layer's states the two ways no longer agree."""
    model = make_tiny(n_layers=3)
    contrast = contrast_of(model, tokens)
    path = Path(SENDER, Site("v", 1, 0))
    by_hooks = path_sweep(model, contrast, [path], controls=BY_HOOKS).measured.changes["logit_diff"]
    real = path_patching.exact_parts

    def turned(model, tokens):
        parts = real(model, tokens)
        return type(parts)(**{**vars(parts), "blocks": parts.blocks[:2] + parts.blocks[1:2]})

    monkeypatch.setattr(path_patching, "exact_parts", turned)
    found = path_sweep(model, contrast, [path], controls=ANY_GAP).measured.changes["logit_diff"]
    assert np.abs(found - by_hooks).max() > 1e-3


def test_a_model_with_hooks_of_its_own_is_run_through_them(make_tiny, tokens, monkeypatch):
    """An ablation that somebody attached goes on acting: the paths from that head carry nothing."""
    model = make_tiny()
    contrast = contrast_of(model, tokens)
    paths = [Path(site, "any") for site in head_sites(model)[:2]]
    monkeypatch.setattr(path_patching, "native_path_block", lambda *_, **__: pytest.fail("hooks were ignored"))

    def ablated(z, **_):
        z = z.clone()
        z[:, :, 0] = 0.0
        return z

    with model.hooks(fwd_hooks=[("blocks.0.attn.hook_z", ablated)]):
        found = path_sweep(model, contrast, paths, controls=ANY_GAP)
    assert found.measured.ran.tolist() == [False, True]
