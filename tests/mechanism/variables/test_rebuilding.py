"""What a handmade model holds at a place keeps its answer; other variables do not, and neither do values dealt anew."""

import re

import numpy as np
import pytest

from cotinterp.mechanism.sites import Site
from cotinterp.mechanism.variables.rebuilding import rebuilt, values_of
from cotinterp.models.handmade import parallel, reader, recomputer
from cotinterp.tasks import get_task
from cotinterp.transcripts.problems import sample_problems, solve

TASK, K = get_task("z6"), 4
ONE_BY_ONE = tuple(f"x_{i}" for i in range(K))


@pytest.fixture(scope="module")
def sides():
    drawn = [sample_problems(TASK, K, n, split=of, rng=np.random.default_rng(0)) for of, n in SIDES.items()]
    return dict(zip(SIDES, drawn, strict=True))


SIDES = {"train": 500, "heldout": 120}


def kept(model, sides, accounts, *, regime="direct", readout=("answer", K - 1)):
    result = rebuilt(model, TASK, regime, sides["train"], sides["heldout"], accounts, readout=readout)
    return result.frame().set_index("account")


def test_the_parallel_sum_averages_its_operands_one_by_one(sides):
    """Its mean is a number: operands one by one, or the whole numbers' sum, which the total modulo 6 is not."""
    spot = (Site("attn_out", 0), ("prompt_end", -1))
    accounts = {"one by one": {spot: ONE_BY_ONE}, "three of them": {spot: ONE_BY_ONE[:3]}, "total": {spot: ("s_3",)}}
    accounts |= {"mean": {spot: ()}, "every combination": {spot: ("x_0,x_1", "x_2,x_3")}}
    table = kept(parallel(TASK).eval(), sides, accounts)
    assert table.loc["one by one", "kept"] == table.loc["every combination", "kept"] == 1
    assert table.loc["one by one", "explained"] == pytest.approx(1, abs=1e-5)
    others = table.loc[["three of them", "total", "mean"]]
    assert (others["kept"] < 0.5).all()
    assert (table["shuffled"] < 0.5).all()
    assert table.loc["mean", "kept"] == table.loc["mean", "nothing"] == table["nothing"].max()
    assert table.loc["mean", "explained"] == pytest.approx(0, abs=0.02)


def test_a_reader_takes_the_total_and_a_recomputer_the_operands(sides):
    """At the place that predicts s_3: the total before it and the operand, or a number that all operands add up to."""
    spot = (Site("attn_out", 1), ("step_end", 2))
    accounts = {"total and operand": {spot: ("s_2", "x_3")}, "one by one": {spot: ONE_BY_ONE}}
    asked = {"regime": "totals", "readout": ("total", K - 1)}
    reads, recomputes = (kept(build(TASK).eval(), sides, accounts, **asked)["kept"] for build in (reader, recomputer))
    assert (reads["total and operand"], recomputes["one by one"]) == (1, 1)
    assert max(reads["one by one"], recomputes["total and operand"]) < 0.6


def test_values_are_those_of_the_task():
    problems = solve(TASK, np.array([[1, 2, 3, 4], [1, 4, 1, 5]]))
    assert values_of(TASK, problems, "x_1..x_2").tolist() == [0, 0], "2 + 3 = 4 + 1"
    assert values_of(TASK, problems, "s_3").tolist() == [0, 1], "4 and 5"
    assert values_of(TASK, problems, "x_0,x_1").tolist() == [0, 1]
    odd = np.arange(6) % 2
    assert values_of(TASK, problems, "class(s_2)", odd).tolist() == [0, 0], "totals 0 and 0"
    assert values_of(TASK, problems, "class(x_1),x_3", odd).tolist() == [0, 1]
    assert values_of(TASK, problems, "class(x_1..x_3)", odd).tolist() == [1, 0], "9 and 10"
    for classes in (None, odd[:3]):
        with pytest.raises(ValueError, match="class of each of 6 states"):
            values_of(TASK, problems, "class(s_2)", classes)
    for wrong in ("y_1", "x_4", "s_0", "x_2..x_1", "class(s_1"):
        with pytest.raises(ValueError, match=re.escape(wrong)):
            values_of(TASK, problems, wrong)


def test_what_cannot_be_rebuilt_is_refused(sides):
    model, spot = parallel(TASK).eval(), (Site("attn_out", 0), ("prompt_end", -1))
    asked = {"readout": ("answer", K - 1)}
    with pytest.raises(ValueError, match="at least one account"):
        rebuilt(model, TASK, "direct", sides["train"], sides["heldout"], {}, **asked)
    with pytest.raises(ValueError, match="both sides"):
        rebuilt(model, TASK, "direct", sides["train"], sides["train"], {"a": {spot: ()}}, **asked)
    behind = (Site("attn_out", 0), ("answer", K - 1))
    with pytest.raises(ValueError, match="does not stand before"):
        rebuilt(model, TASK, "direct", sides["train"], sides["heldout"], {"a": {behind: ()}}, **asked)
    longer = solve(TASK, np.array([[1, 2, 3]]))
    with pytest.raises(ValueError, match="of one length"):
        rebuilt(model, TASK, "direct", sides["train"], longer, {"a": {spot: ()}}, **asked)


def test_the_embedding_of_an_operand_is_that_operand(sides):
    """Of what enters the first block an operand explains all at its own place, and another nothing."""
    spot = (Site("resid_pre", 0), ("operand", 1))
    table = kept(parallel(TASK).eval(), sides, {"own": {spot: ("x_1",)}, "other": {spot: ("x_0", "x_2")}})
    assert table.loc["own", ["kept", "own"]].tolist() == [1, 1]
    assert table["explained"].tolist() == pytest.approx([1, 0], abs=0.05)
    assert table.loc["other", "kept"] < 0.5
