import pytest

from cotinterp.claims.claim import Claim, Control, Criterion, Rival, Threshold
from tests.claims.claims import ACCURATE


def test_a_prediction_about_nothing_is_refused():
    with pytest.raises(ValueError, match=r"rival 'guesses' speaks of \['speed'\]; its criteria are \['accuracy'\]"):
        Claim("c", "s", "o", ACCURATE.criteria, {"accuracy": "above"}, (Rival("guesses", "", {"speed": "below"}),))
    with pytest.raises(ValueError, match="the claim speaks of"):
        Claim("c", "s", "o", ACCURATE.criteria, {"accuracy": "above"}, decisive=frozenset({"speed"}))


def test_a_claim_must_predict_something_and_on_a_side():
    with pytest.raises(ValueError, match="predicts nothing"):
        Claim("c", "s", "o", ACCURATE.criteria, {})
    # The shape checks of the tests are faster than the claim itself.
    with pytest.raises((ValueError, TypeError), match="'above'"):
        Claim("c", "s", "o", ACCURATE.criteria, {"accuracy": "high"})  # type: ignore[dict-item]


def test_two_criteria_of_one_name_are_refused():
    (one,) = ACCURATE.criteria
    with pytest.raises(ValueError, match="criteria of one name"):
        Claim("c", "s", "o", (one, one), {"accuracy": "above"})


def test_a_threshold_moves_alone():
    one, other = (
        Criterion(name, "", lambda cells: cells.mean("accuracy", regime="cot"), Threshold(0.5, "half"))
        for name in ("one", "other")
    )
    control = Control("learned", "", one.statistic, Threshold(0.4, ""), "above")
    claim = Claim("c", "s", "o", (one, other), {"one": "above"}, controls=(control,))
    moved = claim.with_threshold("one", 1.1)
    assert [x.threshold.value for x in moved.criteria] == pytest.approx([0.55, 0.5])
    assert claim.with_threshold("learned", 0.5).controls[0].threshold.value == pytest.approx(0.2)
    assert moved.criteria[0].threshold.reason == "half"


def test_a_line_that_nothing_can_cross_is_no_threshold():
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="a threshold is a finite number"):
            Threshold(value, "none")


def test_a_rival_that_predicts_nothing_is_refused():
    with pytest.raises(ValueError, match=r"the rivals \['guesses'\] predict nothing, so no number could tell them"):
        Claim("c", "s", "o", ACCURATE.criteria, {"accuracy": "above"}, (Rival("guesses", "", {}),))


def claim_with(control, *parts):
    return Claim("c", "s", "o", ACCURATE.criteria, {"accuracy": "above"}, controls=(control(*parts),))


def test_a_control_needs_a_side_and_a_name_of_its_own():
    (one,) = ACCURATE.criteria
    for name, side, said in (("learned", "Above", "'above'"), ("accuracy", "above", "of one name")):
        with pytest.raises((ValueError, TypeError), match=said):
            claim_with(Control, name, "", one.statistic, Threshold(0.4, ""), side)
