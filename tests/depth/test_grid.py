"""The grid of a task, and the controls of cot in its table: matched in one quantity, of the same seed."""

import pandas as pd
import pytest

from cotinterp.claims.depth_law import depth_verdicts
from cotinterp.depth.compute import CHEAPEST_COLUMNS, accuracy_against_compute
from cotinterp.depth.cost import answer_cost
from cotinterp.depth.frontier import LEAST_PROBLEMS
from cotinterp.depth.grid import (
    CONTROL_COLUMNS,
    DepthDesign,
    depth_grid,
    matched_controls,
    measurable_lengths,
    quick_design,
)
from cotinterp.models.spec import ModelSpec
from cotinterp.report.simulator import simulator_html
from cotinterp.tasks import get_task, task_names
from tests.depth.made_up_frontiers import reaching
from tests.depth.made_up_sweep import made_up_sweep

SHAPE = {"d_model": 64, "n_heads": 4, "d_mlp": 256, "n_ctx": 128}


def run(frontier, regime, n_layers=1, parameters=60_000, **changes):
    return reaching(frontier, regime=regime, n_layers=n_layers, n_parameters=parameters, **changes)


def matches(*runs):
    found = matched_controls(pd.DataFrame([row for one in runs for row in one]), "s3")
    assert tuple(found.columns) == CONTROL_COLUMNS
    return {(row.match, row.control_regime, row.control_n_layers): row for row in found.itertuples()}


def test_filler_of_the_same_shape_has_as_many_tokens():
    found = matches(run(12, "cot"), run(4, "filler"), run(4, "filler", n_layers=2))
    assert set(found) == {("equal tokens", "filler", 1)}
    (row,) = found.values()
    assert (row.frontier, row.control_frontier, row.ratio) == (12, 4, 1.0)


def test_the_same_shape_has_as_many_parameters_and_a_deeper_one_as_many_operations():
    cot, direct = (answer_cost("s3", regime, ModelSpec(n_layers=1, **SHAPE), 12).flops for regime in ("cot", "direct"))
    deep = round(cot / direct)
    found = matches(run(12, "cot"), run(4, "direct"), run(5, "direct", n_layers=deep, parameters=60_000 * deep))
    assert set(found) == {("equal parameters", "direct", 1), ("equal operations", "direct", deep)}
    assert found["equal operations", "direct", deep].ratio == pytest.approx(1, abs=0.25)


def test_another_seed_or_a_shorter_training_is_no_control():
    assert not matches(
        run(12, "cot"), run(4, "direct", run_seed=1), run(4, "direct", steps=500), run(4, "filler", run_seed=1)
    )
    assert matches(run(12, "cot"), run(4, "direct", steps=4000))


def test_a_task_that_is_not_registered_is_given_itself():
    class Mine(type(get_task("s3"))):
        name = "mine"

    rows = [row | {"task": "mine"} for one in (run(12, "cot"), run(4, "direct")) for row in one]
    assert matched_controls(pd.DataFrame(rows), Mine())["match"].tolist() == ["equal parameters"]


def test_what_cannot_be_asked_is_refused():
    table = pd.DataFrame(run(12, "cot"))
    with pytest.raises(KeyError, match="no measured runs of task 'z6'"):
        matched_controls(table, "z6")
    with pytest.raises(ValueError, match="factor of 1 or more"):
        matched_controls(table, "s3", within=0.5)


def test_a_grid_has_every_depth_at_every_budget_and_the_controls_of_each_seed():
    design = DepthDesign(k_max=4, n_layers=(1, 2, 3), seeds=2, steps=(10, 40), d_model=8, n_train=50)
    specs = depth_grid("s3", design).specs
    direct = {(spec.model.n_layers, spec.optimizer.steps, spec.seed) for spec in specs if spec.regime == "direct"}
    assert {(depth, steps, seed) for depth in (1, 2, 3) for steps in (10, 40) for seed in (0, 1)} <= direct
    assert {(spec.model.n_layers, spec.optimizer.steps) for spec in specs if spec.regime == "cot"} == {
        (1, 10), (2, 10), (3, 10)
    }  # fmt: skip
    assert sum(spec.regime == "filler" for spec in specs) == 2
    assert len({spec.model.n_ctx for spec in specs}) == 1, "one context for all of them"
    plain = DepthDesign(k_max=4, n_layers=(1, 2, 3), seeds=2, steps=(10, 40), d_model=8, n_train=50, controls=False)
    assert not [spec for spec in depth_grid("s3", plain).specs if spec.regime == "filler"]
    with pytest.raises(ValueError, match="one depth, one training budget and one seed at least"):
        depth_grid("s3", DepthDesign(seeds=0))


@pytest.mark.parametrize("name", task_names())
def test_the_quick_grid_of_every_task_can_be_measured(name):
    """Known before anything is trained: the lengths on which a run is judged have enough held-out problems."""
    task = get_task(name)
    design = quick_design(task)
    grid = depth_grid(name, design)
    assert measurable_lengths(task, design.k_max)
    assert {spec.k_max for spec in grid.specs} == {design.k_max}


def test_what_cannot_be_measured_is_refused_before_anything_is_trained():
    with pytest.raises(
        ValueError, match="no length up to k_max 5 of task 'parity' has 30 held-out .*: raise k_max to 7"
    ):
        depth_grid("parity", DepthDesign(k_max=5))
    with pytest.raises(ValueError, match="problems_per_k 29 is too few: a length counts as measured from 30"):
        depth_grid("s3", DepthDesign(problems_per_k=29))

    class Short(type(get_task("parity"))):
        max_k = 4

    assert measurable_lengths(Short(), 4) == ()


def test_where_no_length_was_measured_all_tables_are_empty_and_say_so():
    """From the frontier to the verdict, the prices and the page."""
    table = made_up_sweep(k_max=3, n=LEAST_PROBLEMS - 1, direct=(1, 2), cot=(1,))
    verdicts = depth_verdicts(table)
    assert {(one.law, one.reason) for one in verdicts.verdicts} == {("cannot tell", verdicts.verdicts[0].reason)}
    assert "no length of any run has 30 held-out problems" in verdicts.verdicts[0].reason
    assert verdicts.curves_frame().empty
    priced = accuracy_against_compute(table)
    assert tuple(priced.cheapest()) == CHEAPEST_COLUMNS
    assert len(priced.cheapest()) == len(priced.by_run()) == 0
    for result in (verdicts, priced):
        with pytest.raises(ValueError, match="nothing to draw: no run"):
            result.figure()
    assert "<table" in simulator_html(table)
    with pytest.raises(KeyError, match="no measured runs of task 's3'.* 30 held-out problems of one length"):
        matched_controls(table, "s3")
