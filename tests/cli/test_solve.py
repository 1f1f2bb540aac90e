"""`cotinterp solve`, as somebody types it: what is printed is what the library answers, and trees are written."""

import numpy as np
import pandas as pd
import pytest

from cotinterp.behavior.search.methods import METHODS
from cotinterp.behavior.search.scoring import Oracle
from cotinterp.behavior.search.writer import Search
from cotinterp.cli import main
from cotinterp.training.checkpoints import load_run
from cotinterp.training.spec import RunSpec
from cotinterp.training.spec_file import write_spec
from cotinterp.transcripts.batch import collate
from cotinterp.transcripts.problems import read_problem
from cotinterp.transcripts.render import render

SLUG = "s3-cot-L4-s0-42df236d"
PROBLEM = "0*5*1*4"
HOT = 3.0
"""A temperature at which this model errs."""


@pytest.fixture(scope="module")
def loaded():
    return load_run(SLUG)


@pytest.mark.parametrize("method", ["greedy", "vote", "best-of-n", "beam", "mcts"])
def test_it_prints_what_the_method_answers_and_draws_the_tree_of_one_that_has_one(method, loaded, tmp_path, capsys):
    main(["solve", SLUG, PROBLEM, *f"--method {method} --budget 150 --temperature {HOT} --out {tmp_path}".split()])
    said = capsys.readouterr().out
    batch = collate([render(loaded.task, read_problem(loaded.task, PROBLEM), "cot")], loaded.vocabulary)
    rng, search = np.random.default_rng(0), Search(temperature=HOT, trees=True)
    found = METHODS[method](loaded.model, loaded.task, batch, Oracle(), 150, rng=rng, search=search)
    (answer,) = found.answers
    assert f"response  {answer.text}\n" in said
    assert f"right     {'yes' if answer.correct else 'no'}" in said
    assert f"{answer.spent.written} tokens written, {answer.spent.read} read" in said
    assert "nan" not in said
    if method not in ("beam", "mcts"):
        assert not list(tmp_path.rglob("*.csv"))
        return
    assert f"{answer.drawn} complete responses, oracle {answer.score:.4g}" in said
    table, page = tmp_path / "tables" / "search_tree.csv", tmp_path / "figures" / "search_tree.html"
    assert said.splitlines()[-2:] == [str(table), str(page)]
    own = found.tree().frame()
    written = pd.read_csv(table, keep_default_na=False)
    assert written["text"].tolist() == own["text"].tolist()
    assert written["chosen"].tolist() == own["chosen"].tolist()
    assert "right so far" in page.read_text()


def test_a_response_that_did_not_end_is_no_answer(tmp_path, capsys):
    main(["solve", SLUG, PROBLEM, "--method", "sample", "--budget", "3", "--out", str(tmp_path)])
    said = capsys.readouterr().out
    assert "right     no: 0 is" in said
    assert "no response came to an end" in said


def test_a_model_that_writes_no_trace_has_a_tree_of_answers(tmp_path, capsys):
    main(["solve", "digit-sum-direct-L4-s0-93146b24", "3+4+5", "--budget", "30", "--out", str(tmp_path)])
    assert "response  12#" in capsys.readouterr().out
    assert pd.read_csv(tmp_path / "tables" / "search_tree.csv")["step"].max() == 1


def test_a_model_that_names_labels_writes_nothing_to_search(tmp_path, capsys):
    spec = RunSpec(task="z6", regime="label")
    (tmp_path / spec.slug).mkdir()
    write_spec(tmp_path / spec.slug, spec)
    with pytest.raises(SystemExit) as ended:
        main(["solve", str(tmp_path / spec.slug), "1*2"])
    assert ended.value.code == 2
    assert "names a label and writes nothing that could be searched" in capsys.readouterr().err
