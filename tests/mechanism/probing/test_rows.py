"""What a place can see of a total, by hand: operands before anything is written, the written total afterwards."""

import numpy as np

from cotinterp.mechanism.probing.totals import beginnings, in_order, is_written, last_written
from cotinterp.tasks import get_task
from cotinterp.transcripts.batch import Batch, collate
from cotinterp.transcripts.problems import solve
from cotinterp.transcripts.render import render
from cotinterp.transcripts.roles import Role
from cotinterp.transcripts.vocabulary import Vocabulary

# Totals 7, 12 and 7, 12 and 7, 13 and 12, 17: the first two problems arrive at the same totals.
OPERANDS = [[3, 4, 5], [4, 3, 5], [3, 4, 6], [9, 3, 5]]


def written_out(regime: str) -> Batch:
    task = get_task("digit-sum")
    problems = solve(task, np.array(OPERANDS))
    return collate([render(task, problem, regime) for problem in problems], Vocabulary.of(task))


def types(batch: Batch, role: Role, step: int, target: int) -> list[int]:
    numbers = beginnings(batch, batch.where(role, step, part=-1), target).tolist()
    return [numbers.index(one) for one in numbers]


def test_last_written_total() -> None:
    batch = written_out("cot")
    for role, step, expected in (
        (Role.OPERAND, 2, 0),
        (Role.EQUALS, 1, 0),
        (Role.TOTAL, 1, 1),
        (Role.STEP_END, 1, 1),
        (Role.EQUALS, 2, 1),
        (Role.TOTAL, 2, 2),
        (Role.ANSWER, 2, 2),
    ):
        assert last_written(batch, batch.where(role, step, part=-1)).tolist() == [expected] * 4
    direct = written_out("direct")
    assert last_written(direct, direct.where(Role.PROMPT_END)).tolist() == [0] * 4
    assert last_written(direct, direct.where(Role.ANSWER, 2, part=-1)).tolist() == [2] * 4


def test_after_a_written_total_the_input_is_that_total_and_what_follows() -> None:
    batch = written_out("cot")
    # Before anything is written: all operands up to the target.
    assert types(batch, Role.EQUALS, 1, 2) == [0, 1, 2, 3]
    assert types(batch, Role.EQUALS, 1, 1) == [0, 1, 0, 3]
    # After 7: the total and the last operand. The third differs in the operand, the fourth in the total.
    assert types(batch, Role.EQUALS, 2, 2) == [0, 0, 2, 3]
    assert types(batch, Role.STEP_END, 1, 2) == [0, 0, 2, 3]
    # What has been written is its own input: 7, 7, 7 and 12.
    assert types(batch, Role.EQUALS, 2, 1) == [0, 0, 0, 3]


def chases(*tables: tuple[int, ...]) -> Batch:
    task = get_task("pointers")
    return collate([render(task, problem, "cot") for problem in solve(task, np.array(tables))], Vocabulary.of(task))


def test_without_the_order_of_a_fold_an_input_is_all_that_stands_there() -> None:
    """Tables 2,0,1 and 2,1,1 go 0, 2, 1 and differ in an entry that no step reads; 1,0,2 goes 0, 1, 0."""
    batch = chases((2, 0, 1), (2, 1, 1), (1, 0, 2), (2, 0, 1))
    assert not in_order(batch)
    assert types(batch, Role.OPERAND, 0, 2) == [0, 0, 2, 0]
    assert types(batch, Role.PROMPT_END, -1, 2) == types(batch, Role.EQUALS, 2, 2) == [0, 1, 2, 0]


def test_copies_of_a_total_are_known_only_in_order() -> None:
    copies = [(Role.PREVIOUS_TOTAL, 2), (Role.PREVIOUS_TOTAL, 3), (Role.STEP_OPERAND, 1), (Role.STEP_OPERAND, 2)]
    assert [is_written(role, step, 1) for role, step in copies] == [True, False, False, False]
    assert all(is_written(role, step, 1, in_order=False) for role, step in copies)
    assert not is_written(Role.STEP_OPERAND, 1, 2, in_order=False)
    assert not is_written(Role.EQUALS, 2, 1, in_order=False)
