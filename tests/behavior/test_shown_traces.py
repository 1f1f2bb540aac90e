"""The traces that are shown: each as the task and the regime would have it, cut and closed at the same places."""

from collections import Counter

import numpy as np
import pytest

from cotinterp.behavior.readiness import shown_traces, steps_of
from cotinterp.tasks import get_task
from cotinterp.transcripts.problems import solve, wrong_totals
from cotinterp.transcripts.regimes import require_totals
from cotinterp.transcripts.render import render


def shown(name, regime, problems, **options):
    task = get_task(name)
    found = list(shown_traces(task, regime, problems, rng=np.random.default_rng(0), **options))
    return task, {
        kind: {one.problem: one for one in found if one.trace == kind} for kind in ("true", "edited", "shuffled")
    }


def test_the_sources_example():
    task = get_task("digit-sum")
    problem = solve(task, np.array([[3, 4, 5, 6]]))[0]
    assert steps_of(task, "cot", problem) == ("3+4=7", "7+5=12", "12+6=18")
    assert steps_of(task, "totals", problem) == ("7", "12", "18")
    _, of = shown("digit-sum", "cot", [problem])
    true = of["true"][problem]
    assert [true.begun(n).written for n in range(3)] == ["", "{3+4=7", "{3+4=7;7+5=12"]
    assert [true.closed(n).written for n in range(3)] == ["{}", "{3+4=7}", "{3+4=7;7+5=12}"]
    assert true.begun(0).text(task) == "<3+4+5+6>"
    assert true.closed(3).text(task) == render(task, problem, "cot").text.removesuffix("18#")


@pytest.mark.parametrize("name", ["digit-sum", "s3"])
@pytest.mark.parametrize("regime", ["cot", "totals"])
@pytest.mark.parametrize("step", [1, 2])
def test_an_edited_trace_goes_wrong_at_one_step_and_right_from_there(some_problems, name, regime, step):
    problems = [problem for problem in some_problems(name, 20, k_max=4) if problem.k == 4]
    task, of = shown(name, regime, problems, edited_step=step)
    assert set(of["true"]) == set(of["edited"]) == set(problems)
    for problem, one in of["edited"].items():
        totals = [task.parse_state(text.rpartition("=")[2]) for text in one.steps]
        assert totals[: step - 1] == list(problem.totals[: step - 1])
        assert totals[step - 1] in wrong_totals(task, problem, step)
        for j in range(step, 3):
            after = task.resume(np.array([problem.operands]), j, np.array([totals[j - 1]]))
            assert totals[j] == after.total[0, 0]
        assert totals[-1] == one.followed != problem.answer
        assert len(one.begun(step).written) == len(of["true"][problem].begun(step).written)


def test_shuffled_traces_are_other_problems_own_and_each_is_used_about_as_often(some_problems):
    problems = [problem for problem in some_problems("s3", 60, k_max=4) if problem.k == 4]
    task, of = shown("s3", "cot", problems)
    owner = {steps_of(task, "cot", problem): problem for problem in problems}
    for problem, one in of["shuffled"].items():
        assert owner[one.steps].answer != problem.answer
        assert one.followed is None
    assert len(of["shuffled"]) == 60
    assert max(Counter(one.steps for one in of["shuffled"].values()).values()) <= 5


def test_what_there_is_no_trace_for_is_left_out():
    task = get_task("s3")
    alike = solve(task, np.array([[0, 1, 2], [0, 2, 1]]))
    answers = {problem.answer for problem in alike}
    _, of = shown("s3", "cot", alike[:1])
    assert not of["shuffled"]
    _, of = shown("s3", "cot", alike)
    assert len(of["shuffled"]) == (2 if len(answers) == 2 else 0)
    _, of = shown("s3", "cot", alike, edited_step=3)
    assert not of["edited"]
    assert list(shown_traces(task, "cot", [], rng=np.random.default_rng(0))) == []


def test_only_a_regime_with_totals_has_such_traces():
    assert require_totals("noisy").name == "noisy"
    with pytest.raises(ValueError, match=r"'direct' writes no totals.* those that do: \['cot', 'totals'"):
        require_totals("direct")
