from dataclasses import replace

import numpy as np
import pytest

from cotinterp.claims.judge import decide, estimate_claims, judge, judge_all, judged_tasks, threshold_changes
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


def test_seeds_that_disagree_are_inconclusive_and_the_power_is_told():
    verdict = judge(ACCURATE, world(cot=MIDDLE))
    assert verdict.verdict == "inconclusive"
    (part,) = verdict.criteria
    assert part.state == "open"
    assert 0.2 < part.detectable < 0.6
    assert "would have been seen" in verdict.reason
    assert verdict.rivals == (("guesses", "open"),)


def test_one_criterion_that_holds_beside_an_open_one_is_not_support():
    verdict = judge(BOTH, world(direct=MIDDLE))
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
