"""Claims of the catalog, and claims of one's own."""

import itertools

import pytest

from cotinterp.calibration.claim_worlds import made_up_worlds
from cotinterp.claims.catalog import EVERY, get_claim
from cotinterp.claims.claim import THRESHOLDS
from cotinterp.claims.judge import judge
from tests.claims.worlds import accuracies, evidence

NAMES = [claim.name for claim in EVERY]


def test_the_claims_on_trial():
    assert NAMES == [
        "gap-widens",
        "gap-remains-when-learned",
        "direct-is-lookup",
        "direct-is-lookup-at-any-size",
        "direct-is-lookup-of-few",
        "cot-reads-written-totals",
        "running-totals-are-linear",
        "errors-are-bookkeeping",
        "tokens-carry-content",
        "depth-limits-direct",
        "wrong-steps-anchor-wrong-answers",
        "naive-training-hurts",
        "mixed-training-helps",
        "curriculum-not-content",
        "trace-helps-most",
        "rationale-training-leaves-running-totals",
        "hidden-state-distillation-helps",
        "internalized-computation-is-vertical",
        "distilled-computation-is-vertical",
        "small-models-are-hurt",
        "lora-helps-less",
        "positions-decide-length",
        "encoder-gains-nothing",
        "longer-thinking-beats-larger-model",
        "verifiers-beat-votes",
        "probes-know-wrong-steps",
        "reward-finds-the-same-heads",
        "reward-needs-some-demonstrations",
        "one-circuit-reads-every-step",
        "reader-appears-before-accuracy",
        "seeds-share-one-mechanism",
        "totals-are-causal-variables",
    ]


@pytest.mark.parametrize("claim", EVERY, ids=NAMES)
def test_every_claim_has_a_rival_that_some_criterion_can_tell_from_it(claim):
    assert claim.rivals
    for rival in claim.rivals:
        apart = [name for name, side in rival.predicts.items() if claim.predicts.get(name, side) != side]
        silent = [name for name in rival.predicts if name not in claim.predicts]
        assert apart or silent, rival.name


@pytest.mark.parametrize("claim", EVERY, ids=NAMES)
def test_some_criterion_tells_any_two_rivals_apart(claim):
    """No numbers could let both stand: on some criterion they predict opposite sides."""
    for one, other in itertools.combinations(claim.rivals, 2):
        assert any(other.predicts.get(name, side) != side for name, side in one.predicts.items()), (
            one.name,
            other.name,
        )


@pytest.mark.parametrize("claim", EVERY, ids=NAMES)
def test_every_rival_stands_alone_in_a_world_of_its_own(claim):
    worlds = [world for world in made_up_worlds() if world.claim == claim.name]
    assert {rival.name for rival in claim.rivals} <= {name for world in worlds for name in world.stands}
    assert all(len(world.stands) <= 1 for world in worlds)


@pytest.mark.parametrize("claim", EVERY, ids=NAMES)
def test_every_threshold_comes_from_the_one_file_and_has_a_reason(claim):
    for part in (*claim.criteria, *claim.controls):
        assert part.threshold in THRESHOLDS.values(), part.name
        assert len(part.threshold.reason) > 10


def test_no_threshold_is_declared_in_vain():
    used = {id(part.threshold) for claim in EVERY for part in (*claim.criteria, *claim.controls)}
    assert [name for name, threshold in THRESHOLDS.items() if id(threshold) not in used] == []


@pytest.mark.parametrize("claim", EVERY, ids=NAMES)
def test_every_claim_says_who_says_so_and_what_it_does_not_show(claim):
    assert all((claim.source, claim.limits, claim.evidence))
    assert claim.statement.endswith(".")


OWN = """
from cotinterp.claims import Claim, Criterion, Threshold


def accuracy(cells):
    return cells.mean("accuracy", regime="cot", k=4, condition="heldout")


EASY = Claim(
    name="easy",
    statement="It is easy.",
    source="nobody",
    criteria=(Criterion("accuracy", "accuracy of cot", accuracy, Threshold(0.5, "half")),),
    predicts={"accuracy": "above"},
)
NUMBER = 3
"""


def test_a_claim_of_the_catalog_by_its_name():
    assert get_claim("gap-widens") is EVERY[0]
    assert get_claim(EVERY[1]) is EVERY[1]
    with pytest.raises(KeyError, match="unknown claim 'gap'. Known: gap-widens, .*path/to/file.py:NAME"):
        get_claim("gap")


def test_a_claim_of_ones_own_is_judged(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(OWN)
    claim = get_claim(f"{path}:EASY")
    assert judge(claim, evidence(accuracies("cot", [0.9, 0.92, 0.91, 0.9, 0.93]))).verdict == "supported"
    assert judge(claim, evidence(accuracies("cot", [0.1, 0.12, 0.11, 0.1, 0.13]))).verdict == "not supported"


def test_what_is_no_claim_is_refused(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(OWN)
    with pytest.raises(ValueError, match=r"has no claim 'NUMBER'; claims in it: \['EASY'\]"):
        get_claim(f"{path}:NUMBER")
    with pytest.raises(FileNotFoundError, match="no claim file 'nowhere.py'"):
        get_claim("nowhere.py:EASY")
    (tmp_path / "text.txt").write_text("")
    with pytest.raises(ValueError, match="not a Python file"):
        get_claim(f"{tmp_path / 'text.txt'}:EASY")
