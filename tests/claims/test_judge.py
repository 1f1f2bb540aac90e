import re
from dataclasses import replace

import numpy as np
import pytest

from cotinterp.claims.cells import EvidenceIndex
from cotinterp.claims.judge import (
    decide,
    equal_looks,
    estimate_claims,
    judge,
    judge_all,
    judge_in_stages,
    judge_stored,
    judged_tasks,
    look_factors,
    threshold_changes,
)
from cotinterp.claims.verdict import least_share
from tests.claims.claims import ACCURATE, BOTH, CONTROLLED, criterion
from tests.claims.worlds import accuracies, evidence, rows

HIGH, LOW, MIDDLE = [0.9, 0.92, 0.91, 0.9, 0.93], [0.1, 0.12, 0.09, 0.1, 0.11], [0.3, 0.45, 0.5, 0.6, 0.8]


def world(cot=HIGH, direct=HIGH, **more):
    return evidence([*accuracies("cot", cot, **more), *accuracies("direct", direct, **more)])


def test_what_holds_in_all_criteria_is_supported():
    verdict = judge(BOTH, world())
    assert verdict.verdict == "supported"
    assert [part.state for part in verdict.criteria] == ["holds", "holds"]
    assert verdict.rivals == (("cot alone", "contradicted"), ("neither", "contradicted"))
    assert verdict.effect == pytest.approx(np.mean(HIGH))
    assert (verdict.seeds, verdict.n) == (5, 5000)


def test_one_that_holds_and_one_that_fails_is_partly_supported():
    verdict = judge(BOTH, world(direct=LOW))
    assert verdict.verdict == "partly supported"
    assert verdict.rivals == (("cot alone", "stands"), ("neither", "contradicted"))
    assert "direct 10.4 points" in verdict.reason


def test_what_fails_in_a_decisive_criterion_is_not_supported():
    assert judge(replace(BOTH, decisive=frozenset({"direct"})), world(direct=LOW)).verdict == "not supported"


def test_what_fails_everywhere_is_not_supported():
    verdict = judge(BOTH, world(cot=LOW, direct=LOW))
    assert verdict.verdict == "not supported"
    assert verdict.rivals == (("cot alone", "contradicted"), ("neither", "stands"))


def test_what_is_supported_says_of_how_many_models():
    # Nothing is known of a kind of model that is not among the five: 0.55^5 = 5%.
    assert "at 5 of 5 seeds (at least 55% of such models)" in judge(BOTH, world()).reason
    assert least_share(5, 5) == pytest.approx(0.05 ** (1 / 5))
    assert (least_share(0, 5), round(least_share(20, 20), 2)) == (0.0, 0.86)


def test_models_of_two_kinds_are_a_finding():
    verdict = judge(BOTH, world(cot=[1.0, 1.0, 0.0, 1.0, 0.0]))
    assert verdict.verdict == "mixed"
    assert "above 50.0 points at seeds 0, 1, 3 and below 50.0 points at seeds 2, 4" in verdict.reason
    assert "Holds: direct" in verdict.reason
    (cot, direct) = verdict.criteria
    assert (cot.state, cot.above, cot.below, direct.state) == ("mixed", (0, 1, 3), (2, 4), "holds")
    assert {rival.state for rival in verdict.rivals} <= {"open", "contradicted"}


def test_one_model_that_breaks_the_claim_is_enough_against_support():
    # The mean is far above, and would be supported: four times in five seeds.
    shares = [0.99, 0.98, 0.99, 0.99, 0.45]
    made = world(cot=shares, n=100_000)
    assert judge(ACCURATE, made).criteria[0].p_above < 0.05
    verdict = judge(ACCURATE, made)
    assert (verdict.verdict, verdict.criteria[0].below) == ("mixed", (4,))
    # With ten problems no seed shows anything by itself.
    assert judge(ACCURATE, world(cot=[1.0, 1.0, 1.0, 1.0, 0.4], n=10)).criteria[0].below == ()


def test_what_fails_over_all_models_is_not_mixed():
    verdict = judge(ACCURATE, world(cot=[0.01, 0.02, 0.0, 0.01, 0.6], n=100_000))
    assert (verdict.verdict, verdict.criteria[0].above) == ("not supported", (4,))


def test_seeds_that_show_nothing_by_themselves_are_inconclusive_and_the_power_is_told():
    verdict = judge(ACCURATE, world(cot=MIDDLE, n=20))
    assert verdict.verdict == "inconclusive"
    (part,) = verdict.criteria
    assert part.state == "open"
    assert 0.2 < part.detectable < 0.6
    assert "would have been seen" in verdict.reason
    assert verdict.rivals == (("guesses", "open"),)


def test_one_criterion_that_holds_beside_an_open_one_is_not_support():
    verdict = judge(BOTH, world(direct=MIDDLE, n=20))
    assert verdict.verdict == "inconclusive"
    assert "Holds: cot" in verdict.reason


def test_thousands_of_problems_do_not_make_up_for_seeds():
    assert judge(ACCURATE, world(cot=HIGH[:4], direct=HIGH[:4], n=100_000)).verdict == "inconclusive"
    assert "4 of the 5 seeds" in judge(ACCURATE, world(cot=HIGH[:4], direct=HIGH[:4])).reason


def test_a_control_that_does_not_pass_leaves_nothing_to_say():
    assert judge(CONTROLLED, world(direct=[0.8] * 5)).verdict == "inconclusive"
    solved = [0.95] * 5
    verdict = judge(CONTROLLED, world(direct=solved))
    assert verdict.verdict == "supported"
    assert verdict.controls == "direct 95.0 points passes (above 90.0 points)"


def test_a_control_that_was_not_measured_does_not_pass():
    assert judge(CONTROLLED, evidence(accuracies("cot", HIGH))).verdict == "inconclusive"


def test_a_criterion_that_was_not_measured_is_inconclusive_unless_optional():
    alone = evidence(accuracies("cot", HIGH))
    verdict = judge(BOTH, alone)
    assert verdict.verdict == "inconclusive"
    assert verdict.criteria[1].state == "not measured"
    assert "no 'accuracy' of 'toy', 'direct'" in verdict.reason
    optional = replace(BOTH, criteria=(BOTH.criteria[0], criterion("direct", "direct", optional=True)))
    assert judge(optional, alone).verdict == "supported"


def test_too_few_cases_count_as_not_measured():
    few = replace(ACCURATE, criteria=(criterion("accuracy", "cot", least=6000),))
    verdict = judge(few, world())
    assert verdict.verdict == "inconclusive"
    assert "it rests on 5000 cases, of the 6000 that it needs" in verdict.reason


def test_nothing_depends_on_the_order_or_the_names_of_seeds():
    parts = [*accuracies("cot", MIDDLE), *accuracies("direct", HIGH)]
    one, other = judge(BOTH, evidence(parts)), judge(BOTH, evidence(parts[::-1]))
    assert one == other
    table = evidence(parts).table
    renamed = evidence([table.assign(run_seed=4 - table["run_seed"])])
    assert judge(BOTH, renamed).verdict == one.verdict
    assert judge(BOTH, renamed).effect == pytest.approx(one.effect)


def test_more_claims_make_each_harder_to_support():
    at = [0.55, 0.58, 0.54, 0.57, 0.56]
    made = world(cot=at, direct=MIDDLE)
    alone = judge(ACCURATE, made)
    assert alone.verdict == "supported"
    open_ones = [replace(ACCURATE, name=f"open-{n}", criteria=(criterion("accuracy", "direct"),)) for n in range(60)]
    together = judge_all([ACCURATE, *open_ones], made)
    assert together.of("cot-is-accurate", "toy").verdict == "inconclusive"
    assert together.of("cot-is-accurate", "toy").p > alone.p


def test_a_moved_threshold_changes_the_verdicts_that_hang_on_it():
    estimates = estimate_claims((ACCURATE, BOTH), world(cot=[0.53, 0.54, 0.53, 0.54, 0.53]), ("toy",))
    assert [one.verdict for one in decide(estimates)] == ["supported", "supported"]
    changes = threshold_changes(estimates, [1.1])
    assert changes.to_numpy().tolist() == [
        ["cot-is-accurate", "toy", "accuracy", "criterion", "supported", "inconclusive", 1.1],
        ["both-are-accurate", "toy", "cot", "criterion", "supported", "inconclusive", 1.1],
    ]
    assert threshold_changes(estimates, [1.0]).empty


def test_several_tasks_must_be_told_apart():
    made = evidence([*accuracies("cot", HIGH), *accuracies("cot", LOW, task="other")])
    with pytest.raises(ValueError, match="several tasks"):
        judge(ACCURATE, made)
    with pytest.raises(ValueError, match=r"no evidence on tasks \['third'\]; there is some on \['other', 'toy'\]"):
        judge(ACCURATE, made, task="third")
    assert judge(ACCURATE, made, task="other").verdict == "not supported"
    assert {one.task for one in judge_all([ACCURATE], made).verdicts} == {"toy", "other"}


def test_the_task_without_a_rule_is_a_yardstick_and_not_judged():
    made = evidence([*accuracies("cot", HIGH), *accuracies("cot", LOW, task="random-labels")])
    assert [one.task for one in judge_all([ACCURATE], made).verdicts] == ["toy"]


def test_runs_that_failed_are_listed():
    runs = [{"task": "toy", "status": "failed", "slug": "a"}, {"task": "toy", "status": "finished", "slug": "b"}]
    verdicts = judge_all([ACCURATE], evidence([rows("accuracy", 5, 9)], runs))
    assert verdicts.runs_frame()["slug"].tolist() == ["a"]


def test_the_yardstick_is_no_task_to_judge():
    with_memory = evidence([*accuracies("direct", LOW), *accuracies("direct", LOW, task="random-labels")])
    assert judged_tasks(with_memory) == ("toy",)
    assert judged_tasks(evidence(accuracies("direct", LOW, task="random-labels"))) == ("random-labels",)


def constant(cells):
    return np.array([0.9])


def misread(cells):
    """Looks for a measure that nobody made, and falls back on what it hoped for."""
    try:
        return cells.mean("acuracy", regime="cot", k=4, condition="heldout")
    except LookupError:
        return np.array([0.9])


def around(cells):
    """Reads the table past the cells, so that nothing says what it rests on."""
    return np.array([cells.index.evidence.table["value"].mean()])


def heldout_of(cells):
    return cells.mean("accuracy", regime="cot", k=4, condition="heldout")


def sometimes(cells):
    value = heldout_of(cells)
    return np.where(value > 0.915, np.nan, value)


def elsewhere(cells):
    return cells.mean("accuracy", regime="cot", task="nowhere")


def with_statistic(statistic, **more):
    (one,) = ACCURATE.criteria
    return replace(ACCURATE, criteria=(replace(one, statistic=statistic, **more),))


@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize(
    ("statistic", "said"),
    [
        (constant, r"read no cell of the evidence: it asked for none; measured of 'toy': \['cot: accuracy'"),
        (around, "read no cell of the evidence: it asked for none"),
        (
            misread,
            r"read no cell of the evidence: no 'acuracy' of 'toy', 'cot' .*measured in that regime: \['accuracy'",
        ),
        (elsewhere, r"there is no evidence on 'nowhere', only on \['toy'\]"),
        (lambda cells: heldout_of(cells) * np.nan, "it is undefined"),
        (lambda cells: np.array([]), "gave no number, but an empty array"),
        (lambda cells: None, "it is undefined|read no cell"),
    ],
)
def test_a_number_that_rests_on_nothing_is_not_measured(statistic, said, pool):
    verdict = judge(with_statistic(statistic, pool=pool), world())
    assert (verdict.verdict, verdict.n, verdict.criteria[0].state) == ("inconclusive", 0, "not measured")
    assert re.search(said, verdict.reason), verdict.reason


def test_a_control_that_reads_nothing_does_not_hold():
    (control,) = CONTROLLED.controls
    blind = replace(CONTROLLED, controls=(replace(control, statistic=lambda cells: np.array([0.99])),))
    verdict = judge(blind, world())
    assert verdict.verdict == "inconclusive"
    assert "direct not measured (its statistic read no cell" in verdict.reason


def test_a_claim_of_optional_criteria_alone_says_why_none_was_measured():
    verdict = judge(with_statistic(constant, optional=True), world())
    assert verdict.reason.startswith("Not measured: accuracy (its statistic read no cell")


def test_seeds_that_a_number_does_not_rest_on_are_named():
    verdict = judge(with_statistic(sometimes), world())
    (part,) = verdict.criteria
    assert (verdict.verdict, part.seeds) == ("inconclusive", 3)
    assert part.note == "not at seed 1: it is undefined at seed 1; not at seed 4: it is undefined at seed 4"


def test_a_statistic_that_fails_is_named_with_its_line():
    def broken(cells):
        return heldout_of(cells) / cells.nothing

    with pytest.raises(
        ValueError,
        match=r"claim 'cot-is-accurate': the statistic of 'accuracy' failed on task 'toy' "
        r"with AttributeError: .*test_judge.py, line \d+, in broken",
    ):
        judge(with_statistic(broken), world())
    with pytest.raises(ValueError, match="or one for each of the .* draws, not 2"):
        judge(with_statistic(lambda cells: heldout_of(cells)[0] * np.ones(2)), world())


def test_claims_of_one_name_and_empty_evidence_are_refused():
    with pytest.raises(ValueError, match="two claims have the name 'cot-is-accurate'"):
        judge_all([ACCURATE, ACCURATE], world())
    failed = [{"task": "toy", "status": "failed", "slug": "a", "note": "the loss is not finite"}]
    with pytest.raises(ValueError, match="has no rows.*1 of 1 runs failed, such as a: the loss is not finite"):
        judge_all([ACCURATE], evidence([world().table.head(0)], failed))


def test_a_task_that_is_asked_for_twice_is_judged_once():
    assert len(judge_all([ACCURATE], world(), ("toy", "toy")).verdicts) == 1


def test_looks_spend_the_level_and_no_more():
    factors = look_factors(20)
    assert list(factors) == [5, 10, 15, 20]
    spent = [0.05 / factor for factor in factors.values()]
    assert sum(spent) == pytest.approx(0.05)
    # O'Brien & Fleming's shape, by hand: 2 (1 - Phi(1.96 / sqrt(1/4))) at the first look of four.
    assert spent[0] == pytest.approx(2 * (1 - 0.99995567), rel=0.02)
    assert spent == sorted(spent)
    assert look_factors(5) == {5: pytest.approx(1.0)}
    assert list(look_factors(12)) == [5, 10, 12]
    with pytest.raises(ValueError, match="at most 4 seeds: a verdict needs 5"):
        look_factors(4)
    assert equal_looks(10) == {5: 2.0, 10: 2.0}
    assert equal_looks(3) == {3: 1.0}


def test_seeds_are_added_until_all_is_decided():
    plain, near = [0.9, 0.92, 0.91, 0.9, 0.93] * 4, [0.3, 0.8, 0.62, 0.7, 0.78] * 4
    made = evidence([*accuracies("cot", plain), *accuracies("cot", near, n=20, task="other")])
    asked = []

    def evidence_of(seeds, tasks):
        asked.append((seeds, tasks))
        return made.of_seeds(seeds)

    verdicts, numbers = judge_in_stages([ACCURATE], evidence_of, ("toy", "other"), lambda _: look_factors(20))
    # What is plain is decided at the first look, and gets no more seeds.
    assert asked == [(5, ("toy", "other")), *((seeds, ("other",)) for seeds in (10, 15, 20))][: len(asked)]
    toy, other = (verdicts.of("cot-is-accurate", task) for task in ("toy", "other"))
    assert (toy.verdict, toy.seeds) == ("supported", 5)
    assert other.seeds == asked[-1][0] > 5
    assert other.p >= numbers[1].support
    # At a fixed number of seeds the same data need no correction.
    assert judge_all([ACCURATE], made.of_seeds(5)).of("cot-is-accurate", "toy").p < toy.p


def test_seeds_that_were_added_where_a_verdict_was_open_leave_the_others_as_they_were():
    plain, near = [0.9, 0.92, 0.91, 0.9, 0.93], [0.3, 0.8, 0.62, 0.7, 0.78]
    first = [*accuracies("cot", plain), *accuracies("cot", near, n=20, task="other")]
    before, _ = judge_stored([ACCURATE], evidence(first))
    assert before.frame().equals(judge_all([ACCURATE], evidence(first)).frame())
    grown = evidence([*accuracies("cot", plain), *accuracies("cot", near * 2, n=20, task="other")])
    after, numbers = judge_stored([ACCURATE], grown)
    assert [(one.task, one.verdict, one.seeds) for one in after.verdicts] == [
        ("other", "inconclusive", 10),
        ("toy", "supported", 5),
    ]
    # Each task pays for the looks at its own seeds: the one of five had one.
    assert {one.task: one.penalty for one in numbers} == {"other": 2.0, "toy": 1.0}


def test_what_is_open_says_how_many_seeds_it_takes():
    (part,) = judge(ACCURATE, world(cot=MIDDLE, n=20)).criteria
    wanted = 5 * (part.detectable / abs(part.estimate - 0.5)) ** 2
    said = "more than 1000" if wanted > 1000 else f"about {int(np.ceil(wanted))}"
    reason = judge(ACCURATE, world(cot=MIDDLE, n=20)).reason
    assert f"it takes {said} seeds" in reason
    # Evidence made up for the tests: every model took a fifth of an hour.
    assert wanted < 1000
    assert f"(training them: {(np.ceil(wanted) - 5) / 5:.1f} core-hours)" in reason


def test_runs_that_had_not_learned_carry_no_verdict():
    def listed(short):
        return [
            {"task": "toy", "regime": "cot", "run_seed": seed, "draw": seed, "status": status}
            for seed in range(5)
            for status in ["unconverged" if seed in short else "finished"]
        ]

    parts = [*accuracies("cot", LOW), *accuracies("direct", HIGH)]
    two, three = (judge(ACCURATE, evidence(parts, listed(short))) for short in ((1, 4), (0, 2, 3)))
    assert two.verdict == "not supported"
    # Most of them were still learning: what they cannot do is not shown.
    assert (three.verdict, three.criteria[0].state, three.criteria[0].unconverged) == (
        "inconclusive",
        "open",
        (0, 2, 3),
    )
    assert (
        "at 3 of 5 seeds a run had not learned its training problems or was ended by its budget: train longer"
        in three.reason
    )
    # Runs that the number is not made of do not count.
    other = [{**run, "regime": "direct"} for run in listed((0, 2, 3))]
    assert judge(ACCURATE, evidence(parts, other)).verdict == "not supported"


def test_an_optional_number_that_few_models_have_takes_no_seeds_from_the_others():
    claim = replace(BOTH, criteria=tuple(replace(one, optional=one.name == "direct") for one in BOTH.criteria))
    few = accuracies("direct", HIGH)[:3]
    wrong, right = (judge(claim, evidence([*accuracies("cot", of), *few])) for of in (LOW, HIGH))
    assert (wrong.verdict, wrong.criteria[1].state) == ("not supported", "open")
    # Nor is it passed over where it would have to hold.
    assert right.verdict == "inconclusive"
    assert right.reason.startswith("Open: direct ")
    # One that the claim needs takes them.
    assert judge(BOTH, evidence([*accuracies("cot", LOW), *few])).verdict == "inconclusive"


def test_runs_that_were_stopped_early_are_to_have_learned_little():
    runs = [
        {"task": "toy", "regime": "cot", "run_seed": seed, "draw": seed, "status": "unconverged", "variant": variant}
        for seed in range(5)
        for variant in ("early", "L1")
    ]
    index = EvidenceIndex(evidence(accuracies("cot", LOW), runs))
    assert {run[2] for run in index.unconverged} == {"L1"}
