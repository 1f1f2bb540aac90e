"""What an edited trace is made of: the true steps, the text up to a cut, the text up to the closing brace."""

import numpy as np
import pytest

from cotinterp.behavior.edit_kinds import WHOLE, EditedTrace, EditKind, Original, Reason
from cotinterp.tasks import get_task
from cotinterp.transcripts.problems import solve, substitute_total
from cotinterp.transcripts.regimes import get_regime
from cotinterp.transcripts.roles import Role

SUM = get_task("digit-sum")
PROBLEMS = solve(SUM, np.array([[3, 4, 5, 6], [3, 4, 5, 7]]))
PROBLEM = PROBLEMS[0]


def original(regime="cot", step=2):
    return Original("some_edit", SUM, get_regime(regime), PROBLEM, step, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("regime", "inside"), [("cot", "3+4=7;7+5=12;12+6=18"), ("noisy", "3+4=7;7+5=12;12+6=18"), ("totals", "7;12;18")]
)
def test_the_steps_of_a_trace_stand_between_its_braces(regime, inside):
    assert "".join(token.symbol for token in original(regime).steps()) == inside


def test_a_cut_trace_ends_with_the_whole_total_and_goes_on_as_a_follower_would():
    made = original().cut(substitute_total(SUM, PROBLEM, 2, 19), followed=25)
    assert made.transcript.text[: made.given] == "<3+4+5+6>{3+4=7;7+5=19"
    assert made.transcript.text[made.given :] == ";19+6=25}25#"
    assert (made.closed, made.total, made.followed, made.step) == (False, 19, 25, 2)


def test_a_closed_trace_asks_for_the_answer():
    steps = [token for token in original().steps() if token.step == 1 and token.role is not Role.STEP_END]
    made = original().closed(steps, total=7, followed=7)
    assert made.transcript.text[: made.given] == "<3+4+5+6>{3+4=7}"
    assert made.transcript.text[made.given :] == "7#"
    assert made.closed
    answer, end = made.transcript.tokens[-2:]
    assert (answer.role, answer.step, answer.value, end.role) == (Role.ANSWER, 3, 7, Role.END)
    assert made.transcript.n_prompt == len("<3+4+5+6>")


def test_without_anything_to_follow_the_right_answer_is_guessed():
    assert original().closed([], total=None, followed=None).transcript.text == "<3+4+5+6>{}18#"


class Constant(EditKind):
    """Closes an empty trace and calls 18 what is followed: the answer of the first problem, not of the second."""

    name = "constant"
    description = "an empty trace"

    def edit(self, original: Original) -> EditedTrace | Reason:
        return original.closed([], total=None, followed=18)


def test_what_a_recomputer_would_answer_as_well_is_left_out_and_counted():
    kind = Constant()
    made, left_out = kind.plan(SUM, get_regime("cot"), PROBLEMS, WHOLE, rng=np.random.default_rng(0))
    assert [one.problem for one in made] == [PROBLEMS[1]]
    assert [(one.edit, one.k, one.step, one.reason, one.n) for one in left_out] == [("constant", 4, -1, "ambiguous", 1)]


def test_a_kind_without_steps_edits_the_trace_as_a_whole():
    assert Constant().steps(4) == (WHOLE,)
    assert Constant().steps(1) == ()
