"""Which way a sweep takes: from the weights of a native model, or by the hooks of any other."""

import dataclasses
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformer_lens import patching as oracle
from transformer_lens.model_bridge.sources import build_bridge_from_module
from transformers import GPT2Config, GPT2LMHeadModel

from cotinterp.mechanism.activations import Budget
from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.metrics import logit_diff
from cotinterp.mechanism.patching.sweep import patch_both_ways, patch_sweep
from cotinterp.mechanism.sites import Site
from cotinterp.models.handmade import reader, recomputer
from cotinterp.tasks import get_task
from cotinterp.transcripts.pair_families import pair_families
from cotinterp.transcripts.problems import sample_problems
from tests.mechanism.contrasts import ANY_GAP, BY_HOOKS, UNRELATED, contrast_with_gap, replaced

pytestmark = pytest.mark.slow

CHANGED, AT = 3, 6


@pytest.fixture
def contrast(tiny_model, tokens):
    return contrast_with_gap(tiny_model, tokens, replaced(tokens, [CHANGED], d_vocab=13), torch.full((5,), AT))


def table(result):
    """Effect of the primary metric by (site, position)."""
    effects = result.effects().effect
    return {(cell.site.label, int(cell.place.split()[-1])): effects[i] for i, cell in enumerate(result.cells)}


def assert_identities(model, contrast):
    """What must hold on every causal model whose pairs differ at one position only."""
    for direction in ("denoise", "noise"):
        result = patch_sweep(
            model, contrast, kinds=("resid_pre", "attn_out", "resid_post"), heads=True, direction=direction
        )
        effects, last = table(result), int(model.cfg.n_layers) - 1
        assert effects["L0.resid_pre", CHANGED] == pytest.approx(1.0, abs=1e-5)
        assert effects[f"L{last}.resid_post", AT] == pytest.approx(1.0, abs=1e-5)
        for (site, position), effect in effects.items():
            if position < CHANGED or (site == "L0.resid_pre" and position != CHANGED):
                assert effect == 0.0, (site, position)
            if site.startswith(f"L{last}") and "resid_pre" not in site and position != AT:
                assert effect == 0.0, (site, position)
        assert 1e-4 < abs(effects["L1.resid_pre", CHANGED]) < 0.99, "a middle layer has moved a part of it"
        baselines = result.baselines()
        assert baselines["self"].effect.tolist() == [0.0]
        assert baselines["full"].effect.tolist() == [1.0]
        assert baselines["random_donor"].effect[0] not in (0.0, 1.0)


def test_identities(tiny_model, contrast):
    assert_identities(tiny_model, contrast)


@pytest.mark.parametrize(
    "changes",
    [
        {"positional_embedding_type": "rotary"},
        {"n_key_value_heads": 2},
        {"normalization_type": "RMS", "gated_mlp": True, "act_fn": "silu"},
        {"n_layers": 3},
    ],
)
def test_identities_hold_on_other_architectures(make_tiny, tokens, changes):
    model = make_tiny(**changes)
    assert_identities(
        model, contrast_with_gap(model, tokens, replaced(tokens, [CHANGED], d_vocab=13), torch.full((5,), AT))
    )


def test_a_model_that_is_not_ours(randomized, tokens):
    """A Hugging Face GPT-2 with random weights, wrapped by TransformerLens, and no task of ours in sight."""
    config = GPT2Config(n_layer=2, n_head=4, n_embd=16, vocab_size=13, n_positions=16)
    bridge = build_bridge_from_module(GPT2LMHeadModel(config), architecture="GPT2LMHeadModel", hf_config=config)
    model = randomized(bridge, seed=5)
    assert_identities(
        model, contrast_with_gap(model, tokens, replaced(tokens, [CHANGED], d_vocab=13), torch.full((5,), AT))
    )


@pytest.mark.parametrize(
    ("kind", "theirs"),
    [
        ("resid_pre", oracle.get_act_patch_resid_pre),
        ("attn_out", oracle.get_act_patch_attn_out),
        ("mlp_out", oracle.get_act_patch_mlp_out),
        ("z", oracle.get_act_patch_attn_head_out_by_pos),
    ],
)
def test_agrees_with_transformer_lens(tiny_model, contrast, kind, theirs):
    read = (contrast.at, contrast.answer, contrast.foil)
    with torch.no_grad():
        clean, cache = tiny_model.run_with_cache(contrast.clean)
        corrupted = logit_diff(tiny_model(contrast.corrupted), *read)
        found = theirs(tiny_model, contrast.corrupted, cache, lambda x: logit_diff(x, *read), reduce="none").values
    expected = (found.mean(-1) - corrupted.mean()) / (logit_diff(clean, *read).mean() - corrupted.mean())
    ours = patch_sweep(tiny_model, contrast, kinds=() if kind == "z" else (kind,), heads=kind == "z")
    seen = 0
    for (label, position), effect in table(ours).items():
        site = Site.parse(label)
        index = (site.layer, position) if site.head is None else (site.layer, position, site.head)
        assert effect == pytest.approx(float(expected[index]), abs=1e-4), (label, position)
        seen += effect != 0.0
    assert seen > 3


def test_effects_add_up_where_the_model_is_linear(make_tiny, tokens):
    """No norm, no MLP, queries zero (uniform attention): places of a layer share out the whole gap, as do the heads."""
    model = make_tiny(normalization_type=None, attn_only=True)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".q." in name:
                parameter.zero_()
    contrast = contrast_with_gap(model, tokens, replaced(tokens, [1, 3, 4], d_vocab=13), torch.full((5,), AT))
    kinds = ("resid_pre", "attn_out")
    denoised, noised = (
        table(patch_sweep(model, contrast, kinds=kinds, heads=True, direction=d)) for d in ("denoise", "noise")
    )
    for layer in range(2):
        total = sum(effect for (site, _), effect in denoised.items() if site == f"L{layer}.resid_pre")
        assert total == pytest.approx(1.0, abs=1e-4)
        for position in range(AT + 1):
            heads = sum(denoised[f"L{layer}H{head}.z", position] for head in range(4))
            assert heads == pytest.approx(denoised[f"L{layer}.attn_out", position], abs=1e-4)
    # Where nothing interacts, sufficient and necessary are the same.
    assert denoised == pytest.approx(noised, abs=1e-4)
    assert len({round(effect, 3) for effect in denoised.values()}) > 10


def test_sufficient_and_necessary_differ_where_the_model_is_not_linear(tiny_model, contrast):
    denoised, noised = (table(patch_sweep(tiny_model, contrast, direction=d)) for d in ("denoise", "noise"))
    assert max(abs(denoised[key] - noised[key]) for key in denoised) > 0.02


def test_the_answer_does_not_depend_on_the_batch_size(tiny_model, contrast):
    expected = table(patch_sweep(tiny_model, contrast, kinds=("attn_out",)))
    for batch_size in (1, 2, 11, 500):
        found = table(patch_sweep(tiny_model, contrast, kinds=("attn_out",), budget=Budget(batch_size=batch_size)))
        assert found == pytest.approx(expected, abs=1e-4)


def test_an_encoder_is_not_cut_at_the_readout(make_tiny, tokens):
    model = make_tiny(attention_dir="bidirectional")
    contrast = contrast_with_gap(model, tokens, replaced(tokens, [5], d_vocab=13), torch.full((5,), 2))
    effects = table(patch_sweep(model, contrast, kinds=("resid_pre",)))
    assert effects["L0.resid_pre", 5] == pytest.approx(1.0, abs=1e-5)
    assert effects["L1.resid_pre", 7] != 0.0


def test_partners_share_the_layout(tiny_model, contrast):
    """Unrelated donors come from examples whose places lie at the same positions; who is alone has none."""
    shifted = {**contrast.places, "odd": torch.eye(8, dtype=torch.bool)[[0, 0, 1, 1, 2]]}
    odd = Contrast(contrast.clean, contrast.corrupted, contrast.at, contrast.answer, contrast.foil, shifted)
    result = patch_sweep(tiny_model, odd, controls=UNRELATED)
    assert result.pair == "pair (unrelated donor)"
    assert result.effects().n == 4
    assert result.baselines()["random_donor"].n == 4
    assert result.baselines()["full"].effect.tolist() == [1.0]
    changes = result.measured.changes["logit_diff"]
    assert np.isnan(changes[:, 4]).all()
    assert np.isfinite(changes[:, :4]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"direction": "denoising"}, "unknown direction 'denoising': denoise or noise"),
        ({"kinds": ("resid_per",)}, "unknown kind 'resid_per'; did you mean.*resid_pre"),
        ({"kinds": ("attn_scores",)}, "discards what is written there"),
        ({"kinds": ("resid_mid",)}, "L0.resid_mid cannot be written"),
        ({"kinds": ()}, "nothing to patch"),
        ({"metrics": ("logitdiff",)}, "unknown metric 'logitdiff', did you mean 'logit_diff'"),
        ({"metrics": ()}, "at least one metric"),
        ({"budget": Budget(batch_size=0)}, "batch_size=0"),
    ],
)
def test_what_cannot_be_asked(tiny_model, contrast, options, message):
    with pytest.raises(ValueError, match=message):
        patch_sweep(tiny_model, contrast, **options)


def test_train_mode_is_refused(make_tiny, contrast):
    with pytest.raises(ValueError, match="train mode"):
        patch_sweep(make_tiny().train(), contrast)


def test_places_that_miss_the_change_are_refused(tiny_model, contrast):
    before = {label: mask for label, mask in contrast.places.items() if int(label.split()[-1]) < CHANGED}
    elsewhere = Contrast(contrast.clean, contrast.corrupted, contrast.at, contrast.answer, contrast.foil, before)
    with pytest.raises(ValueError, match="agree bit for bit at every place"):
        patch_sweep(tiny_model, elsewhere)


def test_a_sweep_in_which_nothing_changes_anything_is_refused(make_tiny, tokens):
    """One layer: what attn_out holds away from the readout differs between the runs, and nobody reads it."""
    model = make_tiny(n_layers=1)
    pair = contrast_with_gap(model, tokens, replaced(tokens, [CHANGED], d_vocab=13), torch.full((5,), AT))
    places = {"position 4": pair.places["position 4"]}
    unread = Contrast(pair.clean, pair.corrupted, pair.at, pair.answer, pair.foil, places)
    with pytest.raises(ValueError, match="1 patches were written and none changed logit_diff"):
        patch_sweep(model, unread, kinds=("attn_out",))


def test_runs_that_the_model_does_not_tell_apart_are_refused(tiny_model, contrast):
    same = Contrast(contrast.clean, contrast.clean, contrast.at, contrast.answer, contrast.foil, contrast.places)
    with pytest.raises(ValueError, match="none of 5 pairs has a gap"):
        patch_sweep(tiny_model, same)


def test_a_sweep_without_a_gap_can_be_kept_and_says_that_nothing_was_measured(tiny_model, contrast):
    """Every pair stands twice, once with answer and foil exchanged: the gaps cancel exactly."""
    twice = contrast.select(torch.arange(5).repeat(2))
    answer = torch.cat([contrast.answer, contrast.foil])
    foil = torch.cat([contrast.foil, contrast.answer])
    cancel = Contrast(twice.clean, twice.corrupted, twice.at, answer, foil, twice.places)
    with pytest.raises(ValueError, match="cancel"):
        patch_sweep(tiny_model, cancel, metrics=("logit_diff",))
    table = patch_sweep(tiny_model, cancel, metrics=("logit_diff",), controls=ANY_GAP).frame()
    assert table["effect"].isna().all()
    assert (table["n"] == 0).all()


def referenced(tiny_model, tokens, changed):
    """A change at `changed`, in units of the gap that a change at `CHANGED` makes."""
    unit = contrast_with_gap(tiny_model, tokens, replaced(tokens, [CHANGED], d_vocab=13), torch.full((5,), AT))
    other = replaced(tokens, [changed], d_vocab=13)
    return unit, Contrast(unit.clean, other, unit.at, unit.answer, unit.foil, unit.places, reference=unit.corrupted)


@pytest.mark.parametrize("direction", ["denoise", "noise"])
def test_effects_in_units_of_another_pair(tiny_model, tokens, direction):
    unit, contrast = referenced(tiny_model, tokens, 5)
    own = Contrast(unit.clean, contrast.corrupted, unit.at, unit.answer, unit.foil, unit.places)
    options = {"kinds": ("resid_pre",), "metrics": ("logit_diff", "kl"), "direction": direction}
    result = patch_sweep(tiny_model, contrast, **options)
    alone = patch_sweep(tiny_model, own, **options, controls=ANY_GAP)
    gap = patch_sweep(tiny_model, unit, **options)
    assert result.measured.gaps["logit_diff"].tolist() == gap.measured.gaps["logit_diff"].tolist()
    assert result.measured.gaps["kl"] == pytest.approx(gap.measured.gaps["kl"], abs=1e-6)
    np.testing.assert_array_equal(result.measured.changes["logit_diff"], alone.measured.changes["logit_diff"])
    for name in ("logit_diff", "kl"):
        baselines = result.baselines(name)
        assert (baselines["self"].effect.item(), baselines["full"].effect.item()) == (0.0, 1.0)
    share = alone.measured.gaps["logit_diff"].sum() / gap.measured.gaps["logit_diff"].sum()
    assert result.baselines()["whole_change"].effect.item() == pytest.approx(share)
    assert "whole_change" not in gap.baselines()
    assert list(result.runs().predicted) == ["clean", "corrupted", "reference"]


def test_a_change_behind_the_readout_is_no_change(tiny_model, tokens):
    """With a reference too, a sweep whose runs agree everywhere is refused: its zeros would be no evidence."""
    _, contrast = referenced(tiny_model, tokens, 7)
    with pytest.raises(ValueError, match="agree bit for bit"):
        patch_sweep(tiny_model, contrast)
    _, read = referenced(tiny_model, tokens, 6)
    some = replace(read, corrupted=torch.cat([read.clean[:2], read.corrupted[2:]]))
    with pytest.raises(ValueError, match=r"the same tokens up to the readout in 2 of 5 pairs \(pair 0 is the first\)"):
        patch_sweep(tiny_model, some)
    assert patch_sweep(tiny_model, read).baselines()["whole_change"].effect.item() != 0.0


def families_of(make, regime):
    task = get_task("z6")
    problems = sample_problems(task, 4, 8, split="heldout", rng=np.random.default_rng(0))
    families = pair_families(task, problems, regime, step=2, rng=np.random.default_rng(1))
    return make(task, regime, (4, 4)), {name: Contrast.from_pairs(pairs) for name, pairs in families.items()}


@pytest.mark.parametrize("regime", ["totals", "cot"])
@pytest.mark.parametrize(("make", "follows"), [(reader, "written_total"), (recomputer, "prompt_operand")])
def test_known_mechanisms_carry_what_they_are_known_to_carry(make, follows, regime):
    """All the effect of the family that is followed, none of the other two, at the place that holds the source."""
    model, families = families_of(make, regime)
    written = "previous total 2" if regime == "cot" else "total 1"
    place = written if follows == "written_total" else "operand 0"
    for family in ("prompt_operand", "written_total", "both", "unrelated"):
        result = patch_sweep(model, families[family], kinds=("resid_pre",), metrics=("logit_diff",))
        effects = {
            (cell.site.label, cell.place): e for cell, e in zip(result.cells, result.effects().effect, strict=True)
        }
        assert result.baselines()["full"].effect.item() == 1.0
        if family in (follows, "both"):
            assert effects["L0.resid_pre", place] == pytest.approx(1.0, abs=1e-3)
            flagged = result.scan().frame().query("flagged")
            assert flagged["role"].tolist()[0] == place.rsplit(" ", 1)[0].replace(" ", "_")
        else:
            assert result.baselines()["whole_change"].effect.item() == pytest.approx(0.0, abs=1e-3)
            assert list(effects.values()) == pytest.approx([0.0] * len(effects), abs=1e-3)
            assert not result.scan().frame()["flagged"].any()


def test_without_a_reference_a_reader_has_no_gap_to_patch_and_says_so():
    model, families = families_of(reader, "totals")
    own = dataclasses.replace(families["prompt_operand"], reference=None)
    with pytest.raises(ValueError, match="none of 8 pairs has a gap"):
        patch_sweep(model, own, kinds=("resid_pre",))
    kept = patch_sweep(model, own, kinds=("resid_pre",), metrics=("logit_diff",), controls=ANY_GAP)
    table = kept.detail()
    assert table["effect"].isna().all()
    assert (table["n"].eq(0) & table["dropped"].eq(8)).all()
    assert (kept.runs().share("corrupted", "answer"), kept.runs().distinguished) == (1.0, 0.0)


@pytest.fixture
def one_change(tiny_model, tokens):
    return contrast_with_gap(tiny_model, tokens, replaced(tokens, [3], d_vocab=13), torch.full((5,), 6))


def changes(result):
    return result.measured.changes["logit_diff"]


def counted(model, monkeypatch):
    """How many passes the model itself makes from now on."""
    passes = []
    forward = type(model).forward

    def count(self, *args, **named):
        passes.append(len(args[0]))
        return forward(self, *args, **named)

    monkeypatch.setattr(type(model), "forward", count)
    return passes


def test_a_native_model_is_patched_from_its_weights_and_by_hooks_where_asked(tiny_model, one_change, monkeypatch):
    passes = counted(tiny_model, monkeypatch)
    fast = patch_sweep(tiny_model, one_change, heads=True)
    assert len(passes) == 1, "one look at the model, to compare"
    slow = patch_sweep(tiny_model, one_change, heads=True, controls=BY_HOOKS)
    assert len(passes) > 5
    np.testing.assert_allclose(changes(fast), changes(slow), atol=2e-5)


def test_hooks_that_somebody_attached_act_on_the_sweep(make_tiny, one_change):
    """The weights alone would not know of them."""
    model = make_tiny()
    without = changes(patch_sweep(model, one_change, kinds=("attn_out",)))
    with model.hooks(fwd_hooks=[("blocks.1.hook_mlp_out", lambda value, hook: 0 * value)]):
        found = changes(patch_sweep(model, one_change, kinds=("attn_out",)))
        np.testing.assert_array_equal(
            found, changes(patch_sweep(model, one_change, kinds=("attn_out",), controls=BY_HOOKS))
        )
    assert np.abs(found - without).max() > 1e-3


def test_a_model_whose_forward_pass_was_replaced_is_run_as_it_is(make_tiny, one_change, monkeypatch):
    model = make_tiny()
    forward = type(model).forward
    monkeypatch.setattr(type(model), "forward", lambda self, *args, **named: 2.0 * forward(self, *args, **named))
    with pytest.warns(UserWarning, match=r"not those of its weights \(off by 0\.5 of the largest logit\)"):
        found = patch_sweep(model, one_change)
    slow = patch_sweep(model, one_change, controls=BY_HOOKS)
    assert found.measured.gaps["logit_diff"].tolist() == slow.measured.gaps["logit_diff"].tolist()


@pytest.fixture(scope="module")
def eight_pairs(tiny_model):
    tokens = torch.randint(0, 13, (8, 8), generator=torch.Generator().manual_seed(1))
    return contrast_with_gap(tiny_model, tokens, replaced(tokens, [3], d_vocab=13), torch.full((8,), 6))


@pytest.fixture(scope="module")
def both(tiny_model, eight_pairs):
    return patch_both_ways(tiny_model, eight_pairs, kinds=("resid_pre", "attn_out"), heads=True, labels={"run_seed": 2})


def test_both_sweeps_with_the_same_options(tiny_model, eight_pairs, both):
    frame = both.frame()
    for direction in ("denoise", "noise"):
        alone = patch_sweep(
            tiny_model,
            eight_pairs,
            kinds=("resid_pre", "attn_out"),
            heads=True,
            labels={"run_seed": 2},
            direction=direction,
        ).frame()
        rows = frame[frame["direction"] == direction].reset_index(drop=True)
        assert rows["site"].tolist() == alone["site"].tolist()
        np.testing.assert_array_equal(rows["effect"], alone["effect"])


def test_side_by_side_is_one_row_a_cell(both):
    table, frame = both.side_by_side(), both.frame()
    assert len(table) == len(frame) / 2
    for direction in ("denoise", "noise"):
        rows = frame[frame["direction"] == direction]
        np.testing.assert_array_equal(table[f"{direction}_effect"], rows["effect"])
        np.testing.assert_array_equal(table[f"{direction}_n"], rows["n"])
    np.testing.assert_array_equal(table["difference"], table["denoise_effect"] - table["noise_effect"])
    of_logits = table[table["metric"] == "logit_diff"].set_index("site")
    assert of_logits.loc["self", ["denoise_effect", "noise_effect"]].tolist() == [0.0, 0.0]
    assert of_logits.loc["full", ["denoise_effect", "noise_effect"]].tolist() == [1.0, 1.0]
    assert of_logits.loc["L1.resid_pre", "difference"].abs().max() > 1e-3


def test_scans_and_details_of_both(both):
    assert both.scan().frame()["direction"].value_counts().to_dict() == dict.fromkeys(
        ("denoise", "noise"), len(both.denoise.cells)
    )
    assert len(both.detail()) == len(both.frame())
    assert both.runs().predicted["clean"].tolist() == both.noise.runs().predicted["clean"].tolist()


def test_figure_has_a_facet_for_each_kind_and_direction(both):
    figure = both.figure(heads=False)
    titles = [note.text.split(" (")[0] for note in figure.layout.annotations]
    ways = ("denoise", "noise")
    assert titles == [f"<b>{kind}</b>, {way}" for kind in ("resid_pre", "attn_out") for way in ways]
    drawn = np.concatenate([np.ravel(trace.z) for trace in figure.data if trace.type == "heatmap"])
    frame = both.frame()
    cells = frame[(frame["metric"] == "logit_diff") & (frame["head"] == -1) & (frame["role"] != "all")]
    shown = cells[cells["effect"] != 0]["effect"]
    np.testing.assert_allclose(np.sort(drawn[drawn != 0]), np.sort(shown), rtol=1e-6)


def test_files(both, tmp_path):
    paths = [str(path.relative_to(tmp_path)) for path in both.save(tmp_path, "patching")]
    assert paths == ["tables/patching.csv", "figures/patching.html", "tables/patching_directions.csv"]
    assert all((tmp_path / path).stat().st_size for path in paths)
