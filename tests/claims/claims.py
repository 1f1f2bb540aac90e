"""Small claims for the tests."""

from cotinterp.claims.claim import Claim, Control, Criterion, Rival, Threshold


def heldout(regime):
    def statistic(cells):
        return cells.mean("accuracy", regime=regime, k=4, condition="heldout")

    return statistic


def criterion(name, regime, at=0.5, **more):
    return Criterion(name, f"accuracy of {regime}", heldout(regime), Threshold(at, "half"), **more)


ACCURATE = Claim(
    name="cot-is-accurate",
    statement="cot is right more often than not",
    source="the tests",
    criteria=(criterion("accuracy", "cot"),),
    predicts={"accuracy": "above"},
    rivals=(Rival("guesses", "it guesses", {"accuracy": "below"}),),
)

BOTH = Claim(
    name="both-are-accurate",
    statement="cot and direct are right more often than not",
    source="the tests",
    criteria=(criterion("cot", "cot"), criterion("direct", "direct")),
    predicts={"cot": "above", "direct": "above"},
    rivals=(Rival("cot alone", "", {"cot": "above", "direct": "below"}), Rival("neither", "", {"cot": "below"})),
)

CONTROLLED = Claim(
    name="controlled",
    statement="cot is right, and direct shows that the problems can be solved",
    source="the tests",
    criteria=(criterion("accuracy", "cot"),),
    predicts={"accuracy": "above"},
    controls=(Control("direct", "accuracy of direct", heldout("direct"), Threshold(0.9, "solved"), "above"),),
)
