"""A step that is read has all of the importance, another none; one that never differs has no number."""

from dataclasses import replace

import numpy as np
import pytest

from cotinterp.behavior.step_importance import MEASURES, Resampling, step_importance
from cotinterp.models.handmade import reader, recomputer
from cotinterp.models.handmade.recomputer import answer_copied, two_steps_back
from cotinterp.tasks import get_task
from cotinterp.transcripts.problems import sample_problems

TASK = get_task("z6")
WARM = Resampling(temperature=5.0, draws=48, least=2)
"""At this temperature a handmade model, whose logits are 20 and 0, says another total in one draw of twenty."""


def measured(model, regime="totals", *, n=8, k=4, resampling=WARM, seed=0):
    problems = sample_problems(TASK, k, n, split="heldout", rng=np.random.default_rng(1))
    return step_importance(model, TASK, regime, problems, rng=np.random.default_rng(seed), resampling=resampling)


def importances(result):
    return result.frame().pivot(index="step", columns="measure", values="importance").reindex(columns=MEASURES)


@pytest.mark.parametrize("regime", ["totals", "cot"])
def test_every_step_of_a_reader_is_read(regime):
    table = importances(measured(reader(TASK, regime).eval(), regime))
    assert table.drop(columns="control").eq([1, 1, 1, 0, 1]).all(axis=None)
    assert np.isnan(table.loc[1, "control"]), "nothing stands before the first step"
    assert table.loc[2:, "control"].eq(0).all(), "what it read before does not matter any more"


def test_no_step_of_a_recomputer_is():
    result = measured(recomputer(TASK).eval())
    assert importances(result).drop(columns="control").eq([0, 0, 0, 1, 1]).all(axis=None)
    resampled = result.frame().query("measure == 'resampled'")
    assert (resampled["n"] > 0).all()
    assert (resampled[["ci_low", "ci_high", "kl", "kl_by_chance"]] == 0).all(axis=None)


@pytest.mark.parametrize(
    ("back", "read", "control"),
    [(answer_copied, [3], [0, 0]), (two_steps_back, [1, 3], [1, 0])],
    ids=["copy", "two back"],
)
def test_the_steps_that_are_read_are_told_from_those_that_are_not(back, read, control):
    table = importances(measured(recomputer(TASK, back=back).eval()))
    expected = [float(step in read) for step in (1, 2, 3)]
    for measure in ("resampled", "edited", "indirect"):
        assert table[measure].tolist() == expected, measure
    assert table["direct"].tolist() == [1 - one for one in expected]
    assert table["total"].tolist() == [1, 1, 1]
    assert table["control"].tolist()[1:] == control, "the step before is not the one that counts in every model"


def test_a_model_that_says_the_same_again_has_no_number():
    result = measured(reader(TASK).eval(), resampling=replace(WARM, temperature=1.0))
    resampled = result.frame().query("measure == 'resampled'")
    assert resampled["importance"].isna().all()
    assert (resampled["n"] == 0).all()
    assert (resampled["refused"] == 8).all()
    assert (resampled["differing"] == 0).all()
    assert resampled["p_step"].to_numpy() == pytest.approx(1.0, abs=1e-6)
    assert result.frame().query("measure == 'edited'")["importance"].eq(1).all(), "edits need no other opinion"
    assert result.figure().data


def test_draws_that_are_kept_say_another_total_and_are_steps():
    result = measured(reader(TASK, "cot").eval(), "cot")
    seen = 0
    for one in result.steps:
        for text in one.differing:
            assert text[-1] == one.text[-1]
            assert int(text[-2]) != one.problem.totals[one.step - 1]
            seen += 1
        assert len(one.differing) + one.unformed <= one.n_draws
    assert seen > 10


def test_what_follows_a_step_may_be_drawn_too():
    """Where the rest is drawn warm, an answer is sometimes another anyway, whatever the step says."""
    result = measured(recomputer(TASK).eval(), resampling=replace(WARM, rest=4.5, continuations=16), n=12)
    examples = result.examples()
    assert examples["edited"].abs().max() > 0
    table = result.frame().query("measure in ['resampled', 'edited', 'indirect']")
    assert ((table["ci_low"] <= 0) & (table["ci_high"] >= 0)).all()
    kl = result.frame().query("measure == 'resampled'")
    assert (kl["kl"] > 0).all(), "by chance alone"
    assert (kl["kl"] - kl["kl_by_chance"]).abs().max() < 0.3


def test_problems_that_are_answered_wrong_are_counted_and_left_out(scripted):
    right = scripted.reader(TASK, "totals")

    def policy(text):
        return right(text) if scripted.asked(TASK, text)[0].operands[0] % 2 else "#"

    result = measured(scripted.Model(TASK, policy), n=12)
    answered = {one.problem for one in result.steps}
    assert all(problem.operands[0] % 2 for problem in answered)
    assert result.wrong == 12 - len(answered) > 0
    assert result.frame().query("measure == 'indirect'")["importance"].eq(1).all()


def test_a_trace_of_other_lengths_and_texts_is_edited_alike(scripted):
    """Totals of two symbols, and a model that is no native one."""
    task = get_task("digit-sum")
    problems = sample_problems(task, 3, 8, split="heldout", rng=np.random.default_rng(1))
    for name, expected in (("reader", [1, 1, 0, 1]), ("recomputer", [0, 0, 1, 1])):
        model = scripted.Model(task, getattr(scripted, name)(task, "cot"))
        found = step_importance(
            model, task, "cot", problems, rng=np.random.default_rng(0), resampling=replace(WARM, temperature=0.2)
        )
        table = importances(found)
        assert (table[["resampled", "indirect", "direct", "total"]] == expected).all(axis=None), name
        assert (table["edited"] == expected[0]).all()


def test_one_problem_has_no_interval():
    table = measured(reader(TASK).eval(), n=1).frame()
    assert table["ci_low"].isna().all()
    assert (table.query("measure == 'edited'")["n"] == 1).all()


def test_what_is_refused():
    model = reader(TASK).eval()
    with pytest.raises(ValueError, match="at least one problem"):
        step_importance(model, TASK, "totals", (), rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="regime 'chain' has no steps apart"):
        measured(model, "chain")
    with pytest.raises(ValueError, match="the model writes the right trace of none of 8 problems"):
        measured(reader(TASK, "cot").eval(), "totals")
    with pytest.raises(ValueError, match=r"temperature=0.0 must be above 0"):
        Resampling(temperature=0.0)
