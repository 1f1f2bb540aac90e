"""The readiness curve of models whose mechanism is known: one reads its trace, one computes from the prompt."""

import numpy as np
import pytest

from cotinterp.behavior.answer_given_trace import Opening, answer_log_probs, sample_traces
from cotinterp.behavior.readiness import answer_readiness
from cotinterp.models.handmade import reader, recomputer
from cotinterp.tasks import get_task
from cotinterp.transcripts.problems import sample_problems

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
        at = cells.setdefault((point.trace, point.how, point.step), ([], []))
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
            at = {p.log_prob for p in found.points if (p.problem, p.how, p.step) == (problem, how, 0)}
            assert len(at) == 1
    assert len({p.log_prob for p in found.points if p.step == 0}) > len(asked)


def test_free_numbers_are_means_over_drawn_continuations(random_native, some_problems):
    """Against as many draws of another generator, after the first total of the true trace."""
    task, model = get_task("s3"), random_native("s3", scale=0.15)
    asked = some_problems("s3", 2, k_max=2)
    found = answer_readiness(model, task, "totals", asked, rng=np.random.default_rng(0), n_traces=300)
    for problem in asked:
        (point,) = (p for p in found.points if (p.problem, p.trace, p.how, p.step) == (problem, "true", "free", 1))
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
