"""What is read is found used, what is only there is not, and what was not tested is not called unused."""

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch

from cotinterp.mechanism.activations import activations
from cotinterp.mechanism.contrast import Address, Contrast
from cotinterp.mechanism.patching.sweep import patch_sweep
from cotinterp.mechanism.probing.linear_probe import fit_probe
from cotinterp.mechanism.probing.subspaces import Subspace
from cotinterp.mechanism.probing.totals import running_total
from cotinterp.mechanism.probing.use import DECLARED, DIRECTIONS, ProbeUse, RandomSubspaces, UseCell, UseRule, UseTest
from cotinterp.mechanism.probing.use import probe_use as probe_use_in_blocks
from cotinterp.mechanism.sites import Site
from cotinterp.models.handmade import reader, reader_blueprint, recomputer, recomputer_blueprint
from cotinterp.tasks import get_task
from cotinterp.transcripts.batch import collate
from cotinterp.transcripts.pairs import operand_pairs
from cotinterp.transcripts.problems import sample_problems
from cotinterp.transcripts.render import render
from cotinterp.transcripts.roles import Role
from cotinterp.transcripts.vocabulary import Vocabulary
from tests.mechanism.contrasts import contrast_with_gap, replaced
from tests.mechanism.slots import (
    D_MODEL,
    DECOY,
    DORMANT,
    N_POSITIONS,
    ONE_BACK,
    READ,
    one_back_pairs,
    slotted,
    two_back_pairs,
)

pytestmark = pytest.mark.slow

SITE, PLACE = Site("resid_pre", 0), f"position {ONE_BACK}"
# All edits of a few short pairs fit into one pass.
FEW = RandomSubspaces(n=19)
probe_use = partial(probe_use_in_blocks, batch_size=2048, controls=FEW)


@pytest.fixture(scope="module")
def model(make_tiny):
    return slotted(make_tiny)


@pytest.fixture(scope="module")
def rows(model):
    """Activations one back, and u and v of the token there."""
    tokens = torch.randint(0, 8, (240, N_POSITIONS), generator=torch.Generator().manual_seed(9))
    tokens[:, ONE_BACK] = torch.arange(240) % 8
    found = activations(model, tokens, [SITE], positions=torch.full((240,), ONE_BACK))[SITE]
    return found, {"u": (tokens[:, ONE_BACK] // 2).numpy(), "v": (tokens[:, ONE_BACK] % 2).numpy()}


@pytest.fixture(scope="module")
def probes(rows):
    """Probes for u and v, both right on all rows that they were not fitted on."""
    features, truth = rows
    found = {name: fit_probe(features[:160], labels[:160], target=name) for name, labels in truth.items()}
    for name, probe in found.items():
        assert (probe.predict(features[160:]) == truth[name][160:]).all(), "both are decodable"
    return found


def of(result, direction, intervention="interchange"):
    table = result.frame()
    chosen = table[(table["direction"] == direction) & (table["intervention"] == intervention)]
    return chosen.iloc[0]


def directions(part):
    return torch.eye(D_MODEL)[:, part]


def test_a_direction_that_is_read_is_used(model, probes):
    result = probe_use(model, one_back_pairs(40, seed=0), probes["u"], SITE, PLACE, controls=RandomSubspaces(n=40))
    assert [answer for answer, _ in result.answers] == ["used"]
    for direction in ("denoise", "noise"):
        row = of(result, direction)
        assert row["effect"] == pytest.approx(1.0, abs=1e-3)
        assert row["full_effect"] == pytest.approx(1.0, abs=1e-5)
        assert (row["iia"], row["full_iia"], row["before_iia"]) == (1.0, 1.0, 0.0)
        assert row["p"] == pytest.approx(1 / 41)
        assert row["random_high"] < 0.75
        assert row["random_iia"] < 0.5


def test_a_decoy_is_decodable_and_not_used(model, probes):
    result = probe_use(model, one_back_pairs(40, seed=0), probes["v"], SITE, PLACE)
    assert [answer for answer, _ in result.answers] == ["not shown to be used"]
    for direction in ("denoise", "noise"):
        row = of(result, direction)
        assert row["effect"] == pytest.approx(0.0, abs=1e-3)
        assert row["full_effect"] == pytest.approx(1.0, abs=1e-5)
        assert row["iia"] == 0.0
        assert row["p"] > 0.05
        assert row["written"] > 0.4, "it is a large part of what differs here"


def test_what_a_probe_reads_is_not_where_the_classes_move(model, rows):
    """Noise in every direction makes a probe lean on it; the class means still differ where u is written."""
    features, truth = rows
    noise = 0.1 * torch.randn(features.shape, generator=torch.Generator().manual_seed(3))
    probe = fit_probe(features + noise, truth["u"], target="u")
    contrast = one_back_pairs(40, seed=0)
    read, moved = (
        of(probe_use(model, contrast, Subspace.of_probe(probe, of=which), SITE, PLACE), "noise")["effect"]
        for which in ("direction", "centers")
    )
    assert 0.5 < read < 0.9
    assert moved > 0.97


def test_a_decoy_by_hand_has_no_effect_at_all(model):
    for removal in ("resample", "mean", "zero"):
        result = probe_use(model, one_back_pairs(30, seed=1), Subspace(directions(DECOY)), SITE, PLACE, removal=removal)
        assert result.frame()["effect"].tolist() == [0.0] * 4
        assert result.answers[0][0] == "not shown to be used"


def test_random_directions_beat_nothing(model):
    """Random subspaces in the probe's place are called used no more often than the level says."""
    contrast, rng = one_back_pairs(30, seed=2), np.random.default_rng(0)
    found = [
        probe_use(
            model,
            contrast,
            Subspace.random(D_MODEL, 3, rng),
            SITE,
            PLACE,
            removal=None,
            controls=RandomSubspaces(n=19, seed=seed),
        )
        for seed in range(16)
    ]
    p = np.array([[of(result, direction)["p"] for direction in ("denoise", "noise")] for result in found])
    assert (p.min(axis=1) <= 0.05).mean() <= 0.2
    assert sum(result.answers[0][0] == "used" for result in found) <= 3
    assert np.mean(p) > 0.3


def test_more_than_the_whole_activation_is_not_use(model):
    """A direction that varies and is not read, mixed with one that is read and never varies (Makelov et al. 2023)."""
    contrast = two_back_pairs(30, seed=3)
    v = directions(DECOY)[:, :1] - directions(DECOY)[:, 1:]
    mixed = Subspace.span(v / v.norm() + directions(DORMANT))
    result = probe_use(model, contrast, mixed, SITE, PLACE)
    row = of(result, "denoise")
    # The difference in v is sqrt 2; half of it goes to DORMANT, which is read twice (+2 and -2) against a gap of 4.
    assert row["effect"] == pytest.approx(np.sqrt(0.5), abs=1e-4)
    assert row["full_effect"] == 0.0
    assert row["excess"] == row["effect"]
    answer, reason = result.answers[0]
    assert answer == "undecided"
    assert reason.startswith("the directions do more than the whole activation")
    seen, unseen = mixed.split(model.W_V[0].detach().transpose(0, 1).flatten(1))
    assert of(probe_use(model, contrast, unseen, SITE, PLACE), "denoise")["effect"] == 0.0
    assert (seen.rank, unseen.rank) == (1, 1)
    assert torch.allclose(seen.basis.abs(), directions(DORMANT), atol=1e-5)


def test_pairs_that_do_not_change_what_is_read_decide_nothing(model, probes):
    contrast = two_back_pairs(30, seed=3)
    answer, reason = probe_use(model, contrast, probes["u"], SITE, PLACE).answers[0]
    assert answer == "undecided"
    assert "the probe reads different things in 0% of the pairs only" in reason or "do not differ" in reason
    answer, reason = probe_use(model, contrast, Subspace(directions(READ)), SITE, PLACE).answers[0]
    assert (answer, reason) == (
        "undecided",
        "the pairs do not differ along the directions (0.00% of what differs here)",
    )


def test_full_space_is_the_patch_and_empty_space_nothing(tiny_model, tokens):
    contrast = contrast_with_gap(tiny_model, tokens, replaced(tokens, [3], d_vocab=13), torch.full((5,), 6))
    site, place = Site("resid_pre", 1), "position 3"
    whole = Subspace.random(16, 16, np.random.default_rng(0))
    result = probe_use(tiny_model, contrast, whole, site, place)
    nothing = probe_use(tiny_model, contrast, Subspace(torch.zeros(16, 0)), site, place, removal=None)
    assert nothing.answers[0][0] == "undecided"
    for direction in ("denoise", "noise"):
        sweep = patch_sweep(tiny_model, contrast, kinds=("resid_pre",), direction=direction)
        expected = {(c.site, c.place): e for c, e in zip(sweep.cells, sweep.effects().effect, strict=True)}[site, place]
        row = of(result, direction)
        assert row["full_effect"] == pytest.approx(expected, abs=1e-5)
        assert row["effect"] == pytest.approx(expected, abs=1e-5)
        # In the whole space every random subspace is the whole space.
        assert row["random_low"] == pytest.approx(expected, abs=1e-5)
        assert of(nothing, direction)["effect"] == 0.0


def test_removal_by_hand(model):
    """Without u the copied output is gone: zero leaves no logit difference, half of the way to the other run."""
    result = probe_use(model, one_back_pairs(30, seed=4), Subspace(directions(READ)), SITE, PLACE, removal="zero")
    for direction in ("denoise", "noise"):
        row = of(result, direction, "removal")
        assert row["effect"] == pytest.approx(0.5, abs=1e-6)
        assert row["full_effect"] > 0.4
    mean = probe_use(model, one_back_pairs(100, seed=4), Subspace(directions(READ)), SITE, PLACE, removal="mean")
    assert of(mean, "noise", "removal")["effect"] == pytest.approx(0.5, abs=0.1)


def test_without_removals_there_are_only_interchanges(model):
    table = probe_use(model, one_back_pairs(9, seed=5), Subspace(directions(READ)), SITE, PLACE, removal=None).frame()
    assert table["intervention"].tolist() == ["interchange"] * 2


def test_a_resampled_example_takes_from_one_whose_place_lies_alike(model):
    pairs = one_back_pairs(9, seed=5)
    moved = torch.eye(N_POSITIONS, dtype=torch.bool)[[ONE_BACK] * 8 + [2]]
    contrast = Contrast(pairs.clean, pairs.corrupted, pairs.at, pairs.answer, pairs.foil, {"token": moved})
    result = probe_use(model, contrast, Subspace(directions(READ)), SITE, "token")
    assert of(result, "noise")["n"] == 9
    assert of(result, "noise", "removal")["n"] == 8


def test_controls_drawn_from_the_data_are_harder(model, probes):
    """Along the axes in which activations vary here there are 4 dimensions, of which the probe reads 3."""
    contrast = one_back_pairs(40, seed=0)
    uniform, data = (
        probe_use(model, contrast, probes["u"], SITE, PLACE, controls=RandomSubspaces(n=19, drawn=drawn))
        for drawn in ("uniform", "data")
    )
    assert of(data, "noise")["random_effect"] > of(uniform, "noise")["random_effect"] + 0.2
    assert of(data, "noise")["effect"] == of(uniform, "noise")["effect"]


def test_blocks_of_pairs_do_not_matter(model, probes):
    contrast = one_back_pairs(20, seed=0)
    one, other = (
        probe_use(model, contrast, probes["u"], SITE, PLACE, removal=None, batch_size=b).frame() for b in (11, 64)
    )
    assert one["effect"].to_numpy() == pytest.approx(other["effect"].to_numpy(), abs=1e-5)
    assert one["random_max"].to_numpy() == pytest.approx(other["random_max"].to_numpy(), abs=1e-5)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"place": "position 9"}, KeyError, "no place 'position 9'; the contrast has"),
        ({"place": "position 7"}, ValueError, "lies behind the readout"),
        ({"site": Site("resid_mid", 0)}, ValueError, "cannot be written"),
        ({"site": Site("resid_pre", 1)}, ValueError, "outside the model"),
        ({"controls": RandomSubspaces(n=18)}, ValueError, "n_random=18: the smallest p-value would be 1/19"),
        ({"removal": "median"}, ValueError, "unknown removal .median.: resample, mean, zero"),
        ({"probe": Subspace(torch.eye(8)[:, :2])}, ValueError, "a subspace of 8 dimensions does not fit"),
    ],
)
def test_what_cannot_be_asked(model, changes, error, message):
    options = {"probe": Subspace(directions(READ)), "site": SITE, "place": PLACE} | changes
    contrast = one_back_pairs(5, seed=0)
    with pytest.raises(error, match=message):
        probe_use(model, contrast, options.pop("probe"), options.pop("site"), options.pop("place"), **options)


def test_the_rule_is_what_is_declared(model, probes):
    contrast = one_back_pairs(40, seed=0)
    strict = probe_use(model, contrast, probes["u"], SITE, PLACE, rule=UseRule(min_effect=1.5))
    assert strict.answers[0][0] == "not shown to be used"


N, DRAWS = 40, 40
SPREAD = np.linspace(-0.2, 0.2, N)


def trial(direction, effect, *, random=0.1, full=1.0, gap=10.0, spread=SPREAD, written=0.5, intervention="interchange"):
    """Every pair has the same gap; `effect` and `full` are means over pairs, `random` the largest of the draws."""
    draws = np.linspace(-random, random, DRAWS)
    sign = 1.0 if direction == "denoise" else -1.0
    return UseTest(
        direction=direction,
        intervention=intervention,
        gap=np.full(N, sign * gap),
        change=sign * gap * (effect + spread),
        full=np.full(N, sign * gap * full),
        random=sign * gap * np.repeat(draws[:, None], N, axis=1),
        before_iia=np.zeros(N, dtype=bool),
        iia=np.arange(N) < 30,
        full_iia=np.ones(N, dtype=bool),
        random_iia=np.zeros((DRAWS, N), dtype=bool),
        written=np.full(N, written),
    )


def cell(*tests, reads_differ=1.0, layer=1):
    site, address = Site("resid_pre", layer), Address("equals", 2, "=")
    return UseCell(
        site=site, address=address, target="s_2", rank=3, pair="made up", tests=tests, reads_differ=reads_differ
    )


def result(denoise, noise, **options):
    at = options.pop("reads_differ", 1.0)
    trials = [
        trial(direction, effect, **options) for direction, effect in zip(DIRECTIONS, (denoise, noise), strict=True)
    ]
    return ProbeUse((cell(*trials, reads_differ=at),), DECLARED, {"task": "z6"})


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (result(0.8, 0.8), "used"),
        (result(0.8, 0.0), "used"),
        (result(0.0, 0.8), "used"),
        (result(0.0, 0.0), "not shown to be used"),
        (result(-0.8, -0.8), "not shown to be used"),
        (result(0.8, 0.8, random=0.9), "not shown to be used"),
        (result(0.06, 0.06, random=0.01), "not shown to be used"),
        (result(0.11, 0.0, random=0.01), "undecided"),
        (result(0.8, 0.8, full=0.1), "undecided"),
        (result(0.8, 0.8, full=0.75), "used"),
        (result(0.8, 0.8, gap=0.0), "undecided"),
        (result(0.0, 0.0, reads_differ=0.3), "undecided"),
        (result(0.0, 0.0, reads_differ=float("nan")), "not shown to be used"),
        (result(0.0, 0.0, written=0.001), "undecided"),
    ],
)
def test_the_rule(found, expected):
    assert [answer for answer, _ in found.answers] == [expected], found.answers


def test_reasons_name_what_was_missing():
    reasons = {
        "tell the two runs apart": result(0.8, 0.8, gap=0.0),
        "do more than the whole activation": result(0.8, 0.8, full=0.1),
        "do not differ along the directions": result(0.0, 0.0, written=0.001),
        "different things in 30% of the pairs": result(0.0, 0.0, reads_differ=0.3),
        "the interval holds 0.1": result(0.11, 0.0, random=0.01),
        r"denoise 0.80 [0.76, 0.84] (random at most 0.10, p 0.024, whole 1.00)": result(0.8, 0.0),
    }
    for words, found in reasons.items():
        assert words in found.answers[0][1]


def test_the_table_by_hand():
    row = result(0.5, 0.25).frame().iloc[0]
    assert row["task"] == "z6"
    assert (row["direction"], row["intervention"], row["role"], row["step"]) == ("denoise", "interchange", "equals", 2)
    assert (row["effect"], row["full_effect"], row["excess"]) == pytest.approx((0.5, 1.0, -0.5))
    # Standard deviation 0.1184 over 40 pairs: 1.96 standard errors are 0.037.
    assert row["ci_low"] == pytest.approx(0.463, abs=0.006)
    assert row["ci_high"] == pytest.approx(0.537, abs=0.006)
    assert row["random_max"] == pytest.approx(0.1)
    assert (row["random_low"], row["random_high"]) == pytest.approx((-0.095, 0.095))
    assert row["random_effect"] == pytest.approx(0.0, abs=1e-12)
    assert row["p"] == pytest.approx(1 / 41)
    assert (row["iia"], row["full_iia"], row["random_iia"], row["before_iia"]) == (0.75, 1.0, 0.0, 0.0)
    assert (row["n"], row["n_random"], row["written"]) == (40, 40, 0.5)


def test_p_values_are_those_of_the_whole_scan():
    """An effect of 0.5 beats draws that reach 0.1, also beside a cell whose draws reach 0.6."""
    quiet = result(0.5, 0.5)
    wild = ProbeUse((cell(*(trial(d, 0.5, random=0.6) for d in DIRECTIONS), layer=2),), DECLARED, {"task": "z6"})
    assert quiet.answers[0][0] == "used"
    scan = ProbeUse.joined([quiet, wild])
    assert [answer for answer, _ in scan.answers] == ["used", "not shown to be used"]
    p = scan.frame()["p"].to_numpy()
    # Of the wild cell's draws, evenly spread to 0.6, four are above 0.5; each counts for the whole scan.
    assert p == pytest.approx([1 / 41, 1 / 41, 5 / 41, 5 / 41])
    assert scan.frame()["layer"].tolist() == [1, 1, 2, 2]
    with pytest.raises(ValueError, match="only results of one rule"):
        ProbeUse.joined([quiet, replace(wild, rule=UseRule(alpha=0.1))])


def test_removals_are_a_family_of_their_own():
    """A removal that random subspaces can do as well takes nothing from the interchange."""
    removals = [trial(d, 0.1, random=0.9, intervention="removal") for d in DIRECTIONS]
    interchanges = [trial(d, 0.8) for d in DIRECTIONS]
    found = ProbeUse((cell(*interchanges, *removals),), DECLARED, {})
    assert found.answers[0][0] == "used"
    assert found.frame()["p"].to_numpy()[:2] == pytest.approx(1 / 41)
    assert found.frame()["p"].to_numpy()[2:] == pytest.approx((1 + 18) / 41)


def test_a_model_that_does_not_tell_the_runs_apart_has_no_effects():
    found = result(0.8, 0.8, gap=0.0).frame()
    assert found["n"].tolist() == [0, 0]
    assert found[["effect", "ci_low", "p", "random_effect", "full_effect"]].isna().all(axis=None)


def test_pairs_left_out():
    one = trial("noise", 0.5)
    kept = one.select(np.arange(N) < 10)
    assert kept.random.shape == (DRAWS, 10)
    assert kept.change.tolist() == one.change[:10].tolist()
    assert (kept.direction, kept.intervention) == ("noise", "interchange")


def test_the_figure_has_the_controls_beside_the_effect(tmp_path):
    found = result(0.5, 0.25)
    traces = {trace.name: trace for trace in found.figure().data}
    assert list(traces["probe's subspace"].y) == pytest.approx([0.5, 0.25])
    assert list(traces["whole activation"].y) == pytest.approx([1.0, 1.0])
    assert set(traces) == {"probe's subspace", "whole activation", "random subspaces"}
    assert {trace.mode for trace in traces.values()} == {"markers"}
    table, _ = found.save(tmp_path, "use")
    assert pd.read_csv(table)["answer"].tolist() == ["used", "used"]


def test_too_few_random_subspaces_for_the_level():
    with pytest.raises(ValueError, match="draw at least 19"):
        DECLARED.check(18)
    DECLARED.check(19)
    with pytest.raises(ValueError, match="draw at least 99"):
        UseRule(alpha=0.01).check(40)


COPY = slice(20, 24)


def copied(make_tiny, *, scale, used=1.0, reads_copy=False):
    """`slotted`, with a second copy of u of another size beside the one that head 0 reads."""
    model = slotted(make_tiny)
    native, u = model.original_model, torch.arange(8) // 2
    with torch.no_grad():
        native.tok_embed.weight[:, READ] *= used
        native.tok_embed.weight[:, COPY] = scale * torch.eye(4)[u]
        if reads_copy:
            native.layers[0].attn.v.weight[:4, COPY] = torch.eye(4)
    return model


def probe_for(model, name="u"):
    tokens = torch.randint(0, 8, (240, N_POSITIONS), generator=torch.Generator().manual_seed(9))
    found = activations(model, tokens, [SITE], positions=torch.full((240,), ONE_BACK))[SITE]
    here = tokens[:, ONE_BACK]
    return fit_probe(found, here // 2 if name == "u" else here % 2, target=name)


@pytest.mark.parametrize("scale", [0.01, 0.1, 1.0, 10.0])
def test_an_unread_copy_of_any_size_does_not_hide_the_one_that_is_read(make_tiny, scale):
    model, contrast = copied(make_tiny, scale=scale), one_back_pairs(40, seed=0)
    result = probe_use(model, contrast, probe_for(model), SITE, PLACE)
    # Random subspaces that move as far as ten times the total are no yardstick for it.
    assert result.answers[0][0] == ("used" if scale < 10 else "undecided"), result.answers
    alone = probe_use(model, contrast, probe_for(model), SITE, PLACE, copies=False)
    if scale == 1.0:
        assert result.copies is None, "the probe's directions move both"
        assert alone.answers[0][0] == "used"
    else:
        assert result.copies.frame()["effect"].to_numpy() == pytest.approx(1.0, abs=0.05)
        assert alone.answers[0][0] != "used", "a control that can fail: the directions point at the copy"
    assert result.frame()["effect"].tolist() == alone.frame()["effect"].tolist()


def test_two_copies_that_are_read_by_half_each(make_tiny):
    model = copied(make_tiny, scale=0.5, used=0.5, reads_copy=True)
    result = probe_use(model, one_back_pairs(40, seed=0), probe_for(model), SITE, PLACE)
    assert result.answers[0][0] == "used"
    assert of(result, "noise")["effect"] == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_two_copies_that_nothing_reads_are_not_used(make_tiny, scale):
    model = slotted(make_tiny)
    with torch.no_grad():
        model.original_model.tok_embed.weight[:, 20:22] = scale * torch.eye(2)[torch.arange(8) % 2]
    result = probe_use(model, one_back_pairs(40, seed=0), probe_for(model, "v"), SITE, PLACE)
    assert result.answers[0][0] == "not shown to be used", result.answers


def test_four_pairs_decide_nothing(model, probes):
    answer, reason = probe_use(model, one_back_pairs(4, seed=0), probes["u"], SITE, PLACE).answers[0]
    assert (answer, reason) == ("undecided", "4 pairs have a gap; 5 or more would decide")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alpha": 0.0}, "alpha=0.0: between 0 and 1"),
        ({"min_effect": -0.1}, "min_effect=-0.1"),
        ({"min_pairs": 1}, "two"),
    ],
)
def test_a_rule_that_could_not_be_followed_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        UseRule(**changes)


TASK = get_task("z6")
K, STEP, STEP_OPTIONS = 4, 2, {"regime": "totals", "k_range": (4, 4), "decoy": True}
# What the heads of layer 1 bring to the place where total 3 is computed.
STEP_SITE, STEP_PLACE = Site("attn_out", 1), (Role.STEP_END, STEP)
MODELS = {"reader": (reader, reader_blueprint), "recomputer": (recomputer, recomputer_blueprint)}


@pytest.fixture(scope="module", params=MODELS)
def handmade(request):
    """A model, its truth, a probe for s_2 with its accuracy on other problems, and pairs that change s_2."""
    write, blueprint = MODELS[request.param]
    model = write(TASK, **STEP_OPTIONS)
    train, test, others = (
        sample_problems(TASK, K, n, split=split, rng=np.random.default_rng(seed))
        for seed, (n, split) in enumerate([(240, "train"), (80, "heldout"), (30, "heldout")])
    )
    rows, truth = zip(*(read(model, problems) for problems in (train, test)), strict=True)
    probe = fit_probe(rows[0], truth[0], at=STEP_SITE, target=f"s_{STEP}")
    accuracy = float((probe.predict(rows[1]) == truth[1]).mean())
    pairs = operand_pairs(
        TASK, others, "totals", index=1, rng=np.random.default_rng(0), readout=(Role.TOTAL, 3), first_symbol=True
    )
    use = partial(
        probe_use,
        model,
        Contrast.from_pairs(pairs),
        site=STEP_SITE,
        place="step end 2",
        batch_size=1024,
        controls=RandomSubspaces(n=19),
    )
    return request.param, blueprint(TASK, **STEP_OPTIONS), probe, accuracy, use


def read(model, problems):
    batch = collate([render(TASK, problem, "totals") for problem in problems], Vocabulary.of(TASK))
    positions = batch.where(*STEP_PLACE)
    return activations(model, batch.tokens, [STEP_SITE], positions=positions)[STEP_SITE], running_total(batch, STEP)


def test_the_probe_finds_the_total_in_both_and_its_use_in_one(handmade):
    name, _, probe, accuracy, use = handmade
    assert accuracy == 1.0
    result = use(probe)
    assert result.answers[0][0] == {"reader": "used", "recomputer": "not shown to be used"}[name], result.answers
    interchanges = result.frame().query("intervention == 'interchange'")
    assert interchanges["full_effect"].to_numpy() == pytest.approx(1.0, abs=1e-4)
    assert (interchanges["n"] == 30).all()


def test_the_copy_that_is_read_and_the_copy_that_is_not(handmade):
    name, truth, _, _, use = handmade
    assert truth.unread == ("decoy",)
    decoy = use(Subspace.span(truth.basis("decoy").T))
    assert decoy.answers[0][0] == "not shown to be used"
    assert decoy.frame()["effect"].tolist() == [0.0] * 4
    assert decoy.frame()["written"].min() > 0.1
    taken = use(Subspace.span(truth.basis("total" if name == "reader" else "sum").T))
    assert taken.answers[0][0] == "used"
    interchanges = taken.frame().query("intervention == 'interchange'")
    assert interchanges["effect"].to_numpy() == pytest.approx(1.0, abs=1e-4)
    assert interchanges["iia"].tolist() == [1.0, 1.0]
