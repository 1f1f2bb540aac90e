"""Each kind of trace edit written out by hand for 3 + 4 + 5 + 6, and edits that need a second problem."""

import numpy as np
import pytest

from cotinterp.behavior.edit_kinds import (
    ALL_EDITS,
    FILLER,
    WHOLE,
    Delete,
    EditedTrace,
    EditKind,
    EditPrompt,
    FillSteps,
    FillTotals,
    Original,
    Permute,
    Reason,
    SubstituteTotal,
    Swap,
    SwapPrefix,
    Truncate,
    all_edits,
    get_edit,
)
from cotinterp.tasks import get_task
from cotinterp.tasks.task import STRUCTURE
from cotinterp.transcripts.parsing import parse_response
from cotinterp.transcripts.problems import solve, substitute_total
from cotinterp.transcripts.regimes import get_regime
from cotinterp.transcripts.render import render
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


def edit(kind, step=WHOLE, operands=(3, 4, 5, 6), *, seed=0, task=SUM, regime="cot"):
    (problem,) = solve(task, np.array([operands]))
    return kind.edit(Original(kind.name, task, get_regime(regime), problem, step, np.random.default_rng(seed)))


def given(made):
    return made.transcript.text[made.transcript.n_prompt : made.given]


@pytest.mark.parametrize(
    ("kind", "regime", "step", "text", "total", "followed"),
    [
        (Truncate(), "cot", 0, "{}", None, 3),
        (Truncate(), "cot", 1, "{3+4=7}", 7, 7),
        (Truncate(), "cot", 2, "{3+4=7;7+5=12}", 12, 12),
        (Truncate(), "totals", 2, "{7;12}", 12, 12),
        (FillTotals(), "cot", WHOLE, "{.+4=.;.+5=..;..+6=..}", None, None),
        (FillTotals(), "totals", WHOLE, "{.;..;..}", None, None),
        (FillSteps(), "cot", WHOLE, "{.....;......;.......}", None, None),
        (FillSteps(), "noisy", WHOLE, "{.....;......;.......}", None, None),
        (Delete(), "cot", 1, "{3+5=8;8+6=14}", 14, 14),
        (Delete(), "cot", 2, "{3+4=7;7+6=13}", 13, 13),
        (Delete(), "totals", 1, "{8;14}", 14, 14),
        (Delete(), "totals", 2, "{7;13}", 13, 13),
    ],
)
def test_edits_by_hand(kind, regime, step, text, total, followed):
    made = edit(kind, step, regime=regime)
    assert (given(made), made.total, made.followed, made.closed) == (text, total, followed, True)
    assert made.transcript.text.startswith("<3+4+5+6>{")
    assert (made.edit, made.step, made.problem.operands) == (kind.name, step, (3, 4, 5, 6))


@pytest.mark.parametrize(
    ("kind", "steps"),
    [
        (Truncate(), {2: [0], 3: [0, 1], 5: [0, 1, 2, 3]}),
        (FillTotals(), {2: [WHOLE], 5: [WHOLE]}),
        (FillSteps(), {2: [WHOLE], 5: [WHOLE]}),
        (Permute(), {2: [], 3: [WHOLE]}),
        (Delete(), {2: [], 3: [1], 5: [1, 2, 3]}),
    ],
)
def test_the_steps_that_each_is_made_at(kind, steps):
    assert {k: list(kind.steps(k)) for k in steps} == steps


def test_a_permuted_trace_ends_with_another_total_than_the_answer():
    drawn = {given(made): (made.total, made.followed) for made in (edit(Permute(), seed=seed) for seed in range(60))}
    assert drawn == {
        "{7+5=12;12+6=18;3+4=7}": (7, 7),
        "{12+6=18;7+5=12;3+4=7}": (7, 7),
        "{3+4=7;12+6=18;7+5=12}": (12, 12),
        "{12+6=18;3+4=7;7+5=12}": (12, 12),
    }
    assert given(edit(Permute(), regime="totals")) in {"{12;18;7}", "{18;12;7}", "{7;18;12}", "{18;7;12}"}


def test_edits_of_a_chain_which_has_no_separators():
    """3+4+5+2 modulo 6 has the totals 1, 0, 2."""
    for kind, step, texts in (
        (Permute(), WHOLE, {"{021}", "{201}", "{120}", "{210}"}),
        (Truncate(), 2, {"{10}"}),
        (FillTotals(), WHOLE, {"{...}"}),
        (Delete(), 2, {"{13}"}),
    ):
        made = edit(kind, step, regime="chain", operands=(3, 4, 5, 2), task=get_task("z6"))
        assert given(made) in texts, kind.name


def test_a_permutation_that_cannot_tell_is_not_made():
    assert edit(Permute(), operands=(3, 4, 0, 0)) is Reason.AMBIGUOUS
    assert given(edit(Permute(), operands=(3, 4, 5, 0))) in {"{7+5=12;12+0=12;3+4=7}", "{12+0=12;7+5=12;3+4=7}"}


def test_filling_the_steps_of_bare_totals_is_filling_the_totals():
    assert edit(FillSteps(), regime="totals") is Reason.ONLY_TOTALS


def test_roles_and_values_stay_true():
    tokens = edit(Delete(), 1).transcript.tokens
    totals = [(token.step, token.value, token.symbol) for token in tokens if token.role is Role.TOTAL]
    assert totals == [(2, 8, "8"), (3, 14, "1"), (3, 14, "4")]
    assert [(t.step, t.value) for t in tokens if t.role is Role.STEP_OPERAND] == [(2, 5), (3, 6)]
    filled = [token for token in edit(FillTotals()).transcript.tokens if token.symbol == FILLER]
    assert {(token.role, token.value) for token in filled} == {(Role.TOTAL, -1), (Role.PREVIOUS_TOTAL, -1)}
    ends = [t.step for t in edit(Permute()).transcript.tokens if t.role is Role.STEP_END]
    order = list(dict.fromkeys(t.step for t in edit(Permute()).transcript.tokens if t.role is Role.TOTAL))
    assert ends == order[:-1]
    assert FILLER in STRUCTURE


def test_deleting_composes_the_others_in_order_where_the_task_does_not_commute():
    task = get_task("s3")
    (without,) = solve(task, np.array([[1, 3, 4]]))
    (whole,) = solve(task, np.array([[1, 2, 3, 4]]))
    assert without.answer != whole.answer
    assert edit(Delete(), 1, operands=(1, 2, 3, 4), task=task).followed == without.answer


TREE = get_task("expressions-mod11")
PRODUCT = (1, 2 + 33, 3 + 22, 4 + 33)  # (1 + 2) * (3 + 4)


@pytest.mark.parametrize(
    ("kind", "step", "text", "followed"),
    [
        (Truncate(), 0, "{}", None),
        (Truncate(), 1, "{1+2=3}", 3),
        (Truncate(), 2, "{1+2=3;3+4=7}", 7),
        (Delete(), 1, "{3+4=7;1*7=7}", 7),
        (Delete(), 2, "{1+2=3;3*3=9}", 9),
        (FillTotals(), WHOLE, "{.+2=.;.+4=.;.*7=.}", None),
    ],
)
def test_edits_of_a_tree_by_hand(kind, step, text, followed):
    made = edit(kind, step=step, operands=PRODUCT, task=TREE)
    assert (given(made), made.followed) == (text, followed)
    assert made.transcript.text.startswith("<((1+2)*(3+4))>{")


AFFINE = get_task("affine-mod10")


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


COT = get_regime("cot")


def test_names():
    assert [kind.name for kind in ALL_EDITS] == [
        *("substitute_total", "swap", "swap_prefix", "truncate", "fill_totals", "fill_steps", "permute", "delete"),
        "edit_prompt",
    ]
    assert {kind.name for kind in ALL_EDITS if not kind.closed} == {"substitute_total", "swap_prefix"}
    assert len({kind.description for kind in ALL_EDITS}) == len(ALL_EDITS)
    assert get_edit("swap") is get_edit(ALL_EDITS[1]) is ALL_EDITS[1]
    with pytest.raises(KeyError, match="unknown edit 'swop'. Known: substitute_total, swap, swap_prefix"):
        get_edit("swop")


def test_all_wrong_totals_or_some_of_them():
    def texts(values):
        plan, _ = SubstituteTotal(values).plan(SUM, COT, [PROBLEM], 1, rng=np.random.default_rng(0))
        return [made.transcript.text[made.transcript.n_prompt : made.given] for made in plan]

    assert sorted(texts(None)) == [f"{{3+4={total}" for total in (0, 1, 2, 3, 4, 5, 6, 8, 9)]
    assert len(texts(2)) == 2
    assert all_edits(values_per_step=2)[0] == SubstituteTotal(2)
    with pytest.raises(ValueError, match="values_per_step must be 1 or more"):
        all_edits(values_per_step=0)


def test_one_wrong_total_as_any_other_edit():
    made = SubstituteTotal().edit(Original("substitute_total", SUM, COT, PROBLEM, 3, np.random.default_rng(0)))
    assert made.transcript.text[: made.given] == f"<3+4+5+6>{{3+4=7;7+5=12;12+6={made.total}"
    assert made.followed == made.total != 18
    affine = get_task("affine-mod10")
    (blind,) = solve(affine, np.array([[1, 2, 7]]))
    assert (
        SubstituteTotal().edit(Original("substitute_total", affine, COT, blind, 1, np.random.default_rng(0)))
        is Reason.AMBIGUOUS
    )
