"""Trace edits on models of which it is known whether they read what they wrote."""

import numpy as np
import pytest

from cotinterp.behavior.edits import substitute_totals
from cotinterp.behavior.outcomes import NONE, SHUFFLED, SUBSTITUTE, Outcome, TraceEdit
from cotinterp.tasks import get_task
from cotinterp.transcripts.problems import Problem
from cotinterp.transcripts.render import render

COLUMNS = ["task", "regime", "seed", "edit", "step", "outcome", "n", "rate", "ci_low", "ci_high"]
WRITING = [("digit-sum", "cot"), ("digit-sum", "totals"), ("s3", "cot"), ("s3", "totals"), ("affine-mod10", "cot")]


def edited(scripted, policy, name, problems, regime, **options):
    task = get_task(name)
    return substitute_totals(
        scripted.Model(task, policy), task, regime, problems, rng=np.random.default_rng(0), **options
    )


def rates(result, edit):
    frame = result.frame()
    return {(row.step, row.outcome): row.rate for row in frame[frame["edit"] == edit].itertuples()}


@pytest.mark.parametrize(("name", "regime"), WRITING)
def test_a_reader_always_follows(scripted, some_problems, name, regime):
    policy = scripted.reader(get_task(name), regime)
    result = edited(scripted, policy, name, some_problems(name, 6, k_max=4), regime, values_per_step=2)
    expected = {(step, outcome): float(outcome == "follows") for step in (1, 2, 3) for outcome in Outcome}
    assert rates(result, SUBSTITUTE) == expected
    assert {rate for (_, outcome), rate in rates(result, NONE).items() if outcome == "follows"} == {1.0}


@pytest.mark.parametrize(("name", "regime"), WRITING)
def test_a_recomputer_always_ignores(scripted, some_problems, name, regime):
    policy = scripted.recomputer(get_task(name), regime)
    result = edited(scripted, policy, name, some_problems(name, 6, k_max=4), regime, values_per_step=2)
    expected = {(step, outcome): float(outcome == "ignores") for step in (1, 2, 3) for outcome in Outcome}
    assert rates(result, SUBSTITUTE) == expected
    assert {rate for (_, outcome), rate in rates(result, NONE).items() if outcome == "follows"} == {1.0}


def test_random_answers_are_at_chance(scripted, some_problems):
    """Well-formed transcripts of s3 whose answer is a hash of the text: one in six follows, one in six ignores."""
    task = get_task("s3")
    reading, noise = scripted.reader(task, "cot"), scripted.babbler(task, symbols="012345")

    def policy(text):
        symbol = reading(text)
        return noise(text) if text.endswith("}") else symbol

    result = edited(scripted, policy, "s3", some_problems("s3", 60, k_max=4), "cot", values_per_step=None)
    frame = result.frame()
    for edit in (SUBSTITUTE, SHUFFLED):
        pooled = frame[frame["edit"] == edit].assign(hits=lambda rows: rows["n"] * rows["rate"])
        shares = pooled.groupby("outcome")["hits"].sum() / pooled.groupby("outcome")["n"].sum()
        assert abs(shares["follows"] - 1 / 6) < 0.05
        assert abs(shares["ignores"] - 1 / 6) < 0.05
        assert abs(shares["other"] - 4 / 6) < 0.05


def test_a_babbler_is_mostly_other(scripted, some_problems):
    policy = scripted.babbler(get_task("digit-sum"))
    result = edited(scripted, policy, "digit-sum", some_problems("digit-sum", 10, k_max=3), "cot", max_new=20)
    assert min(rate for (_, outcome), rate in rates(result, SUBSTITUTE).items() if outcome == "other") > 0.9
    assert max(rate for (_, outcome), rate in rates(result, NONE).items() if outcome == "follows") < 0.1


def test_chance_of_a_reader_is_the_rate_at_which_other_problems_agree(scripted, some_problems):
    """Of 6 equally frequent answers one in six agrees with a random other problem's."""
    task = get_task("s3")
    problems = some_problems("s3", 60, k_max=4)
    result = edited(scripted, scripted.reader(task, "cot"), "s3", problems, "cot", values_per_step=None)
    frame = result.frame()
    shuffled = frame[(frame["edit"] == SHUFFLED) & (frame["outcome"] == "follows")]
    assert np.average(shuffled["rate"], weights=shuffled["n"]) == pytest.approx(1 / 6, abs=0.05)


def test_the_control_shows_the_accuracy_of_a_model_that_slips(scripted, some_problems):
    """Wrong at step 2 and reading: after an edit before step 2 it slips, after one at step 2 or later it is right."""
    task = get_task("s3")
    policy = scripted.reader(task, "cot", slip_at=2)
    result = edited(scripted, policy, "s3", some_problems("s3", 8, k_max=3), "cot")
    k_three = result.by_distance().query("k == 3 and outcome == 'follows'").set_index(["edit", "distance"])["rate"]
    assert k_three[NONE, 1] == k_three[SUBSTITUTE, 1] == 0
    assert k_three[NONE, 0] == k_three[SUBSTITUTE, 0] == 1


def test_one_edit_by_hand(scripted):
    task = get_task("digit-sum")
    problem, _ = scripted.asked(task, "<3+4+5+6>")
    result = edited(scripted, scripted.reader(task, "cot"), "digit-sum", [problem], "cot", values_per_step=None)
    texts = {(edit.step, edit.total): edit for edit in result.edits}
    one = texts[1, 9]
    assert one == TraceEdit(problem, 1, 9, 20, "{3+4=9;9+5=14;14+6=20}20#", 20)
    assert (one.edit, one.outcome) == (SUBSTITUTE, Outcome.FOLLOWS)
    assert texts[3, 27].text == "{3+4=7;7+5=12;12+6=27}27#"
    assert texts[2, 12].text == render(task, problem, "cot").response
    assert texts[2, 12].edit == NONE
    assert {(step, total) for step, total in texts if step == 2} == {(2, total) for total in range(10, 28)}
    assert {total for step, total in texts if step == 3} == set(range(10, 37))
    assert result.chance == (None,) * len(result.edits)


def test_an_output_that_never_ends_is_other(scripted):
    task = get_task("digit-sum")
    problem, _ = scripted.asked(task, "<3+4>")
    reading = scripted.reader(task, "cot")

    def policy(text):
        return "0" if reading(text) == "#" else reading(text)

    result = edited(scripted, policy, "digit-sum", [problem], "cot")
    assert {edit.outcome for edit in result.edits} == {Outcome.OTHER}
    assert all(edit.answer is None for edit in result.edits)


def test_frames(scripted, some_problems, tmp_path):
    task = get_task("digit-sum")
    problems = some_problems("digit-sum", 6, k_max=4)
    result = edited(scripted, scripted.reader(task, "cot"), "digit-sum", (*problems, *problems), "cot", seed=5)
    frame = result.frame()
    assert list(frame.columns) == COLUMNS
    assert frame[["task", "regime", "seed"]].drop_duplicates().to_numpy().tolist() == [["digit-sum", "cot", 5]]
    counts = frame[frame["outcome"] == "follows"].set_index(["edit", "step"])["n"]
    assert counts[SUBSTITUTE].tolist() == counts[SHUFFLED].tolist() == [3 * 18, 3 * 12, 3 * 6]
    assert counts[NONE].tolist() == [18, 12, 6]
    assert not ((frame["edit"] == NONE) & (frame["outcome"] == "ignores")).any()
    by_distance = result.by_distance()
    assert list(by_distance.columns) == [*COLUMNS[:4], "k", "distance", *COLUMNS[5:]]
    cells = by_distance[by_distance["edit"] == SUBSTITUTE][["k", "distance"]].drop_duplicates().to_numpy().tolist()
    assert cells == [[2, 0], [3, 0], [3, 1], [4, 0], [4, 1], [4, 2]]
    by_delta = result.by_distance(by_delta=True)
    assert set(by_delta[by_delta["edit"] == NONE]["delta"]) == {0}
    assert 0 not in set(by_delta[by_delta["edit"] == SUBSTITUTE]["delta"])
    wrong = by_delta[(by_delta["edit"] == SUBSTITUTE) & (by_delta["outcome"] == "other")]
    assert wrong["n"].sum() == 3 * 36
    exclusions = result.exclusions()
    assert list(exclusions.columns) == ["task", "regime", "seed", "k", "step", "reason", "n"]
    assert exclusions["n"].sum() == 0
    traces = result.figure().data
    assert {trace.name for trace in traces} == {"follows", "ignores", "other"}
    assert [path.name for path in result.save(tmp_path, "trace_edits")] == ["trace_edits.csv", "trace_edits.html"]


def test_ambiguous_edits_are_counted_per_cell(scripted):
    task = get_task("affine-mod10")
    problem, _ = scripted.asked(task, "<1*2*7*4>")
    assert problem == Problem((1, 2, 7, 4), problem.previous, problem.step_operands, problem.totals)
    result = edited(scripted, scripted.reader(task, "cot"), "affine-mod10", [problem], "cot", values_per_step=None)
    steps = {edit.step for edit in result.edits if edit.edit == SUBSTITUTE}
    assert 1 not in steps
    assert 3 in steps
    excluded = result.exclusions().set_index(["step", "reason"])["n"]
    assert excluded[1, "ambiguous"] > 0
    assert excluded[3, "ambiguous"] == 0


def test_the_same_generator_gives_the_same_edits(scripted, some_problems):
    task = get_task("digit-sum")
    problems = some_problems("digit-sum", 4, k_max=3)
    policy = scripted.recomputer(task, "totals")
    first, again = (edited(scripted, policy, "digit-sum", problems, "totals") for _ in range(2))
    assert first == again


def test_bad_requests(scripted, some_problems):
    task = get_task("digit-sum")
    problems = some_problems("digit-sum", 2, k_max=2)
    policy = scripted.recomputer(task, "direct")
    with pytest.raises(ValueError, match=r"regime 'direct' writes no totals .* those that do: \['cot', 'totals'\]"):
        edited(scripted, policy, "digit-sum", problems, "direct")
    with pytest.raises(ValueError, match="at least one problem"):
        edited(scripted, policy, "digit-sum", (), "cot")
    with pytest.raises(ValueError, match="values_per_step must be 1 or more"):
        edited(scripted, policy, "digit-sum", problems, "cot", values_per_step=0)
    with pytest.raises(KeyError, match="unknown regime 'cott'"):
        edited(scripted, policy, "digit-sum", problems, "cott")


def test_a_task_without_another_total_of_any_length(scripted):
    class Lonely(type(get_task("parity"))):
        name = "lonely"

        @property
        def states(self):
            return ("0", "11")

    task = Lonely()
    problem, _ = scripted.asked(task, "<0*1>")
    model = scripted.Model(task, scripted.recomputer(task, "cot"))
    with pytest.raises(ValueError, match="no total of these 1 problems of task 'lonely' has another one"):
        substitute_totals(model, task, "cot", [problem], rng=np.random.default_rng(0))
