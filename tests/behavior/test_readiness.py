"""P(true answer) along shown traces, on models of which it is known when they have it."""

from collections import Counter

import numpy as np
import pytest

from cotinterp.behavior.answer_given_trace import FLOOR, Opening, answer_log_probs, sample_traces
from cotinterp.behavior.readiness import ReadinessResult, Ready, answer_readiness, shown_traces, steps_of
from cotinterp.models.handmade import reader, recomputer
from cotinterp.tasks import get_task
from cotinterp.transcripts.problems import sample_problems, solve, wrong_totals
from cotinterp.transcripts.regimes import require_totals
from cotinterp.transcripts.render import render

pytestmark = pytest.mark.slow


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


ONE, OTHER = solve(get_task("digit-sum"), np.array([[3, 4, 5], [1, 2, 3]]))


@pytest.fixture
def result():
    half, quarter = np.log([0.5, 0.25]).tolist()
    points = (
        Ready(ONE, "true", "free", 0, half, None),
        Ready(OTHER, "true", "free", 0, quarter, None),
        Ready(ONE, "edited", "free", 1, -np.inf, 0.0),
        Ready(OTHER, "edited", "free", 1, quarter, half),
        Ready(ONE, "edited", "forced", 1, quarter, half),
    )
    return ReadinessResult(points, {"task": "digit-sum", "regime": "cot", "run_seed": 3})


def test_the_table(result):
    table = result.frame().set_index(["trace", "answered", "step"])
    assert list(result.frame().columns[:8]) == ["task", "regime", "run_seed", "k", "trace", "answered", "step", "n"]
    true = table.loc[("true", "free", 0)]
    assert true["probability"] == pytest.approx(0.375)
    assert true["log_prob"] == pytest.approx(-1.5 * np.log(2))
    assert np.isnan(true["followed"])
    assert true["probability_low"] <= 0.375 <= true["probability_high"]
    edited = table.loc[("edited", "free", 1)]
    assert edited["probability"] == pytest.approx(0.125)
    assert edited["log_prob"] == pytest.approx((FLOOR - 2 * np.log(2)) / 2)
    assert edited["followed"] == pytest.approx(0.75)
    alone = table.loc[("edited", "forced", 1)]
    assert alone["n"] == 1
    assert np.isnan(alone["probability_low"])
    assert set(table["k"]) == {3}


def test_the_figure_has_a_line_for_each_trace_and_way(result):
    figure = result.figure()
    assert {trace.name for trace in figure.data} >= {"true, free", "edited, free", "edited, forced"}
    assert "digit-sum, cot, seed 3" in figure.layout.title.text


K_RANGE = (2, 4)


@pytest.fixture(scope="module")
def problems():
    return sample_problems(get_task("z6"), 4, 24, split="heldout", rng=np.random.default_rng(0))


def sure(model):
    return lambda tokens: 60 * model(tokens)


def curve(model, regime, problems, name="z6", **options):
    task = get_task(name)
    found = answer_readiness(model, task, regime, problems, rng=np.random.default_rng(1), n_traces=3, **options)
    cells = {}
    for point in found.points:
        at = cells.setdefault((point.trace, point.answered, point.step), ([], []))
        at[0].append(np.exp(point.log_prob))
        at[1].append(np.nan if point.followed_log_prob is None else np.exp(point.followed_log_prob))
    return {key: tuple(map(np.mean, numbers)) for key, numbers in cells.items()}


@pytest.mark.parametrize("regime", ["cot", "totals"])
def test_a_handmade_reader_gives_the_true_answer_up_with_the_wrong_total(problems, regime):
    found = curve(reader("z6", regime, K_RANGE), regime, problems)
    for step in range(4):
        assert found["true", "free", step][0] > 0.99
        if step:
            true, followed = found["edited", "free", step]
            assert true < 0.01
            assert followed > 0.99
    assert found["edited", "forced", 3] == pytest.approx((0, 1), abs=0.01)
    assert found["true", "forced", 3][0] > 0.99
    assert found["shuffled", "free", 3][0] < 0.01


@pytest.mark.parametrize("regime", ["cot", "totals"])
def test_a_handmade_recomputer_keeps_the_true_answer_whatever_is_written(problems, regime):
    found = curve(recomputer("z6", regime, K_RANGE), regime, problems)
    for trace, step in (("true", 1), ("edited", 1), ("edited", 3), ("shuffled", 2), ("shuffled", 3)):
        assert found[trace, "free", step][0] > 0.99
    assert found["edited", "free", 1][1] < 0.01
    assert found["edited", "forced", 3] == pytest.approx((1, 0), abs=0.01)
    assert found["shuffled", "forced", 3][0] > 0.99


def test_totals_of_several_symbols(scripted, some_problems):
    """digit-sum: cut after a total of two symbols, a reader goes on with the next step and not with a third symbol."""
    task = get_task("digit-sum")
    asked = [problem for problem in some_problems("digit-sum", 4, k_max=4) if problem.k == 4]
    read = curve(sure(scripted.Model(task, scripted.reader(task, "cot"))), "cot", asked, "digit-sum")
    kept = curve(sure(scripted.Model(task, scripted.recomputer(task, "cot"))), "cot", asked, "digit-sum")
    for step in range(4):
        assert read["true", "free", step][0] == pytest.approx(1, abs=1e-6)
        assert kept["edited", "free", 1][0] == pytest.approx(1, abs=1e-6)
        if step:
            assert read["edited", "free", step] == pytest.approx((0, 1), abs=1e-6)


def test_a_closed_trace_is_answered_with_its_last_total_by_a_reader(scripted, some_problems):
    """A forced answer of a reader is right where s_j happens to be the answer: the curve says no more than that."""
    task = get_task("s3")
    asked = [problem for problem in some_problems("s3", 12, k_max=4) if problem.k == 4]
    found = curve(sure(scripted.Model(task, scripted.reader(task, "cot"))), "cot", asked, "s3")
    for step in range(4):
        chance = np.mean([(problem.previous[0], *problem.totals)[step] == problem.answer for problem in asked])
        assert found["true", "forced", step][0] == pytest.approx(chance, abs=1e-6)


def test_nothing_shown_is_one_and_the_same_number(random_native, some_problems):
    """At j = 0 the three traces share their drawn continuations, and a problem's number is the same in all."""
    asked = some_problems("s3", 6, k_max=3)
    found = answer_readiness(
        random_native("s3", scale=0.1), get_task("s3"), "cot", asked, rng=np.random.default_rng(0), n_traces=2
    )
    for problem in asked:
        for how in ("free", "forced"):
            at = {p.log_prob for p in found.points if (p.problem, p.answered, p.step) == (problem, how, 0)}
            assert len(at) == 1
    assert len({p.log_prob for p in found.points if p.step == 0}) > len(asked)


def test_free_numbers_are_means_over_drawn_continuations(random_native, some_problems):
    """Against as many draws of another generator, after the first total of the true trace."""
    task, model = get_task("s3"), random_native("s3", scale=0.15)
    asked = some_problems("s3", 2, k_max=2)
    found = answer_readiness(model, task, "totals", asked, rng=np.random.default_rng(0), n_traces=300)
    for problem in asked:
        (point,) = (p for p in found.points if (p.problem, p.trace, p.answered, p.step) == (problem, "true", "free", 1))
        place = Opening(problem, "{" + task.state_text(problem.totals[0]))
        (drawn,) = sample_traces(model, task, "totals", [place], rng=np.random.default_rng(9), n_traces=300)
        p = np.exp(answer_log_probs(model, task, [one.opening for one in drawn], [problem.answer] * 300))
        assert np.exp(point.log_prob) == pytest.approx(p.mean(), abs=6 * p.std() / np.sqrt(300))
        assert p.std() > 0


def test_bad_requests(random_native, some_problems):
    task, model, rng = get_task("s3"), random_native("s3"), np.random.default_rng(0)
    with pytest.raises(ValueError, match="'filler' writes no totals"):
        answer_readiness(model, task, "filler", some_problems("s3", 1), rng=rng)
    with pytest.raises(ValueError, match="at least one problem"):
        answer_readiness(model, task, "cot", [], rng=rng)
