"""What a verdict leaves behind: tables, plain values, curves."""

import json

import pandas as pd
import pytest

from cotinterp.claims.depth_law import depth_verdicts
from cotinterp.claims.depth_verdict import (
    BUDGET_COLUMNS,
    DEPTH_COLUMNS,
    LAW_COLUMNS,
    parameters_in_words,
    plausible_laws,
)
from cotinterp.depth.laws import LAWS
from tests.depth.made_up_frontiers import run_rows, sweep


@pytest.fixture(scope="module")
def verdicts():
    long, short = (
        sweep(lambda depth, seed: 1 + 2 * depth, steps=4000),
        sweep(lambda depth, seed: 0, convergence="stalled"),
    )
    cot = sweep(lambda depth, seed: 12, regime="cot", depths=(1, 2, 4), seeds=2)
    lost = pd.DataFrame(run_rows({}, task="z6", status="failed"))
    return depth_verdicts(pd.concat([long, short, cot, lost]), resamples=40)


def test_one_row_a_verdict(verdicts):
    table = verdicts.frame()
    assert tuple(table.columns) == DEPTH_COLUMNS
    named = {(row.task, row.regime): row.law for row in table.itertuples()}
    assert named == {("s3", "cot"): "constant", ("s3", "direct"): "linear", ("z6", "direct"): "cannot tell"}
    direct = table[(table["task"] == "s3") & (table["regime"] == "direct")].iloc[0]
    assert (direct["as_trained"], direct["censored"], direct["steps"], direct["depths"]) == (
        "linear",
        "linear",
        4000,
        "1 2 3 4",
    )
    assert direct["beyond_source"] == 12


def test_every_law_has_its_weight_in_both_treatments(verdicts):
    table = verdicts.laws_frame()
    assert tuple(table.columns) == LAW_COLUMNS
    sums = table.groupby(["task", "regime", "treatment"])[["weight", "weight_aic", "share"]].sum()
    assert len(sums) == 4
    assert sums.to_numpy() == pytest.approx(1)


def test_budgets_stand_side_by_side(verdicts):
    table = verdicts.budgets_frame()
    assert tuple(table.columns) == BUDGET_COLUMNS
    direct = table[table["regime"] == "direct"].set_index("steps")
    assert direct.loc[1000, ["n_runs", "n_converged", "lower", "higher"]].tolist() == [12, 0, 12, 0]
    assert direct.loc[4000, ["n_runs", "n_converged", "lower", "higher"]].tolist() == [12, 12, 0, 0]


def test_the_plain_values_are_json_without_what_json_has_not(verdicts):
    found = json.loads(verdicts.json())
    assert [one["law"] for one in found] == ["constant", "linear", "cannot tell"]
    cot, direct, lost = found
    assert cot["parameters"]["censored"]["constant"] == {"c": [1, 1, 1]} or cot["parameters"]["censored"]["constant"]
    assert set(direct["weights"]["as trained"]) == set(LAWS)
    assert all(control["passes"] in (True, False) for control in direct["controls"])
    assert lost["weights"] == {}
    assert lost["n_missing"] == 1


def test_laws_are_curves_in_the_judged_panel_and_the_verdict_its_title(verdicts):
    curves = verdicts.curves_frame()
    assert set(curves["law"]) == set(LAWS)
    linear = curves[(curves["regime"] == "direct") & (curves["law"] == "linear") & (curves["depth"] == 2)]
    assert linear["k"].to_numpy() == pytest.approx(5, abs=0.3)
    figure = verdicts.figure("s3")
    drawn = {trace.xaxis for trace in figure.data if trace.hovertemplate and "weight" in trace.hovertemplate}
    assert drawn == {"x2", "x3"}  # direct at 4,000 updates, and cot
    assert sum("<br>" in (note.text or "") for note in figure.layout.annotations) == 2
    with pytest.raises(KeyError, match="no verdict on task 'parity'"):
        verdicts.figure("parity")


def test_one_verdict_is_found_by_name(verdicts):
    found = verdicts.of("s3", "direct").fits["as trained"]
    assert parameters_in_words(found.preferred).startswith("b = ")
    assert plausible_laws({"as trained": found}) == ("linear",)
    with pytest.raises(KeyError, match="no verdict on"):
        verdicts.of("s3", "filler")


def test_they_are_saved(verdicts, tmp_path):
    table, figure = verdicts.save(tmp_path, "depth")
    assert len(pd.read_csv(table)) == 3
    assert figure.exists()
