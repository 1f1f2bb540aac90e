"""Places of a transcript, counted by hand."""

import pytest

from cotinterp.models.handmade.layout import layouts, prompt_ends
from cotinterp.tasks import get_task
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
