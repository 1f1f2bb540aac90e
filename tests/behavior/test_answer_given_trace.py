"""P(answer | trace) against plain passes, and P(answer | prompt) against the sum over every trace there is."""

from itertools import product

import numpy as np
import pytest
import torch

from cotinterp.behavior.answer_given_trace import (
    Opening,
    answer_log_probs,
    greedy_traces,
    log_mean,
    sample_traces,
)
from cotinterp.models.decoding import Decoding
from cotinterp.tasks import get_task
from cotinterp.transcripts.vocabulary import Vocabulary

TASK = get_task("s3")
VOCABULARY = Vocabulary.of(TASK)


def plain(model, opening, text):
    """log P(text | opening), symbol by symbol."""
    tokens = torch.tensor([VOCABULARY.encode(opening.text(TASK) + text)])
    with torch.no_grad():
        log_p = model(tokens)[0].double().log_softmax(-1)
    n = tokens.shape[1] - len(text)
    return sum(float(log_p[place - 1, tokens[0, place]]) for place in range(n, tokens.shape[1]))


@pytest.fixture
def problem(some_problems):
    return some_problems("s3", 1, k_max=2)[0]


def test_an_answer_after_a_closed_trace_is_judged_in_a_plain_pass(random_native, some_problems):
    model = random_native("s3", scale=0.3)
    places = [Opening(problem, trace) for problem in some_problems("s3", 2) for trace in ("{}", "{1=}")]
    answers = [place.problem.answer for place in places]
    found = answer_log_probs(model, TASK, places + places[:2], answers + answers[:2])
    expected = [plain(model, one, TASK.state_text(answer) + "#") for one, answer in zip(places, answers, strict=True)]
    np.testing.assert_allclose(found, expected + expected[:2], atol=1e-4)


def test_a_response_that_stopped_is_sure_and_one_that_was_given_up_answers_nothing(random_native, problem):
    state = TASK.state_text(problem.answer)
    texts = [f"{state}#", f"{{}}{state}#", "0", "{", f"{{{state}#", f"}}{state}#", f"{state}}}"]
    found = answer_log_probs(
        random_native("s3"), TASK, [Opening(problem, text) for text in texts], [problem.answer] * len(texts)
    )
    assert found.tolist() == [0, 0, *[-np.inf] * 5]
    other = next(state for state in range(TASK.n_states) if state != problem.answer)
    assert answer_log_probs(random_native("s3"), TASK, [Opening(problem, texts[0])], [other]).tolist() == [-np.inf]


def test_an_answer_without_room_in_the_context_is_none(random_native, problem):
    closed = Opening(problem, "{}")
    n = len(closed.text(TASK))
    for n_ctx, finite in ((n + 2, True), (n + 1, False)):
        found = answer_log_probs(random_native("s3", n_ctx=n_ctx), TASK, [closed], [problem.answer])
        assert np.isfinite(found[0]) == finite


def short(model, answer):
    """A model that mostly opens, closes, answers: its traces of up to three symbols hold much of the probability."""
    push = torch.zeros(len(VOCABULARY), len(VOCABULARY))
    for before, after in ((">", "{"), ("{", "}"), ("=", "}"), ("}", answer), (answer, "#")):
        push[VOCABULARY.token(before), VOCABULARY.token(after)] = 3.0
    return lambda tokens: model(tokens) + push[tokens]


@pytest.mark.parametrize("temperature", [1.0, 1.5])
def test_sampled_traces_find_the_sum_over_every_trace(random_native, problem, temperature):
    """Traces of up to three symbols: `{}`, `{x}`, or the answer at once. All of them, against 3,000 drawn ones."""
    model = short(random_native("s3", scale=0.1), TASK.state_text(problem.answer))
    prompt, answer = Opening(problem, ""), TASK.state_text(problem.answer) + "#"
    symbols = [symbol for symbol in VOCABULARY.symbols if symbol not in "}#"]
    closed = ["{}", *(f"{{{symbol}}}" for symbol in symbols)]
    exact = sum(np.exp(plain(model, prompt, trace + answer)) for trace in closed) + np.exp(plain(model, prompt, answer))
    assert 0.01 < exact < 0.5
    rng = np.random.default_rng(0)
    options = {"n_traces": 3000, "temperature": temperature, "decoding": Decoding(max_new=3)}
    (drawn,) = sample_traces(model, TASK, "cot", [prompt], rng=rng, **options)
    given = answer_log_probs(model, TASK, [trace.opening for trace in drawn], [problem.answer] * 3000)
    weights = np.array([trace.log_weight for trace in drawn])
    terms = np.exp(weights + given)
    assert terms.mean() == pytest.approx(exact, abs=4 * terms.std() / np.sqrt(3000))
    assert terms.std() / np.sqrt(3000) < 0.05 * exact
    assert np.exp(weights).mean() == pytest.approx(1, abs=0.1)
    assert bool(weights.any()) == (temperature != 1)


def test_weights_are_of_what_was_kept(random_native, problem):
    """Nothing that was drawn after the stop symbol is in the text or in its weight."""
    model = random_native("s3", scale=0.2)
    rng = np.random.default_rng(3)
    (drawn,) = sample_traces(model, TASK, "cot", [Opening(problem, "{")], rng=rng, n_traces=300, temperature=2.0)
    stopped = [trace for trace in drawn if trace.opening.written.endswith("#")]
    assert stopped
    assert all(trace.opening.written.count("#") + trace.opening.written.count("}") <= 1 for trace in drawn)
    for trace in stopped[:5]:
        text = trace.opening.written[1:]
        place = Opening(problem, "{")
        hot = plain(lambda tokens: model(tokens) / 2, place, text)
        assert trace.log_weight == pytest.approx(plain(model, place, text) - hot, abs=1e-3)


def test_greedy_traces_are_the_models_own(scripted, some_problems):
    problems = some_problems("s3", 2)
    model = scripted.Model(TASK, scripted.reader(TASK, "cot"))
    from_prompt = greedy_traces(model, TASK, "cot", [Opening(problem, "") for problem in problems])
    for one, problem in zip(from_prompt, problems, strict=True):
        assert one.closed
        assert one.problem is problem
        assert one.written.count("=") == problem.k - 1
        assert one.written.endswith(f"={TASK.state_text(problem.answer)}}}")
    direct = scripted.Model(TASK, lambda text: "#")
    assert greedy_traces(direct, TASK, "cot", [Opening(problems[0], "{")])[0].written == "{#"


def test_the_limit_and_the_context(random_native, problem):
    for options, n_ctx in (({"decoding": Decoding(max_new=4)}, 64), ({}, 9)):
        model = random_native("s3", n_ctx=n_ctx)
        (drawn,) = sample_traces(
            model, TASK, "cot", [Opening(problem, "")], rng=np.random.default_rng(0), n_traces=40, **options
        )
        longest = max(len(trace.opening.written) for trace in drawn)
        assert longest == 4
    with pytest.raises(ValueError, match="max_new must be 1 or more"):
        greedy_traces(model, TASK, "cot", [Opening(problem, "")], decoding=Decoding(max_new=0))
    with pytest.raises(ValueError, match="leaves no room to answer in a context of 9"):
        greedy_traces(model, TASK, "cot", [Opening(problem, "{0*0=")])


def test_the_log_of_a_mean():
    assert log_mean(np.log([0.1, 0.3])) == pytest.approx(np.log(0.2))
    assert log_mean(np.array([-np.inf, 0.0])) == pytest.approx(np.log(0.5))
    assert log_mean(np.array([-np.inf, -np.inf])) == -np.inf
    assert log_mean(np.array([-2000.0, -2000.0])) == pytest.approx(-2000)


def test_every_pair_is_asked_once(scripted, some_problems):
    """Alike openings share a pass: the rows that the model is given are the distinct ones."""
    model = scripted.Model(TASK, scripted.reader(TASK, "cot"))
    places = [Opening(problem, "{}") for problem, _ in product(some_problems("s3", 1, k_max=3), range(10))]
    answer_log_probs(model, TASK, places, [place.problem.answer for place in places])
    assert model.rows == 2
