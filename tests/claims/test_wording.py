from cotinterp.claims.judge import judge
from cotinterp.claims.verdict import standing
from tests.claims.claims import BOTH, CONTROLLED
from tests.claims.worlds import accuracies, evidence


def test_a_rival_stands_only_where_all_that_it_says_is_shown():
    alone, neither = BOTH.rivals
    assert standing(alone, {"cot": "above", "direct": "below"}) == "stands"
    assert standing(alone, {"cot": "above", "direct": None}) == "open"
    assert standing(alone, {"cot": None, "direct": "above"}) == "contradicted"
    assert standing(neither, {"direct": "above"}) == "open"


def test_a_broken_control_is_named_in_the_reason():
    made = evidence([*accuracies("cot", [0.9] * 5), *accuracies("direct", [0.2] * 5)])
    reason = judge(CONTROLLED, made).reason
    assert reason == (
        "A control does not pass, so nothing follows: direct 20.0 points does not pass (above 90.0 points)."
    )
