"""Where totals are probed: before they are written, whatever the regime writes."""

import numpy as np
import pytest

from cotinterp.mechanism.probing.totals import is_written
from cotinterp.studies.protocol import before_total, places_of
from cotinterp.tasks import get_task
from cotinterp.transcripts.problems import solve
from cotinterp.transcripts.regimes import get_regime, regime_names
from cotinterp.transcripts.render import render
from cotinterp.transcripts.roles import Role

TASK = get_task("digit-sum")
(PROBLEM,) = solve(TASK, np.array([[3, 4, 5, 6]]))


def shown(regime, target):
    transcript = render(TASK, PROBLEM, regime)
    symbols = {(token.role, token.step): token.symbol for token in transcript.tokens}
    return {word: symbols[place] for word, place in places_of(transcript, target).items()}


def test_places_by_hand():
    assert shown("direct", 2) == {"operand": "5", "prompt_end": ">"}
    assert shown("filler", 2) == shown("direct", 2)
    assert shown("cot", 2) == {"equals": "="} == shown("noisy", 2)
    assert shown("totals", 1) == {"before_total": "{"}
    assert shown("totals", 3) == {"before_total": ";"}
    assert places_of(render(TASK, PROBLEM, "cot"), 3) == {"equals": (Role.EQUALS, 3)}


@pytest.mark.parametrize("regime", regime_names())
def test_none_of_the_places_comes_before_its_operand_or_after_its_total(regime):
    transcript = render(TASK, PROBLEM, regime)
    order = [(token.role, token.step) for token in transcript.tokens]
    for target in (1, 2, 3):
        for role, step in places_of(transcript, target).values():
            assert not is_written(role, step, target)
            assert order.index((Role.OPERAND, target)) <= order.index((role, step))
            if get_regime(regime).writes_totals:
                assert order.index((role, step)) < order.index((Role.TOTAL, target))


def test_the_symbol_before_a_total_is_next_to_it_and_there_is_none_without_totals():
    transcript = render(TASK, PROBLEM, "cot")
    ((place),) = before_total(transcript, 3).values()
    order = [(token.role, token.step) for token in transcript.tokens]
    assert order.index(place) + 1 == order.index((Role.TOTAL, 3))
    assert before_total(render(TASK, PROBLEM, "direct"), 3) == {}
