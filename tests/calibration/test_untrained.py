"""Models that were never trained: scanned, and judged."""

from dataclasses import replace

import numpy as np
import pytest

from cotinterp.calibration.ground_truth import untrained_subject
from cotinterp.calibration.untrained import (
    LITTLE,
    SCANS,
    FalsePositives,
    NullClaims,
    NullVerdict,
    Scanned,
    false_positives,
    null_claims,
    untrained_world,
)
from cotinterp.claims.catalog import CATALOG
from cotinterp.results import wilson
from cotinterp.studies.answers import answers

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("scan", "least"), [("heads", 2), ("patching", 1), ("probes", 1)])
def test_a_scan_that_is_silent_on_untrained_models_speaks_on_a_reader(scan, least, models):
    reader = next(model for model in models if model.name == "reader (cot)")
    counts = SCANS[scan](reader, 0.05)
    assert counts.flagged >= least
    assert counts.cells > counts.flagged


def test_one_untrained_model_is_scanned_in_every_way():
    result = false_positives(1)
    assert [scan.scan for scan in result.scans] == list(SCANS)
    assert all(scan.cells >= 8 and scan.flagged <= scan.cells for scan in result.scans)


def test_the_share_is_that_of_models_with_any_flag():
    flagged, ungated = [2] + [0] * 19, [1] * 3 + [0] * 17
    scans = tuple(
        Scanned("heads", "z6", seed, 8, flagged=flagged[seed], ungated=ungated[seed], uncorrected=1)
        for seed in range(20)
    )
    table = FalsePositives(scans).frame().set_index("correction")
    assert table["models_flagged"].to_dict() == {"as reported": 1, "corrected, no gate": 3, "not corrected": 20}
    assert table.loc["as reported", ["share", "ci_low", "ci_high"]].tolist() == [0.05, *wilson(1, 20)]
    assert np.isclose(table["level"], 0.05).all()


def test_unknown_scans_are_named():
    with pytest.raises(ValueError, match=r"unknown scans \['tails'\]"):
        false_positives(1, scans=["tails"])


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
        "mixed": 0,
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
