"""What is compared at equal operations, and which heads two models share, by hand."""

import numpy as np
import pytest

from cotinterp.claims.cells import EvidenceIndex, MissingEvidence, measured_cells, unconverged_seeds
from cotinterp.claims.inference import (
    beyond_base,
    equal_flops_gain,
    largest_effect,
    overlap,
    overlap_by_chance,
    paid_votes,
    times_larger,
)
from cotinterp.studies.evidence import SEARCH_DRAWS, SearchCondition, tally
from tests.claims.worlds import evidence, rows


def cells(parts, runs=()):
    return measured_cells(EvidenceIndex(evidence(parts, runs)), "toy", 0)


def constant(measure, value, **labels):
    """One cell of one problem."""
    named = {"task": "toy", "regime": "cot", "variant": "small", "n_layers": 2, "run_seed": 0}
    cell = {name: labels.pop(name) for name in ("condition",) if name in labels}
    return tally(measure, np.array([float(value)]), k=10, **cell).assign(**named | labels)


def searched(answer_costs):
    parts = [constant("flops", answer_costs, regime="direct", variant="large", condition="greedy|1")]
    parts.append(rows("chosen_right", 30, 100, regime="direct", variant="large", condition="greedy|1", k=10))
    for n in SEARCH_DRAWS:
        at = SearchCondition("vote", n)
        parts.append(constant("flops", 10 * n, condition=at))
        parts.append(rows("chosen_right", 50 + n, 100, variant="small", condition=at, k=10))
    return parts


def test_as_many_votes_are_taken_as_the_larger_answer_pays_for():
    assert paid_votes(cells(searched(80))) == SearchCondition("vote", 8)
    assert paid_votes(cells(searched(119))) == SearchCondition("vote", 8)
    assert equal_flops_gain(cells(searched(120))) == pytest.approx(0.62 - 0.3)
    with pytest.raises(MissingEvidence, match="more operations than the larger"):
        paid_votes(cells(searched(9)))


def test_how_many_times_larger_it_is():
    sizes = [constant("parameters", 3000), constant("parameters", 60_000, regime="direct", variant="large")]
    assert times_larger(cells(sizes)) == pytest.approx(20)


def heads(**by_model):
    """By model, effects of L0H0, L0H1, L1H0, L1H1, in hundredths."""
    names = ("L0H0", "L0H1", "L1H0", "L1H1")
    return cells(
        [
            constant("head_effect", value / 100, variant=f"{model}-early", condition=head)
            for model, values in by_model.items()
            for head, value in zip(names, values, strict=True)
        ]
    )


def test_heads_that_two_models_share_and_what_dealing_them_out_anew_leaves():
    made = heads(grpo=(0, 0, 60, 20), twin=(0, 0, 20, 20), base=(30, 0, 10, -50))
    # Shares 0.75 and 0.25 beside 0.5 and 0.5; the base has 0.75 in a head that the others do not use.
    assert overlap(made, "twin-") == pytest.approx(0.75)
    assert beyond_base(made) == pytest.approx(0.75 - 0.25)
    # Each of two heads is as likely to meet either of the other's: (0.5 + 0.5 + 0.25 + 0.25) / 2.
    assert overlap_by_chance(made) == pytest.approx(0.75)
    assert largest_effect(made, "grpo-") == pytest.approx(0.6)
    apart = heads(grpo=(0, 0, 80, 0), twin=(0, 0, 0, 40))
    assert overlap(apart, "twin-") == pytest.approx(0)
    assert overlap_by_chance(apart) == pytest.approx(0.5)


def test_models_without_any_head_share_none():
    made = heads(grpo=(0, 0, 0, 0), twin=(0, 0, 40, 0))
    assert overlap(made, "twin-") == overlap_by_chance(made) == pytest.approx(0)


def test_runs_that_are_meant_to_err_are_not_short_of_training_and_the_larger_one_is():
    names = ("small", "base-10", "grpo-10", "twin-early", "large")
    runs = [{"task": "toy", "regime": "cot", "variant": name, "status": "unconverged"} for name in names]
    for name in names:
        made = cells([rows("accuracy", 1, 2, variant=name)], runs)
        made.mean("accuracy", regime="cot", variant=name, condition="heldout")
        assert unconverged_seeds(made, [0]) == ((0,) if name == "large" else ())
