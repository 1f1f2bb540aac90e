"""Nothing is supported by models that were never trained, and the table counts what is."""

from dataclasses import replace

import pytest

from cotinterp.calibration.claim_subjects import untrained_subject
from cotinterp.calibration.untrained import LITTLE, NullClaims, NullVerdict, null_claims, untrained_world
from cotinterp.claims.catalog import CATALOG
from cotinterp.results import wilson
from cotinterp.studies.answers import answers

FEW = ("gap-widens", "errors-are-bookkeeping", "tokens-carry-content", "depth-limits-direct")


def test_no_claim_is_supported_by_untrained_models():
    # The measures of answers, which every model has, cost little; the others are part of the command.
    asked = [claim for claim in CATALOG if claim.name in FEW]
    result = null_claims(1, catalog=asked, effort=replace(LITTLE, evaluated=8), measures=[answers])
    assert [one.claim for one in result.verdicts] == list(FEW)
    assert [f"{one.claim}: {one.verdict} ({one.reason})" for one in result.false] == []


def test_a_world_has_five_seeds_of_every_regime():
    subjects = untrained_world(1)
    kinds = [(subject.regime, subject.variant) for subject in subjects]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        ("cot", ""): 5,
        ("direct", ""): 5,
        ("filler", ""): 5,
        ("direct", "L1"): 5,
    }
    assert {subject.task.name for subject in subjects} == {"s3"}
    assert [subject.run_seed for subject in subjects[:5]] == [0, 1, 2, 3, 4]


def test_worlds_are_of_different_models():
    one, same, other = (next(untrained_subject("z6", "cot", 0, world=world).model.parameters()) for world in (1, 1, 2))
    assert one.equal(same)
    assert not one.equal(other)


def test_the_share_is_that_of_worlds_wholly_or_partly_supported():
    words = ["supported", "partly supported", "not supported", *["inconclusive"] * 17]
    result = NullClaims(tuple(NullVerdict(i, "z6", "a", word, "why") for i, word in enumerate(words)))
    (row,) = result.frame().to_dict("records")
    low, high = wilson(2, 20)
    assert row == {
        "claim": "a",
        "worlds": 20,
        "supported": 1,
        "partly_supported": 1,
        "not_supported": 1,
        "inconclusive": 17,
        "share_false": 0.1,
        "ci_low": low,
        "ci_high": high,
    }
    assert [one.world for one in result.false] == [0, 1]
    assert len(result.examples()) == 20
    assert result.figure().data


def test_no_worlds_are_refused():
    with pytest.raises(ValueError, match="0 worlds: at least one is needed"):
        null_claims(0)
