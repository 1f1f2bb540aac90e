"""Commands, as somebody types them."""

import contextlib
import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from cotinterp.cli import main
from cotinterp.training import loop
from cotinterp.training.checkpoints import list_runs, load_run
from cotinterp.training.spec import Rewards

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]
SIZES = {"n-layers": 1, "d-model": 16, "n-heads": 2, "d-mlp": 32, "n-ctx": 24}
STEPS = {"steps": 30, "batch-size": 8, "warmup": 5}
TINY = [
    *["--task", "z6", "--regime", "cot", "--k-max", "3", "--n-train", "100", "--threads", "1"],
    *(text for name, value in SIZES.items() for text in (f"--model.{name}", str(value))),
    *(text for name, value in STEPS.items() for text in (f"--optimizer.{name}", str(value))),
]


def run(*arguments):
    main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("checkpoints")
    run("train", *TINY, "--root", root, "--device", "cpu")
    return root


@pytest.fixture(scope="module")
def slug(root):
    (slug,) = list_runs(root)
    return slug


def test_train_takes_rewards_as_options(root, slug, capsys):
    line = [*TINY, "--root", root, "--device", "cpu", "--optimizer.steps", 2, "--start-from", slug]
    run("train", *line, "--rewards.method", "grpo", "--rewards.group", 4, "--rewards.kl", 0)
    (learned,) = set(list_runs(root)) - {slug}
    found = load_run(learned, root=root).spec
    assert found.start_from == slug
    assert found.rewards == Rewards(method="grpo", group=4, kl=0.0)
    shutil.rmtree(root / learned)
    with pytest.raises(SystemExit):
        run("train", *line, "--rewards.method", "star", "--curriculum", "naive")
    assert "rewards show no transcripts, so mix would be ignored" in capsys.readouterr().err


def test_tasks_shows_each_with_an_example_in_every_regime(capsys):
    run("tasks")
    shown = capsys.readouterr().out
    groups = ("z6", "z60", "s3", "s5", "a5", "a4xz5")
    others = ("digit-sum", "parity", "affine-mod10", "binary-copy", "polynomial-mod11", "random-labels")
    for name in (*groups, *others, "pointers", "expressions-mod11"):
        assert name in shown
    for example in ("<9+2+2+0>13#", "{9+2=11;11+2=13;13+0=13}13#", "{11;13;13}13#"):
        assert example in shown


def test_the_doctor_tells_a_whole_checkpoint_from_a_damaged_one(root, slug, tmp_path, capsys):
    run("doctor", slug, "--root", root)
    shown = capsys.readouterr().out
    assert f"torch             {torch.__version__}" in shown
    assert f"{slug}  whole; trustworthy sites: resid_pre, q, k, v, pattern, z, attn_out, mlp_out, resid_post" in shown
    shutil.copytree(root / slug, tmp_path / slug)
    weights = tmp_path / slug / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(SystemExit) as ended:
        run("doctor", tmp_path / slug)
    assert ended.value.code == 2
    captured = capsys.readouterr()
    assert "NOT usable: " in captured.out
    assert "1 of 1 checkpoints cannot be used" in captured.err


def test_dynamics_measures_a_run_at_its_snapshots_and_names_what_is_missing(root, slug, tmp_path, capsys):
    line = [*TINY, "--root", tmp_path, "--device", "cpu", "--snapshots", 0, 12]
    run("train", *line)
    (kept,) = list_runs(tmp_path)
    capsys.readouterr()
    run("dynamics", kept, "--root", tmp_path, "--out", tmp_path / "out", "--quick", "--json")
    shown = json.loads(capsys.readouterr().out)
    assert {row["update"] for row in shown["tables"]["dynamics"]} == {0, 12, 30}
    assert {Path(file).name for file in shown["files"]} == {"dynamics.csv", "dynamics.html"}
    with pytest.raises(SystemExit):
        run("dynamics", slug, "--root", root, "--out", tmp_path / "out", "--quick")
    assert "kept no weights on its way" in capsys.readouterr().err


def test_explore_says_where_it_is_and_ends_when_it_is_told_to(root, slug, monkeypatch, capsys):
    monkeypatch.setattr("cotinterp.explore.server.Service.run", lambda self: self.listening.close())
    run("explore", slug, "--root", root, "--port", 0)
    link, advice = capsys.readouterr().out.splitlines()
    assert link.startswith("http://127.0.0.1:")
    assert "?token=" in link
    assert "once" in advice


def test_explore_takes_a_model_of_ones_own_with_its_task_and_regime(root, slug, tmp_path, monkeypatch, capsys):
    (tmp_path / "mine.py").write_text(
        "from pathlib import Path\n\nfrom cotinterp import load_run\n\n\n"
        f"def bridge():\n    return load_run({slug!r}, root=Path({str(root)!r})).model\n"
    )
    held = []
    monkeypatch.setattr("cotinterp.explore.server.service", lambda explorer, port: held.append(explorer) or Served())
    own = f"{tmp_path / 'mine.py'}:bridge"
    run("explore", own, slug, "--root", root, "--task", "z6", "--regime", "cot")
    mine, run_itself = held[0].about()["models"]
    assert (mine["slug"], mine["task"], mine["k"]) == (own, "z6", run_itself["k"])
    for words, said in (
        ((own,), "--task and --regime say what it was taught"),
        ((own, "--task", "z6", "--regime", "coat"), "unknown regime 'coat'"),
        ((own, "--task", "digit-sum", "--regime", "cot"), "the tokens of a model must be the symbols of its task"),
        ((slug, "--root", root, "--regime", "cot"), "--regime is for models of your own"),
    ):
        with pytest.raises(SystemExit) as ended:
            run("explore", *words)
        assert ended.value.code == 2
        assert said in capsys.readouterr().err


class Served:
    """A server that ends at once."""

    link = "http://127.0.0.1:1/?token=x"

    def run(self):
        pass


def test_json_is_one_object_with_the_rows_of_the_table(root, slug, tmp_path, capsys):
    run("evaluate", slug, "--root", root, "--quick", "--json", "--out", tmp_path)
    said = json.loads(capsys.readouterr().out)
    assert (said["command"], said["run"]) == ("evaluate", slug)
    (path,) = [path for path in said["files"] if path.endswith("accuracy.csv")]
    stored = pd.read_csv(path)
    assert [row["accuracy"] for row in said["tables"]["accuracy"]] == stored["accuracy"].tolist()


def test_train_prints_where_the_run_is_and_its_hash(root, slug, capsys):
    run("train", *TINY, "--root", root, "--device", "cpu")
    shown = capsys.readouterr().out
    assert str(root / slug) in shown
    assert load_run(slug, root=root).weight_hash in shown


@pytest.mark.filterwarnings("default::UserWarning")
def test_other_threads_than_a_run_began_with_are_told_in_one_line(tmp_path, monkeypatch, capsys):
    shape = TINY[: TINY.index("--threads")] + TINY[TINY.index("--threads") + 2 :]
    monkeypatch.setattr("cotinterp.training.loop._save", killed_after(10))
    with pytest.raises(SystemExit):
        run("train", *shape, "--threads", 1, "--root", tmp_path, "--device", "cpu", "--checkpoint-every", 10)
    monkeypatch.undo()
    capsys.readouterr()
    run("train", *shape, "--threads", 2, "--root", tmp_path, "--device", "cpu")
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "note" in line]
    assert line.startswith("cotinterp: note: the run in ")
    assert "threads 1 to step 10, then 2. Its weights will not be, bit for bit, those of" in line


def killed_after(step):
    """Saves the state of one step and is killed at the next one."""
    save = loop._save

    def save_once(learner, update, *rest):
        if update.step > step:
            raise KeyboardInterrupt
        save(learner, update, *rest)

    return save_once


@pytest.mark.parametrize(
    ("command", "tables"),
    [
        ("evaluate", ("accuracy", "errors")),
        ("edit", ("trace_edits",)),
        ("patch", ("patching",)),
        ("attribute", ("heads", "attention_by_role")),
        ("circuit", ("edges", "edge_agreement", "faithfulness")),
    ],
)
def test_an_instrument_writes_its_tables_and_figures(command, tables, root, slug, tmp_path, capsys):
    run(command, slug, "--root", root, "--out", tmp_path, "--quick", "--device", "cpu")
    written = [line for line in capsys.readouterr().out.splitlines() if line.startswith(str(tmp_path))]
    for table in tables:
        assert f"{tmp_path}/tables/{table}.csv" in written
        header = (tmp_path / "tables" / f"{table}.csv").read_text().splitlines()[0]
        assert header.startswith("task,regime,run_seed,")
    assert list((tmp_path / "figures").glob("*.html"))


def test_evaluation_is_stored_on_demand_only(root, slug, tmp_path, capsys):
    run("evaluate", slug, "--root", root, "--out", tmp_path, "--quick", "--device", "cpu")
    stored = root / slug / "evaluation.json"
    assert not stored.exists()
    run("evaluate", slug, "--root", root, "--out", tmp_path, "--quick", "--device", "cpu", "--store")
    assert json.loads(stored.read_text())["weight_hash"] == load_run(slug, root=root).weight_hash
    capsys.readouterr()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("train --task digit_sum --regime cot", "unknown task 'digit_sum'. Nearest: ['digit-sum']"),
        ("train --task digit-sum --regime cott", "unknown regime 'cott'. Did you mean 'cot'?"),
        ("train --task digit-sum --regime cot --k-max 13", "not a range inside the 2 to 12 operands"),
        ("train --task digit-sum --regime cot --k-max 8", "raise it to 76 or lower k_max"),
        ("train --task digit-sum --regime cot --model.n-ctx 20", "raise it to 56 or lower k_max"),
        ("evaluate nothing-there", "no checkpoint 'nothing-there'"),
        ("reproduce --root nowhere", "no reference checkpoints"),
        ("reproduce --jobs 0", "jobs must be 1 or more, got 0"),
        ("report --out nowhere", "no tables in nowhere"),
        ("tasks --k 1", "operands, not 1"),
    ],
)
def test_bad_input_ends_with_one_line_and_no_traceback(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        run(*arguments.split())
    assert ended.value.code == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert "Traceback" not in shown
    assert len(shown.strip().splitlines()) == 1


def test_an_output_folder_that_is_a_file_is_refused_before_any_work(root, slug, tmp_path, capsys):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(SystemExit):
        run("probe", slug, "--root", root, "--out", tmp_path / "out")
    assert "is a file; choose another folder" in capsys.readouterr().err
    assert (tmp_path / "out").read_text() == "mine"


def test_direct_has_nothing_to_edit(tmp_path, capsys):
    tiny = [argument if argument != "cot" else "direct" for argument in TINY]
    run("train", *tiny, "--root", tmp_path, "--device", "cpu")
    (slug,) = list_runs(tmp_path)
    with pytest.raises(SystemExit):
        run("edit", slug, "--root", tmp_path, "--out", tmp_path / "out")
    assert "writes no totals" in capsys.readouterr().err


def test_help_loads_no_spec_and_the_help_of_train_shows_its_fields(capsys):
    with pytest.raises(SystemExit, match="0"):
        run("train", "--help")
    shown = capsys.readouterr().out
    assert "--precision" in shown
    assert "--optimizer.lr" in shown


def test_committed_models_are_not_reproduced_in_another_precision(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        run("reproduce", "--out", tmp_path / "out", "--precision", "fp32")
    assert "--from-scratch" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_too_little_memory_for_one_example_is_an_error_that_says_what_is_needed(root, slug, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        run("patch", slug, "--root", root, "--out", tmp_path, "--quick", "--max-bytes", 1000)
    assert "max_bytes=1,000" in capsys.readouterr().err


def test_a_bound_on_memory_changes_no_number(root, slug, tmp_path):
    for name, bound in (("free", ()), ("tight", ("--max-bytes", 2_000_000))):
        run("patch", slug, "--root", root, "--out", tmp_path / name, "--quick", *bound)
    free, tight = (pd.read_csv(tmp_path / name / "tables" / "patching.csv") for name in ("free", "tight"))
    pd.testing.assert_frame_equal(free, tight, atol=1e-4)


def test_on_a_terminal_standard_error_shows_the_stages_and_standard_output_stays_clean(root, slug, tmp_path):
    screen, end = pty.openpty()
    words = ["evaluate", slug, "--root", str(root), "--out", str(tmp_path), "--quick", "--json"]
    words = [sys.executable, "-m", "cotinterp", *words]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=end, cwd=REPOSITORY)
    os.close(end)
    shown = b""
    with contextlib.suppress(OSError):  # the other end was closed
        while part := os.read(screen, 4096):
            shown += part
    os.close(screen)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 0, shown
    assert json.loads(printed)["run"] == slug
    for stage in ("load the model", "measure", "3"):
        assert stage in shown.decode()
    quiet = subprocess.run(words, capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert quiet.stderr == ""


def test_an_exported_run_is_a_run_for_every_command(root, slug, tmp_path, capsys):
    run("export", slug, "--root", root, "--to", tmp_path / "hub" / "mine")
    assert capsys.readouterr().out == f"{tmp_path / 'hub' / 'mine'}\n"
    run("evaluate", tmp_path / "hub" / "mine", "--out", tmp_path, "--quick", "--json")
    assert json.loads(capsys.readouterr().out)["run"] == slug


def test_a_training_is_tracked_where_it_is_asked_to(root, slug, tmp_path, capsys):
    tracked = ["--track", "tensorboard", "--track-dir", tmp_path / "logs"]
    run("train", *TINY, "--root", tmp_path, "--device", "cpu", *tracked)
    assert load_run(slug, root=root).weight_hash in capsys.readouterr().out
    assert list((tmp_path / "logs" / slug).glob("events.out.tfevents.*"))
    assert {path.name for path in (tmp_path / slug).iterdir()} == {"model.safetensors", "spec.json", "metrics.jsonl"}
