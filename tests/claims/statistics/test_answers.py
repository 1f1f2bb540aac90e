"""Every number worked out by hand from accuracies that were made up."""

import numpy as np
import pytest

from cotinterp.claims import statistics as answers
from cotinterp.claims.cells import Book, MissingEvidence, as_measured
from cotinterp.studies.evidence import tally
from tests.claims.worlds import evidence, rows


def cells(*parts):
    return as_measured(Book(evidence(parts)), "toy", 0)


def accuracy(regime, by_k, **more):
    return [rows("accuracy", round(100 * share), 100, regime=regime, k=k, **more) for k, share in by_k.items()]


def constant(measure, value, k, **more):
    labels = {"task": "toy", "regime": "direct", "variant": "", "n_layers": 4, "run_seed": 0}
    return tally(measure, np.array([value]), k=k).assign(**labels | more)


GAPS = cells(*accuracy("cot", {2: 0.9, 3: 0.9, 4: 0.9}), *accuracy("direct", {2: 0.9, 3: 0.8, 4: 0.7}))


def test_the_advantage_is_that_at_the_largest_k():
    assert answers.advantage(GAPS) == pytest.approx(0.2)


def test_the_slope_is_per_operand():
    assert answers.advantage_slope(GAPS) == pytest.approx(0.1)


def test_a_slope_needs_two_lengths():
    with pytest.raises(MissingEvidence, match=r"measured: \(4,\)"):
        answers.advantage_slope(cells(*accuracy("cot", {4: 0.9}), *accuracy("direct", {4: 0.9})))


def test_the_ratio_is_above_chance_on_both_sides():
    made = cells(
        *accuracy("direct", {3: 0.3, 4: 0.5}),
        *accuracy("direct", {3: 0.9, 4: 0.9}, condition="train"),
        constant("chance", 0.1, 3),
        constant("chance", 0.1, 4),
    )
    assert answers.generalization_ratio(made) == pytest.approx(0.3 / 0.8)
    assert answers.learned(made) == pytest.approx(0.8)


def test_the_ratio_is_undefined_where_nothing_was_learned():
    made = cells(
        *accuracy("direct", {3: 0.1}), *accuracy("direct", {3: 0.1}, condition="train"), constant("chance", 0.1, 3)
    )
    assert np.isnan(answers.generalization_ratio(made)).all()


def test_the_ratio_of_memory_is_that_of_the_other_task():
    other = {"task": "random-labels"}
    made = cells(
        *accuracy("direct", {3: 0.2}, **other),
        *accuracy("direct", {3: 0.9}, condition="train", **other),
        constant("chance", 0.1, 3, **other),
    )
    assert answers.memory_ratio(made) == pytest.approx(0.1 / 0.8)


def test_memory_is_the_best_of_its_guesses():
    parts = [
        *accuracy("direct", {3: 0.8}),
        constant("chance", 0.1, 3),
        rows("nearest", 30, 100, regime="direct", k=3, condition=""),
    ]
    assert answers.beyond_memory(cells(*parts)) == pytest.approx(0.5)
    with_twins = [*parts, rows("reordered", 60, 100, regime="direct", k=3, condition="")]
    assert answers.beyond_memory(cells(*with_twins)) == pytest.approx(0.2)


def test_memory_that_is_worth_everything_leaves_nothing_to_go_beyond():
    full = rows("nearest", 95, 100, regime="direct", k=3, condition="")
    parts = [*accuracy("direct", {3: 1.0, 4: 0.9}), constant("chance", 0.1, 3), constant("chance", 0.1, 4), full]
    room = rows("nearest", 40, 100, regime="direct", k=4, condition="")
    assert answers.beyond_memory(cells(*parts, room)) == pytest.approx(0.5)
    with pytest.raises(MissingEvidence, match="more than 80% at every length"):
        answers.beyond_memory(cells(*accuracy("direct", {3: 1.0}), constant("chance", 0.1, 3), full))


def test_agreement_says_nothing_where_all_problems_get_one_answer():
    with pytest.raises(MissingEvidence, match="the same answer"):
        answers.net_agreement(
            cells(rows("agreement", 9, 9, regime="direct", k=3, condition=""), constant("agreement_chance", 1.0, 3))
        )


def test_agreement_is_beyond_chance():
    made = cells(rows("agreement", 60, 100, regime="direct", k=3, condition=""), constant("agreement_chance", 0.2, 3))
    assert answers.net_agreement(made) == pytest.approx(0.5)


def test_the_gain_is_for_ten_times_the_problems():
    made = cells(*accuracy("direct", {3: 0.2}, variant="n300"), *accuracy("direct", {3: 0.6}, variant="n30000"))
    assert answers.size_gain(made) == pytest.approx(0.2)
    with pytest.raises(MissingEvidence, match="two sizes"):
        answers.size_gain(cells(*accuracy("direct", {3: 0.2}, variant="n300")))


def test_the_cliff_is_where_the_layers_end():
    assert answers.cliff(cells(*accuracy("direct", {5: 0.9, 6: 0.2}))) == pytest.approx(0.7)
    assert answers.cliff(cells(*accuracy("direct", {3: 0.9, 4: 0.2}, n_layers=2))) == pytest.approx(0.7)


def test_content_and_passes_add_up_to_the_advantage():
    made = cells(
        *accuracy("cot", {3: 0.9, 4: 0.9}), *accuracy("filler", {3: 0.6, 4: 0.4}), *accuracy("direct", {3: 0.5, 4: 0.1})
    )
    assert answers.content(made) == pytest.approx(0.4)
    assert answers.passes(made) == pytest.approx(0.2)


DEPTHS = cells(
    *accuracy("direct", {3: 0.2, 4: 0.1, 5: 0.1, 6: 0.1}, variant="L1", n_layers=1),
    *accuracy("direct", {3: 0.9, 4: 0.6, 5: 0.2, 6: 0.1}, variant="L2", n_layers=2),
    *accuracy("direct", {3: 1.0, 4: 1.0, 5: 0.9, 6: 0.5}),
    *accuracy("direct", {3: 0.0, 4: 0.0, 5: 0.0, 6: 0.0}, variant="n300"),
)


def test_the_linear_budget_parts_the_grid():
    assert answers.within_budget(DEPTHS) == pytest.approx((0.9 + 1.0 + 1.0 + 0.9) / 4)
    assert answers.beyond_budget(DEPTHS) == pytest.approx((0.2 + 0.1 + 0.1 + 0.1 + 0.6 + 0.2 + 0.1 + 0.5) / 8)


def test_a_tree_reaches_further_than_a_chain():
    # Four operands in two layers; six in four. One layer is no deeper as a tree.
    assert answers.tree_budget(DEPTHS) == pytest.approx((0.6 + 0.5) / 2)


def test_depth_gains_where_the_deepest_chain_ends():
    # Four layers hold five operands; at six the serial account has them all fail.
    assert answers.depth_gain(DEPTHS) == pytest.approx(0.8)


def test_one_depth_says_nothing_about_depth():
    with pytest.raises(MissingEvidence, match="several depths"):
        answers.within_budget(cells(*accuracy("direct", {3: 0.9})))
