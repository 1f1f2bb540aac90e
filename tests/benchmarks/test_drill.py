"""The drill, quickly; and that it can fail: with a fault planted, it counts."""

import os
import random
import shutil
import subprocess
import sys

import pandas as pd
import pytest

from benchmarks import drill
from benchmarks.damage import DAMAGE, TINY, damaged
from benchmarks.drill import DRILLS, Options, Work, alive, answer, leftovers
from cotinterp.training.loop import train

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", [name for name, (_, _, quick) in DRILLS.items() if quick])
def test_nothing_is_lost_and_nothing_believed(name):
    (row,) = drill.drill(Options(only=(name,), quick=True))
    assert (row.lost, row.accepted) == (0, 0), row.wrong
    assert row.tried >= DRILLS[name][2]


def test_a_reader_that_checks_no_digest_is_counted(tmp_path, monkeypatch):
    monkeypatch.setattr("cotinterp.models.weights._digest", lambda metadata, weights: "")
    row = drill.damages(Work(tmp_path, random.Random(0), 30))
    assert row.accepted > 0
    assert "believed with another content" in row.wrong


def test_errors_that_help_nobody_are_counted():
    def fail(error):
        raise error

    assert answer(lambda: 5) == ("", 5)
    assert answer(lambda: fail(KeyError("no task 'x'"))) == ("", None)
    for error, said in (
        (TypeError("internal"), "TypeError: internal"),
        (ValueError("one\ntwo"), "no or many lines"),
        (ValueError(), "no or many lines"),
        (SystemExit(3), "SystemExit: 3"),
    ):
        assert said in answer(lambda error=error: fail(error))[0]
    with pytest.raises(KeyboardInterrupt):
        answer(lambda: fail(KeyboardInterrupt()))


def test_what_does_not_end_is_counted():
    def forever():
        while True:
            pass

    assert "more than 1 s" in answer(forever, limit_s=1)[0]


def test_other_weights_logs_files_and_processes_are_counted(tmp_path):
    short = drill._steps(TINY, 6)
    calm = train(short, directory=tmp_path / "calm", device="cpu", threads=1).directory
    other = train(short.model_copy(update={"seed": 1}), directory=tmp_path / "other", device="cpu", threads=1).directory
    assert drill._other_run(calm, calm) == ""
    assert drill._other_run(other, calm) == "other weights"
    copy = shutil.copytree(calm, tmp_path / "copy")
    (copy / ".0123456789abcdef.tmp").write_text("")
    assert "left over" in drill._other_run(copy, calm) == leftovers(copy)
    (copy / ".0123456789abcdef.tmp").rename(copy / "stray")
    assert drill._other_run(copy, calm) == "other files: ['stray']"
    (copy / "metrics.jsonl").write_text("")
    assert drill._other_run(copy, calm) == "another log"
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert alive([process.pid], within_s=0.1) == f"processes [{process.pid}] go on"
        process.communicate(b"\n")
    assert alive([process.pid]) == ""


def test_every_damage_is_one(tmp_path):
    draw, content = random.Random(0), os.urandom(500)
    for kind in DAMAGE:
        assert any(damaged(content, kind, draw) != content for _ in range(3)), kind


def test_the_table_is_printed_and_kept(tmp_path, capsys):
    rows = drill.main(Options(only=("specs",), quick=True, out=tmp_path))
    assert capsys.readouterr().out.splitlines()[-1] == f"| specs | {rows[0].tried} | 0 | 0 | nothing |"
    assert list(pd.read_csv(tmp_path / "drill.csv").columns) == ["drill", "tried", "lost", "accepted", "wrong"]
    with pytest.raises(KeyError, match="no drills"):
        drill.drill(Options(only=("fire",)))
