"""P(answer | problem) against P(answer | own trace, problem): tables by hand, estimates against exact sums."""

import numpy as np
import pytest
import torch

from cotinterp.behavior.answer_given_trace import FLOOR
from cotinterp.behavior.marginal import AnswerMarginal, MarginalResult, answer_marginal
from cotinterp.models.handmade import reader, recomputer
from cotinterp.tasks import get_task
from cotinterp.transcripts.problems import sample_problems, solve
from cotinterp.transcripts.vocabulary import Vocabulary

ONE, OTHER, LONG = (solve(get_task("digit-sum"), np.array([row]))[0] for row in ([3, 4, 5], [1, 2, 3], [1, 1, 1, 1]))
NONE = np.full(2, np.nan)


def marginal(problem, weights, given, *, own=1.0, wrong=(False, False), followed=NONE):
    with np.errstate(divide="ignore"):
        logs = np.log(np.array(weights)), np.log(np.array(given))
    return AnswerMarginal(problem, float(np.log(own)), *logs, np.array(wrong), np.array(followed))


def test_one_problem():
    found = marginal(ONE, [0.5, 1.5], [0.8, 0.4])
    assert np.exp(found.log_prob) == pytest.approx((0.4 + 0.6) / 2)
    assert found.mean_weight == pytest.approx(1)
    assert found.effective_n == pytest.approx(1 / (0.16 + 0.36))
    assert found.standard_error == pytest.approx(np.std([0.4, 0.6], ddof=1) / np.sqrt(2) / 0.5)


def test_traces_that_say_nothing():
    never = marginal(ONE, [1, 1], [0, 0])
    assert never.log_prob == -np.inf
    assert never.effective_n == 0
    assert np.isnan(never.standard_error)
    half = marginal(ONE, [1, 1], [0.3, 0])
    assert np.exp(half.log_prob) == pytest.approx(0.15)
    assert half.effective_n == pytest.approx(1)
    alone = AnswerMarginal(ONE, 0.0, np.zeros(1), np.zeros(1), np.zeros(1, dtype=bool), np.full(1, np.nan))
    assert np.isnan(alone.standard_error)
    assert marginal(ONE, [1, 1], [1e-300, 1e-300]).log_prob == pytest.approx(np.log(1e-300))


@pytest.fixture
def result():
    found = (
        marginal(ONE, [1, 1], [0.5, 0.5], own=0.8, wrong=[True, True], followed=[0.9, np.nan]),
        marginal(OTHER, [1, 2], [0, 0], own=0.2, wrong=[False, True], followed=[np.nan, 0.3]),
        marginal(LONG, [1, 1], [1.0, 0.5], own=1.0),
    )
    return MarginalResult(found, 1.0, {"task": "digit-sum", "regime": "cot", "run_seed": 0})


def test_the_table(result):
    table = result.frame().set_index("k")
    assert list(result.frame().columns[:7]) == ["task", "regime", "run_seed", "k", "n", "traces", "temperature"]
    row = table.loc[3]
    assert row["marginal"] == pytest.approx((np.log(0.5) + FLOOR) / 2)
    assert row["own"] == pytest.approx((np.log(0.8) + np.log(0.2)) / 2)
    assert row["carried"] == pytest.approx(row["own"] - row["marginal"])
    assert row["carried_low"] <= row["carried"] <= row["carried_high"]
    assert np.isnan(row["monte_carlo_error"])
    assert row["wrong_share"] == pytest.approx(4 / 5)
    assert row["wrong_followed"] == pytest.approx((0.9 + 2 * 0.3) / 3)
    assert row["n_wrong"] == 2
    long = table.loc[4]
    assert long["marginal"] == pytest.approx(np.log(0.75))
    assert long["monte_carlo_error"] == pytest.approx(0.25 / 0.75)
    assert np.isnan(long["marginal_low"])
    assert long["wrong_share"] == long["n_wrong"] == 0


def test_the_figure_shows_both_numbers(result):
    figure = result.figure()
    assert {trace.name for trace in figure.data} == {"given the problem", "given the problem and its own trace"}


TASK = get_task("s3")
VOCABULARY = Vocabulary.of(TASK)
PROBLEM = solve(TASK, np.array([[0, 3]]))[0]
P_MARGINAL, P_OWN = 0.7 * 0.9 + 0.3 * 0.2, 0.9


def made_up(tokens):
    """Writes `{}` (0.3), `{=}` (0.4) or `{;}` (0.3), then the answer with probability 0.9, after a `;` 0.2."""
    right, wrong = (TASK.state_text(state) for state in (PROBLEM.answer, (PROBLEM.answer + 1) % TASK.n_states))
    table = torch.full((2, len(VOCABULARY), len(VOCABULARY)), -1e9)
    for seen, p in ((0, 0.9), (1, 0.2)):
        chain = {
            ">": {"{": 1.0},
            "{": {"}": 0.3, "=": 0.4, ";": 0.3},
            "=": {"}": 1.0},
            ";": {"}": 1.0},
            "}": {right: p, wrong: 1 - p},
            right: {"#": 1.0},
            wrong: {"#": 1.0},
        }
        for before, after in chain.items():
            for symbol, share in after.items():
                table[seen, VOCABULARY.token(before), VOCABULARY.token(symbol)] = np.log(share)
    seen = ((tokens == VOCABULARY.token(";")).cumsum(1) > 0).long()
    return table[seen, tokens]


def asked(model, task, problems, *, regime="cot", n=4, seed=0, **options):
    return answer_marginal(model, task, regime, problems, rng=np.random.default_rng(seed), n_traces=n, **options)


@pytest.mark.parametrize("temperature", [1.0, 1.5, 0.7])
def test_it_converges_to_the_sum_over_traces_at_any_temperature(temperature):
    result = asked(made_up, TASK, [PROBLEM], n=2500, temperature=temperature)
    (found,) = result.problems
    assert found.log_prob == pytest.approx(np.log(P_MARGINAL), abs=4 * found.standard_error)
    assert 0 < found.standard_error < 0.02
    assert found.mean_weight == pytest.approx(1, abs=0.03)
    assert found.own_log_prob == pytest.approx(np.log(P_OWN), abs=1e-6)
    row = result.frame().iloc[0]
    assert row["carried"] == pytest.approx(np.log(P_OWN / P_MARGINAL), abs=0.06)
    assert row["temperature"] == temperature


def test_the_standard_error_is_the_spread_of_repeated_estimates():
    found = [asked(made_up, TASK, [PROBLEM], n=100, temperature=1.5, seed=seed).problems[0] for seed in range(20)]
    spread = np.std([one.log_prob for one in found], ddof=1)
    assert np.mean([one.standard_error for one in found]) == pytest.approx(spread, rel=0.4)


def test_at_temperature_1_every_trace_weighs_one():
    (found,) = asked(made_up, TASK, [PROBLEM], n=50).problems
    assert not found.log_weight.any()
    assert set(np.exp(found.answer_log_prob).round(6)) == {0.9, 0.2}


@pytest.mark.parametrize("make", [reader, recomputer])
def test_a_model_that_is_sure_of_its_trace_gains_nothing_from_it(make):
    """Whether it reads the trace or not: the marginal does not tell the two apart."""
    task = get_task("z6")
    problems = sample_problems(task, 4, 10, split="heldout", rng=np.random.default_rng(0))
    row = asked(make("z6", "cot", (2, 4)), task, problems).frame().iloc[0]
    assert row["marginal"] == pytest.approx(0, abs=0.01)
    assert row["carried"] == pytest.approx(0, abs=0.01)
    assert row["wrong_share"] == 0
    assert np.isnan(row["wrong_followed"])
    assert row["n"] == 10
    assert row["effective_n"] == pytest.approx(4, abs=0.01)


def sure(model):
    return lambda tokens: 60 * model(tokens)


def test_a_reader_that_slips_answers_with_its_last_total(scripted, some_problems):
    problems = [problem for problem in some_problems("s3", 4, k_max=4) if problem.k > 2]
    slips = sure(scripted.Model(TASK, scripted.reader(TASK, "cot", slip_at=2)))
    result = asked(slips, TASK, problems, n=3)
    for one in result.problems:
        assert one.wrong.all()
        assert one.followed == pytest.approx(np.ones(3), abs=1e-6)
        assert one.own_log_prob < -20
    table = result.frame().set_index("k")
    assert list(table.index) == [3, 4]
    assert table["wrong_share"].tolist() == [1, 1]
    assert table["wrong_followed"].tolist() == pytest.approx([1, 1], abs=1e-6)
    assert table["n_wrong"].tolist() == [12, 12]


def test_one_that_slips_and_answers_from_the_prompt_does_not(scripted, some_problems):
    problems = [problem for problem in some_problems("s3", 4, k_max=3) if problem.k == 3]
    slips, knows = scripted.reader(TASK, "cot", slip_at=2), scripted.recomputer(TASK, "cot")
    model = sure(scripted.Model(TASK, lambda text: (knows if "}" in text else slips)(text)))
    for one in asked(model, TASK, problems, n=2).problems:
        assert one.wrong.all()
        assert one.followed == pytest.approx(np.zeros(2), abs=1e-6)
        assert one.own_log_prob == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("response", "wrong", "telling"),
    [
        ("{3+4=8;8+5=13}13#", True, True),
        ("{3+4=8;7+5=12}12#", True, False),
        ("{3+4=7;7+5=12}13#", False, False),
        ("{3+4=7;7+5=13;}", True, True),
        ("{3+4=8;8+5=13#", False, False),
        ("12#", False, False),
        ("{3+4=;=}12#", False, False),
    ],
)
def test_which_traces_hold_a_wrong_total(scripted, response, wrong, telling):
    """A trace that was corrected on the way holds one, but its last total does not tell what the answer hangs on."""
    task = get_task("digit-sum")
    problem = solve(task, np.array([[3, 4, 5]]))[0]

    def policy(text):
        written = scripted.asked(task, text)[1]
        return response[len(written)] if len(written) < len(response) else "#"

    (found,) = asked(sure(scripted.Model(task, policy)), task, [problem], n=2).problems
    assert found.wrong.tolist() == [wrong] * 2
    assert np.isfinite(found.followed).tolist() == [telling] * 2


def test_bad_requests(random_native):
    with pytest.raises(ValueError, match="'direct' writes no totals"):
        asked(random_native("s3"), TASK, [PROBLEM], regime="direct")
    with pytest.raises(ValueError, match="at least one problem"):
        asked(random_native("s3"), TASK, [])
    with pytest.raises(ValueError, match="temperature finite and above 0"):
        asked(random_native("s3"), TASK, [PROBLEM], temperature=0.0)
