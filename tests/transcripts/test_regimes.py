"""The exact strings, and the name of every symbol in them."""

from itertools import product

import numpy as np
import pytest

from cotinterp.tasks import get_task, task_names
from cotinterp.transcripts.problems import sample_problems, solve
from cotinterp.transcripts.regimes import get_regime, regime_names
from cotinterp.transcripts.render import longest_transcript, render, render_for_training, without_first_steps
from cotinterp.transcripts.roles import Role

SUM = get_task("digit-sum")
(PROBLEM,) = solve(SUM, np.array([[3, 4, 5, 6]]))


@pytest.mark.parametrize(
    ("regime", "response"),
    [
        ("direct", "18#"),
        ("cot", "{3+4=7;7+5=12;12+6=18}18#"),
        ("totals", "{7;12;18}18#"),
        ("filler", "{......................}18#"),
        ("noisy", "{3+4=7;7+5=12;12+6=18}18#"),
        ("tagging", "18#"),
        ("chain", "{71218}18#"),
        ("direct-mode", "18#"),
        ("dots", "{...}18#"),
        ("tool", "{3+4=7;7+5=12;12+6=18}18#"),
        ("corrected", "{3+4=7;7+5=12;12+6=18}18#"),
    ],
)
def test_the_reference_transcripts(regime, response):
    transcript = render(SUM, PROBLEM, regime)
    assert transcript.prompt == ("<3+4+5+6=" if regime == "direct-mode" else "<3+4+5+6>")
    assert transcript.response == response
    assert transcript.text == transcript.prompt + response
    assert transcript.tokens[transcript.n_prompt - 1].role is Role.PROMPT_END


@pytest.mark.parametrize(
    ("regime", "skip", "response"),
    [
        ("cot", 1, "{7+5=12;12+6=18}18#"),
        ("cot", 2, "{12+6=18}18#"),
        ("cot", 3, "18#"),
        ("cot", 9, "18#"),
        ("totals", 1, "{12;18}18#"),
        ("filler", 2, "{.......}18#"),
        ("direct", 2, "18#"),
    ],
)
def test_steps_left_out_at_the_beginning_of_a_trace(regime, skip, response):
    whole = render(SUM, PROBLEM, regime)
    assert without_first_steps(whole, skip).response == response
    assert without_first_steps(whole, skip).prompt == whole.prompt
    assert without_first_steps(whole, 0) == whole


@pytest.mark.parametrize(
    ("regime", "skip", "response"),
    [
        ("cot", 1, "{.7+5=12;12+6=18}18#"),
        ("cot", 2, "{..12+6=18}18#"),
        ("cot", 3, "{...}18#"),
        ("totals", 1, "{.12;18}18#"),
    ],
)
def test_dots_in_the_place_of_steps_left_out(regime, skip, response):
    shown = without_first_steps(render(SUM, PROBLEM, regime), skip, dots=True)
    assert shown.response == response
    assert [token.step for token in shown.tokens if token.role is Role.FILLER] == list(range(1, skip + 1))
    if skip == PROBLEM.k - 1:
        assert shown.tokens == render(SUM, PROBLEM, "dots").tokens


def test_every_symbol_of_a_step_is_named():
    tokens = render(SUM, PROBLEM, "cot").tokens[-12:]
    assert [tuple(token)[:5] for token in tokens] == [
        (";", Role.STEP_END, 2, 0, -1),
        ("1", Role.PREVIOUS_TOTAL, 3, 0, 12),
        ("2", Role.PREVIOUS_TOTAL, 3, 1, 12),
        ("+", Role.STEP_OPERATOR, 3, 0, -1),
        ("6", Role.STEP_OPERAND, 3, 0, 6),
        ("=", Role.EQUALS, 3, 0, -1),
        ("1", Role.TOTAL, 3, 0, 18),
        ("8", Role.TOTAL, 3, 1, 18),
        ("}", Role.TRACE_END, -1, 0, -1),
        ("1", Role.ANSWER, 3, 0, 18),
        ("8", Role.ANSWER, 3, 1, 18),
        ("#", Role.END, -1, 0, -1),
    ]


@pytest.mark.parametrize("regime", regime_names())
@pytest.mark.parametrize("name", task_names())
def test_values_of_tokens_agree_with_the_task(name, regime):
    task = get_task(name)
    for problem in sample_problems(task, 4, 5, split="train", rng=np.random.default_rng(0)):
        shown = [symbol.value for symbol in task.prompt(problem.operands) if symbol.kind == "operand"]
        for token in render(task, problem, regime).tokens:
            if token.role is Role.TOTAL:
                assert token.value == problem.totals[token.step - 1]
            elif token.role is Role.PREVIOUS_TOTAL:
                assert token.value == problem.previous[token.step - 1]
            elif token.role is Role.STEP_OPERAND:
                assert token.value == problem.step_operands[token.step - 1]
                assert not task.in_order or token.value == problem.operands[token.step]
            elif token.role is Role.OPERAND:
                assert token.value == shown[token.step]
                assert task.brackets or token.value == problem.operands[token.step]
            elif token.role is Role.ANSWER:
                assert token.value == problem.answer
            else:
                assert token.value == -1


@pytest.mark.parametrize("regime", regime_names())
def test_the_longest_transcript_is_reached_by_nines(regime):
    (nines,) = solve(SUM, np.full((1, 6), 9))
    bound = longest_transcript(SUM, 6, regime)
    assert len(render(SUM, nines, regime)) <= bound
    totals = 16 + 2 + 5 * 2 + 4
    lengths = {
        "direct": 16,
        "cot": 56,
        "totals": totals,
        "filler": 56,
        "noisy": 56,
        "tagging": 16,
        "chain": totals - 4,
        "direct-mode": 16,
        "dots": 23,
        "tool": 56,
        "corrected": 56 + 8,
        "label": 16,
        "label-trace-unread": 56,
        "label-after-trace": 56,
    }
    assert bound == lengths[regime]


def test_a_dot_stands_for_every_symbol_of_the_longest_trace_by_hand():
    """Of two operands: `3+4=7`, or `9+9=18`, which is one longer."""
    (short,) = solve(SUM, np.array([[3, 4]]))
    tokens = render(SUM, short, "filler").tokens
    dots = [(".", Role.FILLER, 1, part, -1, True) for part in range(6)]
    assert [tuple(token) for token in tokens if token.role is Role.FILLER] == dots
    assert [token.role for token in tokens[5:]] == [
        *(Role.TRACE_START, *6 * [Role.FILLER], Role.TRACE_END, Role.ANSWER, Role.END)
    ]


@pytest.mark.parametrize("name", ["digit-sum", "s3", "s5", "parity"])
def test_how_many_dots_there_are_says_nothing_but_the_number_of_operands(name):
    """For every k the dots are those of the longest trace of `cot`, and their names tell them apart."""
    task, rng = get_task(name), np.random.default_rng(0)
    for k in (2, 3, 6):
        problems = solve(task, rng.integers(task.n_operands, size=(60, k)))
        traces = {tuple(t for t in render(task, x, "filler").tokens if t.role is Role.FILLER) for x in problems}
        (dots,) = traces
        assert {token.symbol for token in dots} == {"."}
        assert len({(token.step, token.part) for token in dots}) == len(dots)
        assert [token.step for token in dots] == sorted(token.step for token in dots)
        assert {token.step for token in dots} == set(range(1, k))
        written = [render(task, x, "cot").response.index("}") - 1 for x in problems]
        assert (
            max(written) <= len(dots) == longest_transcript(task, k, "cot") - longest_transcript(task, k, "direct") - 2
        )


def test_where_every_total_is_as_wide_as_can_be_each_dot_has_the_step_of_the_symbol_in_its_place():
    """9+9 = 18: every total has two symbols from the first on."""
    (nines,) = solve(SUM, np.full((1, 5), 9))
    cot, filler = (render(SUM, nines, regime).tokens for regime in ("cot", "filler"))
    assert [(token.step, token.role is Role.ANSWER) for token in cot] == [
        (token.step, token.role is Role.ANSWER) for token in filler
    ]


@pytest.mark.parametrize("name", [name for name in task_names() if max(map(len, get_task(name).states)) == 1])
def test_a_chain_is_the_totals_without_separators(name):
    task = get_task(name)
    for problem in sample_problems(task, 4, 5, split="train", rng=np.random.default_rng(0)):
        chain, totals = (render(task, problem, regime).tokens for regime in ("chain", "totals"))
        assert chain == tuple(token for token in totals if token.role is not Role.STEP_END)


def test_tagging_shows_what_direct_shows():
    assert render(SUM, PROBLEM, "tagging").tokens == render(SUM, PROBLEM, "direct").tokens
    assert [name for name in regime_names() if get_regime(name).tags_operands] == ["tagging"]


def _pairs(name):
    return product(get_task(name).states, repeat=2)


@pytest.mark.parametrize("regime", regime_names())
def test_which_tasks_a_regime_refuses(regime):
    """States of several symbols where one is named, and for tags steps in another order than the operands."""
    refused = {name for name in task_names() if get_regime(regime).refusal(get_task(name)) is not None}
    wide = {name for name in task_names() if max(map(len, get_task(name).states)) > 1}
    astray = {name for name in task_names() if not get_task(name).in_order}
    assert "digit-sum" in wide
    assert {"pointers", "expressions-mod11"} <= astray
    asked = dict.fromkeys(("chain", "label", "label-trace-unread", "label-after-trace"), wide)
    asked["tool"] = {name for name in wide if any(one != two and two.startswith(one) for one, two in _pairs(name))}
    assert "digit-sum" in asked["tool"]
    assert refused == {"tagging": wide | astray, **asked}.get(regime, set())


def test_unknown_regime_gets_the_nearest():
    with pytest.raises(KeyError, match="Did you mean 'cot'.*Known: direct, cot, totals, filler, noisy"):
        get_regime("cott")


class Draws(np.random.Generator):
    """A generator whose numbers are given: for each step whether (below the share) and which of the wrong totals."""

    def __init__(self, *pairs):
        super().__init__(np.random.PCG64(0))
        self.pairs = pairs

    def random(self, shape):
        assert shape == (len(self.pairs), 2)
        return np.array(self.pairs)


def trained(*pairs, regime="noisy", problem=PROBLEM):
    tokens = tuple(get_regime(regime).training_response(SUM, problem, Draws(*pairs)))
    unscored = [(token.role, token.step, token.symbol) for token in tokens if not token.scored]
    return "".join(token.symbol for token in tokens), unscored


@pytest.mark.parametrize("regime", [name for name in regime_names() if name not in ("noisy", "corrected")])
def test_other_regimes_are_trained_on_what_they_are_measured_on(regime):
    transcript = render_for_training(SUM, PROBLEM, regime, np.random.default_rng(0))
    assert transcript == render(SUM, PROBLEM, regime)
    unscored = {token.role for token in transcript.tokens if not token.scored}
    assert unscored == ({Role.TOTAL} if regime == "tool" else set())


class Three(Draws):
    """Whether a step is attempted twice (below the share), which one, and which of the wrong totals."""

    def random(self, shape):
        assert shape == 3
        return np.array(self.pairs)


def corrected(*numbers):
    tokens = tuple(get_regime("corrected").training_response(SUM, PROBLEM, Three(*numbers)))
    return "".join(token.symbol for token in tokens), [token.symbol for token in tokens if not token.scored]


def test_a_step_that_is_taken_back_by_hand():
    """Step 2 of three; it may hold 10..27 but 12, of which the first is 10. All else is the true trace."""
    assert corrected(0.49, 0.5, 0.0) == ("{3+4=7;7+5=10.7+5=12;12+6=18}18#", ["1", "0"])
    assert corrected(0.0, 0.0, 0.999) == ("{3+4=9.3+4=7;7+5=12;12+6=18}18#", ["9"])
    assert corrected(0.5, 0.5, 0.0) == ("{3+4=7;7+5=12;12+6=18}18#", [])


def test_a_replaced_total_by_hand():
    """Step 2 may hold 10..27 but 12: the first of these is 10. The trace goes on from it; only its symbols are free."""
    text, unscored = trained((0.9, 0.0), (0.1999, 0.0), (0.2, 0.0))
    assert text == "{3+4=7;7+5=10;10+6=16}16#"
    assert unscored == [(Role.TOTAL, 2, "1"), (Role.TOTAL, 2, "0")]


def test_two_replaced_totals_by_hand():
    """3+4 is replaced by 9, the last of 0..9 but 7; then 9+5=14 stands, and 14+6=20 is replaced by 10, the first."""
    text, unscored = trained((0.0, 0.999), (0.5, 0.5), (0.0, 0.0))
    assert text == "{3+4=9;9+5=14;14+6=10}10#"
    assert unscored == [(Role.TOTAL, 1, "9"), (Role.TOTAL, 3, "1"), (Role.TOTAL, 3, "0")]


def test_a_share_of_one_in_five_replaces_exactly_two_of_ten_evenly_spaced_draws():
    replaced = [bool(trained((0.05 + 0.1 * i, 0.0), (0.99, 0.0), (0.99, 0.0))[1]) for i in range(10)]
    assert replaced == [True, True] + [False] * 8
    assert get_regime("noisy").wrong_share == 0.2
    assert {get_regime(name).wrong_share for name in regime_names() if name != "noisy"} == {0.0}


def test_a_noisy_transcript_keeps_the_prompt_and_the_problem_that_was_asked():
    for seed in range(10):
        transcript = render_for_training(SUM, PROBLEM, "noisy", np.random.default_rng(seed))
        assert (transcript.prompt, transcript.problem, transcript.regime) == ("<3+4+5+6>", PROBLEM, "noisy")
        assert len(transcript) <= longest_transcript(SUM, 4, "noisy")


def test_every_step_of_a_noisy_trace_but_the_unscored_is_right_given_the_one_before():
    rng = np.random.default_rng(0)
    problems = sample_problems(SUM, 5, 60, split="train", rng=rng)
    wrong = 0
    for problem in problems:
        tokens = render_for_training(SUM, problem, "noisy", rng).tokens
        first = {(t.role, t.step): t for t in tokens if t.part == 0}
        state = problem.operands[0]
        for step in range(1, 5):
            assert first[Role.PREVIOUS_TOTAL, step].value == state
            total = first[Role.TOTAL, step]
            assert (total.value == state + problem.operands[step]) == total.scored
            state, wrong = total.value, wrong + (not total.scored)
        assert first[Role.ANSWER, 4].value == state
    assert wrong == pytest.approx(0.2 * 240, abs=3 * (0.2 * 0.8 * 240) ** 0.5)
