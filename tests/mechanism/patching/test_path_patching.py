"""Sweeps over paths: directions, baselines, places, models that are not ours, and what is refused."""

import numpy as np
import pandas as pd
import pytest
import torch
from transformer_lens.model_bridge.sources import build_bridge_from_module
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from cotinterp.mechanism.activations import Budget, activations
from cotinterp.mechanism.contrast import Address, Contrast
from cotinterp.mechanism.interventions import Edit, run_with
from cotinterp.mechanism.patching.path_patching import PathPatchingResult, path_sweep
from cotinterp.mechanism.patching.paths import Path, head_paths
from cotinterp.mechanism.patching.runs import Changes
from cotinterp.mechanism.patching.sweep import patch_sweep
from cotinterp.mechanism.sites import Site
from tests.mechanism.contrasts import UNRELATED, contrast_with_gap, replaced
from tests.mechanism.path_changes import (
    HERE,
    SENDER,
    THERE,
    changes,
    contrast_of,
    metric,
    uniform,
    z_difference,
)

pytestmark = pytest.mark.slow


@pytest.fixture
def contrast(tiny_model, tokens):
    return contrast_of(tiny_model, tokens)


def test_all_paths_together_are_an_ordinary_patch(tiny_model, contrast):
    for direction in ("denoise", "noise"):
        ordinary = patch_sweep(tiny_model, contrast, kinds=(), heads=True, direction=direction)
        cells = {(cell.site, cell.place): i for i, cell in enumerate(ordinary.cells)}
        paths = [Path(Site("z", 1, 3), "any", THERE), Path(SENDER, "any", HERE)]
        found = path_sweep(tiny_model, contrast, paths, direction=direction)
        for path in paths:
            expected = ordinary.effects().effect[cells[path.sender, path.source]]
            assert found.of(path) == pytest.approx(expected, abs=1e-6)
            assert abs(expected) > 1e-4


def test_a_destination_before_the_source_gets_nothing(make_tiny, tokens):
    model = make_tiny(n_layers=3)
    contrast = contrast_of(model, tokens, changed=(2,))
    back = Path(SENDER, Site("k", 1, 0), HERE, "position 2")
    forth = Path(SENDER, Site("k", 1, 0), HERE, "position 5")
    found = changes(path_sweep(model, contrast, [back, forth], budget=Budget(batch_size=50)))
    assert not found[back].any()
    assert found[forth].any()


@pytest.mark.parametrize("kind", ["q", "mlp_out"])
def test_what_does_not_move_acts_only_where_it_arrives(tiny_model, contrast, kind):
    receiver = Site("q", 1, 0) if kind == "q" else Site("mlp_out", 1)
    here, other, anywhere = (Path(SENDER, receiver, THERE, place) for place in (THERE, HERE, None))
    found = changes(path_sweep(tiny_model, contrast, [here, other, anywhere]))
    assert not found[other].any()
    np.testing.assert_array_equal(found[here], found[anywhere])
    assert np.abs(found[here]).max() > 1e-5


def test_the_same_in_donor_and_recipient_sends_nothing(tiny_model, contrast):
    paths = [
        Path(SENDER, Site("k", 1, 0), "position 1"),
        Path(SENDER, "logits", "position 1"),
        Path(SENDER, "any", HERE),
    ]
    result = path_sweep(tiny_model, contrast, paths)
    assert not result.measured.changes["logit_diff"][:2].any()
    assert result.measured.ran.tolist() == [False, False, True]
    with pytest.raises(ValueError, match=r"nothing was sent: .*L0H1.z at position 1"):
        path_sweep(tiny_model, contrast, paths[:2])


@pytest.mark.parametrize("through_mlps", [True, False])
@pytest.mark.parametrize("direction", ["denoise", "noise"])
def test_baselines(tiny_model, contrast, direction, through_mlps):
    result = path_sweep(tiny_model, contrast, direction=direction, through_mlps=through_mlps)
    baselines = result.baselines()
    assert baselines["self"].effect.tolist() == [0.0]
    assert not result.measured.baselines["self"]["logit_diff"].any()
    assert baselines["full"].effect.tolist() == [1.0]
    assert baselines["random_donor"].effect[0] not in (0.0, 1.0)


def test_the_answer_does_not_depend_on_the_batch_size(tiny_model, contrast):
    receivers = [Site("q", 1, 0), Site("v", 1, 1), Site("mlp_out", 1)]
    options = {"receivers": receivers, "sources": (HERE, None), "destinations": (None, THERE)}
    paths = head_paths(tiny_model, senders=[SENDER], **options)
    expected = path_sweep(tiny_model, contrast, paths).effects().effect
    assert (np.abs(expected) > 1e-5).sum() > 8
    for batch_size in (2, 13):
        found = path_sweep(tiny_model, contrast, paths, budget=Budget(batch_size=batch_size)).effects().effect
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_unrelated_donors(tiny_model, contrast):
    result = path_sweep(
        tiny_model,
        contrast,
        [Path(SENDER, "any"), Path(SENDER, "logits")],
        controls=UNRELATED,
    )
    assert result.pair == "pair (unrelated donor)"
    own = path_sweep(tiny_model, contrast, [Path(SENDER, "any"), Path(SENDER, "logits")])
    assert np.abs(result.measured.changes["logit_diff"] - own.measured.changes["logit_diff"]).max() > 1e-3
    np.testing.assert_array_equal(result.measured.gaps["logit_diff"], own.measured.gaps["logit_diff"])


def test_grouped_queries_have_key_value_heads(make_tiny, tokens):
    """Two key-value heads for four query heads: a changed value of one head reaches both queries of its group."""
    model = uniform(make_tiny(attn_only=True, normalization_type=None, n_key_value_heads=2))
    contrast = contrast_of(model, tokens)
    paths = head_paths(model, senders=[SENDER])
    assert [path.receiver.label for path in paths if isinstance(path.receiver, Site) and path.input == "v"] == [
        "L1H0.v",
        "L1H1.v",
    ]
    found = changes(path_sweep(model, contrast, paths))
    parts = [found[Path(SENDER, "logits")]] + [found[Path(SENDER, Site("v", 1, head))] for head in range(2)]
    np.testing.assert_allclose(sum(parts), found[Path(SENDER, "any")], atol=1e-5)
    there = changes(path_sweep(model, contrast, [Path(SENDER, Site("v", 1, 1), None, THERE)]))
    np.testing.assert_allclose(next(iter(there.values())), parts[2], atol=1e-6)
    with pytest.raises(ValueError, match="its v has heads 0 to 1"):
        path_sweep(model, contrast, [Path(SENDER, Site("v", 1, 2))])


@pytest.mark.parametrize("family", ["GPT-2", "Llama"])
def test_models_that_are_not_ours(randomized, tokens, family):
    """Random Hugging Face models, wrapped by TransformerLens: the receiver's input moves as its own weights say."""
    if family == "GPT-2":
        config = GPT2Config(n_layer=2, n_head=4, n_embd=16, vocab_size=13, n_positions=16)
        wrapped = GPT2LMHeadModel(config), "GPT2LMHeadModel"
    else:
        sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "max_position_embeddings": 16}
        config = LlamaConfig(vocab_size=13, num_attention_heads=4, num_key_value_heads=2, **sizes)
        wrapped = LlamaForCausalLM(config), "LlamaForCausalLM"
    bridge = build_bridge_from_module(wrapped[0], architecture=wrapped[1], hf_config=config)
    model = randomized(bridge, seed=5)
    contrast = contrast_of(model, tokens)
    written = z_difference(model, contrast) @ model.W_O[0, SENDER.head]
    before = Site("resid_pre", 1)
    stream = activations(model, contrast.corrupted, [before])[before]
    for receiver in (Site("q", 1, 1), Site("k", 1, 1), Site("v", 1, 1)):
        # The same change of the stream, seen by this input alone.
        taps = []
        tap = Edit(receiver, lambda current, taps=taps: taps.append(current.clone()) or current, expect_change=False)
        run_with(model, contrast.corrupted, [Edit(before, stream + written), tap])
        patched = metric(model, contrast, contrast.corrupted, [Edit(receiver, taps[0])])
        expected = patched - metric(model, contrast, contrast.corrupted, [])
        found = path_sweep(model, contrast, [Path(SENDER, receiver)], through_mlps=False)
        np.testing.assert_allclose(changes(found)[Path(SENDER, receiver)], expected, atol=1e-4)
        assert np.abs(expected).max() > 1e-5
        assert found.baselines()["self"].effect.tolist() == [0.0]


def test_an_encoder_is_not_cut_at_the_readout(make_tiny, tokens):
    model = make_tiny(attention_dir="bidirectional")
    contrast = contrast_with_gap(model, tokens, replaced(tokens, [5], d_vocab=13), torch.full((5,), 2))
    path = Path(SENDER, Site("v", 1, 0), "position 5", "position 2")
    assert changes(path_sweep(model, contrast, [path]))[path].any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"direction": "denoising"}, "unknown direction 'denoising': denoise or noise"),
        ({"metrics": ("logitdiff",)}, "unknown metric 'logitdiff', did you mean 'logit_diff'"),
        ({"metrics": ()}, "at least one metric"),
        ({"budget": Budget(batch_size=0)}, "batch_size=0"),
        ({"paths": []}, "no paths to patch"),
        ({"paths": [Path(SENDER, "any")] * 2}, "1 of 2 paths are given twice"),
        ({"paths": [Path(SENDER, "any", "position 7")]}, "no place 'position 7' at or before the readout"),
        ({"paths": [Path(Site("z", 0, 4), "any")]}, "its z has heads 0 to 3"),
        ({"paths": [Path(SENDER, Site("q", 2, 0))]}, "layers 0 to 1"),
    ],
)
def test_what_cannot_be_asked(tiny_model, contrast, options, message):
    with pytest.raises(ValueError, match=message):
        path_sweep(tiny_model, contrast, **options)


def test_train_mode_is_refused(make_tiny, contrast):
    with pytest.raises(ValueError, match="train mode"):
        path_sweep(make_tiny().train(), contrast)


def test_runs_that_the_model_does_not_tell_apart_are_refused(tiny_model, contrast):
    same = Contrast(contrast.clean, contrast.clean, contrast.at, contrast.answer, contrast.foil, contrast.places)
    with pytest.raises(ValueError, match="none of 5 pairs has a gap"):
        path_sweep(tiny_model, same)


COLUMNS = ["task", "regime", "run_seed", "pair", "direction", "through_mlps"]
COLUMNS += ["sender", "sender_kind", "sender_layer", "sender_head", "source_role", "source_step"]
COLUMNS += ["receiver", "receiver_kind", "receiver_layer", "receiver_head"]
COLUMNS += [
    "destination_role",
    "destination_step",
    "metric",
    "effect",
    "ci_low",
    "ci_high",
    "p_adjusted",
    "n",
    "reason",
]
PATHS = (
    Path(Site("z", 0, 2), "any", "total 1"),
    Path(Site("z", 0, 2), "logits", "total 1"),
    Path(Site("z", 0, 2), Site("k", 1, 3), "total 1", "equals 2"),
    Path(Site("mlp_out", 0), Site("mlp_out", 1)),
)


def by_hand(n=2, **changes):
    """Every gap is 4. Path 0 closes 1 and 3 of them in turn, path 1 nothing, path 2 all, path 3 two too many."""
    gap = np.full(n, 4.0)
    rows = np.stack([np.resize([1.0, 3.0], n), np.zeros(n), gap, -0.5 * gap])
    measured = Changes(
        changes={"logit_diff": rows},
        gaps={"logit_diff": gap},
        baselines={"self": {"logit_diff": 0 * gap}, "full": {"logit_diff": gap}},
        ran=np.array([True, False, True, True]),
        predicted={"clean": np.zeros(n, dtype=int), "corrupted": np.ones(n, dtype=int)},
    )
    addresses = {"total 1": Address("total", 1, "13"), "equals 2": Address("equals", 2, "=")}
    given = {"through_mlps": True, "direction": "denoise", "pair": "p", "labels": {"task": "z6"}, **changes}
    return PathPatchingResult(paths=PATHS, measured=measured, addresses=addresses, **given)


def test_the_table_worked_by_hand():
    frame = by_hand().frame()
    assert list(frame.columns) == COLUMNS
    assert frame[["sender", "receiver", "receiver_kind", "effect", "n"]].values.tolist() == [
        ["self", "any", "any", 0.0, 2],
        ["full", "any", "any", 1.0, 2],
        ["L0H2.z", "any", "any", 0.5, 2],
        ["L0H2.z", "logits", "logits", 0.0, 2],
        ["L0H2.z", "L1H3.k", "k", 1.0, 2],
        ["L0.mlp_out", "L1.mlp_out", "mlp_out", -0.5, 2],
    ]
    path = frame.iloc[4]
    assert path[["source_role", "source_step", "destination_role", "destination_step"]].tolist() == [
        "total", 1, "equals", 2,
    ]  # fmt: skip
    assert path[["sender_layer", "sender_head", "receiver_layer", "receiver_head"]].tolist() == [0, 2, 1, 3]
    assert frame.loc[0, ["sender_layer", "sender_head", "receiver_layer", "receiver_head"]].tolist() == [-1] * 4
    assert frame.loc[5, ["sender_head", "receiver_layer", "receiver_head"]].tolist() == [-1, 1, -1]
    assert frame.loc[5, ["source_role", "source_step"]].tolist() == ["all", -1]
    assert frame.loc[2, ["ci_low", "ci_high"]].tolist() == [0.25, 0.75]
    assert frame["through_mlps"].all()


def test_p_values_are_those_of_the_scan():
    """Eight pairs: the constant paths reach the smallest p there is, 1 / 2^7; the empty one has p = 1."""
    result = by_hand(n=8)
    p = result.frame()["p_adjusted"].tolist()[2:]
    assert p == result.scan().frame()["p_adjusted"].tolist()
    assert p[1] == 1.0
    assert p[2] == p[3] == 1 / 2**7
    assert p[2] <= p[0] < 0.05
    assert np.isnan(result.frame()["p_adjusted"][:2]).all()


def test_one_path():
    assert by_hand().of(PATHS[3]) == -0.5
    with pytest.raises(KeyError, match="L0H2.z -> any is not among the 4 paths"):
        by_hand().of(Path(Site("z", 0, 2), "any"))


def test_unmeasured_metrics():
    with pytest.raises(ValueError, match="did you mean 'logit_diff'"):
        by_hand().effects("logitdiff")
    with pytest.raises(ValueError, match=r"kl was not measured in this sweep; it has \['logit_diff'\]"):
        by_hand().scan("kl")


def test_without_a_gap_effects_are_missing():
    result = by_hand()
    result.measured.gaps["logit_diff"][:] = 0.0
    frame = result.frame()
    assert frame["effect"].isna().all()
    assert frame["p_adjusted"].isna().all()
    assert (frame["n"] == 0).all()
    with pytest.raises(ValueError, match="none of 2 pairs has a gap"):
        result.check()
    result.check(require_gap=False)


def test_the_figure_draws_every_path():
    figure = by_hand().figure()
    drawn = [trace for trace in figure.data if trace.type == "heatmap"]
    assert sorted(note.text for note in figure.layout.annotations)[:4] == ["any", "k", "logits", "mlp_out"]
    values = np.concatenate([np.ravel(trace.z) for trace in drawn])
    assert sorted(values[np.isfinite(values)].tolist()) == [-0.5, 0.0, 0.5, 1.0]
    assert [list(trace.x) for trace in drawn if "L1H3" in trace.x[0]] == [["L1H3 at equals 2"]]
    title = figure.layout.title.text.replace("<br>", " ")
    assert "restored along one path" in title
    assert "MLPs recomputed on the way" in title
    assert "lost along one path" in by_hand(direction="noise").figure().layout.title.text.replace("<br>", " ")


def test_saved(tmp_path):
    table, _ = by_hand().save(tmp_path, "paths")
    assert list(pd.read_csv(table).columns) == COLUMNS


def test_a_result_holds_no_model():
    assert not any(isinstance(value, torch.nn.Module) for value in vars(by_hand()).values())


HEAD = Site("z", 0, 1)


def test_a_path_in_words():
    path = Path(HEAD, Site("k", 2, 0), "total 1", "equals 2")
    assert path.label == "L0H1.z at total 1 -> L2H0.k at equals 2"
    assert Path(HEAD, "logits").label == "L0H1.z -> logits"
    assert [Path(HEAD, end).input for end in ("any", "logits", Site("mlp_out", 0))] == [
        "any",
        "logits",
        "mlp_out",
    ]


@pytest.mark.parametrize(
    ("ends", "message"),
    [
        ((Site("q", 0, 0), "any"), "L0H0.q does not write to the residual stream"),
        ((Site("resid_mid", 0), "any"), "L0.resid_mid does not write"),
        ((HEAD, Site("attn_out", 1)), "L1.attn_out is no input of a component"),
        ((HEAD, Site("q", 1)), "L1.q are all heads of a layer; name one"),
        ((HEAD, Site("q", 0, 2)), "L0H1.z cannot reach L0H2.q"),
        ((Site("mlp_out", 1), Site("mlp_out", 1)), "L1.mlp_out cannot reach L1.mlp_out"),
        ((HEAD, "logit"), "unknown receiver 'logit'"),
        ((HEAD, "logits", None, "total 1"), "'logits' is read at the readout"),
    ],
)
def test_what_is_no_path(ends, message):
    with pytest.raises(ValueError, match=message):
        Path(*ends)


def test_what_the_order_of_a_layer_allows():
    """The stream into a layer reaches its heads and its MLP, a head its own layer's MLP."""
    assert Path(Site("resid_pre", 1), Site("q", 1, 0)).check
    assert Path(Site("z", 1, 0), Site("mlp_out", 1)).check
    assert Path(Site("attn_out", 1), Site("mlp_out", 1)).check


def test_all_paths_between_heads(tiny_model, make_tiny):
    """4 senders of the first layer reach 3 inputs of 4 heads; all 8 have a sum of all paths and a direct one."""
    paths = head_paths(tiny_model)
    assert len(paths) == len(set(paths)) == 4 * 3 * 4 + 8 * 2
    assert all(path.sender.layer < path.receiver.layer for path in paths if isinstance(path.receiver, Site))
    assert len(head_paths(make_tiny(n_key_value_heads=2), ends=())) == 4 * (4 + 2 + 2)
    assert len(head_paths(tiny_model, inputs=("mlp_out",), ends=())) == 4 * 2 + 4
    named = head_paths(tiny_model, senders=[Site("resid_pre", 0)], receivers=[Site("v", 1, 3)], ends=("logits",))
    assert [path.label for path in named] == ["L0.resid_pre -> logits", "L0.resid_pre -> L1H3.v"]


def test_places_that_cannot_be_joined_are_left_out(tiny_model):
    receivers = [Site("q", 1, 0), Site("v", 1, 0)]
    options = {"senders": [HEAD], "receivers": receivers, "ends": ()}
    found = head_paths(tiny_model, sources=("a", "b", None), destinations=("a", None), **options)
    joined = {(path.input, path.source, path.destination) for path in found}
    assert len(found) == len(joined) == 11
    assert ("v", "b", "a") in joined
    assert ("q", "b", "a") not in joined


def test_what_cannot_be_listed(tiny_model):
    with pytest.raises(ValueError, match="'z' is no input of a component"):
        head_paths(tiny_model, inputs=("z",))
    with pytest.raises(ValueError, match="did you mean"):
        head_paths(tiny_model, inputs=("mlp_ot",))
    with pytest.raises(ValueError, match="no path: no sender comes before"):
        head_paths(tiny_model, senders=[Site("z", 1, 0)], inputs=("q",), ends=())
    with pytest.raises(ValueError, match="its z has heads 0 to 3"):
        head_paths(tiny_model, senders=[Site("z", 0, 9)])
