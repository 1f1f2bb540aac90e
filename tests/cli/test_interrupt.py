"""Ctrl-C at any moment, imports included: status 130, one line, no process left, and a run that goes on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cotinterp.cli import main
from cotinterp.training.checkpoints import list_runs

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]
SLUG = "s3-cot-L4-s0-42df236d"
GRID = """
problems_per_k = 10
[defaults]
task = "s3"
regime = "direct"
k_max = 3
n_train = 20
model = { n_layers = 1, d_model = 8, n_heads = 2, d_mlp = 16, n_ctx = 24 }
optimizer = { steps = STEPS, batch_size = 4, warmup = 5 }
[[runs]]
seed = [0, 1]
"""
PROGRAM = "import sys; from cotinterp.cli import main; print('ready', flush=True); main(sys.argv[1:])"
GOES_ON, BEGINS_AGAIN = "The same command goes on from there", "The same command does it again"


def interrupted(words, folder, when):
    """Status and standard error of a command that got what a terminal sends at Ctrl-C, to all of its processes."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *words],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A test run in the background hands down that Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout.readline() == "ready\n"
    if isinstance(when, str):
        deadline = time.monotonic() + 300
        while not list(folder.glob(when)) and time.monotonic() < deadline:
            time.sleep(0.2)
    else:
        time.sleep(when)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=120)
    return process, said


def all_ended(group):
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize(
    ("words", "when", "said"),
    [
        (["sweep", "grid.toml", "--root", "runs"], 0.5, GOES_ON),
        (["sweep", "grid.toml", "--root", "runs"], "runs/*/metrics.jsonl", GOES_ON),
        (["claims", "--from", "checkpoints", "--train"], "out/replication/*/metrics.jsonl", GOES_ON),
        (["evaluate", SLUG], 2, BEGINS_AGAIN),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value)[:12],
)
def test_an_interrupt_ends_a_command_with_one_line_and_leaves_no_process(words, when, said, tmp_path):
    (tmp_path / "grid.toml").write_text(GRID.replace("STEPS", "100000"))
    process, shown = interrupted(words, tmp_path, when)
    assert (process.returncode, shown.count("Traceback")) == (130, 0), shown
    assert shown.strip().splitlines()[-1].startswith(f"cotinterp: interrupted. {said}")
    assert all_ended(process.pid)


def test_a_sweep_that_was_interrupted_goes_on_from_there(tmp_path, monkeypatch, capsys):
    (tmp_path / "grid.toml").write_text(GRID.replace("STEPS", "600"))
    words = ["sweep", "grid.toml", "--root", "runs", "--executor", "local:1"]
    process, _ = interrupted(words, tmp_path, "runs/*/training_state.safetensors")
    assert process.returncode == 130
    monkeypatch.chdir(tmp_path)
    main(words)
    assert "2 finished now" in capsys.readouterr().out
    assert len(list_runs(tmp_path / "runs")) == 2
    assert not list(tmp_path.glob("runs/*/.*.tmp"))


def test_an_interrupt_while_torch_is_imported_ends_it_there_with_the_line():
    """C++ that imports torch would meet a KeyboardInterrupt with `terminate`."""
    script = """
import signal, sys, types
from cotinterp.cli import guarded
signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background begins with none
torch = sys.modules["torch"] = types.ModuleType("torch")
torch.__spec__ = types.SimpleNamespace(_initializing=True)
guarded(lambda: signal.raise_signal(signal.SIGINT), "cotinterp", resumed=False)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 130
    assert ended.stderr.count("\n") == 1
    assert ended.stderr.startswith("cotinterp: interrupted. ")
