"""A task that a handmade model cannot do is refused, with one that it can."""

import pytest

from cotinterp.models.handmade import lookup, parallel, reader, recomputer
from cotinterp.tasks import FoldTask, get_task
from cotinterp.transcripts.problems import Problem

PROBLEM = Problem((1, 2), (1,), (2,), (3,))


class LateStart(FoldTask):
    """Its first total is not its first operand."""

    name = "late-start"
    operands = "012"
    commutative = True

    def initial(self, operand):
        return 2 - operand

    def step(self, total, operand):
        return (total + operand) % 3


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: reader("digit-sum"), "states are one symbol each.*'digit-sum' writes '10'"),
        (lambda: lookup("digit-sum", problems=[PROBLEM]), "lookup needs a task whose states are one symbol"),
        (
            lambda: lookup("expressions-mod11", problems=[PROBLEM]),
            "in the prompts of 'expressions-mod11' brackets move",
        ),
        (lambda: reader("pointers"), "'pointers' is no FoldTask"),
        (lambda: reader("random-labels"), "'random-labels' is no FoldTask"),
        (lambda: reader(LateStart()), "the states of 'late-start' must be its operands and `initial` the identity"),
        (lambda: recomputer("s3"), "sum of the operands modulo 6, but the step of 's3' takes 1 and 1 elsewhere"),
        (lambda: parallel("affine-mod10"), "parallel takes the sum of the operands modulo 10"),
        (lambda: reader("z6", "direct"), "in the regime 'totals' or 'cot', not 'direct'"),
        (lambda: recomputer("z6", "direct"), "recomputer writes running totals"),
        (lambda: reader("z6", k_range=(4, 3)), r"\(fewest, most\) operands, both included; got \(4, 3\)"),
        (lambda: parallel("z6", (1, 3)), "has 2 to 64 operands, not 1"),
        (lambda: reader("z6", "cot", (2, 3), n_ctx=21), "3 operands take 22 tokens in the regime 'cot'"),
        (lambda: lookup("z6", (2, 3), problems=[PROBLEM], n_ctx=8), "n_ctx 8 is too short"),
    ],
)
def test_what_does_not_fit_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_unknown_names_are_refused_where_they_are_looked_up():
    with pytest.raises(KeyError, match="unknown task 'z5'"):
        reader("z5")
    with pytest.raises(KeyError, match="unknown regime 'total'"):
        reader("z6", "total")


def test_a_longer_context_changes_nothing_but_the_room():
    assert reader(get_task("z6"), k_range=(2, 3), n_ctx=40).cfg.n_ctx == 40
    assert reader(get_task("z6"), k_range=(2, 3)).cfg.n_ctx == 14
