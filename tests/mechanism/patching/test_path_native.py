"""Paths of native models computed from their weights, against the same paths computed through hooks."""

import numpy as np
import pytest
import torch

from cotinterp.mechanism.activations import Budget, activations
from cotinterp.mechanism.interventions import Edit, run_with
from cotinterp.mechanism.patching import path_patching
from cotinterp.mechanism.patching.path_native import (
    InputChange,
    PackedPaths,
    Recipient,
    SenderChange,
    head_output,
    run_frozen,
)
from cotinterp.mechanism.patching.path_patching import path_sweep
from cotinterp.mechanism.patching.paths import Path, head_paths
from cotinterp.mechanism.patching.runs import Meter, PatchingControls
from cotinterp.mechanism.sites import Site, head_sites
from cotinterp.models.native.parts import forward, native_parts
from tests.mechanism.contrasts import ANY_GAP, BY_HOOKS, contrast_with_gap, replaced
from tests.mechanism.path_changes import AT, HERE, SENDER, THERE, contrast_of

pytestmark = pytest.mark.slow

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
    [
        ("LN", "rotary"),
        ("LNPre", "standard"),
        ("RMS", "standard"),
        ("RMSPre", "rotary"),
        (None, "standard"),
        ("LN", "alibi"),
    ],
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
    contrast = contrast_with_gap(model, tokens, replaced(tokens, [2, 3], d_vocab=13), at)
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


AT_FROZEN = torch.tensor([7, 3, 7, 7, 7])


@pytest.fixture
def runs(tiny_model, tokens):
    parts, other = native_parts(tiny_model), tokens.clone()
    other[:, 3] = (other[:, 3] + 1) % 13
    with torch.no_grad():
        return parts, forward(parts, tokens)[1], forward(parts, other)[1]


def sent_by(runs, site, place=None):
    parts, own, donor = runs
    everywhere = torch.ones(5, 8, dtype=torch.bool) if place is None else place
    return SenderChange.of(parts, site, own[site.layer], donor[site.layer], everywhere)


def test_a_head_sends_its_change_through_its_own_output_weights(tiny_model, runs):
    site = Site("z", 0, 2)
    sent, (parts, own, donor) = sent_by(runs, site), runs
    assert sent.position.min() == 3
    assert torch.equal(head_output(parts, site), tiny_model.W_O[0, 2])
    change = (donor[0].z - own[0].z)[sent.row, sent.position, 2] @ tiny_model.W_O[0, 2]
    torch.testing.assert_close(sent.stream - sent.own, change, atol=1e-6, rtol=1e-5)


def test_places_where_both_runs_agree_send_nothing(runs):
    before = torch.zeros(5, 8, dtype=torch.bool)
    before[:, :3] = True
    assert sent_by(runs, Site("z", 0, 2), before) is None


@pytest.mark.parametrize("through_mlps", [True, False])
def test_one_block_later(runs, through_mlps):
    """The stream goes through the first MLP or past it, takes up the recipient's attention, and is read by layer 1."""
    parts, own, _ = runs
    sent, asked = sent_by(runs, Site("attn_out", 0)), frozenset({Site("q", 1), Site("mlp_out", 1)})
    found = run_frozen(parts, own, sent, sent.stream, asked, AT_FROZEN, through_mlps=through_mlps, to_the_end=True)
    here = sent.row, sent.position
    first = parts.blocks[0].mlp(sent.stream) if through_mlps else own[0].mlp_out[here]
    stream = sent.stream + first
    torch.testing.assert_close(found.inputs[Site("q", 1)], parts.qkv(parts.blocks[1], stream, sent.position)[:, 0])
    between = stream + own[1].attn_out[here]
    torch.testing.assert_close(found.inputs[Site("mlp_out", 1)], parts.blocks[1].mlp(between))
    last = between + (parts.blocks[1].mlp(between) if through_mlps else own[1].mlp_out[here])
    assert found.read.tolist() == [i for i in range(len(sent.row)) if sent.position[i] == AT_FROZEN[sent.row[i]]]
    torch.testing.assert_close(found.stream, last[found.read])


def test_the_recipients_own_stream_gives_what_it_holds(runs):
    parts, own, _ = runs
    sent, asked = sent_by(runs, Site("resid_pre", 0)), frozenset({Site("k", 1), Site("mlp_out", 0)})
    found = run_frozen(parts, own, sent, sent.own, asked, AT_FROZEN, through_mlps=True, to_the_end=False)
    assert set(found.inputs) == asked
    for site, value in found.inputs.items():
        held = getattr(own[site.layer], site.kind)[sent.row, sent.position]
        torch.testing.assert_close(value, held, atol=1e-5, rtol=1e-5)


READ = torch.tensor([7, 5, 6, 7, 7])


@pytest.fixture
def model(make_tiny):
    return make_tiny(n_layers=3)


@pytest.fixture
def receivers(model, tokens):
    with torch.no_grad():
        parts = native_parts(model)
        return Recipient(parts, forward(parts, tokens)[1], READ)


def arrival_of(site, width):
    """Position 4 of every example, changed by ones."""
    reach = torch.arange(8).expand(5, -1) >= 4
    return InputChange(
        0, site, torch.arange(5), torch.full((5,), 4), torch.ones(5, width), reach & (reach.cumsum(1) < 4)
    )


@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("kind", ["q", "k", "v"])
def test_a_written_input_is_what_an_edit_of_it_is(model, receivers, tokens, kind, layer):
    site = Site(kind, layer, 1)
    arrival = arrival_of(site, 4)
    with torch.no_grad():
        found = receivers.logits(arrival.stream, 4, [None, arrival]).unflatten(0, (2, 5))
    own = activations(model, tokens, [site])[site]
    own[:, 4] = 1.0
    # Everything the readout can see: the reach of three queries ends at position 6, so compare examples read there.
    expected = run_with(model, tokens, [Edit(site, own)])[torch.arange(5), READ]
    unpatched = run_with(model, tokens, [])[torch.arange(5), READ]
    torch.testing.assert_close(found[0], unpatched, atol=1e-5, rtol=1e-5)
    seen = READ <= 6 if kind != "q" else torch.ones(5, dtype=torch.bool)
    torch.testing.assert_close(found[1][seen], expected[seen], atol=1e-5, rtol=1e-5)
    assert (found[1] - found[0]).abs().max() > 1e-4 or (kind == "q" and layer == 2)


@pytest.mark.parametrize("layer", [0, 2, 3])
def test_a_changed_stream_is_an_edit_of_it(model, receivers, tokens, layer):
    site = Site("resid_pre", layer)
    written = Site("resid_pre", layer) if layer < 3 else Site("resid_post", 2)
    row = torch.arange(5)
    arrival = InputChange(0, site, row, READ, torch.ones(5, 16), torch.ones(5, 8, dtype=torch.bool))
    own = activations(model, tokens, [written])[written]
    own[row, READ] += 1.0
    with torch.no_grad():
        found = receivers.logits(site, 5, [arrival])
    torch.testing.assert_close(found, run_with(model, tokens, [Edit(written, own)])[row, READ], atol=1e-5, rtol=1e-5)


def test_its_own_values_change_exactly_nothing(receivers):
    for site, width in (
        (Site("k", 1, 2), 4),
        (Site("v", 2, 0), 4),
        (Site("attn_out", 1), 16),
        (Site("resid_pre", 3), 16),
    ):
        arrival = receivers.itself(arrival_of(site, width))
        with torch.no_grad():
            same, other = (receivers.logits(arrival.stream, 4, [slot]) for slot in (arrival, None))
        assert torch.equal(same, other)


@pytest.fixture
def arrivals():
    """Twelve paths into streams of every kind, from different positions on; the last one reaches nothing."""
    row = torch.arange(5)

    def one(path, site, position):
        reach = (torch.arange(7) >= position).expand(5, -1) & (path < 11)
        value = torch.randn(5, 16 if site.head is None else 4, generator=torch.Generator().manual_seed(path))
        return InputChange(path, site, row, torch.full((5,), position), value, reach)

    sites = [
        Site("k", 1, 2),
        Site("v", 1, 0),
        Site("attn_out", 0),
        Site("resid_pre", 1),
        Site("v", 2, 3),
        Site("q", 2, 1),
    ]
    return [one(path, sites[path % 6], 1 + path % 5) for path in range(12)]


def test_packs_of_any_size_agree(make_tiny, tokens, arrivals):
    model = make_tiny(n_layers=3)
    contrast = contrast_of(model, tokens).until_readout()
    names = ("logit_diff",)
    with torch.no_grad():
        parts = native_parts(model)
        logits, states = forward(parts, contrast.corrupted)
        meter = Meter(contrast, names, logits[:, AT].double())
        found = []
        for n_tokens in (1, 100, 10_000):
            slots = PackedPaths(Recipient(parts, states, contrast.at), meter, n_tokens, meter.zeros())
            changes = dict(change for arrival in arrivals for change in slots.add(arrival)) | dict(slots.flush())
            assert sorted(changes) == list(range(11))
            assert not slots.itself["logit_diff"].any()
            found.append(np.stack([changes[path]["logit_diff"] for path in range(11)]))
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], atol=1e-5)
    assert np.abs(found[0]).max() > 1e-2
