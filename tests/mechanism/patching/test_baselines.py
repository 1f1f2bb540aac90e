import numpy as np
import pytest
import torch

from cotinterp.mechanism.patching.runs import Cell, Changes
from cotinterp.mechanism.patching.sweep import PatchingResult, patch_sweep
from cotinterp.mechanism.sites import Site
from tests.mechanism.contrasts import replaced, told_apart

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
    contrast = told_apart(tiny_model, tokens, replaced(tokens, [3], d_vocab=13), torch.full((5,), 6))
    result = patch_sweep(tiny_model, contrast, kinds=("resid_pre", "attn_out"))
    baselines = result.baselines()
    for kind, live in (("resid_pre", 1 + 4), ("attn_out", 4 + 4)):
        cells = [i for i, cell in enumerate(result.cells) if cell.site.kind == kind and result.measured.live[i].any()]
        assert len(cells) == live
        mean = np.mean([result.effects().effect[i] for i in cells])
        assert baselines[f"random_site {kind}"].effect[0] == pytest.approx(mean)
        assert abs(mean) > 1e-3
