"""Edits of a trace's own steps, each written out by hand for 3 + 4 + 5 + 6."""

import numpy as np
import pytest

from cotinterp.behavior.edit_kinds import (
    FILLER,
    WHOLE,
    Delete,
    FillSteps,
    FillTotals,
    Original,
    Permute,
    Reason,
    Truncate,
)
from cotinterp.tasks import get_task
from cotinterp.tasks.task import STRUCTURE
from cotinterp.transcripts.problems import solve
from cotinterp.transcripts.regimes import get_regime
from cotinterp.transcripts.roles import Role

SUM = get_task("digit-sum")


def edit(kind, regime="cot", step=WHOLE, operands=(3, 4, 5, 6), seed=0, task=SUM):
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
    made = edit(kind, regime, step)
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
    assert given(edit(Permute(), "totals")) in {"{12;18;7}", "{18;12;7}", "{7;18;12}", "{18;7;12}"}


def test_edits_of_a_chain_which_has_no_separators():
    """3+4+5+2 modulo 6 has the totals 1, 0, 2."""
    for kind, step, texts in (
        (Permute(), WHOLE, {"{021}", "{201}", "{120}", "{210}"}),
        (Truncate(), 2, {"{10}"}),
        (FillTotals(), WHOLE, {"{...}"}),
        (Delete(), 2, {"{13}"}),
    ):
        made = edit(kind, "chain", step, operands=(3, 4, 5, 2), task=get_task("z6"))
        assert given(made) in texts, kind.name


def test_a_permutation_that_cannot_tell_is_not_made():
    assert edit(Permute(), operands=(3, 4, 0, 0)) is Reason.AMBIGUOUS
    assert given(edit(Permute(), operands=(3, 4, 5, 0))) in {"{7+5=12;12+0=12;3+4=7}", "{12+0=12;7+5=12;3+4=7}"}


def test_filling_the_steps_of_bare_totals_is_filling_the_totals():
    assert edit(FillSteps(), "totals") is Reason.ONLY_TOTALS


def test_roles_and_values_stay_true():
    tokens = edit(Delete(), "cot", 1).transcript.tokens
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
    assert edit(Delete(), "cot", 1, operands=(1, 2, 3, 4), task=task).followed == without.answer


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
