"""Edits with a second problem: what is shown under which prompt, and what is left out."""

import numpy as np
import pytest

from cotinterp.behavior.edit_kinds import WHOLE, EditPrompt, Original, Reason, Swap, SwapPrefix
from cotinterp.tasks import get_task
from cotinterp.transcripts.parsing import parse_response
from cotinterp.transcripts.problems import solve
from cotinterp.transcripts.regimes import get_regime
from cotinterp.transcripts.render import render

SUM = get_task("digit-sum")
AFFINE = get_task("affine-mod10")


def edit(kind, step, operands=(3, 4, 5, 6), *, seed=0, task=SUM, regime="cot"):
    (problem,) = solve(task, np.array([operands]))
    return kind.edit(Original(kind.name, task, get_regime(regime), problem, step, np.random.default_rng(seed)))


def split(made):
    """Given response and the rest that a follower writes."""
    text = made.transcript.text
    return text[made.transcript.n_prompt : made.given], text[made.given :]


@pytest.mark.parametrize("seed", range(8))
def test_a_swapped_trace_is_another_problems_whole_trace_of_the_same_layout(seed):
    made = edit(Swap(), WHOLE, seed=seed)
    given, rest = split(made)
    steps = parse_response(SUM, given).steps
    (donor,) = solve(SUM, np.array([[steps[0].previous, *(step.operand for step in steps)]]))
    assert made.transcript.prompt == "<3+4+5+6>"
    assert given + rest == render(SUM, donor, "cot").response
    assert [len(step.text) for step in steps] == [5, 6, 7]
    assert made.total == made.followed == donor.answer != 18
    assert rest == f"{donor.answer}#"


@pytest.mark.parametrize("seed", range(8))
def test_a_swapped_prefix_goes_on_with_this_prompts_operands(seed):
    made = edit(SwapPrefix(), 2, seed=seed)
    given, rest = split(made)
    first, second = parse_response(SUM, given).steps
    assert first.previous + first.operand == first.total == second.previous
    assert second.previous + second.operand == second.total == made.total != 12
    assert given == "{" + first.text + ";" + second.text
    assert [len(first.text), len(second.text)] == [5, 6]
    assert rest == f";{made.total}+6={made.total + 6}}}{made.total + 6}#"
    assert made.followed == made.total + 6


def test_a_prefix_up_to_the_last_total_leaves_the_answer():
    given, rest = split(edit(SwapPrefix(), 3, regime="totals"))
    assert [len(total) for total in given.removeprefix("{").split(";")] == [1, 2, 2]
    assert rest == "}" + given.split(";")[-1] + "#"


@pytest.mark.parametrize("step", [0, 1, 2, 3])
def test_the_prompt_differs_from_that_of_the_trace_in_one_operand(step):
    for seed in range(5):
        made = edit(EditPrompt(), step, seed=seed)
        given, _ = split(made)
        steps = parse_response(SUM, given).steps
        asked, traced = (3, 4, 5, 6), (steps[0].previous, *(one.operand for one in steps))
        assert [index for index in range(4) if asked[index] != traced[index]] == [step]
        assert made.transcript.prompt == "<3+4+5+6>"
        assert made.followed == sum(traced) != made.problem.answer == 18
        assert [len(one.text) for one in steps] == [5, 6, 7]


def test_each_is_made_at_its_steps():
    assert [list(kind.steps(4)) for kind in (Swap(), SwapPrefix(), EditPrompt())] == [[-1], [1, 2, 3], [0, 1, 2, 3]]


def test_what_cannot_be_told_apart_is_not_made():
    """An operand 7 of affine-mod10 multiplies by 10: whatever was written before it, the answer is the same."""
    assert edit(SwapPrefix(), 1, (1, 2, 7), task=AFFINE) is Reason.AMBIGUOUS
    assert edit(EditPrompt(), 1, (1, 2, 7), task=AFFINE) is Reason.AMBIGUOUS
    assert edit(EditPrompt(), 2, (1, 2, 7), task=AFFINE).followed != solve(AFFINE, np.array([[1, 2, 7]]))[0].answer


def test_a_layout_that_nothing_else_has_is_not_edited():
    """Parity whose two states differ in length: the layout of a trace says all of it."""

    class Wide(type(get_task("parity"))):
        name = "wide"

        @property
        def states(self):
            return ("0", "11")

    wide = Wide()
    assert edit(EditPrompt(), 1, (0, 1), task=wide) is Reason.NO_OTHER_OPERAND
    assert edit(SwapPrefix(), 1, (0, 1), task=wide) is Reason.AMBIGUOUS
    assert edit(Swap(), WHOLE, (0,) * 12 + (1,), task=wide) is Reason.NO_OTHER_TRACE


def test_draws_are_seeded():
    same = [split(edit(Swap(), WHOLE, seed=1))[0] for _ in range(2)]
    assert same[0] == same[1] != split(edit(Swap(), WHOLE, seed=2))[0]


TREE = get_task("expressions-mod11")
PRODUCT = (1, 2 + 33, 3 + 22, 4 + 33)  # (1 + 2) * (3 + 4)


@pytest.mark.parametrize("seed", range(4))
def test_after_a_swapped_prefix_a_tree_takes_up_the_totals_that_stand_written(seed):
    """Both totals are another problem's; this prompt's last step multiplies them."""
    made = edit(SwapPrefix(), 2, PRODUCT, seed=seed, task=TREE)
    given, rest = split(made)
    first, second = parse_response(TREE, given).steps
    last = parse_response(TREE, given + rest).steps[2]
    assert (last.previous, last.operand, last.operator) == (first.total, second.total, 2)
    assert last.total == first.total * second.total % 11 == made.followed != 10


@pytest.mark.parametrize("seed", range(4))
def test_an_edited_prompt_of_a_tree_differs_in_one_value(seed):
    made = edit(EditPrompt(), 2, PRODUCT, seed=seed, task=TREE)
    given, _ = split(made)
    first, second, last = parse_response(TREE, given).steps
    assert (first.text, second.text[1:3], made.transcript.prompt) == ("1+2=3", "+4", "<((1+2)*(3+4))>")
    assert last.total == 3 * second.total % 11 == made.followed != 10
