"""Mistakes of a task that the check finds."""

from dataclasses import replace

import pytest

from cotinterp.tasks import FoldTask, PromptSymbol, check_task, get_task, measure_commutative, task_names

pytestmark = pytest.mark.slow


def toy(**attributes):
    base = {
        "name": "toy",
        "operands": "012",
        "commutative": True,
        "step": lambda self, total, operand: (total + operand) % 3,
    }
    return type("Toy", (FoldTask,), {**base, **attributes})()


@pytest.mark.parametrize("name", task_names())
def test_every_task_of_ours_passes(name):
    check_task(get_task(name))


@pytest.mark.parametrize("name", task_names())
def test_the_commutative_flag_is_what_is_measured(name):
    task = get_task(name)
    assert (measure_commutative(task) is None) == task.commutative


def test_the_counterexample_is_one():
    task = get_task("s3")
    found = measure_commutative(task, k=2)
    assert task.table[found] != task.table[found[::-1]]


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"commutative": False}, "says commutative = False"),
        ({"step": lambda self, total, operand: operand}, "says commutative = True"),
        ({"operands": "01;"}, "which the transcript needs"),
        ({"operands": "01*"}, "which the transcript needs"),
        ({"operator": ">"}, "which the transcript needs"),
        ({"operator": "**"}, "written as one symbol"),
        ({"operands": ("0", "10")}, "written as one symbol"),
        ({"operands": "00"}, "distinct"),
        ({"operands": "0"}, "distinct"),
        ({"name": "My Task"}, "kebab-case"),
        ({"min_k": 1}, "2 <= min_k"),
        ({"step": lambda self, total, operand: total + operand}, "leaves its 3 states"),
    ],
)
def test_broken_tasks_are_refused(attributes, message):
    check_task(toy())
    with pytest.raises(ValueError, match=message):
        check_task(toy(**attributes))


def test_a_forgotten_attribute_is_named():
    bare = type("Bare", (FoldTask,), {"operands": "01", "commutative": True, "step": lambda self, t, x: t ^ x})()
    with pytest.raises(ValueError, match="sets no `name`"):
        check_task(bare)


TREE = type(get_task("expressions-mod11"))
CHASE = type(get_task("pointers"))


class WithoutOperators(TREE):
    def resume_from(self, operands, written):
        return replace(super().resume_from(operands, written), operator=None)


class WideOperands(CHASE):
    operands = "01"


class Forgetful(TREE):
    """Takes up the true totals, whatever is written."""

    def resume_from(self, operands, written):
        rest = super().resume_from(operands, written)
        return replace(rest, total=(rest.total + (written.shape[1] == 2)) % 11)


class SaysInOrder(CHASE):
    in_order = True


class Unbracketed(TREE):
    brackets = "("


class Shortened(TREE):
    def prompt(self, operands):
        symbols = list(super().prompt(operands))
        return iter(symbols[1:-1] if operands[0] % 2 else symbols)


class Misnamed(TREE):
    def prompt(self, operands):
        for symbol in super().prompt(operands):
            yield symbol._replace(value=0) if symbol.kind == "operand" else symbol


class Twice(CHASE):
    def prompt(self, operands):
        for symbol in super().prompt(operands):
            yield symbol._replace(number=0) if symbol.kind == "operand" else symbol


class OfAnotherProblem(TREE):
    """Keeps the values and forgets operators and levels."""

    def canonical(self, operands):
        return operands % 11


class Restless(CHASE):
    def canonical(self, operands):
        return (operands + 1) % operands.shape[1]

    def prompt(self, operands):
        return iter([PromptSymbol("0", "operand", number, 0) for number in range(len(operands))])


class NotCanonical(TREE):
    """Levels stay what they were, so one prompt has many tuples of codes."""

    def canonical(self, operands):
        return operands


class Incomplete(CHASE):
    def every(self, k):
        return super().every(k)[1:]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (WithoutOperators, "has 3 operators, but its steps name none"),
        (WideOperands, "indices below 2, one row a problem"),
        (Forgetful, "from the right totals up to 2 goes another way"),
        (SaysInOrder, r"says in_order = True.*set in_order = False"),
        (Unbracketed, r"brackets \(two or none\) must differ, got '\+-\*\('"),
        (Shortened, "at several lengths"),
        (Misnamed, "the value of an operand is the index of its symbol"),
        (Twice, r"writes the operands \[0, 0\]"),
        (OfAnotherProblem, "codes of another problem"),
        (Restless, "changes codes that are canonical already"),
        (NotCanonical, "problems of 2 operands have|must list n_problems"),
        (Incomplete, r"every\(2\) must list n_problems\(2\) = 4"),
    ],
)
def test_tasks_that_break_the_protocol_are_refused(broken, message):
    with pytest.raises(ValueError, match=message):
        check_task(broken())
