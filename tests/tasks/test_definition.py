"""What a task is, in sixteen digits: what changes it, what does not, and names that two tasks cannot share."""

import numpy as np
import pytest

from cotinterp.tasks import FoldTask, get_task, task_names
from cotinterp.tasks.definition import check_definition, check_one_definition, task_definition
from cotinterp.tasks.guard import is_ours

TREE = type(get_task("expressions-mod11"))
POINTERS = type(get_task("pointers"))


class Counter(FoldTask):
    """How much was added up, up to a limit that only long problems reach."""

    name = "counter"
    operands = "0123"
    commutative = True
    max_k = 20
    limit = 40

    @property
    def states(self):
        return tuple(map(str, range(61)))

    def step(self, total, operand):
        return np.minimum(total + operand, self.limit)


class SameAgain(Counter):
    pass


class OtherFarAway(Counter):
    limit = 55


class OtherStart(Counter):
    def initial(self, operand):
        return 3 - operand


class OtherSymbols(Counter):
    operands = "0132"


class OtherPrompt(Counter):
    def prompt(self, operands):
        return iter([*super().prompt(operands)][::-1])


class OneOperationDiffers(TREE):
    def combine(self, left, operator, right):
        one = (left == 10) & (operator == 2) & (right == 10)
        return np.where(one, 0, super().combine(left, operator, right))


class OtherLongTables(POINTERS):
    """Goes on as ever up to eleven entries, and stands still at twelve."""

    def steps(self, operands):
        steps = super().steps(operands)
        return super().steps(operands * 0) if operands.shape[1] == 12 else steps


def test_a_definition_is_of_what_is_computed_not_of_the_class():
    assert task_definition(Counter()) == task_definition(Counter()) == task_definition(SameAgain())


@pytest.mark.parametrize(
    ("changed", "of"),
    [(OtherFarAway, Counter), (OtherStart, Counter), (OtherSymbols, Counter), (OtherPrompt, Counter)]
    + [(OneOperationDiffers, TREE), (OtherLongTables, POINTERS)],
)
def test_what_any_problem_could_show_is_another_definition(changed, of):
    assert task_definition(changed()) != task_definition(of())


def test_a_longer_reach_is_no_other_task_where_no_state_is_added():
    z6 = type(get_task("z6"))
    assert task_definition(type("Longer", (z6,), {"max_k": 70})()) == task_definition(get_task("z6"))


def test_the_tasks_of_the_package_differ_and_are_told_from_others():
    assert len({task_definition(get_task(name)) for name in task_names()}) == len(task_names())
    assert is_ours(type(get_task("s3")))
    assert not is_ours(Counter)


def test_a_definition_is_the_same_on_every_machine():
    assert task_definition(get_task("s3")) == "af807a670b64e8f9"


def test_stored_numbers_of_another_task_of_that_name_are_refused():
    here = task_definition(Counter())
    check_definition(Counter(), [here, ""], "the table")
    with pytest.raises(ValueError, match="the table has task 'counter' by another definition .* Restore the old one"):
        check_definition(OtherFarAway(), [here], "the table")
    check_one_definition([("a", "1"), ("a", ""), ("b", "2")], "it")
    with pytest.raises(ValueError, match="it has two different tasks of the name 'a', by definitions 1 and 2"):
        check_one_definition([("a", "1"), ("a", "2")], "it")


OWN = """
from cotinterp.tasks import FoldTask
class Own(FoldTask):
    name, operands, commutative, max_k = "{name}", "0123456789", True, 12
    states = property(lambda self: tuple(map(str, range(121))))
    def step(self, total, operand):
        return total + operand{more}
"""


def test_a_task_of_ones_own_cannot_have_the_name_of_another(tmp_path):
    file = tmp_path / "own.py"
    file.write_text(OWN.format(name="digit-sum", more=" + 1"))
    with pytest.raises(ValueError, match=r"own.py:Own has the name 'digit-sum', which is taken by .*DigitSum, another"):
        get_task(f"{file}:Own")
    file.write_text(OWN.format(name="digit-sums", more=" + 1"))
    assert get_task(f"{file}:Own").name == "digit-sums"


def test_a_file_that_was_just_changed_is_read_anew(tmp_path):
    """Not from the bytecode that Python keeps for a file of the same size and second."""
    file, found = tmp_path / "own.py", []
    for more in (" + 0", " + 1"):
        file.write_text(OWN.format(name="own", more=more))
        found.append(task_definition(get_task(f"{file}:Own")))
    assert found[0] != found[1]
    assert not (tmp_path / "__pycache__").exists()
