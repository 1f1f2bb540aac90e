"""`sweep`, `status` and `collect`: what they print and leave behind."""

from contextlib import redirect_stdout
from io import StringIO

import pytest

from cotinterp.cli import experiments, main
from cotinterp.sweeps.table import read_sweep_table

pytestmark = pytest.mark.slow

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


class Capture:
    """The standard output of a command, line by line."""

    def __init__(self, capsys):
        self.capsys = capsys

    def __call__(self, *arguments):
        main([str(argument) for argument in arguments])
        return self.capsys.readouterr().out.splitlines()


@pytest.fixture
def run(capsys):
    return Capture(capsys)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A grid of three runs, one of which cannot be trained."""
    folder = tmp_path_factory.mktemp("commands")
    (folder / "tiny.toml").write_text(GRID)
    return folder


@pytest.fixture(scope="module")
def swept(folder):
    """`cotinterp sweep` of it: the folder, the status that it ended with, and what it printed."""
    command = ["sweep", folder / "tiny.toml", "--root", folder / "runs", "--executor", "local:1", "--retries", 0]
    with redirect_stdout(StringIO()) as shown, pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in command])
    return folder, ended.value.code, shown.getvalue().splitlines()


def test_before_a_sweep_all_runs_are_absent(folder, run):
    shown = run("status", folder / "tiny.toml", "--root", folder / "nothing")
    assert shown == [f"tiny under {folder / 'nothing'}: 0 finished, 0 unfinished, 0 failed, 3 absent"]


def test_a_sweep_with_a_failure_ends_with_status_1_and_lists_it(swept):
    folder, code, shown = swept
    assert code == 1
    assert shown[0] == f"tiny: 3 runs under {folder / 'runs'}, by local:1"
    assert shown[1] == "2 finished now, 0 finished before, 1 failed"
    assert shown[2].startswith("failed: s3-direct-L1-s0-")
    assert "NonFiniteLossError" in shown[2]


def test_status_counts_and_lists_what_is_started_and_not_finished(swept, run, monkeypatch):
    grid, root = swept[0] / "tiny.toml", swept[0] / "runs"
    shown = run("status", grid, "--root", root)
    assert shown[0].endswith("2 finished, 0 unfinished, 1 failed, 0 absent")
    assert len(shown) == 2
    assert "step 0 of 20  NonFiniteLossError" in shown[1]
    monkeypatch.setattr(experiments, "MOST_LISTED", 0)
    assert run("status", grid, "--root", root)[1:] == ["failed  and 1 more"]


def test_collect_writes_the_table_and_says_which_runs_are_not_measured(swept, run):
    path = swept[0] / "table.csv"
    shown = run("collect", swept[0] / "tiny.toml", "--root", swept[0] / "runs", "--out", path)
    rows = read_sweep_table(path)
    assert shown == [f"{path}: {len(rows)} rows of 3 runs, 1 failed"]
    assert rows["slug"].nunique() == 3


def test_runs_lie_under_the_name_of_the_grid_unless_told_otherwise(folder, run, monkeypatch):
    monkeypatch.chdir(folder)
    assert run("status", "tiny.toml")[0].startswith("tiny under out/sweeps/tiny: ")
