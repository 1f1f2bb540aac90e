"""The standard settings, on a run small enough to train here."""

import dataclasses
import inspect

import numpy as np
import pandas as pd
import pytest

from cotinterp.behavior.edit_kinds import ALL_EDITS, NONE, SHUFFLED, SUBSTITUTE, SubstituteTotal
from cotinterp.behavior.edits import trace_edits
from cotinterp.models.spec import ModelSpec
from cotinterp.studies.instruments import (
    STUDIES,
    applicable,
    attention_example,
    study,
)
from cotinterp.studies.protocol import head_pairs, standard_pairs
from cotinterp.studies.subject import FULL, QUICK, Subject
from cotinterp.training.loop import train
from cotinterp.training.spec import OptimizerSpec, RunSpec
from cotinterp.transcripts.problems import split_of
from cotinterp.transcripts.roles import Role

pytestmark = pytest.mark.slow


def tiny_run(tmp_path_factory, regime, *, task="s3", k_min=2, n_ctx=32):
    spec = RunSpec(
        task=task,
        regime=regime,
        k_min=k_min,
        k_max=4,
        n_train=100,
        model=ModelSpec(n_layers=1, d_model=16, n_heads=2, d_mlp=32, n_ctx=n_ctx),
        optimizer=OptimizerSpec(steps=20, batch_size=8, warmup=5),
    )
    return Subject.of_run(train(spec, directory=tmp_path_factory.mktemp("runs") / spec.slug, device="cpu", threads=1))


@pytest.fixture(scope="module")
def cot(tmp_path_factory):
    return tiny_run(tmp_path_factory, "cot")


@pytest.fixture(scope="module")
def direct(tmp_path_factory):
    return tiny_run(tmp_path_factory, "direct")


def test_only_a_regime_with_totals_can_be_edited():
    assert applicable("cot") == STUDIES
    assert applicable("direct") == tuple(name for name in STUDIES if name != "edit")


def test_pairs_are_declared_by_regime(cot, direct):
    assert {name: pairs.readout for name, pairs in standard_pairs(cot, 4, k=4).items()} == {
        "operand-2": (Role.STEP_OPERAND, 2),
        "total-2-next": (Role.TOTAL, 3),
        "total-3-answer": (Role.ANSWER, 3),
    }
    assert {name: pairs.readout for name, pairs in standard_pairs(direct, 4, k=4).items()} == {
        "operand-2": (Role.ANSWER, 3),
        "operand-3": (Role.ANSWER, 3),
    }
    assert head_pairs(cot, 4, k=4).readout == (Role.TOTAL, 3)
    assert head_pairs(direct, 4, k=4).readout == (Role.ANSWER, 3)


def test_mechanism_is_studied_on_problems_that_were_never_trained_on(cot):
    for pairs in standard_pairs(cot, 8, k=4).values():
        assert {split_of(transcript.problem.operands) for transcript in pairs.clean.transcripts} == {"heldout"}


def test_k_stays_inside_the_range_of_the_run(cot):
    assert cot.length(dataclasses.replace(FULL, k=9)) == 4
    # Of the 36 problems of two operands seven are held out, of the 216 of three some forty: too few.
    assert cot.length(dataclasses.replace(FULL, k=1)) == 4


@pytest.mark.parametrize("name", ["evaluate", "edit", "patch", "attribute", "circuit"])
def test_every_study_fills_its_tables(cot, name):
    tables = study(name, cot, QUICK)
    expected = {
        "evaluate": {"accuracy", "errors"},
        "edit": {"trace_edits", "trace_edit_kinds"},
        "patch": {"patching", "patching_scan", "pair_families"},
        "attribute": {"heads", "attention_by_role"},
        "circuit": {"edges", "edge_agreement", "faithfulness"},
    }
    # A model that has hardly learned has pairs without a gap, of which there is no circuit.
    assert set(tables) - ({"skipped"} if name == "circuit" else set()) == expected[name]
    for results in tables.values():
        for result in results.values():
            assert list(result.frame().columns[:3]) == ["task", "regime", "run_seed"]


def test_traces_are_edited_in_every_way_and_replaced_totals_are_those_of_before(cot):
    tables = study("edit", cot, dataclasses.replace(QUICK, edited=3, edits_per_step=2))
    frame = tables["trace_edits"]["trace_edits"].frame()
    kinds = [kind.name for kind in ALL_EDITS]
    assert {edit for edit in frame["edit"] if not edit.startswith(SHUFFLED)} == {*kinds, NONE}
    problems = [problem for k in (2, 3, 4) for problem in cot.heldout(3, k=k)]
    alone = trace_edits(
        cot.model, cot.task, "cot", problems, edits=[SubstituteTotal(2)], rng=np.random.default_rng(0)
    ).frame()
    edits = alone["edit"].unique()
    assert set(edits) == {SUBSTITUTE, NONE, SHUFFLED}
    before = frame[frame["edit"].isin(edits) & (frame["step"] > 0)].reset_index(drop=True)
    pd.testing.assert_frame_equal(before, alone)
    pooled = tables["trace_edit_kinds"]["trace_edit_kinds"].frame()
    assert set(pooled["edit"]) == {*kinds, NONE}
    sizes = pooled.drop_duplicates(["edit", "closed"]).groupby("edit")["n"].sum()
    assert sizes.to_dict() == frame.drop_duplicates(["edit", "step"]).groupby("edit")["n"].sum()[sizes.index].to_dict()


def test_patching_has_its_baselines_in_every_sweep(cot):
    sweeps = [result.frame() for result in study("patch", cot, QUICK)["patching"].values()]
    effects = [rows[rows["metric"] == "probability"].set_index("site")["effect"] for rows in sweeps]
    assert len(effects) == 6
    assert all({"self", "full", "random_donor"} <= set(rows.index) for rows in effects)
    measured = [rows for rows in effects if rows.notna().any()]
    assert measured
    for rows in measured:
        assert rows["self"] == 0.0
        assert rows["full"] == pytest.approx(1.0, abs=1e-6)


def test_probes_have_their_controls(cot):
    frame = study("probe", cot, dataclasses.replace(QUICK, probed=600))["probes"]["probes"].frame()
    assert set(frame["model"]) == {"trained", "untrained"}
    assert "input" in set(frame["site"])
    assert (frame["selectivity"] - (frame["accuracy"] - frame["control_accuracy"])).abs().max() < 1e-12


def test_the_attention_example_is_a_distribution_over_the_past(cot):
    view = attention_example(cot, QUICK)
    assert "".join(view.tokens).startswith("<")
    assert abs(view.patterns.sum(-1) - 1).max() < 1e-5
    dest, src = view.patterns.shape[-2:]
    assert all(view.patterns[..., i, i + 1 :].sum() == 0 for i in range(dest - 1))
    assert dest == src == len(view.tokens)


@pytest.mark.parametrize("task", ["expressions-mod11", "pointers"])
def test_tasks_whose_steps_do_not_follow_the_operands_have_all_studies_but_declared_reads(tmp_path_factory, task):
    run = tiny_run(tmp_path_factory, "cot", task=task, k_min=3, n_ctx=48)
    budget = dataclasses.replace(QUICK, evaluated=6, edited=2, probed=120, patched=4)
    for name in ("evaluate", "edit", "probe", "patch"):
        tables = study(name, run, budget)
        assert "pair_families" not in tables
        assert all(len(result.frame()) for results in tables.values() for result in results.values())
    with pytest.raises(ValueError, match="the reads are those of a left fold"):
        study("attribute", run, budget)


def test_an_unknown_study_is_named():
    with pytest.raises(KeyError, match="unknown study 'probes'; there are evaluate, edit, probe"):
        inspect.unwrap(study)("probes", None)  # past the shape checks, which know the names as well
