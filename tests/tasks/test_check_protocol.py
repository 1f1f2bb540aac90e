"""Tasks that break one part of the protocol each are refused, with the part named."""

from dataclasses import replace

import pytest

from cotinterp.tasks import PromptSymbol, check_task, get_task

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
def test_broken_tasks_are_refused(broken, message):
    with pytest.raises(ValueError, match=message):
        check_task(broken())
