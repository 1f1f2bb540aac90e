"""What adapters, positions and encoders are compared with, by hand."""

import pytest

from cotinterp.claims.cells import EvidenceIndex, MissingEvidence, measured_cells, unconverged_seeds
from cotinterp.claims.designs import beyond_places, lost_by_adapter, missed
from tests.claims.worlds import evidence, rows


def cells(parts, runs=()):
    return measured_cells(EvidenceIndex(evidence(parts, runs)), "toy", 0)


def at(rate, variant, **more):
    return rows("accuracy", round(100 * rate), 100, variant=variant, **more)


def test_an_adapter_is_taken_at_the_better_of_its_rates_and_need_not_have_learned():
    rates = {"from-other-all": 0.9, "from-other-rank4-x1": 0.3, "from-other-rank4-x5": 0.7}
    runs = [{"task": "toy", "regime": "cot", "variant": variant, "status": "unconverged"} for variant in rates]
    made = cells([at(rate, variant) for variant, rate in rates.items()], runs)
    assert lost_by_adapter(made, "from-other-") == pytest.approx(0.2)
    assert unconverged_seeds(made, [0]) == ()
    with pytest.raises(MissingEvidence, match="--part adapters"):
        lost_by_adapter(made, "from-same-")


def test_distances_are_compared_with_numbered_places_over_the_longer_lengths_alone():
    rates = {"rotary": 0.5, "alibi": 0.9, "standard": 0.1, "sinusoidal": 0.3}
    parts = [at(rate, f"positions-{name}", condition="beyond", k=k) for name, rate in rates.items() for k in (7, 8)] + [
        at(1.0, "positions-standard")
    ]
    assert beyond_places(cells(parts), ("rotary", "alibi")) == pytest.approx(0.5)


def test_a_rationale_is_missed_by_what_it_is_worth_in_the_input():
    of = {"regime": "label-after-trace", "variant": "encoder"}
    assert missed(cells([at(0.9, **of), at(0.2, condition="without", **of)])) == pytest.approx(0.7)
