"""Measures over training on a planted order of events: the parts of a handmade reader come in one after the other."""

import numpy as np
import pytest
import torch

from cotinterp import ModelSpec, RunSpec, train
from cotinterp.calibration.dynamics_questions import (
    DIP,
    DYNAMICS_QUESTIONS,
    EARLY,
    LATE,
    ROUTING_FIRST,
    TABLE_FIRST,
    UPDATES,
    planted_training,
)
from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.interventions import run_with
from cotinterp.mechanism.metrics import accuracy
from cotinterp.studies.dynamics import PRIMARY, dynamics_of, training_dynamics
from cotinterp.studies.events import events
from cotinterp.studies.protocol import head_pairs
from cotinterp.studies.subject import QUICK, Subject
from cotinterp.training.checkpoints import load_run
from cotinterp.training.spec import OptimizerSpec

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=[TABLE_FIRST, ROUTING_FIRST])
def planted(request):
    training = planted_training(request.param)
    return training, dynamics_of(training, training.models, QUICK)


def curve(result, measure, condition=None):
    table = result.frame()
    chosen = table[(table["measure"] == measure) & (table["condition"] == (condition or PRIMARY[measure]))]
    return chosen.set_index("update")["value"]


def test_planted_orders_are_recovered(planted):
    training, result = planted
    found = events(result.frame()).set_index("measure")["event"]
    early, late = ((EARLY / 2, EARLY), (LATE / 2, LATE))
    table, routing = (early, late) if training.kind == TABLE_FIRST else (late, early)
    for measure, (low, high) in {"step_table": table, "attention": routing, "routing": routing}.items():
        assert low < found[measure] <= high
    # Nothing works before both are there.
    for measure in ("accuracy", "trace_right", "next_total", "read_effect", "selectivity"):
        assert LATE / 2 < found[measure] <= LATE
    assert result.reader == training.heads["total"]


def test_at_the_end_all_ways_of_asking_for_the_next_total_are_one(planted):
    _, result = planted
    last = UPDATES[-1]
    at_the_end = {curve(result, measure)[last] for measure in ("next_total", "step_table", "routing")}
    assert at_the_end == {1.0}
    assert curve(result, "read_effect", "reader")[last] == pytest.approx(1.0, abs=1e-4)
    assert curve(result, "follows")[last] == curve(result, "follows", "true")[last] == 1.0


def test_only_what_was_mixed_is_missed(planted):
    """Where the table fails for a moment, routing is whole, and the table is found to fail."""
    _, result = planted
    assert curve(result, "routing")[DIP] == curve(result, "attention")[DIP] == pytest.approx(1.0, abs=1e-3)
    assert curve(result, "step_table")[DIP] < 0.2


def test_next_total_is_what_the_model_puts_first(planted):
    training, result = planted
    contrast = Contrast.from_pairs(head_pairs(training, QUICK.paired, k=result.k))
    for update in (0, 160):
        logits = run_with(training.models[update], contrast.clean, [])
        right = accuracy(logits, contrast.at, contrast.answer).numpy()
        assert result.values[update, "next_total", "own"].tolist() == right.tolist()


def test_calibration_asks_it(planted):
    training, _ = planted
    (question,) = DYNAMICS_QUESTIONS
    assert question.ask(training, True).answer == question.truth(training) == training.kind


@pytest.mark.parametrize("regime", ["cot", "direct"])
def test_a_run_is_measured_at_its_snapshots_and_at_its_end(regime, tmp_path):
    shape = ModelSpec(n_layers=2, d_model=16, n_heads=2, d_mlp=32, n_ctx=40)
    spec = RunSpec(
        task="z6", regime=regime, k_max=4, n_train=400, model=shape, optimizer=OptimizerSpec(steps=6), snapshots=(0, 3)
    )
    run = train(spec, directory=tmp_path / spec.slug, threads=1, device="cpu")
    result = training_dynamics(run, QUICK)
    table = result.frame()
    assert table["update"].unique().tolist() == [0, 3, 6]
    assert list(table.columns[:3]) == ["task", "regime", "run_seed"]
    measures = set(PRIMARY) if regime == "cot" else {"accuracy", "selectivity"}
    assert set(table["measure"]) == measures
    # The snapshot is what it is for every other instrument.
    there = Subject.of_run(load_run(run.directory, step=3))
    once = dynamics_of(there, {3: there.model}, QUICK)
    for measure in measures - {"step_table", "routing", "attention", "read_effect"}:
        assert curve(once, measure)[3] == curve(result, measure)[3]
    assert training_dynamics(run, QUICK, updates=[3]).frame()["update"].unique().tolist() == [3, 6]
    assert len(result.figure().data) >= len(measures)
    with pytest.raises(FileNotFoundError, match=r"kept: \[0, 3\]"):
        training_dynamics(run, QUICK, updates=[5])
    bare = train(spec.model_copy(update={"snapshots": ()}), directory=tmp_path / "bare", threads=1, device="cpu")
    with pytest.raises(ValueError, match="kept no weights on its way"):
        training_dynamics(bare, QUICK)
    assert torch.isfinite(torch.tensor(np.concatenate(list(result.values.values())))).all()
