import pytest

from cotinterp.claims.catalog import CATALOG
from cotinterp.claims.claim import THRESHOLDS

NAMES = [claim.name for claim in CATALOG]


def test_the_claims_on_trial():
    assert NAMES == [
        "gap-widens",
        "direct-is-lookup",
        "cot-reads-written-totals",
        "running-totals-are-linear",
        "errors-are-bookkeeping",
        "tokens-carry-content",
        "depth-limits-direct",
        "wrong-steps-anchor-wrong-answers",
    ]


@pytest.mark.parametrize("claim", CATALOG, ids=NAMES)
def test_every_claim_has_a_rival_that_some_criterion_can_tell_from_it(claim):
    assert claim.rivals
    for rival in claim.rivals:
        apart = [name for name, side in rival.predicts.items() if claim.predicts.get(name, side) != side]
        silent = [name for name in rival.predicts if name not in claim.predicts]
        assert apart or silent, rival.name


@pytest.mark.parametrize("claim", CATALOG, ids=NAMES)
def test_every_threshold_comes_from_the_one_file_and_has_a_reason(claim):
    for part in (*claim.criteria, *claim.controls):
        assert part.threshold in THRESHOLDS.values(), part.name
        assert len(part.threshold.reason) > 10


def test_no_threshold_is_declared_in_vain():
    used = {id(part.threshold) for claim in CATALOG for part in (*claim.criteria, *claim.controls)}
    assert [name for name, threshold in THRESHOLDS.items() if id(threshold) not in used] == []


@pytest.mark.parametrize("claim", CATALOG, ids=NAMES)
def test_every_claim_says_who_says_so_and_what_it_does_not_show(claim):
    assert all((claim.source, claim.limits, claim.evidence))
    assert claim.statement.endswith(".")
