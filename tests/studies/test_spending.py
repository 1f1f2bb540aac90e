"""What tokens buy, where it is known: identities between the methods, and which scorers a run can be given."""

import numpy as np
import pytest

from cotinterp import load_run
from cotinterp.behavior.search.methods import METHODS
from cotinterp.behavior.search.scoring import SCORERS
from cotinterp.figures.search import spending_figure
from cotinterp.models.build import build_model
from cotinterp.models.handmade import reader
from cotinterp.models.spec import ModelSpec
from cotinterp.studies.spending import MOST_TIMES, accuracy_by_compute, fitted_scorers
from cotinterp.transcripts.render import render
from cotinterp.transcripts.vocabulary import Vocabulary
from tests.studies.z6_subjects import K_RANGE, Z6, subject

N, BUDGETS = 12, (0.5, 1.0, 4.0)


@pytest.fixture(scope="module")
def known():
    """A model that reads its trace and makes no error."""
    return subject(reader(Z6, "totals", K_RANGE, n_ctx=40), "totals")


@pytest.fixture(scope="module")
def bought(known):
    """All of what it gets for three budgets."""
    return accuracy_by_compute(known, 4, SCORERS, n=4, times=BUDGETS)


def test_a_model_without_errors_is_right_once_a_budget_pays_for_one_response(known, bought):
    table = bought
    rows = table.groupby(["method", "scorer"])["times"].agg(list)
    assert {name for name, _ in rows.index} == set(METHODS)
    for (name, scorer), times in rows.items():
        assert (scorer != "") == METHODS[name].scored
        assert times == [one for one in BUDGETS if one <= MOST_TIMES.get(name, one)]
    # Where half of a response is paid for, `force` closes the trace and answers something; the others are cut off.
    paid = table[(table["method"] != "force") | (table["times"] == 1)]
    assert (paid["accuracy"] == (paid["times"] >= 1)).all()
    longest = len(render(Z6, known.heldout(1, k=4)[0], "totals").response)
    assert (table["written"] <= np.ceil(table["times"] * longest)).all()
    assert set(table["run_seed"]) == {0}


def test_one_response_is_all_that_one_budget_pays_for():
    shape = ModelSpec(n_layers=1, d_model=16, n_heads=2, d_mlp=16, n_ctx=40)
    erring = subject(build_model(shape, len(Vocabulary.of(Z6)), seed=0), "totals")
    table = accuracy_by_compute(erring, 3, SCORERS, n=N, times=(1.0,))
    alike = table[table["method"].isin(["sample", "vote", "best-of-n"])]
    assert len(alike) == 4
    assert alike["written"].nunique() == 1
    assert alike["accuracy"].nunique() == 1


def test_scorers_that_have_nothing_to_learn_are_left_out():
    run = load_run("s3-cot-L4-s0-42df236d")
    asked = {"n": 12, "updates": 2, "samples": 2}
    assert list(fitted_scorers(run, [3], temperature=2.0, **asked)) == [
        "oracle",
        "likelihood",
        "probe",
        "process reward",
        "outcome reward",
    ]
    assert list(fitted_scorers(run, [2], temperature=0.0, **asked)) == ["oracle", "likelihood"]


def test_the_figure_has_a_panel_for_each_scorer_and_a_log_axis(bought):
    figure = spending_figure(bought.assign(low=-0.2, high=1.2, seeds=1, shape="", flops=bought["times"] * 1e5))
    assert {note.text for note in figure.layout.annotations} >= {"none", "oracle", "likelihood"}
    assert figure.layout.xaxis.type == "log"
    assert all("markers" in trace.mode for trace in figure.data if trace.showlegend)
