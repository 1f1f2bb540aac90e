"""Search on a generator whose error rate is known: accuracies worked out by hand, and exact budgets.

Bugs planted in it, and what notices each, stand in `calibration/mutations/search.py`.
"""

from dataclasses import replace
from math import isnan

import numpy as np
import pytest
import torch

from cotinterp.behavior.search.methods import METHODS
from cotinterp.behavior.search.scoring import SCORERS, Likelihood, Oracle, Scorer, Texts
from cotinterp.behavior.search.spent import Spent, cost_of, side_by_side, writing
from cotinterp.behavior.search.writer import Search, Writer
from cotinterp.calibration.search_questions import TASK, Erring, ErringOracle, P, Q, accuracy, copies, vote_of_three
from cotinterp.calibration.search_questions import agrees as share_agrees
from cotinterp.models.decoding import verified_greedy
from cotinterp.models.sampling import continuation_log_prob
from cotinterp.tasks import get_task
from cotinterp.transcripts.batch import Batch, collate
from cotinterp.transcripts.problems import read_problem, sample_problems
from cotinterp.transcripts.render import render
from cotinterp.transcripts.vocabulary import Vocabulary

N = 400


ONE, TWO = copies(1, 2, n=N), copies(1, 2, 3, n=N)
"""One written total (`{3}3#`, 5 tokens), and two (`{3;0}0#`, 7 tokens)."""


def asked(method: str, batch: Batch, budget: int, scorer: Scorer | None = None, *, model: object = None, **search):
    rng = np.random.default_rng(0)
    return METHODS[method](model or Erring(P), TASK, batch, scorer, budget, rng=rng, search=Search(**search))


def agrees(answers, expected: float) -> bool:
    """Whether the share of right answers is within four standard errors of what it should be."""
    return share_agrees(accuracy(answers), expected, len(answers.answers))


def test_one_sample_and_greedy():
    assert agrees(asked("sample", TWO, 7), P**2)
    assert agrees(asked("greedy", TWO, 7), 1.0)
    assert agrees(asked("sample", TWO, 6), 0.0)


def test_vote():
    assert agrees(asked("vote", ONE, 15), P**3 + 3 * P**2 * Q)
    assert agrees(asked("vote", ONE, 10), P)
    # Two steps: right, one error or two give three different answers, and the first of three is taken.
    r, one, both = P**2, 2 * P * Q, Q**2
    assert agrees(asked("vote", TWO, 21), r**3 + 3 * r**2 * (1 - r) + 6 * r * one * both / 3)


def test_what_is_no_answer_has_no_vote():
    assert agrees(asked("vote", ONE, 15, model=Erring(P, 0.4)), vote_of_three(P, 0.4, counted=False))


@pytest.mark.parametrize("n", [1, 3])
def test_best_of_n_with_the_oracle(n):
    assert agrees(asked("best-of-n", TWO, 7 * n, Oracle()), 1 - (1 - P**2) ** n)
    assert agrees(asked("best-of-n", TWO, 7 * n - 1, Oracle()), 1 - (1 - P**2) ** (n - 1))


def test_a_choice_by_a_scorer_that_errs():
    # Of a right and a wrong one the right is taken unless both verdicts are turned, or one is and it came second.
    expected = P**2 + 2 * P * Q * (1 - 0.3)
    assert agrees(asked("best-of-n", ONE, 10, ErringOracle(0.3)), expected)
    assert agrees(asked("beam", ONE, 10, ErringOracle(0.3), width=1, branches=2), expected)


def test_beam_keeps_the_best_of_each_level():
    # Two draws at both steps and at the answer: 6 + 4 + 4 tokens.
    found = asked("beam", TWO, 14, Oracle(), width=1, branches=2)
    assert agrees(found, (1 - Q**2) ** 2)
    assert {answer.spent.written for answer in found.answers} == {14}


@pytest.mark.parametrize("spare", [0, 1, 2])
def test_beam_goes_back_as_often_as_the_budget_pays_for(spare):
    search = {"width": 1, "branches": 1, "threshold": 0.5}
    assert agrees(asked("beam", ONE, 5 + 3 * spare, Oracle(), **search), 1 - Q ** (spare + 1))
    assert agrees(asked("beam", ONE, 5 + 3 * spare - 1, Oracle(), **search), 1 - Q**spare)


def test_mcts():
    # Two responses from the prompt, then one behind the first child: it was right if it came first, or was drawn twice.
    two = 1 - (1 - P**2) ** 2
    found = asked("mcts", TWO, 18, Oracle(), branches=2)
    assert agrees(found, two + P * ((P * Q) ** 2 + P * Q * Q))
    assert agrees(asked("mcts", TWO, 17, Oracle(), branches=2), two)
    assert agrees(asked("mcts", ONE, 15, Oracle(), branches=3), 1 - Q**3)


def test_mcts_leaves_what_scored_low():
    # A wrong and a right first step: all other responses are drawn behind the right one, whose value is higher.
    found = asked("mcts", copies(1, 2, 3, 4, 5, n=40), 120, Oracle(), branches=3, trees=True, exploration=0.3)
    visits = [found.tree(row).frame().query("step == 1").groupby("right")["visits"].sum() for row in range(40)]
    assert np.mean([of_row.get(True, 0) / of_row.sum() for of_row in visits]) > P


def test_more_than_is_left_is_refused():
    writer = Writer(Erring(P), TASK, ONE[:1], None, 5, np.random.default_rng(0), Search())
    (root,) = writer.roots()
    with pytest.raises(ValueError, match="may write 5 more tokens, and 6 were asked for"):
        writer.write([(root, 3), (root, 3)])


@pytest.mark.parametrize("method", ["vote", "best-of-n"])
def test_of_one_response_there_is_nothing_to_choose(method):
    search = {"draws": 1, "temperature": 1.3}
    one, other = asked("sample", TWO[:200], 50, **search), asked(method, TWO[:200], 50, Likelihood(), **search)
    assert [(x.text, x.spent.written, x.spent.read) for x in one.answers] == [
        (x.text, x.spent.written, x.spent.read) for x in other.answers
    ]
    assert len({x.text for x in one.answers}) > 1


@pytest.mark.parametrize("method", METHODS)
def test_at_temperature_0_every_method_is_greedy(method):
    batch = TWO[:3]
    found = asked(method, batch, 60, Likelihood(), temperature=0.0)
    assert tuple(answer.text for answer in found.answers) == verified_greedy(Erring(P), batch)


@pytest.mark.parametrize("method", METHODS)
def test_native_models_and_any_callable_agree(method, random_native):
    task = get_task("s3")
    problems = sample_problems(task, 4, 6, split="heldout", rng=np.random.default_rng(0))
    batch = collate([render(task, problem, "cot") for problem in problems], Vocabulary.of(task))
    module = random_native("s3", scale=0.1, n_ctx=80)
    found = []
    for model in (module, lambda tokens: module(tokens)):
        search = Search(temperature=0.7, least_steps=3)
        found.append(METHODS[method](model, task, batch, Likelihood(), 90, rng=np.random.default_rng(0), search=search))
    for native, generic in zip(found[0].answers, found[1].answers, strict=True):
        assert native.text == generic.text
        assert replace(native.spent, flops=0.0) == replace(generic.spent, flops=0.0)
        assert isnan(generic.spent.flops)
        assert native.spent.flops > 0


def test_what_is_spent(random_native):
    cost = cost_of(random_native("s3"))
    assert cost is not None
    # One response behind a prompt of 4: as `Cost.answer` has it.
    one = writing(cost, 4, 4, [3])
    assert one == Spent(3, 6, 3, cost.answer(np.array([4]), np.array([3])))
    # Two side by side: the prompt is read once, and its logits are made once.
    assert writing(cost, 4, 4, [3, 2]) == Spent(5, 7, 3, cost.reading(7.0, 10.0 + 5 + 6 + 5, 1.0 + 2 + 1))
    # Written on from there: nothing is unread but the last token.
    assert writing(cost, 7, 1, [2]) == Spent(2, 2, 2, cost.reading(2.0, 7.0 + 8, 2.0))
    assert side_by_side([Spent(1, 2, 3, 4.0), Spent(1, 1, 5, 1.0)]) == Spent(2, 3, 5, 5.0)


def test_scorers():
    vocabulary = Vocabulary.of(TASK)
    texts = ["<1*2*3>{3;", "<1*2*3>{4;", "<1*2*3>{3;0}0#", "<1*2*3>{3;0}", "<1*2*3>{4;0}0#"]
    rows = [vocabulary.encode(text) for text in texts]
    tokens = torch.tensor([[*row, *[0] * (14 - len(row))] for row in rows])
    length = torch.tensor([len(row) for row in rows])
    made = Texts(
        batch=TWO[:1],
        row=torch.zeros(5, dtype=torch.long),
        tokens=tokens,
        length=length,
        ended=torch.tensor([text.endswith("#") for text in texts]),
        log_prob=torch.tensor([-0.5] + [float("nan")] * 4, dtype=torch.float64),
    )
    model = Erring(P)
    assert Oracle()(model, made).tolist() == [1, 0, 1, 1, 0]
    own = Likelihood()(model, made)
    assert own[0] == -0.5
    assert torch.allclose(own[1:], continuation_log_prob(model, tokens, made.n_prompt, length)[1:])
    assert own[1].exp().item() == pytest.approx(Q, abs=1e-5)
    assert [one.read for one in Likelihood().cost(model, made)] == [0, 9, 13, 11, 13]
    assert all(isinstance(scorer, Scorer) for scorer in SCORERS.values())


def forced(budget: int, **search) -> tuple[str, int]:
    (answer,) = asked("force", TWO[:1], budget, model=Erring(1.0), **search).answers
    return answer.text, answer.spent.written


def test_forcing():
    assert forced(20) == ("{3;0}0#", 7)
    assert forced(20, least_steps=3) == ("{3;0;0}0#", 9)
    assert forced(20, most_steps=1) == ("{3}3#", 5)
    # Three tokens for the first step and two for the answer: the brace in the place of the separator is not written.
    assert forced(5) == ("{3}3#", 5)
    assert forced(7) == ("{3;0}0#", 7)
    # Of the second step there would be room for one token, and what is unfinished is dropped.
    assert forced(6) == ("{3}3#", 6)


def test_tables_and_what_is_refused():
    found = asked("beam", TWO[:4], 40, Oracle(), trees=True)
    (row,) = found.frame().to_dict("records")
    assert (row["task"], row["method"], row["scorer"], row["budget"], row["k"], row["n"]) == (
        *("z6", "beam", "oracle", 40, 3, 4),
    )
    assert row["written"] == found.examples()["written"].mean()
    tree = found.tree(0).frame()
    assert tree["text"][tree["chosen"]].str.cat() == found.answers[0].text
    assert found.figure().data
    assert found.tree(0).figure().data
    with pytest.raises(ValueError, match="no tree was kept"):
        asked("sample", TWO[:1], 7).tree()
    with pytest.raises(ValueError, match="give one"):
        asked("mcts", TWO[:1], 7)
    with pytest.raises(ValueError, match="budget"):
        asked("vote", TWO[:1], 0)


def test_a_problem_is_read_from_its_prompt():
    for text in ("1*2*3", "<1*2*3>"):
        assert read_problem(TASK, text) == TWO.problems[0]
    with pytest.raises(ValueError, match="'1\\+2' is no problem of task 'z6'"):
        read_problem(TASK, "1+2")
