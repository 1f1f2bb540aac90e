"""Each control alone: what passes it, and what does not."""

import pandas as pd
import pytest

from cotinterp.claims.depth_law import budget_control, design_controls, law_controls
from cotinterp.claims.depth_verdict import Budget
from cotinterp.depth.frontier import frontier
from cotinterp.depth.law_fit import fit_laws
from cotinterp.depth.laws import TREATMENTS, observed
from tests.sweeps.frontiers import run_rows, sweep


def runs(reach, **changes):
    return frontier(sweep(reach, **changes)).frame()


def failing(found):
    return [control.name for control in found if not control.passes]


def laws(frame, law):
    return failing(law_controls(frame, {one: fit_laws(observed(frame, one)) for one in TREATMENTS}, law))


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
    assert failing(design_controls(runs(reach, **changes))) == fails


def test_accuracies_that_rise_again():
    odd = [row for seed in range(4) for row in run_rows({3: 0.95, 4: 0.2, 5: 0.95}, run_seed=10 + seed, n_layers=1)]
    table = pd.concat([sweep(lambda depth, seed: 5), pd.DataFrame(odd)])
    assert failing(design_controls(frontier(table).frame())) == ["monotone"]


def test_a_law_that_misses_the_shape_fails_and_one_that_has_it_does_not():
    assert laws(runs(lambda depth, seed: 1 + 2 * depth), "linear") == []
    assert laws(runs(lambda depth, seed: 1 + 2 * depth), "none") == ["fit", "trend"]
    assert laws(runs(lambda depth, seed: 4 + depth), "linear") == ["fit", "trend"]


def test_that_depth_buys_nothing_must_be_shown():
    """Two runs at each of three depths, a factor of three apart: no trend is seen, and a large one not excluded."""
    assert laws(runs(lambda depth, seed: 5), "none") == []
    assert laws(runs(lambda depth, seed: 4 + 7 * seed, depths=(1, 2, 4), seeds=2), "none") == ["trend"]


def test_a_head_start_with_noise_is_not_depth_that_buys_nothing():
    assert "trend" in laws(runs(lambda depth, seed: 3 + depth + 2 * (seed - 1)), "none")


def test_a_bounded_law_must_have_been_seen_to_bind():
    """One depth on the way up and all others at the top: a steep tree and a constant look alike."""
    frame = runs(lambda depth, seed: 5 if depth == 1 else 12)
    assert laws(frame, "logarithmic") == ["binding"]
    assert laws(frame, "constant") == []


def test_unconverged_runs_do_not_bind():
    assert "binding" in laws(runs(lambda depth, seed: 1 + 2 * depth, convergence="improving"), "linear")


def budget(steps, law, weight=0.95, depths=(1, 2, 3)):
    return Budget(steps, depths, 9, 9, 0, 0, {"as trained": (law, weight), "censored": (law, 0.5)})


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
    frame = runs(lambda depth, seed: 5)
    assert law_controls(frame, {}, None) == ()
