import numpy as np
import pytest

from cotinterp.mechanism.patching.attribution_patching import agreement_of
from cotinterp.mechanism.patching.runs import Cell
from cotinterp.mechanism.sites import Site

CELLS = tuple(Cell(Site("resid_pre", layer), f"position {i}") for layer in range(2) for i in range(4))
CELLS += tuple(Cell(Site("z", 0, head), "position 0") for head in range(4))
#                  resid_pre                                     z of heads
EFFECT = np.array([0.9, 0.0, 0.5, -0.8, 0.3, 0.2, 0.1, 0.0] + [0.6, 0.0, -0.4, 0.05])
SCORE = np.array([0.8, 0.0, 0.4, 0.2, 0.35, 0.1, 0.05, 0.0] + [0.5, 0.0, -0.3, 0.10])


def row(sites, **options):
    table = agreement_of(CELLS, SCORE, EFFECT, **{"top": (1, 3, 20), **options}).frame()
    return table[table["sites"] == sites].iloc[0]


def test_the_table_worked_by_hand():
    """Ranks by size: 0.9 -0.8 0.6 0.5 -0.4 0.3 0.2 0.1 0.05 against 0.8 0.5 0.4 0.35 -0.3 0.2 0.1 0.1 0.05."""
    overall = row("all sites")
    assert overall[["n", "left_out", "ranking"]].tolist() == [9, 3, "absolute"]
    assert overall[["overlap_1", "overlap_3"]].tolist() == [1.0, 2 / 3]
    assert np.isnan(overall["overlap_20"])
    assert overall["max_difference"] == pytest.approx(1.0)
    # Squared rank differences 16 + 1 + 1 + 0 + 4 + 0.25 + 1 + 2.25 of nine cells, one pair of ties among the scores.
    effect, score = np.array([9, 6, 8, 4, 3, 2, 7, 5, 1]), np.array([9, 7, 4, 6, 2.5, 1, 8, 5, 2.5])
    assert overall["spearman"] == pytest.approx(np.corrcoef(effect, score)[0, 1])
    told = EFFECT != 0
    assert overall["pearson"] == pytest.approx(np.corrcoef(EFFECT[told], SCORE[told])[0, 1])


def test_kinds_are_compared_by_themselves():
    assert row("resid_pre")[["n", "left_out"]].tolist() == [6, 2]
    heads = row("z of heads")
    assert heads[["n", "left_out", "overlap_1", "overlap_3"]].tolist() == [3, 1, 1.0, 1.0]
    assert heads["spearman"] == pytest.approx(1.0)
    assert heads["max_difference"] == pytest.approx(0.1)


def test_signed_ranking_is_another_answer():
    """By size -0.8 is the second largest effect; signed it is the last, and its score of 0.2 is in the middle."""
    signed, absolute = row("all sites", ranking="signed"), row("all sites")
    assert signed["ranking"] == "signed"
    assert signed["overlap_3"] == 1.0
    assert absolute["overlap_3"] == 2 / 3
    assert signed["spearman"] != absolute["spearman"]


def test_cells_that_are_zero_on_both_sides_do_not_help():
    """Zeros appended to both would raise the correlation without end."""
    more = tuple(Cell(Site("resid_pre", 2), f"position {i}") for i in range(50))
    padded = agreement_of(CELLS + more, np.append(SCORE, np.zeros(50)), np.append(EFFECT, np.zeros(50)))
    plain = agreement_of(CELLS, SCORE, EFFECT)
    assert padded.frame().iloc[0]["spearman"] == plain.frame().iloc[0]["spearman"]
    assert padded.frame().iloc[0]["left_out"] == 53
    assert "L2.resid_pre" not in padded.worst(100)["site"].tolist()


def test_the_worst_cells():
    worst = agreement_of(CELLS, SCORE, EFFECT).worst(2)
    assert worst["site"].tolist()[0] == "L0.resid_pre"
    assert worst["place"].tolist()[0] == "position 3"
    assert worst["difference"].tolist()[0] == pytest.approx(1.0)
    assert len(worst) == 2


def test_scores_of_noise_do_not_agree():
    rng = np.random.default_rng(0)
    cells = tuple(Cell(Site("resid_pre", 0), f"position {i}") for i in range(400))
    table = agreement_of(cells, rng.normal(size=400), rng.normal(size=400), top=(40,)).frame().iloc[0]
    assert abs(table["spearman"]) < 0.15
    assert table["overlap_40"] < 0.3


def test_what_cannot_be_compared():
    with pytest.raises(ValueError, match="unknown ranking 'size': absolute or signed"):
        agreement_of(CELLS, SCORE, EFFECT, ranking="size")
    with pytest.raises(ValueError, match="all 12 cells are exactly 0"):
        agreement_of(CELLS, 0 * SCORE, 0 * EFFECT)
    with pytest.raises(ValueError, match="name at least one k"):
        agreement_of(CELLS, SCORE, EFFECT, top=(0,))


def test_constant_sides_have_no_correlation():
    table = agreement_of(CELLS, 0 * SCORE, EFFECT, top=(3,)).frame()
    assert table["spearman"].isna().all()
    assert table["max_difference"].iloc[0] == pytest.approx(0.9)


def test_the_figure_has_every_cell(tmp_path):
    result = agreement_of(CELLS, SCORE, EFFECT, labels={"task": "z6"})
    figure = result.figure()
    assert sum(len(trace.x) for trace in figure.data) == len(CELLS)
    assert [trace.name for trace in figure.data] == ["resid_pre", "z of heads"]
    assert "absolute" in figure.layout.title.text
    assert result.save(tmp_path, "agreement")[0].read_text().startswith("task,sites,n,left_out,ranking,spearman")
