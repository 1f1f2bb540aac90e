"""The table of knock-outs by hand: shares, scopes, and scans that do not pay for one another."""

import numpy as np
import pytest
import torch

from cotinterp.mechanism.heads.knock_outs import RANDOM_SOURCES, KnockOut, KnockOutResult
from cotinterp.mechanism.heads.losses import scan_columns


def cell(control="", layer=None, head=None, attention=0.5):
    return KnockOut("previous_total", control, "readout", layer, head, "pattern", attention)


CELLS = (cell(), cell(RANDOM_SOURCES), cell(layer=1), cell(layer=1, head=2), cell(layer=0, head=1, attention=0.0))


@pytest.fixture
def result():
    rng = np.random.default_rng(0)
    lost = torch.from_numpy(rng.normal(size=(5, 20)) + np.array([[4], [0], [2], [1], [0]])).float()
    lost[4] = 0
    lost[:, 19] = torch.nan
    return KnockOutResult(CELLS, lost, torch.full((20,), 4.0), {"task": "z6"})


def test_a_row_for_each_cut_named_by_its_scope(result):
    frame = result.frame()
    assert frame["scope"].tolist() == ["all", "all", "layer", "head", "head"]
    assert frame["site"].tolist() == ["all", "all", "L1.pattern", "L1H2.pattern", "L0H1.pattern"]
    assert frame["kind"].tolist() == ["all", "all", "pattern", "pattern", "pattern"]
    assert frame[["layer", "head"]].to_numpy().tolist() == [[-1, -1], [-1, -1], [1, -1], [1, 2], [0, 1]]
    assert frame["effect"].to_numpy() == pytest.approx(result.lost[:, :19].mean(dim=1).numpy() / 4, rel=1e-5)
    assert set(frame["n"]) == {19}
    assert frame["task"].eq("z6").all()


def test_heads_layers_and_all_heads_are_three_scans(result):
    frame = result.frame()
    names = ["scan_low", "scan_high", "p"]
    for rows in ([0, 1], [2], [3, 4]):
        expected = scan_columns(result.lost[rows], result.clean)[names].to_numpy()
        np.testing.assert_allclose(frame.loc[rows, names].to_numpy(), expected)
    assert frame.loc[4, ["effect", "scan_low", "scan_high", "p"]].tolist() == [0, 0, 0, 1]


def test_one_effect_by_name(result):
    asked = {"dest": "readout", "method": "pattern"}
    assert result.effect("previous_total", **asked) == pytest.approx(result.frame()["effect"][0])
    assert result.effect("previous_total", **asked, site="L1H2.pattern") == pytest.approx(result.frame()["effect"][3])
    assert result.effect("previous_total", **asked, control=RANDOM_SOURCES) == pytest.approx(
        result.frame()["effect"][1]
    )
    with pytest.raises(KeyError, match="no knock-out .*'site': 'L7.pattern'.*L1H2.pattern"):
        result.effect("previous_total", **asked, site="L7.pattern")


def test_the_figure_shows_the_effects_and_missing_ones_as_missing(result):
    cells = next(trace for trace in result.figure().data if trace.z is not None and trace.name != "no value")
    assert list(cells.x) == ["previous total", "random, as many as previous total"]
    assert cells.z[list(cells.y).index("all"), 0] == pytest.approx(result.frame()["effect"][0])
    assert np.isnan(cells.z[list(cells.y).index("L1.pattern"), 1])
