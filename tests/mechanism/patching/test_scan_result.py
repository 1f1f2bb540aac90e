"""The scan as a result: the table is that of the sweep, and the picture shows flagged cells alone."""

import numpy as np
import pytest

from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.patching.sweep import patch_sweep
from cotinterp.models.handmade import reader
from cotinterp.tasks import get_task
from cotinterp.transcripts.pairs import written_total_pairs
from cotinterp.transcripts.problems import sample_problems

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
