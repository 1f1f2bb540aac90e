"""The scan as a result: the table is that of the sweep, and the picture shows flagged cells alone."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from cotinterp.mechanism.contrast import Address, Contrast
from cotinterp.mechanism.metrics import METRICS, normalized_effects
from cotinterp.mechanism.patching.effects import scan_effects
from cotinterp.mechanism.patching.runs import Cell, Changes
from cotinterp.mechanism.patching.sweep import PatchingResult, patch_sweep
from cotinterp.mechanism.sites import Site
from cotinterp.models.handmade import reader
from cotinterp.results import sign_flip_p, simultaneous_half_width
from cotinterp.tasks import get_task
from cotinterp.transcripts.pairs import written_total_pairs
from cotinterp.transcripts.problems import sample_problems, solve
from cotinterp.transcripts.vocabulary import Vocabulary
from tests.mechanism.contrasts import ANY_GAP, contrast_with_gap, replaced

COLUMNS = ["task", "regime", "run_seed", "pair", "direction", "site", "kind", "layer", "head"]
COLUMNS += ["role", "step", "metric", "effect", "ci_low", "ci_high", "n", "reason"]
MISSING = -1
LABELS = {"task": "digit-sum", "regime": "cot", "run_seed": 3}


@pytest.fixture(scope="module")
def contrast(model):
    """Changed totals, asked about the tokens that the change moves furthest apart: a random model has no others."""
    task = get_task("digit-sum")
    problems = solve(task, np.array([[8, 5, 4], [9, 7, 1], [6, 6, 5], [7, 4, 9]]))
    pairs = Contrast.from_pairs(written_total_pairs(task, problems, "cot", step=1, rng=np.random.default_rng(0)))
    asked = contrast_with_gap(model, pairs.clean, pairs.corrupted, pairs.at)
    return replace(pairs, answer=asked.answer, foil=asked.foil)


@pytest.fixture(scope="module")
def model(make_tiny):
    return make_tiny(d_vocab=len(Vocabulary.of(get_task("digit-sum"))), n_ctx=32)


@pytest.fixture(scope="module")
def sweep(model, contrast):
    return patch_sweep(model, contrast, heads=True, labels=LABELS)


def by_hand(**changes):
    """Two pairs with gaps 4 and 4; the cell at `total 1` closes 1 and 3 of them, the head's closes nothing."""
    cells = (Cell(Site("resid_pre", 1), "total 1"), Cell(Site("z", 0, 2), "total 1"))
    gaps = {"logit_diff": np.array([4.0, 4.0]), "accuracy": np.array([0.0, 1.0])}
    measured = Changes(
        changes={"logit_diff": np.array([[1.0, 3.0], [0.0, 0.0]]), "accuracy": np.array([[0.0, 1.0], [0.0, 0.0]])},
        gaps=gaps,
        baselines={"self": {name: 0 * gap for name, gap in gaps.items()}, "full": gaps},
        ran=np.array([True, False]),
        live=np.array([[True, True], [True, False]]),
        predicted={"clean": np.array([0, 0]), "corrupted": np.array([1, 0])},
    )
    given = {"direction": "denoise", "pair": "written_total 1", "labels": LABELS}
    return PatchingResult(
        cells=cells, measured=measured, addresses={"total 1": Address("total", 1, "13")}, **{**given, **changes}
    )


def test_the_table_worked_by_hand():
    frame = by_hand().frame()
    assert list(frame.columns) == COLUMNS
    assert frame[["site", "metric", "effect", "n"]].fillna(MISSING).values.tolist() == [
        ["self", "logit_diff", 0.0, 2],
        ["full", "logit_diff", 1.0, 2],
        ["random_site resid_pre", "logit_diff", 0.5, 2],
        ["random_site z head", "logit_diff", 0.0, 1],
        ["L1.resid_pre", "logit_diff", 0.5, 2],
        ["L0H2.z", "logit_diff", 0.0, 2],
        ["self", "accuracy", 0.0, 1],
        ["full", "accuracy", 1.0, 1],
        ["random_site resid_pre", "accuracy", 1.0, 1],
        ["random_site z head", "accuracy", MISSING, 0],
        ["L1.resid_pre", "accuracy", 1.0, 1],
        ["L0H2.z", "accuracy", 0.0, 1],
    ]
    cell = frame.iloc[5]
    assert cell[["task", "regime", "run_seed", "pair", "direction"]].tolist() == [
        "digit-sum", "cot", 3, "written_total 1", "denoise",
    ]  # fmt: skip
    assert cell[["layer", "head", "role", "step"]].tolist() == [0, 2, "total", 1]
    assert frame["head"].tolist() == [-1, -1, -1, -1, -1, 2] * 2
    assert frame["layer"].tolist() == [-1, -1, -1, -1, 1, 0] * 2
    assert frame["kind"].tolist()[2:6] == ["random_site resid_pre", "random_site z head", "resid_pre", "z"]
    assert frame.loc[4, ["ci_low", "ci_high"]].tolist() == [0.25, 0.75]


def test_a_secondary_metric_without_a_gap_is_missing_and_not_an_error():
    result = by_hand()
    result.measured.gaps["accuracy"][:] = 0.0
    frame = result.frame()
    secondary = frame[frame["metric"] == "accuracy"]
    sites = ["self", "full", "random_site resid_pre", "random_site z head", "L1.resid_pre", "L0H2.z"]
    assert secondary["site"].tolist() == sites
    assert secondary["effect"].isna().all()
    assert (secondary["n"] == 0).all()
    assert frame[frame["metric"] == "logit_diff"]["effect"].notna().all()


def test_unknown_and_unmeasured_metrics():
    with pytest.raises(ValueError, match="did you mean 'logit_diff'"):
        by_hand().effects("logitdiff")
    with pytest.raises(ValueError, match=r"kl was not measured in this sweep; it has \['logit_diff', 'accuracy'\]"):
        by_hand().effects("kl")


def test_every_cell_is_a_row_and_agrees_with_effects(sweep):
    frame = sweep.frame()
    assert len(frame) == 3 * (len(sweep.cells) + 3 + 4), "three baselines, and a random site for each kind"
    for metric in ("logit_diff", "probability", "accuracy"):
        rows = frame[(frame["metric"] == metric) & (frame["role"] != "all")]
        assert rows["site"].tolist() == [cell.site.label for cell in sweep.cells]
        if metric != "accuracy":
            assert rows["effect"].tolist() == sweep.effects(metric).effect.tolist()
    assert not frame.duplicated(["site", "role", "step", "metric"]).any()


def test_baselines_stand_first_in_the_table(sweep):
    first = sweep.frame().iloc[:7]
    kinds = ["resid_pre", "attn_out", "mlp_out", "z head"]
    assert first["site"].tolist() == ["self", "full", "random_donor", *(f"random_site {kind}" for kind in kinds)]
    assert first["effect"].tolist()[:2] == [0.0, 1.0]
    assert (first["role"] == "all").all()


def test_the_written_total_is_all_that_differs_at_the_first_layer(sweep):
    frame = sweep.frame()
    first = frame[(frame["site"] == "L0.resid_pre") & (frame["metric"] == "logit_diff")]
    effects = {(row.role, row.step): row.effect for row in first.itertuples()}
    assert effects.pop(("total", 1)) == pytest.approx(1.0, abs=1e-4)
    assert set(effects.values()) == {0.0}


def test_one_pair_has_no_random_donor(model, contrast):
    frame = patch_sweep(model, contrast.select(slice(0, 1))).frame()
    donor = frame[(frame["site"] == "random_donor") & (frame["metric"] == "logit_diff")]
    assert (donor["n"].tolist(), donor["effect"].isna().tolist()) == ([0], [True])


def test_detail_counts_what_was_dropped_and_where_there_was_anything_to_write():
    """A third pair without a gap; the head's cell has nothing to write in the second example."""
    result = by_hand()
    measured = replace(
        result.measured,
        changes={"logit_diff": np.array([[1.0, 3.0, 9.0], [0.0, 0.0, 0.0]])},
        gaps={"logit_diff": np.array([4.0, 4.0, 0.0])},
        baselines={"self": {"logit_diff": np.zeros(3)}},
        live=np.array([[True, True, True], [True, False, False]]),
        predicted={"clean": np.zeros(3, dtype=int), "corrupted": np.ones(3, dtype=int)},
    )
    detail = replace(result, measured=measured).detail()
    assert list(detail.columns) == [*COLUMNS, "dropped", "live"]
    assert detail[["site", "effect", "n", "dropped", "live"]].fillna(MISSING).values.tolist() == [
        ["self", 0.0, 2, 1, MISSING],
        ["random_site resid_pre", 0.5, 2, 1, 1],
        ["random_site z head", 0.0, 1, 2, 1],
        ["L1.resid_pre", 0.5, 2, 1, 3],
        ["L0H2.z", 0.0, 2, 1, 1],
    ]


def noisy(distinguished=20, n=20):
    """Three cells and n pairs of gap 4: the first closes half of each gap, the others are noise about 0."""
    rng = np.random.default_rng(4)
    cells = tuple(Cell(Site("resid_pre", layer), "total 1") for layer in range(3))
    changes = np.stack([2.0 + 0.1 * rng.normal(size=n), rng.normal(size=n), rng.normal(size=n)])
    measured = Changes(
        changes={"logit_diff": changes},
        gaps={"logit_diff": np.full(n, 4.0)},
        baselines={"full": {"logit_diff": np.full(n, 4.0)}},
        ran=np.ones(3, dtype=bool),
        live=np.ones((3, n), dtype=bool),
        predicted={"clean": np.zeros(n, dtype=int), "corrupted": (np.arange(n) < distinguished).astype(int)},
    )
    about = {"addresses": {"total 1": Address("total", 1, "13")}, "direction": "denoise", "pair": "pair"}
    return PatchingResult(cells=cells, measured=measured, labels=LABELS, **about)


def test_a_scan_flags_what_is_there():
    scan = noisy().scan().frame()
    assert scan["flagged"].tolist() == [True, False, False]
    assert (scan["ci_low"] <= scan["effect"]).all()
    assert scan.loc[0, "ci_low"] > 0
    assert scan["effect"].tolist() == noisy().effects().effect.tolist()
    assert (scan["ci_high"] - scan["ci_low"] >= noisy().effects().ci_high - noisy().effects().ci_low).all()
    assert scan["family"].eq("scan").all()
    assert scan[["task", "n", "dropped", "distinguished"]].iloc[0].tolist() == ["digit-sum", 20, 0, 1.0]


def test_headline_cells_are_corrected_among_themselves():
    """A cell declared beforehand answers for itself alone: its p-value is that of one test."""
    result = noisy()
    scan = result.scan(headline=[("L1.resid_pre", "total 1")]).frame()
    assert scan["family"].tolist() == ["scan", "headline", "scan"]
    assert scan["p_adjusted"].iloc[1] == sign_flip_p(result.measured.changes["logit_diff"][1:2])[0]
    assert scan["p_adjusted"].iloc[1] < result.scan().frame()["p_adjusted"].iloc[1]
    with pytest.raises(KeyError, match="L9.resid_pre.*not in the sweep"):
        result.scan(headline=[("L9.resid_pre", "total 1")])


def test_a_model_that_does_not_do_the_thing_is_not_explained():
    """The same numbers, but the first prediction follows the change in 9 of 20 pairs: nothing is flagged."""
    scan = noisy(distinguished=9).scan().frame()
    assert scan["distinguished"].eq(0.45).all()
    assert not scan["flagged"].any()
    assert noisy(distinguished=9).scan(min_distinguished=0.4).frame()["flagged"].tolist() == [True, False, False]


def with_gaps(gaps, changes):
    """A sweep of one cell for each row of `changes`; the runs are told apart in every pair."""
    n, cells = len(gaps), tuple(Cell(Site("resid_pre", layer), "total 1") for layer in range(len(changes)))
    measured = Changes(
        changes={"logit_diff": np.array(changes)},
        gaps={"logit_diff": np.array(gaps)},
        baselines={"full": {"logit_diff": np.array(gaps)}},
        ran=np.ones(len(cells), dtype=bool),
        live=np.ones((len(cells), n), dtype=bool),
        predicted={"clean": np.zeros(n, dtype=int), "corrupted": np.ones(n, dtype=int)},
    )
    about = {"addresses": {"total 1": Address("total", 1, "13")}, "direction": "denoise", "pair": "pair"}
    return PatchingResult(cells=cells, measured=measured, labels=LABELS, **about)


SURE = np.random.default_rng(0).normal(1.0, 0.1, size=20)


@pytest.mark.parametrize(
    ("gaps", "reason"),
    [
        (0.006 * SURE, r"the mean gap between the runs is 0.0059 in 20 pairs \(logit_diff\), below 0.01: the model"),
        (SURE + 9 * (-1.0) ** np.arange(20), "is 0.98 in 20 pairs .* where it varies by 9.2 over pairs: effects would"),
        (np.zeros(20), "none of 20 pairs has a gap of 0.001"),
    ],
)
def test_a_gap_of_nothing_has_no_effects_and_says_so(gaps, reason):
    """Changes as clear as can be, half a nat in every pair: as shares of such a gap they would be -40 or 1,716."""
    result = with_gaps(gaps, [0.5 * SURE, 0 * SURE])
    frame, scan = result.frame(), result.scan().frame()
    assert frame["effect"].isna().all()
    assert (frame["n"] == 0).all()
    assert not scan["flagged"].any()
    assert scan[["n", "dropped"]].values.tolist() == [[0, 20]] * 2
    for table in (frame, scan):
        assert table["reason"].str.contains(reason).all()
    said = result.figure().layout.title.text.replace("<br>", " ")
    assert "n = 0 pairs: no effects" in said
    assert "none of 2 cells" in result.scan().figure().layout.title.text.replace("<br>", " ")


def test_a_small_effect_is_not_flagged_however_sure_it_is():
    """-0.006 of the gap in every pair is told from 0, and explains nothing; 0.06 is flagged."""
    scan = with_gaps(4 * SURE, [-0.006 * 4 * SURE, 0.06 * 4 * SURE, 0 * SURE]).scan()
    frame = scan.frame()
    assert (frame["p_adjusted"][:2] <= 0.05).all()
    assert frame["flagged"].tolist() == [False, True, False]
    assert frame["reason"].tolist() == ["smaller than 0.05", "", "not told from 0"]
    assert "(1 of 3 cells)" in scan.figure().layout.title.text.replace("<br>", " ")
    assert with_gaps(4 * SURE, [-0.006 * 4 * SURE]).scan(least_effect=0.001).frame()["flagged"].tolist() == [True]


def test_too_few_pairs_are_the_reason():
    scan = with_gaps([4.0] * 5, [[2.0] * 5]).scan().frame()
    assert scan["reason"].tolist() == ["5 pairs: with fewer than 6 nothing can be flagged"]
    assert with_gaps([4.0] * 6, [[2.0] * 6]).scan().frame()["flagged"].tolist() == [True]
    assert noisy(distinguished=9).scan().frame()["reason"].eq(
        "the first prediction follows the change in 45% of the pairs, 50% are asked for"
    ).all()  # fmt: skip


def test_without_a_gap_a_scan_is_missing():
    result = noisy()
    result.measured.gaps["logit_diff"][:] = 0.0
    scan = result.scan().frame()
    assert scan[["effect", "ci_low", "p_adjusted"]].isna().all(axis=None)
    assert (scan["n"].tolist(), scan["dropped"].tolist(), scan["flagged"].any()) == ([0] * 3, [20] * 3, False)


def test_every_metric_can_be_asked_for_together(model, contrast):
    frame = patch_sweep(model, contrast, kinds=("resid_pre",), metrics=METRICS, controls=ANY_GAP).frame()
    assert list(dict.fromkeys(frame["metric"])) == list(METRICS)
    full = frame[frame["site"] == "full"]
    assert full.loc[full["n"] > 0, "effect"].tolist() == pytest.approx([1.0] * int((full["n"] > 0).sum()))
    first = patch_sweep(model, contrast, kinds=("resid_pre",), metrics=METRICS, controls=ANY_GAP).measured.changes
    np.testing.assert_allclose(first["logit_diff"], first["correct_logit"] - first["wrong_logit"], atol=1e-5)


def test_figure_draws_the_table(sweep):
    figure = sweep.figure()
    frame = sweep.frame()
    titles = [note.text.split("</b>")[0].removeprefix("<b>") for note in figure.layout.annotations]
    assert titles == ["resid_pre", "attn_out", "mlp_out"]
    drawn = np.concatenate([np.ravel(trace.z) for trace in figure.data])
    cells = frame[(frame["metric"] == "logit_diff") & (frame["head"] == -1) & (frame["role"] != "all")]
    shown = cells[cells["effect"] != 0]["effect"]
    np.testing.assert_allclose(np.sort(drawn[drawn != 0]), np.sort(shown), rtol=1e-6)
    ticks = list(figure.data[0].x)
    assert "total 1  <b>13</b>" in ticks
    title = figure.layout.title.text.replace("<br>", " ")
    assert title.startswith("digit-sum, cot, seed 3: written total 1 differs, read at previous total 2, by layer")
    scale = figure.layout.coloraxis
    assert scale.cmin == -scale.cmax


def test_figure_of_heads(sweep):
    figure = sweep.figure(heads=True)
    rows = list(next(trace for trace in figure.data if trace.type == "heatmap").y)
    assert rows == [f"L{layer}H{head}" for layer in (1, 0) for head in (3, 2, 1, 0)]


def test_figure_without_the_cells_that_are_asked_for(model, contrast):
    only_heads = patch_sweep(model, contrast, kinds=(), heads=True)
    assert "L1H3" in next(trace for trace in only_heads.figure().data if trace.type == "heatmap").y
    with pytest.raises(ValueError, match="no cells without heads"):
        only_heads.figure(heads=False)


def test_saved_table_and_figures(sweep, tmp_path):
    paths = sweep.save(tmp_path, "patching")
    assert [str(path.relative_to(tmp_path)) for path in paths] == [
        "tables/patching.csv",
        "figures/patching.html",
        "figures/patching_heads.html",
    ]
    table = pd.read_csv(paths[0])
    assert list(table.columns) == COLUMNS
    np.testing.assert_allclose(table["effect"], sweep.frame()["effect"])


def test_a_result_holds_no_model(sweep):
    held = [sweep, *vars(sweep).values(), *vars(sweep.measured).values()]
    assert not any(isinstance(value, torch.nn.Module) for value in held)


CELLS = (
    Cell(Site("resid_pre", 0), "a"),
    Cell(Site("resid_pre", 1), "a"),
    Cell(Site("z", 0, 1), "a"),
    Cell(Site("resid_pre", 0), "b"),
)


def measured(changes, live):
    nothing = np.zeros(len(changes[0]))
    measured = Changes(
        changes={"logit_diff": np.array(changes)},
        gaps={"logit_diff": nothing},
        baselines={},
        ran=np.ones(len(CELLS), dtype=bool),
        live=np.array(live, dtype=bool),
        predicted={"clean": nothing.astype(int)},
    )
    about = {"addresses": {}, "direction": "denoise", "pair": "pair", "labels": {}}
    return PatchingResult(cells=CELLS, measured=measured, **about)


def test_the_mean_over_live_cells_worked_by_hand():
    """Example 0: (4 + 2) / 2 of resid_pre; example 1: 6 / 1; example 2 has no live cell. Dead cells are not counted."""
    given = measured(
        [[4.0, 0.0, 0.0], [2.0, 6.0, 0.0], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]],
        [[1, 0, 0], [1, 1, 0], [1, 1, 1], [0, 0, 0]],
    )
    found = given.baseline_changes("logit_diff")
    np.testing.assert_array_equal(found["random_site resid_pre"], [3.0, 6.0, np.nan])
    np.testing.assert_array_equal(found["random_site z head"], [1.0, 1.0, 1.0])


def test_what_was_not_measured_is_missing():
    given = measured([[np.nan, 1.0]] * 4, [[1, 1]] * 4)
    np.testing.assert_array_equal(given.baseline_changes("logit_diff")["random_site resid_pre"], [np.nan, 1.0])


def test_it_is_the_average_cell_of_a_sweep_and_not_zero(tiny_model, tokens):
    """One layer of cells per kind; the cells before the change are dead and do not pull it to 0."""
    contrast = contrast_with_gap(tiny_model, tokens, replaced(tokens, [3], d_vocab=13), torch.full((5,), 6))
    result = patch_sweep(tiny_model, contrast, kinds=("resid_pre", "attn_out"))
    baselines = result.baselines()
    for kind, live in (("resid_pre", 1 + 4), ("attn_out", 4 + 4)):
        cells = [i for i, cell in enumerate(result.cells) if cell.site.kind == kind and result.measured.live[i].any()]
        assert len(cells) == live
        mean = np.mean([result.effects().effect[i] for i in cells])
        assert baselines[f"random_site {kind}"].effect[0] == pytest.approx(mean)
        assert abs(mean) > 1e-3


def test_effects_are_those_of_the_table():
    rng = np.random.default_rng(0)
    change, gap = rng.normal(size=(3, 20)), rng.uniform(1.0, 5.0, size=20)
    gap[4] = 0.0
    scan, effects = scan_effects(change, gap), normalized_effects(change, gap)
    assert scan.effect.tolist() == effects.effect.tolist()
    assert (scan.n, scan.dropped) == (effects.n, effects.dropped) == (19, 1)


def test_a_constant_share_of_every_gap_has_no_width_and_nothing_is_exactly_nothing():
    gap = np.random.default_rng(1).uniform(1.0, 20.0, size=12)
    scan = scan_effects(np.stack([0.4 * gap, gap, 0 * gap]), gap)
    np.testing.assert_allclose([scan.ci_low, scan.ci_high], [[0.4, 1.0, 0.0]] * 2, atol=1e-12)
    assert scan.p[2] == 1.0
    assert (scan.p[:2] == 1 / 2**11).all()


def test_families_are_corrected_each_by_itself():
    rng = np.random.default_rng(2)
    change, gap = rng.normal(size=(30, 15)) + 0.6, np.full(15, 2.0)
    scan = scan_effects(change, gap, [[3], [i for i in range(30) if i != 3]])
    assert scan.p[3] == sign_flip_p(change[3:4])[0] < scan_effects(change, gap).p[3]
    assert scan.ci_high[3] - scan.effect[3] == pytest.approx(
        simultaneous_half_width((change[3:4] - scan.effect[3] * 2.0) / 2.0)[0]
    )


@pytest.mark.parametrize("dependent", [False, True])
def test_noise_is_flagged_at_the_level(dependent):
    """Gaps are there, changes are noise (alone, or the same in all cells but for a little): 5% of scans flag a cell."""
    rng, repeats, flagged, covered = np.random.default_rng(3), 200, 0, 0
    for seed in range(repeats):
        gap = rng.uniform(2.0, 6.0, size=16)
        noise = rng.standard_t(4, size=(25, 16)) * (0.2 if dependent else 1.0) + dependent * rng.normal(size=16)
        scan = scan_effects(noise, gap, seed=seed, n_resamples=199)
        flagged += bool((scan.p <= 0.05).any())
        covered += bool(((scan.ci_low <= 0) & (scan.ci_high >= 0)).all())
    assert flagged / repeats <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / repeats)
    assert covered / repeats >= 0.9


def test_one_true_cell_among_many():
    rng = np.random.default_rng(4)
    gap = rng.uniform(2.0, 6.0, size=24)
    change = rng.normal(size=(40, 24))
    change[11] += 0.5 * gap
    scan = scan_effects(change, gap, n_resamples=400)
    assert np.flatnonzero(scan.p <= 0.05).tolist() == [11]
    assert scan.ci_low[11] > 0


def test_a_gap_of_either_sign_has_no_interval():
    scan = scan_effects(np.ones((1, 3)), np.array([5.0, -4.0, 5.0]))
    assert np.isnan([scan.ci_low[0], scan.ci_high[0]]).all()
    without = scan_effects(np.ones((1, 3)), np.zeros(3))
    assert np.isnan([without.effect[0], without.p[0], without.ci_low[0]]).all()
    assert (without.n, without.dropped) == (0, 3)


Z6 = get_task("z6")


@pytest.fixture(scope="module")
def scan():
    problems = sample_problems(Z6, 4, 20, split="heldout", rng=np.random.default_rng(0))
    pairs = written_total_pairs(Z6, problems, "totals", step=2, rng=np.random.default_rng(0))
    return patch_sweep(reader(Z6, "totals", (2, 4)), Contrast.from_pairs(pairs), kinds=("resid_pre",)).scan()


def test_some_cells_are_flagged_and_others_not(scan):
    assert scan.frame()["flagged"].any()
    assert not scan.frame()["flagged"].all()


def test_only_flagged_cells_have_a_color(scan):
    table = scan.frame()
    colored = [trace for trace in scan.figure().data if trace.coloraxis]
    shown = np.concatenate([np.asarray(trace.z, dtype=float).ravel() for trace in colored])
    assert np.isfinite(shown).sum() == table["flagged"].sum()
    assert sorted(shown[np.isfinite(shown)]) == pytest.approx(sorted(table.loc[table["flagged"], "effect"]))
