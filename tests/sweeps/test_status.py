"""How far a sweep is, by its files."""

import math
from concurrent.futures import ThreadPoolExecutor

from cotinterp.sweeps.sweep import run_sweep, sweep_status
from cotinterp.training.loop import train
from tests.sweeps.tiny import DIVERGING, grid_of, tiny

GRID = grid_of(tiny(), tiny(seed=1), DIVERGING, tiny(seed=2))


def test_every_status_is_counted_and_every_run_has_a_row(tmp_path):
    with ThreadPoolExecutor(1) as thread:
        run_sweep(grid_of(tiny(), DIVERGING), tmp_path, thread, retries=0)
    train(tiny(seed=1), directory=tmp_path / tiny(seed=1).slug, device="cpu", threads=1)
    found = sweep_status(GRID, tmp_path)
    assert found.counts == {"finished": 1, "unfinished": 1, "failed": 1, "absent": 1}
    rows = found.frame()
    assert list(rows["slug"]) == [spec.slug for spec in GRID.specs]
    assert list(rows["status"]) == ["finished", "unfinished", "failed", "absent"]
    assert list(rows["step"]) == [20, 20, 0, 0]
    assert set(rows["steps"]) == {20}
    assert rows["loss"][0] > 0
    assert math.isnan(rows["loss"][3])
    assert rows["error"][2].startswith("NonFiniteLossError")


def test_before_anything_is_begun_all_are_absent(tmp_path):
    assert sweep_status(GRID, tmp_path / "nowhere").counts["absent"] == len(GRID.specs)
