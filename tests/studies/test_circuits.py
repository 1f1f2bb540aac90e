"""Circuits by step, exchanged totals and other seeds on models that are known: handmade ones, and one turned around."""

from dataclasses import replace

import pytest
import torch

from cotinterp import RunSpec
from cotinterp.calibration.ground_truth import handmade_models, untrained
from cotinterp.mechanism.metrics import NoGapError
from cotinterp.models.handmade.rotated import random_rotation, rotated
from cotinterp.studies.circuits import (
    formed,
    interchanged,
    kept_by_circuits,
    other_seed,
    shared_with,
    shared_with_another,
)
from cotinterp.studies.subject import QUICK_EVIDENCE, Subject

pytestmark = pytest.mark.slow

EFFORT = replace(QUICK_EVIDENCE, probed=60)


@pytest.fixture(scope="module")
def subjects():
    """A model that reads its totals and one that computes them anew, by kind."""
    return {
        truth.kind: Subject(
            model=truth.model,
            task=truth.task,
            regime=truth.regime,
            run_seed=5,
            k_range=(2, 4),
            trained_on=truth.trained(20, k=4),
        )
        for truth in handmade_models()
        if truth.name in ("reader (cot)", "recomputer (cot)")
    }


def means(rows, measure):
    of = rows[rows["measure"] == measure]
    sums = of.assign(value=of["value"] * of["problems"], trials=of["trials"] * of["problems"])
    totals = sums.groupby("condition")[["value", "trials"]].sum()
    return totals["value"] / totals["trials"]


def test_the_readers_circuit_of_one_step_reads_the_others_and_random_edges_read_none(subjects):
    kept = means(kept_by_circuits(subjects["reader"], EFFORT), "circuit_kept")
    assert kept["own"] == pytest.approx(1, abs=1e-4)
    assert kept["other"] == pytest.approx(1, abs=1e-4)
    assert kept["random"] == pytest.approx(0, abs=1e-4)
    with pytest.raises(NoGapError):
        kept_by_circuits(subjects["recomputer"], EFFORT)
    with pytest.raises(ValueError, match="need four written ones"):
        kept_by_circuits(replace(subjects["reader"], k_range=(2, 3)), EFFORT)


def test_the_total_before_is_a_variable_where_the_readers_last_attention_brings_it(subjects):
    moved = {kind: means(interchanged(subject, EFFORT), "interchange") for kind, subject in subjects.items()}
    assert moved["reader"]["previous:attn_out:total"] == 1
    assert moved["recomputer"]["previous:attn_out:total"] < 0.25
    # The sum is taken by the last MLP: before its attention nothing of the total is there, whatever is exchanged.
    for what in ("total", "whole", "random", "shuffled"):
        assert moved["reader"][f"previous:resid_pre:{what}"] == 0


def test_a_model_turned_around_shares_everything():
    truth = untrained("z6", "cot", 0)
    subject = Subject(
        model=truth.model, task=truth.task, regime="cot", run_seed=5, k_range=(2, 4), trained_on=truth.trained(20, k=4)
    )
    turn = random_rotation(int(subject.model.cfg.d_model), torch.Generator().manual_seed(0), keeps_mean=True)
    rows = shared_with(rotated(subject.model, turn), subject, EFFORT)
    stream, states, heads = (means(rows, name) for name in ("stream_shared", "states_carry", "heads_shared"))
    for place in ("resid_pre", "attn_out"):
        assert stream[f"{place}:seed"] == pytest.approx(1, abs=1e-5)
        assert stream[f"{place}:shuffled"] < 0.2
        assert states[f"{place}:seed"] == states[f"{place}:own"]
    assert heads["seed"] == pytest.approx(1, abs=1e-5)


def test_another_seed_is_asked_for_where_there_are_runs(subjects):
    spec = RunSpec(task="z6", regime="cot", snapshots=(0, 5), seed=3)
    assert other_seed(spec) == RunSpec(task="z6", regime="cot", seed=1003)
    for measure in (formed, shared_with_another):
        with pytest.raises(ValueError, match="no run's"):
            measure(subjects["reader"], EFFORT)
