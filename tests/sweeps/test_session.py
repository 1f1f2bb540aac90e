"""What the commands say and leave behind."""

from io import StringIO

import pytest
from rich.console import Console

from cotinterp.sweeps import sweep as session
from cotinterp.sweeps.sweep import collect_session, status_session, sweep_session
from cotinterp.sweeps.table import read_table

GRID = """
problems_per_k = 10
[defaults]
task = "s3"
regime = "direct"
k_max = 3
n_train = 20
model = { n_layers = 1, d_model = 8, n_heads = 2, d_mlp = 16, n_ctx = 24 }
optimizer = { steps = 20, batch_size = 4, warmup = 5 }
[[runs]]
seed = [0, 1]
[[runs]]
optimizer.lr = 1e30
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """Everything that the three commands say about one sweep, one after the other."""
    folder = tmp_path_factory.mktemp("session")
    (folder / "tiny.toml").write_text(GRID)
    lines = {name: [] for name in ("before", "sweep", "status", "collect")}
    named = {"root": folder / "runs"}
    status_session(folder / "tiny.toml", say=lines["before"].append, **named)
    screen = Console(file=StringIO())
    ended = sweep_session(
        folder / "tiny.toml", executor="local:1", retries=0, say=lines["sweep"].append, console=screen, **named
    )
    status_session(folder / "tiny.toml", say=lines["status"].append, **named)
    collect_session(folder / "tiny.toml", out=folder / "table.csv", say=lines["collect"].append, **named)
    return folder, ended, lines


def test_a_sweep_with_a_failure_ends_badly_and_lists_it(said):
    folder, ended, lines = said
    assert ended is False
    assert lines["sweep"][0] == f"tiny: 3 runs under {folder / 'runs'}, by local:1"
    assert lines["sweep"][1] == "2 finished now, 0 finished before, 1 failed"
    assert lines["sweep"][2].startswith("failed: s3-direct-L1-s0-")
    assert "NonFiniteLossError" in lines["sweep"][2]


def test_status_counts_and_lists_what_is_begun_and_not_finished(said):
    folder, _, lines = said
    assert lines["before"] == [f"tiny under {folder / 'runs'}: 0 finished, 0 unfinished, 0 failed, 3 absent"]
    assert lines["status"][0].endswith("2 finished, 0 unfinished, 1 failed, 0 absent")
    assert len(lines["status"]) == 2
    assert "step 0 of 20  NonFiniteLossError" in lines["status"][1]


def test_collect_writes_the_table_and_says_what_lacks(said):
    folder, _, lines = said
    rows = read_table(folder / "table.csv")
    assert lines["collect"] == [f"{folder / 'table.csv'}: {len(rows)} rows of 3 runs, 1 failed"]
    assert rows["slug"].nunique() == 3


def test_runs_lie_under_the_name_of_the_grid_unless_it_is_told(said, monkeypatch):
    monkeypatch.chdir(said[0])
    lines = []
    status_session("tiny.toml", say=lines.append)
    assert lines[0].startswith("tiny under out/sweeps/tiny: ")


def test_long_lists_are_cut(said, monkeypatch):
    monkeypatch.setattr(session, "LISTED", 0)
    lines = []
    status_session(said[0] / "tiny.toml", root=said[0] / "runs", say=lines.append)
    assert lines[1:] == ["failed  and 1 more"]
