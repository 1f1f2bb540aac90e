import numpy as np
import pytest
from scipy import stats

from cotinterp.claims.cells import EvidenceIndex, MissingEvidence
from cotinterp.claims.estimate import Estimate, estimate
from cotinterp.studies.evidence import Evidence
from tests.claims.worlds import accuracies, evidence, rows

pytestmark = pytest.mark.slow


def accuracy(cells):
    return cells.mean("accuracy", regime="cot", k=4, condition="heldout")


def estimate_of(made, **options):
    return estimate(accuracy, EvidenceIndex(made), "toy", **options)


def of(shares, n=1000):
    return estimate(accuracy, EvidenceIndex(evidence(accuracies("cot", shares, n=n))), "toy")


def test_the_value_is_the_mean_over_seeds():
    found = of([0.5, 0.6, 0.7])
    assert found.value == pytest.approx(0.6)
    assert found.by_seed == {0: 0.5, 1: 0.6, 2: 0.7}
    assert found.n == 3000


def test_seeds_are_the_unit_not_problems():
    # A thousand problems a seed would give 0.007; what counts is how far the five seeds lie apart.
    shares = [0.2, 0.4, 0.5, 0.6, 0.8]
    between = float(np.std(shares, ddof=1)) / np.sqrt(5)
    assert of(shares).error == pytest.approx(between, rel=0.1)
    assert of(shares, n=100_000).error == pytest.approx(between, rel=0.1)


def test_problems_count_where_seeds_agree():
    alone = np.sqrt(0.25 / 5000 * 5 / 4)
    assert of([0.5] * 5, n=1000).error == pytest.approx(alone, rel=0.1)
    assert of([0.5] * 5, n=4000).error == pytest.approx(of([0.5] * 5, n=1000).error / 2, rel=0.1)


def test_problems_that_all_seeds_share_count_once():
    # If all seeds err alike, five of them say no more about the choice of problems than one does.
    parts = accuracies("cot", [0.5] * 5, n=1000)
    shared = evidence(parts, [{"task": "toy", "run_seed": seed, "draw": 7} for seed in range(5)])
    once, few = 0.25 / 1000, 0.25 / 5000 / 4
    assert estimate_of(shared).error == pytest.approx(np.sqrt(once + few), rel=0.1)
    # Two draws, of two seeds and of three: between the two.
    halves = evidence(parts, [{"task": "toy", "run_seed": seed, "draw": seed % 2} for seed in range(5)])
    assert estimate_of(halves).error == pytest.approx(np.sqrt(once * 13 / 25 + few), rel=0.1)
    # Nothing is known of the runs: the worst is taken to be so.
    assert estimate_of(Evidence(shared.table)).error == estimate_of(shared).error
    pooled = estimate_of(shared, pool=True)
    assert pooled.error == pytest.approx(np.sqrt(once + few), rel=0.1)


def test_what_one_seed_shows_by_itself():
    found = of([0.2, 0.5, 0.8, 0.51], n=1000)
    assert found.shown(0.5, 0.001) == ((2,), (0,))
    assert found.error_by_seed[1] == pytest.approx(np.sqrt(0.25 / 1000), rel=0.1)
    assert of([0.2, 0.8], n=4).shown(0.5, 0.001) == ((), ())


def test_the_interval_is_students():
    found = of([0.2, 0.4, 0.5, 0.6, 0.8])
    low, high = found.interval
    assert (high - low) / 2 == pytest.approx(stats.t.ppf(0.975, 4) * found.error)
    assert found.p_above(low) == pytest.approx(0.025)
    assert found.p_below(high) == pytest.approx(0.025)


def test_one_seed_has_an_interval_over_problems_alone():
    found = of([0.5])
    assert found.freedom == float("inf")
    assert found.error == pytest.approx(np.sqrt(0.25 / 1000), rel=0.1)


def test_what_could_have_been_seen_grows_with_the_spread_and_shrinks_with_the_level():
    wide, narrow = (Estimate(0.5, error, dict.fromkeys(range(5), 0.5), 5) for error in (0.1, 0.01))
    assert wide.detectable(0.05) == pytest.approx(10 * narrow.detectable(0.05))
    assert wide.detectable(0.001) > wide.detectable(0.05)
    assert wide.detectable(0.05) == pytest.approx(0.1 * (stats.t.ppf(0.95, 4) + stats.t.ppf(0.8, 4)))


def test_what_cannot_vary_has_no_error():
    exact = Estimate(0.5, 0.0, {0: 0.5, 1: 0.5}, 2)
    assert (exact.p_above(0.4), exact.p_above(0.6), exact.p_above(0.5)) == (0.0, 1.0, 1.0)


def test_a_seed_without_the_cell_is_left_out_and_all_of_them_raise():
    made = evidence([*accuracies("cot", [0.5, 0.6]), rows("accuracy", 5, 10, regime="direct", seed=2)])
    assert set(estimate(accuracy, EvidenceIndex(made), "toy").by_seed) == {0, 1}
    with pytest.raises(MissingEvidence, match="'edit'"):
        estimate(lambda cells: cells.mean("edit", regime="cot"), EvidenceIndex(made), "toy")


def test_a_pooled_share_weighs_cases_not_seeds():
    parts = [rows("error_kind", 9, 10, seed=0, condition="x"), rows("error_kind", 0, 90, seed=1, condition="x")]

    def share(cells):
        return cells.mean("error_kind", regime="cot", condition="x")

    made = EvidenceIndex(evidence(parts))
    assert estimate(share, made, "toy", pool=True).value == pytest.approx(0.09)
    assert estimate(share, made, "toy").value == pytest.approx(0.45)
    assert estimate(share, made, "toy", pool=True).n == 100


def test_five_seeds_cover_what_they_should():
    rng, inside = np.random.default_rng(1), 0
    for _ in range(60):
        found = of(np.clip(rng.normal(0.5, 0.05, size=5), 0, 1).tolist(), n=400)
        low, high = found.interval
        inside += low <= 0.5 <= high
    # 95% of 60 is 57; a percentile interval of five seeds would hold about 50.
    assert inside >= 54
