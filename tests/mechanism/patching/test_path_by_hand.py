"""Path patching against paths that are worked out from the weights by hand."""

import numpy as np
import pytest
import torch

from cotinterp.mechanism.activations import activations
from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.interventions import Edit
from cotinterp.mechanism.metrics import logit_diff
from cotinterp.mechanism.patching import path_hooks
from cotinterp.mechanism.patching.attribution_patching import attribution_patch
from cotinterp.mechanism.patching.path_patching import path_sweep
from cotinterp.mechanism.patching.paths import Path, head_paths
from cotinterp.mechanism.patching.sweep import patch_sweep
from cotinterp.mechanism.sites import Site
from cotinterp.tasks import get_task
from cotinterp.transcripts.batch import collate
from cotinterp.transcripts.pairs import written_total_pairs
from cotinterp.transcripts.problems import solve
from cotinterp.transcripts.render import render
from cotinterp.transcripts.vocabulary import Vocabulary
from tests.mechanism.contrasts import BY_HOOKS
from tests.mechanism.path_changes import (
    AT,
    HERE,
    SENDER,
    THERE,
    changes,
    contrast_of,
    metric,
    uniform,
    z_difference,
)


@pytest.fixture
def attention_only(make_tiny):
    """Two layers of heads and nothing else: paths can be followed with the weights."""
    return make_tiny(attn_only=True, normalization_type=None)


@pytest.mark.parametrize("kind", ["q", "k", "v"])
def test_the_receiver_gets_what_the_weights_say(attention_only, tokens, kind):
    """Its input moves by W_(q,k,v) of (z change @ W_O), and nothing else in the model moves."""
    contrast = contrast_of(attention_only, tokens)
    receiver = Site(kind, 1, 2)
    written = z_difference(attention_only, contrast) @ attention_only.W_O[0, SENDER.head]
    moved = written @ getattr(attention_only, f"W_{kind.upper()}")[1, receiver.head]
    recipient = activations(attention_only, contrast.corrupted, [receiver])[receiver]
    patched = metric(attention_only, contrast, contrast.corrupted, [Edit(receiver, recipient + moved)])
    expected = patched - metric(attention_only, contrast, contrast.corrupted, [])
    found = changes(path_sweep(attention_only, contrast, [Path(SENDER, receiver)]))[Path(SENDER, receiver)]
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_direct_path_to_the_logits_is_what_the_weights_say(attention_only, tokens):
    contrast = contrast_of(attention_only, tokens)
    rows = torch.arange(5)
    written = z_difference(attention_only, contrast)[:, AT] @ attention_only.W_O[0, SENDER.head]
    toward = attention_only.W_U[:, contrast.answer] - attention_only.W_U[:, contrast.foil]
    expected = (written @ toward)[rows, rows].detach().numpy()
    for through_mlps in (True, False):
        result = path_sweep(attention_only, contrast, [Path(SENDER, "logits")], through_mlps=through_mlps)
        found = changes(result)[Path(SENDER, "logits")]
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(expected).max() > 1e-2


@pytest.mark.parametrize("norm", ["LN", "RMS"])
def test_norms_are_recomputed_on_the_direct_path(make_tiny, tokens, norm):
    model = make_tiny(attn_only=True, normalization_type=norm)
    contrast = contrast_of(model, tokens)
    last = Site("resid_post", 1)
    stream = activations(model, contrast.corrupted, [last])[last]
    written = z_difference(model, contrast) @ model.W_O[0, SENDER.head]
    with torch.no_grad():
        logits = model.unembed(model.ln_final(stream + written))
    expected = logit_diff(logits.double(), contrast.at, contrast.answer, contrast.foil).numpy()
    expected -= metric(model, contrast, contrast.corrupted, [])
    found = changes(path_sweep(model, contrast, [Path(SENDER, "logits")]))[Path(SENDER, "logits")]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(expected).max() > 1e-3


def test_a_head_of_the_last_layer_has_the_direct_path_alone(attention_only, tokens):
    contrast = contrast_of(attention_only, tokens)
    sender = Site("z", 1, 0)
    found = changes(path_sweep(attention_only, contrast, [Path(sender, "any"), Path(sender, "logits")]))
    np.testing.assert_allclose(found[Path(sender, "any")], found[Path(sender, "logits")], atol=1e-6)


@pytest.mark.parametrize("direction", ["denoise", "noise"])
def test_paths_add_up_where_the_model_is_linear(attention_only, tokens, direction):
    """Attention does not depend on q and k, so the way through the values and the direct one are all there is."""
    model = uniform(attention_only)
    contrast = contrast_of(model, tokens, changed=(1, 3, 4))
    result = path_sweep(model, contrast, direction=direction)
    found = changes(result)
    for head in range(4):
        sender = Site("z", 0, head)
        parts = [found[Path(sender, "logits")]] + [found[Path(sender, Site("v", 1, h))] for h in range(4)]
        np.testing.assert_allclose(sum(parts), found[Path(sender, "any")], atol=1e-5)
        assert min(np.abs(part).max() for part in parts) > 1e-4
        # Queries change q but not the attention; keys are multiplied by queries that are 0.
        assert not any(found[Path(sender, Site(kind, 1, h))].any() for kind in "qk" for h in range(4))


def test_destinations_share_out_what_a_changed_value_does(attention_only, tokens):
    """The readout's query alone can bring it there: in the last layer nothing after it moves between positions."""
    contrast = contrast_of(attention_only, tokens)
    receiver = Site("v", 1, 2)
    there, elsewhere = (Path(SENDER, receiver, HERE, place) for place in (THERE, "position 5"))
    found = changes(path_sweep(attention_only, contrast, [Path(SENDER, receiver, HERE), there, elsewhere]))
    np.testing.assert_allclose(found[there], found[Path(SENDER, receiver, HERE)], atol=1e-6)
    assert np.abs(found[there]).max() > 1e-4
    assert not found[elsewhere].any()


def test_frozen_heads_are_frozen(make_tiny, tokens, monkeypatch):
    """Three layers: L0 reaches L2 also through L1. Forgetting to hold L1 gives another number, the one with it."""
    model = make_tiny(n_layers=3, attn_only=True, normalization_type=None)
    contrast = contrast_of(model, tokens)
    path = Path(SENDER, Site("v", 2, 0))
    written = z_difference(model, contrast) @ model.W_O[0, SENDER.head]
    recipient = activations(model, contrast.corrupted, [path.receiver])[path.receiver]
    moved = Edit(path.receiver, recipient + written @ model.W_V[2, 0])
    by_hand = metric(model, contrast, contrast.corrupted, [moved]) - metric(model, contrast, contrast.corrupted, [])
    np.testing.assert_allclose(changes(path_sweep(model, contrast, [path]))[path], by_hand, atol=1e-5)
    monkeypatch.setattr(path_hooks, "_freezable", lambda *_: [])
    assert np.abs(changes(path_sweep(model, contrast, [path], controls=BY_HOOKS))[path] - by_hand).max() > 1e-3


def test_mlps_on_the_way_are_passed_or_held(make_tiny, tokens):
    """One layer: z reaches the logits directly and through its MLP. Held, the direct part alone is left."""
    model = make_tiny(n_layers=1, normalization_type=None)
    contrast = contrast_of(model, tokens)
    direct, through_mlp = Path(SENDER, "logits"), Path(SENDER, Site("mlp_out", 0))
    everything = Path(SENDER, "any")
    passed, held = (
        changes(path_sweep(model, contrast, [direct, through_mlp, everything], through_mlps=through))
        for through in (True, False)
    )
    written = z_difference(model, contrast)[:, AT] @ model.W_O[0, SENDER.head]
    toward = model.W_U[:, contrast.answer] - model.W_U[:, contrast.foil]
    np.testing.assert_allclose(held[direct], (written @ toward).diagonal().detach().numpy(), atol=1e-5)
    np.testing.assert_allclose(passed[direct], passed[everything], atol=1e-6)
    np.testing.assert_allclose(held[direct] + held[through_mlp], held[everything], atol=1e-5)
    assert np.abs(held[through_mlp]).max() > 1e-3


@pytest.mark.parametrize(
    "sender", [Site("resid_pre", 0), Site("resid_pre", 1), Site("attn_out", 0), Site("mlp_out", 0)]
)
def test_other_senders_add_up_where_the_model_is_linear(make_tiny, tokens, sender):
    attn_only = sender.kind != "mlp_out"
    model = uniform(make_tiny(attn_only=attn_only, normalization_type=None))
    contrast = contrast_of(model, tokens, changed=(1, 3, AT))
    layers = [1] if sender != Site("resid_pre", 0) else [0, 1]
    receivers = [Site("v", layer, head) for layer in layers for head in range(4)]
    receivers += [] if attn_only else [Site("mlp_out", 1)]
    paths = head_paths(model, senders=[sender], receivers=receivers)
    found = changes(path_sweep(model, contrast, paths, through_mlps=False))
    parts = sum(found[path] for path in paths if path.receiver != "any")
    total = found[Path(sender, "any")]
    assert np.abs(total).max() > 1e-2
    if attn_only:
        np.testing.assert_allclose(parts, total, atol=1e-5)
    else:
        # The last MLP is not linear: what reaches it directly and through heads together is not the sum of the two.
        assert np.abs(parts - total).max() > 1e-4


FINDS_PROMPT_END, READS_TOTAL = Site("z", 0, 0), Site("z", 1, 0)


@pytest.fixture(scope="module")
def task():
    return get_task("z6")


@pytest.fixture(scope="module")
def reader(task):
    from cotinterp.models.handmade import reader

    return reader(task, "totals", (2, 5))


@pytest.fixture(scope="module")
def written_total(task):
    rng = np.random.default_rng(0)
    problems = solve(task, rng.integers(0, 6, size=(8, 4)))
    return Contrast.from_pairs(written_total_pairs(task, problems, "totals", step=2, rng=rng))


@pytest.fixture(scope="module")
def prompt_end(task, reader):
    """The end of the prompt stands elsewhere, so that another place is wanted at the first total (position 9).

    Operands 1 and 2 are equal: which of the two is read does not show, which total is read does.
    """
    problems = solve(task, np.array([[a, b, b, c] for a, b, c in [(5, 3, 1), (1, 2, 0), (4, 1, 1), (2, 5, 3)]]))
    clean = collate([render(task, problem, "totals") for problem in problems], Vocabulary.of(task)).tokens
    corrupted = clean.clone()
    corrupted[:, [6, 8]] = clean[:, [8, 6]]
    with torch.no_grad():
        answer, foil = (reader(tokens)[:, 9].argmax(-1) for tokens in (clean, corrupted))
    return Contrast.by_position(clean, corrupted, torch.full((4,), 9), answer, foil)


@pytest.mark.parametrize("direction", ["denoise", "noise"])
def test_the_written_total_goes_through_the_last_mlp_and_nowhere_else(reader, written_total, direction):
    paths = head_paths(reader, inputs=("q", "k", "v", "mlp_out"))
    goes = {Path(READS_TOTAL, "any"), Path(READS_TOTAL, Site("mlp_out", 1))}
    for through_mlps in (True, False):
        found = path_sweep(reader, written_total, paths, direction=direction, through_mlps=through_mlps)
        expected = goes | ({Path(READS_TOTAL, "logits")} if through_mlps else set())
        for path, effect in zip(found.paths, found.effects().effect, strict=True):
            assert effect == pytest.approx(1.0 if path in expected else 0.0, abs=1e-5), path.label


def test_where_to_read_goes_through_the_query_of_the_total_head(reader, prompt_end):
    """L0H0 -> L1H0 by q, and by way of MLP 0; neither k nor v, and nothing into the head that reads the operand."""
    paths = head_paths(reader, senders=[FINDS_PROMPT_END])
    found = path_sweep(reader, prompt_end, paths)
    for path, effect in zip(found.paths, found.effects().effect, strict=True):
        through = path.receiver in ("any", Site("q", 1, 0))
        assert effect == pytest.approx(1.0 if through else 0.0, abs=1e-5), path.label
    held = path_sweep(reader, prompt_end, paths, through_mlps=False)
    assert np.flatnonzero(np.abs(held.effects().effect) > 1e-6).tolist() == [paths.index(Path(FINDS_PROMPT_END, "any"))]


def test_the_query_is_read_at_the_readout(reader, prompt_end):
    receiver = Site("q", 1, 0)
    paths = [Path(FINDS_PROMPT_END, receiver, place, place) for place in ("position 8", "position 9")]
    assert path_sweep(reader, prompt_end, paths).effects().effect.tolist() == pytest.approx([0.0, 1.0], abs=1e-5)


def test_a_gradient_does_not_see_where_a_hard_head_would_turn(reader, prompt_end):
    """Attention is saturated: patching q of the total head restores the answer, its gradient is 0."""
    true = patch_sweep(reader, prompt_end, kinds=("q",), metrics=("logit_diff",))
    estimated = attribution_patch(reader, prompt_end, kinds=("q",))
    compared = estimated.agreement(true)
    worst = compared.worst(1).iloc[0]
    assert (worst["site"], worst["place"]) == ("L1.q", "position 9")
    assert worst["effect"] == pytest.approx(1.0, abs=1e-5)
    assert worst["score"] == pytest.approx(0.0, abs=1e-5)
    assert compared.frame().iloc[0]["max_difference"] == pytest.approx(1.0, abs=1e-5)
