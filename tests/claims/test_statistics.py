"""Every number worked out by hand from evidence that was made up."""

import numpy as np
import pytest

from cotinterp.claims import statistics as answers
from cotinterp.claims import statistics as mechanism
from cotinterp.claims import statistics as trace
from cotinterp.claims.cells import EvidenceIndex, MissingEvidence, measured_cells
from cotinterp.studies.evidence import tally
from tests.claims.worlds import evidence, rows


def cells(*parts):
    return measured_cells(EvidenceIndex(evidence(parts)), "toy", 0)


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


def learned_on(n, heldout, train, **more):
    variant = {"variant": f"converged-n{n}"} | more
    sides = {"heldout": heldout, "train": train}
    found = [*accuracy("direct", sides["heldout"], **variant)]
    found += accuracy("direct", sides["train"], condition="train", **variant)
    return [*found, *(constant("chance", 0.1, k, **variant) for k in heldout)]


def test_few_and_many_problems_are_told_apart_by_their_number():
    made = cells(
        *learned_on(100_000, {3: 0.9, 4: 0.7}, {3: 0.9, 4: 0.9}),
        *learned_on(1000, {3: 0.1, 4: 0.3}, {3: 0.9, 4: 0.7}),
        *accuracy("cot", {3: 1.0, 4: 1.0}, variant="converged-n100000"),
        *accuracy("direct", {3: 0.0, 4: 0.0}),
        *accuracy("cot", {3: 0.0, 4: 0.0}),
    )
    assert answers.ratio_of_few(made) == pytest.approx(0.1 / 0.7)
    assert answers.ratio_of_many(made) == pytest.approx(0.7 / 0.8)
    assert answers.learned_many(made) == pytest.approx(0.8)
    assert answers.advantage_slope_when_learned(made) == pytest.approx(0.2)
    assert answers.advantage_when_learned(made) == pytest.approx(0.3)
    assert answers.cot_accuracy_when_learned(made) == pytest.approx(1.0)


def test_few_problems_are_not_taken_for_many():
    few = cells(*learned_on(1000, {3: 0.1}, {3: 0.9}))
    assert answers.ratio_of_few(few) == pytest.approx(0.0)
    with pytest.raises(MissingEvidence, match=r"direct and cot until learned, on many problems; .*'converged-n1000'"):
        answers.ratio_of_many(few)
    many = cells(*learned_on(100_000, {3: 0.9}, {3: 0.9}), *accuracy("cot", {3: 1.0}, variant="converged-n100000"))
    assert answers.ratio_of_many(many) == pytest.approx(1.0)
    with pytest.raises(MissingEvidence, match=r"direct until learned, on few problems"):
        answers.ratio_of_few(many)


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


def effect(measure, condition, changes, gaps, regime="cot", step=-1):
    labels = {"task": "toy", "regime": regime, "variant": "", "n_layers": 4, "run_seed": 0}
    made = tally(measure, np.array(changes), k=4, step=step, condition=condition, trials=np.array(gaps))
    return made.assign(**labels)


def test_effects_are_shares_of_the_gap():
    made = cells(
        effect("family_effect", "written_total", [8.0, 7.0], [10.0, 10.0]),
        effect("family_effect", "prompt_operand", [1.0, 2.0], [10.0, 10.0]),
        effect("family_effect", "unrelated", [-1.0, -1.0], [10.0, 10.0]),
    )
    assert mechanism.patch_margin(made) == pytest.approx(0.75 - 0.15)
    assert mechanism.unrelated_effect(made) == pytest.approx(0.1)


def test_reads_are_compared_by_what_is_lost_without_them():
    made = cells(
        effect("read_lost", "previous_total", [5.0], [10.0]),
        effect("read_lost", "earlier_operands", [1.0], [10.0]),
        effect("read_lost", "random:previous_total", [0.5], [10.0]),
    )
    assert mechanism.read_margin(made) == pytest.approx(0.4)
    assert mechanism.random_cut(made) == pytest.approx(0.05)


def probe(model, right, step, measure="probe", site="L3.resid_pre", place="equals"):
    return rows(measure, right, 100, condition=f"{model}|{site}|{place}", step=step)


PROBES = (
    *(probe("trained", right, step) for step, right in ((1, 90), (2, 80))),
    *(probe("trained", right, step, "probe_control") for step, right in ((1, 30), (2, 10))),
    *(probe("untrained", right, step) for step, right in ((1, 20), (2, 40))),
    *(probe("input", right, step, site="input") for step, right in ((1, 10), (2, 10))),
)


def test_decodable_is_net_of_the_best_control_at_each_step():
    assert mechanism.decodable_in_cot(cells(*PROBES)) == pytest.approx((0.6 + 0.4) / 2)


def test_without_a_control_there_is_no_number():
    without = [part for part in PROBES if not part["condition"].str.startswith("untrained").any()]
    with pytest.raises(MissingEvidence, match=r"untrained\|L3.resid_pre\|equals"):
        mechanism.decodable_in_cot(cells(*without))


def test_use_is_that_of_the_last_total():
    made = cells(
        effect("probe_use", "L3.resid_pre|equals", [1.0], [10.0], step=2),
        effect("probe_use", "L3.resid_pre|equals", [4.0], [10.0], step=3),
        effect("probe_use", "L3.resid_pre|operand", [2.0], [10.0], regime="direct", step=2),
    )
    assert mechanism.used_in_cot(made) == pytest.approx(0.4)
    assert mechanism.used_in_direct(made) == pytest.approx(0.2)


def test_the_margin_is_between_following_and_ignoring():
    made = cells(
        rows("edit", 70, 100, condition="substitute_total:follows"),
        rows("edit", 20, 100, condition="substitute_total:ignores"),
        rows("edit", 95, 100, condition="none:follows"),
        rows("edit", 10, 100, condition="shuffled_target:follows"),
        rows("edit", 4, 100, condition="shuffled_target:ignores"),
    )
    assert trace.follow_margin(made) == pytest.approx(0.5)
    assert trace.ignore_margin(made) == pytest.approx(-0.5)
    assert trace.clean_trace(made) == pytest.approx(0.95)
    assert trace.margin_by_chance(made) == pytest.approx(0.06)


def test_bookkeeping_is_a_share_of_the_errors():
    assert trace.bookkeeping_share(cells(rows("error_kind", 3, 12, condition="bookkeeping"))) == pytest.approx(0.25)


CURVES = cells(
    rows("answer_prob", 10, 100, condition="true:forced", step=0),
    rows("answer_prob", 50, 100, condition="true:forced", step=1),
    rows("answer_prob", 90, 100, condition="true:forced", step=3),
    rows("answer_prob", 98, 100, condition="true:free", step=0),
    rows("answer_prob", 99, 100, condition="true:free", step=1),
    rows("answer_prob", 70, 100, condition="edited:free", step=1),
    rows("answer_prob", 20, 100, condition="edited:free", step=3),
    rows("followed_prob", 25, 100, condition="edited:free", step=1),
    rows("followed_prob", 75, 100, condition="edited:free", step=3),
)


def test_curves_are_read_at_their_ends_and_behind_the_edit():
    assert trace.readiness(CURVES) == pytest.approx(0.8)
    assert trace.lost_to_the_edit(CURVES) == pytest.approx(0.29)
    assert trace.anchored(CURVES) == pytest.approx(0.25)
    assert trace.copied(CURVES) == pytest.approx(0.75)


def test_what_the_trace_carries_is_in_nats():
    labels = {"task": "toy", "regime": "cot", "variant": "", "n_layers": 4, "run_seed": 0}
    made = cells(
        tally("own_log_prob", np.array([-0.1, -0.3]), k=4).assign(**labels),
        tally("marginal_log_prob", np.array([-1.0, -2.0]), k=4).assign(**labels),
        rows("own_wrong_followed", 9, 10, condition=""),
    )
    assert trace.carried(made) == pytest.approx(1.3)
    assert trace.own_wrong_followed(made) == pytest.approx(0.9)
