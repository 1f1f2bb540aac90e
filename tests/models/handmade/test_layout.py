"""Places of a transcript, counted by hand; a task that a handmade model cannot do is refused, with one that it can."""

import pytest

from cotinterp.models.handmade import lookup, parallel, reader, recomputer
from cotinterp.models.handmade.layout import layouts, prompt_ends
from cotinterp.tasks import FoldTask, get_task
from cotinterp.transcripts.problems import Problem
from cotinterp.transcripts.roles import Role


def layout(regime):
    return layouts(get_task("z6"), regime, (3, 3))[0]


def sources(regime):
    place = layout(regime)
    return {(at, str(token.role)): place.sources(at, token) for at, token in place.predictions()}


def test_where_a_reader_of_totals_finds_what_it_needs():
    """`<a*b*c>{d;e}e#`: operands at 1, 3, 5, totals at 8 and 10."""
    assert sources("totals") == {
        (6, "trace_start"): (None, None),
        (7, "total"): (1, 3),
        (8, "step_end"): (None, None),
        (9, "total"): (8, 5),
        (10, "trace_end"): (None, None),
        (11, "answer"): (10, None),
        (12, "end"): (None, None),
    }


def test_where_a_reader_of_whole_steps_finds_what_it_needs():
    """`<a*b*c>{a*b=d;d*c=e}e#`: the step repeats what it is computed from at 8, 10 and at 14, 16."""
    read = {place: found for place, found in sources("cot").items() if found != (None, None)}
    assert read == {
        (7, "previous_total"): (1, None),
        (9, "step_operand"): (None, 3),
        (11, "total"): (8, 10),
        (13, "previous_total"): (12, None),
        (15, "step_operand"): (None, 5),
        (17, "total"): (14, 16),
        (19, "answer"): (18, None),
    }


def test_one_layout_for_each_number_of_operands():
    places = layouts(get_task("parity"), "direct", (2, 4))
    assert prompt_ends(places) == {2: 4, 3: 6, 4: 8}
    assert [len(place.tokens) for place in places] == [7, 9, 11]


def test_a_place_that_is_not_there_is_named():
    with pytest.raises(KeyError, match="a transcript of 3 operands has no total of step 3"):
        layout("totals").where(Role.TOTAL, 3)


PROBLEM = Problem((1, 2), (1,), (2,), (3,))


class LateStart(FoldTask):
    """Its first total is not its first operand."""

    name = "late-start"
    operands = "012"
    commutative = False

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
