"""The committed reference models: each loads, and scores what its stored evaluation says."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cotinterp.behavior.accuracy import accuracy_by_k, evaluate_run, evaluation_problems
from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.heads.attribution import logit_attribution
from cotinterp.mechanism.metrics import logit_diff
from cotinterp.mechanism.patching.runs import PatchingControls
from cotinterp.mechanism.patching.sweep import patch_sweep
from cotinterp.studies.protocol import standard_pairs
from cotinterp.studies.subject import Subject
from cotinterp.training.checkpoints import list_runs, load_run, read_evaluation
from cotinterp.training.data import problems_of
from cotinterp.training.spec import reference_specs
from cotinterp.transcripts.problems import sample_problems

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1] / "checkpoints"
SPECS = {spec.slug: spec for spec in reference_specs()}


def test_the_reference_runs_and_no_others_are_there():
    assert set(list_runs(ROOT)) == set(SPECS)


@pytest.mark.parametrize("slug", SPECS)
def test_a_reference_model_loads_and_is_what_its_evaluation_is_about(slug):
    run = load_run(slug, root=ROOT)
    assert run.spec == SPECS[slug]
    assert run.metadata["step"] == "2000"
    assert read_evaluation(run.directory)["weight_hash"] == run.weight_hash


@pytest.mark.parametrize("slug", SPECS)
def test_a_reference_model_scores_as_stored(slug):
    """The stored problems of the three shortest lengths, answered again: the counts agree exactly, but for near-ties.

    Another processor may round another way where two logits almost tie; one answer in a hundred is allowed for that.
    """
    run = load_run(slug, root=ROOT)
    spec = run.spec
    problems = evaluation_problems(
        run.task, (spec.k_min, spec.k_max), problems_of(spec, run.task), rng=np.random.default_rng(0)
    )
    short = {split: [p for p in chosen if p.k <= 4] for split, chosen in problems.items()}
    found = accuracy_by_k(run.model, run.task, spec.regime, short, run_seed=spec.seed).frame()
    stored = {(row["split"], row["k"]): row for row in read_evaluation(run.directory)["accuracy"]}
    for row in found.to_dict("records"):
        before = stored[row["split"], row["k"]]
        assert row["n"] == before["n"]
        assert abs(row["correct"] - before["correct"]) <= row["n"] / 100


PROOFS = {
    "s3-direct-L4-s0-f8434037": 11,
    "s3-direct-L2-s0-9f92e042": 9,
    "s3-tagging-L2-s0-0dd1e2fd": 8,
    "z6-direct-L1-s0-81347d7f": 12,
    "digit-sum-direct-L1-s0-cf61b790": 12,
    "parity-direct-L1-s0-4c6dc153": 24,
    "affine-mod10-tagging-L2-s0-4d03d619": 22,
    "affine-mod10-tagging-L2-s0-e0b9f53a": 32,
}
"""Runs, and a number of operands that each solves; s3-tagging solves 9 as well, by less than draws differ."""


def test_the_proofs_are_those_that_are_asked():
    assert {path.parent.name for path in (ROOT / "proofs").glob("*/spec.json")} == set(PROOFS)


@pytest.mark.parametrize(("slug", "k"), PROOFS.items())
def test_a_depth_can_express_what_its_proof_solves(slug, k):
    """The existence proofs that README names: held-out problems, answered without a trace."""
    run = load_run(ROOT / "proofs" / slug)
    assert read_evaluation(run.directory)["weight_hash"] == run.weight_hash
    problems = sample_problems(run.task, k, 100, split="heldout", rng=np.random.default_rng(1))
    (row,) = accuracy_by_k(run.model, run.task, run.spec.regime, {"heldout": problems}).frame().to_dict("records")
    assert (row["n"], row["accuracy"] >= 0.9) == (100, True)


@pytest.mark.parametrize("task", ["digit-sum", "s3"])
def test_written_totals_carry_to_the_largest_k(task):
    """Below 95% at K = 6 would mean a fault in masking, splits or decoding, not a finding."""
    (slug,) = (slug for slug, spec in SPECS.items() if (spec.task, spec.regime) == (task, "cot"))
    frame = evaluate_run(load_run(slug, root=ROOT), max_per_k=100).frame()
    assert frame[frame["split"] == "heldout"]["accuracy"].min() >= 0.95


@pytest.mark.parametrize("slug", SPECS)
def test_identities_hold_on_the_reference_models(slug):
    """Self-patch exactly 0, full patch 1, and the parts of the residual stream sum to the logit difference."""
    run = load_run(slug, root=ROOT)
    for pairs in standard_pairs(Subject.of_run(run), 48, k=4).values():
        contrast = Contrast.from_pairs(pairs)
        parts = logit_attribution(run.model, contrast)
        with torch.no_grad():
            logits = run.model(contrast.clean)
        difference = logit_diff(logits, contrast.at, contrast.answer, contrast.foil)
        assert (parts.total() - difference).abs().max() < 1e-4
        for direction in ("denoise", "noise"):
            controls = PatchingControls(require_gap=False)
            sweep = patch_sweep(run.model, contrast, kinds=("resid_pre",), direction=direction, controls=controls)
            baselines = sweep.baselines()
            assert baselines["self"].effect.item() == 0.0
            assert baselines["full"].effect.item() == pytest.approx(1.0, abs=1e-6)
