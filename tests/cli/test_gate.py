"""What somebody types or does wrong: one line, a status, no traceback, and torch not loaded to find out."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from cotinterp.cli import errors, instruments, main, parsing
from cotinterp.cli.instruments import AtLeast, app
from cotinterp.cli.parsing import _bounds, _typed, parsed
from cotinterp.training.spec import reference_specs

REPOSITORY = Path(__file__).parents[2]
SLUG = "s3-cot-L4-s0-42df236d"
GRID = "analyses/grids/depth_frontier.toml"

WRONG = {
    "": "which command? There are tasks, curricula, train, evaluate,",
    "trian": "no command 'trian'. Did you mean 'train'?",
    "--verison": "no option '--verison' here",
    f"evaluate {SLUG} --qick": "has no option '--qick'. Did you mean '--quick'?",
    f"evaluate {SLUG} again": "has no argument 'again'",
    "claims --clam foo": "has no option '--clam'. Did you mean '--claim'?",
    "train --task s3 --regime cot --modle.n-layers 3": "Did you mean '--model.n-layers'?",
    "train": "Missing from cotinterp train: --task",
    "train --task s3": "--regime",
    "train --task s3 --regime cot --seed x": "--seed",
    "train --task s3 --regime cot --optimizer.lr -1": "lr Input should be greater than 0, not -1.0. `cotinterp",
    "train --task s3 --regime cot --model.n-heads 3": "d_model 128 is not divisible by n_heads 3. `cotinterp",
    "train --task s3 --regime cot --optimizer.patience 0.5": "patience would be ignored: they belong to until",
    "evaluate": "RUN",
    "train --task s3 --regime cot --rewards.group 4": "rewards.method: Field required",
    "train --task s3 --regime cot --rewards.method grop": "invalid choice 'grop'",
    "train --task s3 --regime cot --rewards.method grpo": "held to a reference: give start_from",
    "train --task s3 --regime cot --rewards.method star --rewards.clip 0.1": "clip would be ignored",
    "train --task s3 --regime cot --track mlflow": "invalid choice 'mlflow'",
    "train --task s3 --regime cot --track-dir out": "--track-dir says where the logs of --track go",
    "export nothing-there --to out": "no checkpoint 'nothing-there'",
    f"export {SLUG}": "Missing from cotinterp export: --to",
    f"export {SLUG} --to a-file": "a-file is there already and no empty folder",
    f"doctor {SLUG} --weights a-file": "--weights is the file of one model of your own",
    "doctor mine.py:model --weights nowhere": "no file nowhere",
    "completion fish": "invalid choice 'fish'",
    "tasks --k": "Missing value for argument '--k'",
    "tasks --k two": "invalid literal for int()",
    "tasks --k 0": "--k must be 1 or more, got 0",
    "tasks --k 13000": "operands, not 13000",
    "claims --from nowhere": "invalid choice 'nowhere'",
    "claims --part depth": "invalid choice 'depth'",
    "claims --claim gap-widen": "unknown claim 'gap-widen'",
    "claims --claim nowhere.py:CLAIM": "no claim file 'nowhere.py'",
    "claims --task s33": "unknown task 's33'. Nearest: ['s3'",
    "claims --tables nowhere": "nowhere",
    "claims --tables damaged": "runs.csv is damaged or of another version",
    "claims --k-max 4 --quick": "--quick, --k-max would do nothing: stored tables are judged",
    "claims --train": "Add --from checkpoints",
    "claims --from checkpoints --tables mine": "--tables would do nothing",
    "claims --from checkpoints --train --quick --update-tables": "--quick is a look and no measurement",
    "claims --from checkpoints --root nowhere": "no folder nowhere",
    "calibrate --jobs 3": "--jobs is for the models of --untrained and --nulls",
    "calibrate --out a-file": "a-file is a file; choose another folder",
    "evaluate nothing-there": "no checkpoint 'nothing-there'",
    f"evaluate {SLUG} --root nowhere": "under nowhere",
    f"evaluate {SLUG} --task nowhere.py:Mine": "no task file 'nowhere.py'",
    f"evaluate {SLUG} --out a-file": "a-file is a file; choose another folder",
    f"solve {SLUG} 0*1 --method magic": "invalid choice 'magic' for argument '--method'",
    f"solve {SLUG} 0*1 --scorer judge": "Expected one of ('oracle', 'likelihood')",
    f"solve {SLUG} 0*1 --budget 0": "--budget must be 1 or more, got 0",
    f"solve {SLUG} 0*1*": "'0*1*' is no problem of task 's3' that can be read: operands are 0 1 2 3 4 5, with '*'",
    f"solve {SLUG} 0": "operands, not 1",
    f"solve {SLUG}": "Missing from cotinterp solve",
    f"probe {SLUG} --max-bytes -1": "--max-bytes must be 1 or more, got -1",
    f"patch {SLUG} --max-bytes 0": "--max-bytes must be 1 or more, got 0",
    "reproduce --root nowhere": "no reference checkpoints",
    "reproduce --root nowhere --from-scratch": "--root says nothing",
    "reproduce --precision fp32": "--from-scratch",
    "reproduce --out a-file": "a-file is a file; choose another folder",
    "report --out nowhere": "no tables in nowhere",
    "sweep nowhere.toml": "no grid file 'nowhere.toml'",
    "sweep depth-frontier": "no grid 'depth-frontier': give a file GRID.toml, or the name of one of ours",
    "sweep a-file": "is no TOML",
    "sweep depth_frontier --executor nonsense": "unknown executor 'nonsense'",
    "sweep depth_frontier --executor local:": "give the number of processes",
    "sweep depth_frontier --executor local:0": "give the number of processes",
    "sweep depth_frontier --executor dask://": "such as dask://localhost:8786",
    "sweep depth_frontier --executor slurm:": "there is no Slurm on this machine",
    "sweep depth_frontier --executor slurm:time": "is not KEY=VALUE",
    "sweep depth_frontier --retries -1": "--retries must be 0 or more",
    "sweep depth_frontier --root a-file": "a-file is a file; choose another folder",
    "status nowhere.toml": "no grid file 'nowhere.toml'",
    "collect depth_frontier --out table.xls": "a table is written as .csv or .parquet",
    "collect depth_frontier --out table.csv": "no folder out/sweeps/depth-frontier",
}
"""A command line, and what the one line that answers it says."""

PROGRAM = """
import contextlib, io, json, sys
from cotinterp.cli import main
for line in json.load(sys.stdin):
    said, printed = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(printed):
        try:
            main(line.split())
            code = 0
        except SystemExit as ended:
            code = ended.code
    print(json.dumps([code, said.getvalue(), printed.getvalue(), "torch" in sys.modules]))
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Every line of WRONG typed in one process without torch, in an empty folder with one file in it."""
    folder = tmp_path_factory.mktemp("gate")
    (folder / "a-file").write_text("mine")
    (folder / "damaged").mkdir()
    for name in ("evidence.csv", "runs.csv"):
        (folder / "damaged" / name).write_text("")
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "COLUMNS": "80", "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps(list(WRONG)),
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    left = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    return dict(zip(WRONG, map(json.loads, done.stdout.splitlines()), strict=True)), left


@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_line_is_answered_in_one_line_with_status_2_and_before_torch_is_loaded(line, answers):
    code, said, printed, torch = answers[0][line]
    assert WRONG[line] in said
    assert said.startswith("cotinterp: error: ")
    assert (code, printed, len(said.splitlines()), torch) == (2, "", 1, False)
    assert "tyro" not in said


def test_a_wrong_line_leaves_nothing_behind(answers):
    assert answers[1] == ["a-file", "damaged/evidence.csv", "damaged/runs.csv"]


@pytest.mark.parametrize("word", ["--version", "-V"])
def test_the_version_is_told(word, capsys):
    main([word])
    assert capsys.readouterr().out == "cotinterp 0.2.0\n"


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_knows_commands_and_options_alone(shell, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["completion", shell])
    assert not ended.value.code
    shown = capsys.readouterr().out
    assert [name for name in app if f"'{name}'" not in shown] == []
    assert "model.n-layers" in shown
    assert "dummy" not in shown
    assert "examples:" not in shown


@pytest.mark.parametrize(
    ("typed", "completed"), [("ev", "evaluate"), ("evaluate --qu", "--quick"), ("claims --from ", "tables checkpoints")]
)
def test_bash_completes_what_was_begun(typed, completed, capsys, tmp_path):
    with pytest.raises(SystemExit):
        main(["completion", "bash"])
    (tmp_path / "completion").write_text(capsys.readouterr().out)
    words = ["cotinterp", *typed.split(" ")]
    script = 'source completion; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _tyro_cotinterp; echo "${COMPREPLY[@]}"'
    asked = ["bash", "-c", script, "bash", *words]
    done = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == completed.split()


EXAMPLES = """
import contextlib, io, json, sys
from cotinterp.cli import main, parsing
for name in parsing.app:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        main([name, "--help"])
    print(json.dumps([name, printed.getvalue(), "torch" in sys.modules]))
"""


def test_every_help_ends_with_its_examples_and_loads_no_torch():
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "COLUMNS": "80"}
    done = subprocess.run([sys.executable, "-c", EXAMPLES], env=environment, capture_output=True, text=True, check=True)
    shown = [json.loads(line) for line in done.stdout.splitlines()]
    assert [name for name, _, _ in shown] == list(app)
    for name, text, torch in shown:
        lines = [f"  $ {line}" for line in app.examples[name]]
        assert 1 <= len(lines) <= 3, name
        assert text.splitlines()[-len(lines) - 1 :] == ["examples:", *lines]
        assert not torch, name


@pytest.mark.parametrize("line", [line for lines in app.examples.values() for line in lines])
def test_every_example_parses_and_names_models_and_grids_that_there_are(line):
    program, name, *words = shlex.split(line.split(" > ")[0])
    call = parsed(_typed(name), words, f"{program} {name}")
    assert program == "cotinterp"
    assert call.func.__name__ == app[name].__name__
    slugs = re.findall(r"[a-z0-9-]+-L\d+-s\d+-[0-9a-f]{8}", line)
    assert set(slugs) <= {spec.slug for spec in reference_specs()}
    if name in ("sweep", "status", "collect") and not words[0].endswith(".toml"):
        assert (REPOSITORY / "analyses" / "grids" / f"{words[0]}.toml").is_file()


def test_every_number_that_a_command_takes_has_a_least_value():
    """A spec's are bounded by the spec; `seed` of the rest would be no count, but no command has one."""
    for module in (*parsing.COMMANDS, parsing):
        for function in vars(module).values():
            if getattr(function, "__name__", "").endswith("_command"):
                hints = {
                    name: hint for name, hint in function.__annotations__.items() if re.search(r"\bint\b", str(hint))
                }
                assert [name for name, hint in hints.items() if not list(_bounds(hint))] == [], function


def test_a_bound_of_a_list_is_a_bound_of_each_number():
    def command(n: tuple[instruments.Count, ...] = (), flag: bool = False) -> None:
        """Does nothing."""

    parsed(command, ["--n", "1", "2"], "command")
    with pytest.raises(ValueError, match="--n must be 1 or more, got 0"):
        parsed(command, ["--n", "1", "0"], "command")
    assert list(_bounds(instruments.Count | None)) == [AtLeast(1)]


def fail(error):
    def command() -> None:
        """Fails."""
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "interrupted. The same command does it again"),
        (BrokenPipeError(), 141, ""),
        (OSError(28, "No space left on device"), 2, "No space left on device"),
        (MemoryError(), 2, "out of memory"),
        (SyntaxError("invalid syntax", ("mine.py", 7, 1, "x =", 7, 2)), 2, "mine.py, line 7: SyntaxError"),
    ],
)
def test_what_a_command_raises_becomes_a_status_and_a_line(error, code, said, monkeypatch, capsys):
    monkeypatch.setitem(app, "tasks", fail(error))
    with pytest.raises(SystemExit) as ended:
        main(["tasks"])
    shown = capsys.readouterr().err
    assert ended.value.code == code
    assert said in shown
    assert len(shown.splitlines()) == bool(said)


def test_an_interrupted_training_says_that_the_same_command_goes_on(monkeypatch, capsys):
    monkeypatch.setattr("cotinterp.cli.parsing.run", lambda words: fail(KeyboardInterrupt())())
    with pytest.raises(SystemExit, match="130"):
        main(["train", "--task", "s3", "--regime", "cot"])
    assert "The same command goes on from there" in capsys.readouterr().err


def test_a_bug_of_ours_is_called_one_and_shows_its_traceback_on_demand(monkeypatch, capsys):
    """A KeyError that nobody raised on purpose is no answer to what was typed."""
    monkeypatch.setattr("cotinterp.tasks.task_names", None)
    for wanted in ("", "1"):
        monkeypatch.setenv("COTINTERP_TRACEBACK", wanted)
        with pytest.raises(SystemExit, match="1"):
            main(["tasks"])
        shown = capsys.readouterr().err
        assert "a bug in cotinterp, not in what you typed: TypeError" in shown
        assert ("Traceback" in shown) == bool(wanted)


def test_an_error_in_a_file_of_the_users_names_its_place(tmp_path):
    """Where nothing closer to the file said so already."""
    path = tmp_path / "mine.py"
    path.write_text("def step():\n    return 1 / 0\n")
    names = {"__name__": "mine"}
    exec(compile(path.read_text(), str(path), "exec"), names)
    with pytest.raises(ZeroDivisionError) as raised:
        names["step"]()
    assert errors.explain(raised.value) == (
        2,
        f"error: {path}, line 2, in step: ZeroDivisionError: division by zero",
    )


def test_a_reader_that_goes_away_is_no_error():
    command = f"{sys.executable} -m cotinterp tasks | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1, 141)
    assert done.stderr == ""
