"""`cotinterp depth`: from a task's name or file to the verdict; what cannot be measured is said before training."""

import pandas as pd
import pytest

from cotinterp.cli import main
from tests.tasks.test_definition import OWN


@pytest.mark.slow
def test_a_task_goes_through_to_its_verdict(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN.format(name="own", more=""))
    command = ["depth", "own.py:Own", "--quick", "--executor", "local:1", "--n-layers", "1", "--out", "answer"]
    main(command)
    printed = capsys.readouterr().out
    assert "own, direct: cannot tell" in printed
    assert (tmp_path / "answer" / "answer.txt").read_text().strip() in printed
    frontier = pd.read_csv(tmp_path / "answer" / "tables" / "frontier.csv")
    assert (set(frontier["n_layers"]), set(frontier["task"])) == ({1}, {"own"})
    assert (tmp_path / "answer" / "simulator.html").exists()
    assert list(pd.read_csv(tmp_path / "answer" / "tables" / "cheapest.csv")["task"].unique()) == ["own"]


def test_what_cannot_be_measured_is_said_and_nothing_is_trained(tmp_path, capsys):
    for options, said in (
        (["parity", "--quick", "--k-max", "4"], "no length up to k_max 4 of task 'parity' has 30 held-out problems"),
        (["s3", "--k-max", "99"], "99"),
        (["nothing"], "unknown task 'nothing'"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["depth", *options, "--out", str(tmp_path / "out")])
        assert ended.value.code == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
