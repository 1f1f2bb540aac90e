"""A law is named where both treatments prefer it and nothing speaks against it; else the verdict says what would."""

import pandas as pd
import pytest

from cotinterp.claims.depth_law import budget_control, depth_verdicts, design_controls, judge_depth, law_controls
from cotinterp.claims.depth_verdict import TrainingBudget
from cotinterp.depth import laws as laws_module
from cotinterp.depth.frontier import depth_frontier
from cotinterp.depth.law_fit import fit_laws
from cotinterp.depth.laws import TREATMENTS, frontier_intervals
from tests.depth.made_up_frontiers import run_rows, sweep

pytestmark = pytest.mark.slow


def judged(*tables, **named):
    table = pd.concat(tables)
    return judge_depth(table, named.get("task", "s3"), named.get("regime", "direct"), resamples=40)


def linear(depth, seed):
    return 1 + 2 * depth


@pytest.mark.parametrize(
    ("reach", "law"),
    [
        (linear, "linear"),
        (lambda depth, seed: [0, 5, 10, 12][depth - 1], "logarithmic"),
        (lambda depth, seed: 12, "constant"),
        (lambda depth, seed: 4 if depth < 3 else 12, "constant"),
        (lambda depth, seed: 5 + (seed == 1), "none"),
    ],
)
def test_each_law_is_named_where_it_is_so(reach, law):
    found = judged(sweep(reach))
    assert found.law == law
    assert found.reason.startswith(f"{law} (as trained: ")
    assert "12 of 12 runs converged" in found.reason
    assert all(control.passes for control in found.controls)


@pytest.mark.parametrize("convergence", ["improving", "stalled"])
def test_unconverged_runs_cannot_name_linear(convergence):
    found = judged(sweep(linear, convergence=convergence))
    assert found.law == "cannot tell"
    assert (found.n_runs, found.n_converged) == (12, 0)
    assert found.fits["as trained"].preferred.law == "linear"
    assert f"more steps (12 of 12 had not converged: L1 seed 0 {convergence}" in found.reason


def test_were_unconverged_runs_taken_for_their_limit_linear_would_be_named(monkeypatch):
    """The bug that the censored treatment is there to prevent: planted, it is noticed by the test above."""
    monkeypatch.setattr(laws_module, "CONVERGED", ("complete", "fitted", "improving", "stalled"))
    assert judged(sweep(linear, convergence="improving")).law == "linear"


def test_nothing_solved_cannot_tell():
    found = judged(sweep(lambda depth, seed: 0))
    assert found.law == "cannot tell"
    assert "solved: 0 of 12 runs solve the shortest length" in found.reason
    assert "not excluded: linear, logarithmic, none" in found.reason


def test_too_few_depths_cannot_tell():
    found = judged(sweep(linear, depths=(1, 2), seeds=6))
    assert found.law == "cannot tell"
    assert "depths: 2 measured, 3 needed" in found.reason
    assert "more depths than L1, L2" in found.reason


def test_a_law_that_changes_with_the_budget_is_not_named():
    found = judged(sweep(linear, steps=4000), sweep(lambda depth, seed: 5, steps=1000))
    assert found.law == "cannot tell"
    assert "the law changes with the training budget (1000 steps, as trained: none" in found.reason
    assert [budget.steps for budget in found.sensitivity] == [1000, 4000]


def test_a_budget_that_had_not_converged_and_cannot_tell_is_no_contradiction():
    found = judged(sweep(linear, steps=4000), sweep(lambda depth, seed: 0, steps=1000, convergence="improving"))
    assert found.law == "linear"
    assert (found.sensitivity[0].lower, found.sensitivity[0].n_converged) == (12, 0)


def test_only_depths_and_seeds_of_both_budgets_are_compared():
    found = judged(sweep(linear, steps=4000), sweep(linear, steps=1000, depths=(2, 4), seeds=5))
    assert (found.sensitivity[0].depths, found.sensitivity[0].n_runs) == ((2, 4), 6)
    assert (found.steps, found.n_runs) == (4000, 12)


def test_wider_models_are_controls_and_not_points():
    found = judged(sweep(linear), sweep(lambda depth, seed: 12, depths=(1,), d_model=128))
    assert (found.law, found.n_runs, found.n_other) == ("linear", 12, 3)


def test_missing_and_failed_runs_are_counted():
    lost = run_rows({}, run_seed=7, n_layers=1, status="failed") + run_rows({}, run_seed=8, n_layers=1, status="absent")
    found = judged(sweep(linear), pd.DataFrame(lost))
    assert (found.law, found.n_runs, found.n_missing) == ("linear", 12, 2)
    none = judged(pd.DataFrame(lost))
    assert (none.law, none.reason) == ("cannot tell", "no run was measured; train and evaluate them")


def test_runs_beyond_the_source_are_counted_converged_or_not():
    """K - 1 <= L: three at one layer, three at two layers, five at four is allowed."""
    reach = {1: 3, 2: 3, 4: 5}
    found = judged(sweep(lambda depth, seed: reach[depth], depths=(1, 2, 4), seeds=2, convergence="improving"))
    assert found.beyond_source == ("L1 d64 seed 0, 1000 steps: K = 3", "L1 d64 seed 1, 1000 steps: K = 3")


def test_neither_the_order_of_the_rows_nor_the_names_of_the_seeds_matter():
    table = sweep(lambda depth, seed: 1 + 2 * depth + seed)
    moved = table.assign(run_seed=2 - table["run_seed"]).sample(frac=1, random_state=0)
    one, other = judged(table), judged(moved)
    assert (one.law, one.shares) == (other.law, other.shares)
    assert one.reason == other.reason


def test_every_task_and_regime_is_judged():
    table = pd.concat([sweep(linear), sweep(lambda depth, seed: 12, regime="cot"), sweep(linear, task="z6")])
    found = depth_verdicts(table, resamples=10).verdicts
    assert [(one.task, one.regime) for one in found] == [("s3", "cot"), ("s3", "direct"), ("z6", "direct")]


def test_an_unknown_task_is_named_with_those_there_are():
    with pytest.raises(KeyError, match=r"no runs of \('a5', 'direct', 'answer'\); it has \[\('s3'"):
        judged(sweep(linear), task="a5")


def frontiers(reach, **changes):
    return depth_frontier(sweep(reach, **changes)).frame()


def failing(found):
    return [control.name for control in found if not control.passes]


def failing_of_law(frame, law):
    return failing(law_controls(frame, {one: fit_laws(frontier_intervals(frame, one)) for one in TREATMENTS}, law))


@pytest.mark.parametrize(
    ("reach", "changes", "fails"),
    [
        (lambda depth, seed: 5, {}, []),
        (lambda depth, seed: 5, {"depths": (1, 4)}, ["depths"]),
        (lambda depth, seed: 5, {"seeds": 1}, ["seeds"]),
        (lambda depth, seed: 0, {}, ["solved"]),
    ],
)
def test_design(reach, changes, fails):
    assert failing(design_controls(frontiers(reach, **changes))) == fails


def test_accuracies_that_rise_again():
    odd = [row for seed in range(4) for row in run_rows({3: 0.95, 4: 0.2, 5: 0.95}, run_seed=10 + seed, n_layers=1)]
    table = pd.concat([sweep(lambda depth, seed: 5), pd.DataFrame(odd)])
    assert failing(design_controls(depth_frontier(table).frame())) == ["monotone"]


def test_a_law_that_misses_the_shape_fails_and_one_that_has_it_does_not():
    assert failing_of_law(frontiers(lambda depth, seed: 1 + 2 * depth), "linear") == []
    assert failing_of_law(frontiers(lambda depth, seed: 1 + 2 * depth), "none") == ["fit", "trend"]
    assert failing_of_law(frontiers(lambda depth, seed: 4 + depth), "linear") == ["fit", "trend"]


def test_that_depth_buys_nothing_must_be_shown():
    """Two frontiers at each of three depths, a factor of three apart: no trend is seen, and a large one is possible."""
    assert failing_of_law(frontiers(lambda depth, seed: 5), "none") == []
    assert failing_of_law(frontiers(lambda depth, seed: 4 + 7 * seed, depths=(1, 2, 4), seeds=2), "none") == ["trend"]


def test_a_head_start_with_noise_is_not_depth_that_buys_nothing():
    assert "trend" in failing_of_law(frontiers(lambda depth, seed: 3 + depth + 2 * (seed - 1)), "none")


def test_one_run_far_above_a_law_speaks_against_it_and_one_far_below_does_not():
    """Of six seeds at each depth five solve K = 4 whatever the depth, and one something else."""
    for odd, fails in ((12, ["best"]), (2, [])):
        frame = frontiers(lambda depth, seed, odd=odd: odd if (depth, seed) == (2, 0) else 4, seeds=6)
        assert [name for name in failing_of_law(frame, "none") if name == "best"] == fails
    assert "best" not in failing_of_law(frontiers(lambda depth, seed: 4 + seed % 3, seeds=6), "none")


def test_a_bounded_law_must_have_been_seen_to_bind():
    """One depth on the way up and all others at the top: a steep tree and a constant look alike."""
    frame = frontiers(lambda depth, seed: 5 if depth == 1 else 12)
    assert failing_of_law(frame, "logarithmic") == ["binding"]
    assert failing_of_law(frame, "constant") == []


def test_unconverged_runs_do_not_bind():
    assert "binding" in failing_of_law(frontiers(lambda depth, seed: 1 + 2 * depth, convergence="improving"), "linear")


def budget(steps, law, weight=0.95, depths=(1, 2, 3)):
    return TrainingBudget(steps, depths, 9, 9, 0, 0, {"as trained": (law, weight), "censored": (law, 0.5)})


def test_the_law_must_not_change_with_the_budget():
    last = budget(4000, "linear")
    assert budget_control([last], "linear").passes
    assert "one budget only" in budget_control([last], "linear").says
    assert budget_control([budget(1000, "linear"), last], "linear").passes
    changed = budget_control([budget(1000, "none"), last], "linear")
    assert not changed.passes
    assert "1000 steps, as trained: none" in changed.says
    assert budget_control([budget(1000, "none", weight=0.6), last], "linear").passes
    assert budget_control([budget(1000, "none", depths=(1, 2)), last], "linear").passes


def test_without_a_law_only_the_design_is_asked():
    frame = frontiers(lambda depth, seed: 5)
    assert law_controls(frame, {}, None) == ()
