"""The sweep from the weights against the sweep by hooks: the same runs, numbers and names."""

import dataclasses

import numpy as np
import pytest
import torch

from cotinterp.mechanism.activations import Budget, activations
from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.interventions import Edit, run_with, watch
from cotinterp.mechanism.patching import sweep_native
from cotinterp.mechanism.patching.runs import Cell, PatchingControls, Runs
from cotinterp.mechanism.patching.sweep import patch_sweep
from cotinterp.mechanism.patching.sweep_hooks import sweep_block
from cotinterp.mechanism.patching.sweep_native import (
    Jobs,
    Patches,
    Sizes,
    enters_at,
    entry,
    native_sweep,
    packs,
    sweep_flops,
)
from cotinterp.mechanism.sites import KINDS, Site, head_sites
from cotinterp.models.native.parts import forward, native_parts
from cotinterp.models.native.resume import resume_all
from tests.mechanism.contrasts import contrast_with_gap, replaced

pytestmark = pytest.mark.slow

NAMES = ("logit_diff", "probability", "kl")
AT = torch.tensor([6, 7, 7, 6, 5])
PARTNER = np.array([1, 2, 3, 4, -1])


def question(model, tokens):
    """Positions 2 and 4 differ; read at 5, 6 or 7; one place has two positions, one differs between examples."""
    pair = contrast_with_gap(model, tokens, replaced(tokens, [2, 4], d_vocab=13), AT)
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
        {"positional_embedding_type": "alibi"},
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


ROW, POSITION = torch.tensor([3, 1, 3]), torch.tensor([4, 2, 6])


@pytest.mark.parametrize(
    ("label", "layer"),
    [
        ("L0.resid_pre", 0),
        ("L1.k", 1),
        ("L1H2.v", 1),
        ("L0.q", 1),
        ("L0H1.z", 1),
        ("L1.mlp_out", 2),
        ("L1.attn_out", 2),
    ],
)
def test_a_patch_enters_at_the_first_block_that_it_changes(label, layer):
    assert enters_at(Site.parse(label)) == layer


@pytest.mark.parametrize(
    "label",
    ["L0.z", "L0H2.z", "L0H1.pattern", "L0.pattern", "L0H3.q", "L0.attn_out", "L0.mlp_out", "L0.resid_post"],
)
@torch.no_grad()
def test_the_next_input_is_what_the_hooks_would_hold(tiny_model, tokens, label):
    """At the patched positions the donor's doing, elsewhere the recipient's stream."""
    site, parts, other = Site.parse(label), native_parts(tiny_model), replaced(tokens, [0, 2, 4, 6], d_vocab=13)
    own, donor = forward(parts, tokens)[1], forward(parts, other)[1]
    mask = torch.nn.functional.one_hot(POSITION, 8).bool()
    found = entry(parts, own, donor, Patches([site], torch.zeros(3, dtype=torch.int64), ROW, mask), 1, slice(2, 8))
    value = activations(tiny_model, other[ROW], [site])[site]
    seen: dict[Site, torch.Tensor] = {}
    run_with(tiny_model, tokens[ROW], [Edit(site, value, mask), watch(Site("resid_pre", 1), seen)])
    torch.testing.assert_close(found.resid, seen[Site("resid_pre", 1)][:, 2:], atol=1e-5, rtol=1e-5)
    assert (found.run.tolist(), found.position.tolist()) == ([0, 1, 2], POSITION.tolist())
    qkv = parts.qkv(parts.blocks[1], seen[Site("resid_pre", 1)][torch.arange(3), POSITION], POSITION)
    torch.testing.assert_close(found.qkv, qkv, atol=1e-5, rtol=1e-5)
    assert (found.resid - own[1].resid_pre[ROW, 2:]).abs().max() > 1e-3


@torch.no_grad()
def test_one_head_of_keys_is_the_donors_and_all_else_the_recipients(tiny_model, tokens):
    parts, other = native_parts(tiny_model), replaced(tokens, [0, 1], d_vocab=13)
    own, donor = forward(parts, tokens)[1], forward(parts, other)[1]
    mask = torch.nn.functional.one_hot(POSITION, 8).bool()
    patches = Patches([Site("k", 1, 2)], torch.zeros(3, dtype=torch.int64), ROW, mask)
    found = entry(parts, own, donor, patches, 1, slice(0, 8))
    assert torch.equal(found.resid, own[1].resid_pre[ROW])
    expected = torch.stack([own[1].q, own[1].k, own[1].v], dim=2)[ROW, POSITION]
    expected[:, 1, 2] = donor[1].k[ROW, POSITION, 2]
    assert torch.equal(found.qkv, expected)
    assert not torch.equal(own[1].k[ROW, POSITION, 2], donor[1].k[ROW, POSITION, 2])


def sizes(**changes):
    usual = {"n_layers": 4, "d_model": 128, "d_mlp": 512, "n_heads": 4, "d_vocab_out": 20, "n_pos": 40}
    return Sizes(**{**usual, **changes})


def jobs(n, *, seed=0):
    rng = np.random.default_rng(seed)
    at = rng.integers(30, 40, n)
    return Jobs(np.arange(n), rng.integers(8, size=n), rng.integers(5, size=n), rng.integers(30, size=n), at)


def all_packs(some, given):
    return [(begin, some.select(members)) for begin, members in packs(some, given)]


def test_every_run_is_made_once_and_sees_all_that_it_changes():
    some = jobs(3000)
    found = all_packs(some, sizes())
    assert sorted(np.concatenate([pack.cell for _, pack in found]).tolist()) == list(range(3000))
    for begin, pack in found:
        assert (np.diff(pack.layer) >= 0).all(), "in the order in which they enter"
        assert (begin <= pack.at).all()
        deep = pack.layer < 3
        assert deep.all() or not deep.any()
        assert not deep.any() or (begin <= pack.first).all()


def test_little_is_computed_for_nothing():
    """Many runs: a pass for each first position. Few: they share one, and waste less than a pass costs."""
    many = [pack for _, pack in all_packs(jobs(20000), sizes()) if pack.layer[0] < 3]
    assert all(len(np.unique(pack.first)) == 1 for pack in many)
    few = all_packs(jobs(60), sizes())
    assert len(few) < 15
    assert all((pack.first - begin)[pack.layer < 3].sum() <= 96 for begin, pack in few)


@pytest.mark.parametrize("max_bytes", [4_000_000, 20_000_000, 100_000_000])
def test_no_pass_holds_more_than_its_half_of_the_memory(max_bytes):
    given = sizes(max_bytes=max_bytes)
    largest = 0
    for begin, pack in all_packs(jobs(2000), given):
        held = len(pack) * given.run(int(pack.at.max()) + 1 - begin)
        largest = max(largest, held)
        assert held <= max_bytes // 2
    assert largest > max_bytes // 20 or max_bytes == 100_000_000, "the memory is used"
    assert given.examples_at_once() * given.example() <= max_bytes // 2


def test_rows_are_bounded_too():
    assert all(len(pack) <= 7 for _, pack in all_packs(jobs(500), sizes(most_rows=7)))
    assert sizes(most_rows=7).examples_at_once() == 7


def test_memory_by_hand():
    """Two layers of width 4 with 2 heads and no MLP, 3 positions, 5 logits: 3 runs of 2 layers of 3 (32 + 18) floats,
    and 15 logits; a run of 2 positions holds 2 (36 + 12) + 48 + 40 floats."""
    small = Sizes(n_layers=2, d_model=4, d_mlp=0, n_heads=2, d_vocab_out=5, n_pos=3)
    assert small.example() == 4 * 3 * (2 * 3 * 50 + 15)
    assert small.run(2) == 4 * (2 * 48 + 48 + 40)


def test_memory_for_one_example_is_asked_for(tiny_model):
    parts = native_parts(tiny_model)
    fits = Sizes.of(parts, 8, Budget())
    least = 2 * max(fits.example(), fits.run(8))
    assert Sizes.of(parts, 8, Budget(max_bytes=least)).examples_at_once() >= 1
    with pytest.raises(ValueError, match=f"one example of 8 tokens needs {least:,}"):
        Sizes.of(parts, 8, Budget(max_bytes=least - 1))


def test_no_runs_no_packs():
    assert all_packs(jobs(0), sizes()) == []


def test_flops_by_hand():
    """Width 1, no MLP, two blocks, two logits. A run that changes position 1 of 3 and is read at 2."""
    small = Sizes(n_layers=2, d_model=1, d_mlp=0, n_heads=1, d_vocab_out=2, n_pos=3)

    def flops(layer):
        one = np.ones(1, dtype=np.int64)
        return sweep_flops(Jobs(0 * one, 0 * one, layer * one, one, 2 * one), small)

    logits, read = 2, 1 + 2 * 3
    assert flops(2) == 2 * logits
    assert flops(1) == 2 * (logits + read)
    # Two positions go through the first block: W_O, then scores and values of 2 and 3 keys. Then two keys and two
    # values, and the query of the one that is read.
    assert flops(0) == 2 * (logits + read + 2 * 1 + 2 * (2 + 3) + 2 * 2 + 1)


def test_the_floor_of_a_sweep_is_a_sixth_of_whole_passes():
    """resid_pre of four layers at 43 positions, against the linear layers of as many whole passes."""
    layer, first = (axis.ravel() for axis in np.meshgrid(np.arange(4), np.arange(43), indexing="ij"))
    runs = Jobs(np.arange(172), 0 * layer, layer, first, 0 * layer + 42)
    whole = 172 * 2 * 43 * 4 * 12 * 128**2
    assert 5 < whole / sweep_flops(runs, sizes()) < 6
