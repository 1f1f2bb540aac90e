"""The whole pipeline, small: models in, every file of a run out; and what it does when something is in the way."""

import json

import numpy as np
import pandas as pd
import pytest

from cotinterp.calibration.verdict_level import SyntheticCell, synthetic
from cotinterp.claims.catalog import CATALOG
from cotinterp.claims.judge import judge_stored
from cotinterp.models.spec import ModelSpec
from cotinterp.report.page import rebuild_report
from cotinterp.report.reproduce import reproduce
from cotinterp.report.schema import SCHEMAS, read_tables
from cotinterp.sweeps.table import write_sweep_table
from cotinterp.training.checkpoints import load_run, read_evaluation
from cotinterp.training.spec import OptimizerSpec, RunSpec
from tests.depth.made_up_sweep import made_up_sweep

pytestmark = pytest.mark.slow

OF_CLAIMS = {"verdicts", "claim_criteria", "claim_seeds", "claim_runs"}
RATES = {"cot": 0.95, "direct": 0.3}
OF_SWEEPS = {"frontier", "answer_lengths", "compute"}
MEASURED = set(SCHEMAS) - OF_CLAIMS - OF_SWEEPS - {"skipped"}
"""Tables that a run of somebody's own specs on s3 leaves: verdicts are on the replication alone, no pair is missing."""


def tiny_specs():
    return tuple(
        RunSpec(
            task="s3",
            regime=regime,
            k_max=4,
            n_train=100,
            model=ModelSpec(n_layers=1, d_model=16, n_heads=2, d_mlp=32, n_ctx=32),
            optimizer=OptimizerSpec(steps=20, batch_size=8, warmup=5),
        )
        for regime in ("direct", "cot")
    )


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    out = tmp_path_factory.mktemp("reproduce") / "out"
    reproduce(out=out, from_scratch=True, specs=tiny_specs(), device="cpu", quick=True)
    return out


def test_every_file_is_written(out):
    # The reference tasks have every pair that the studies ask for: nothing is skipped, but circuits of models so small
    # that they do not tell the two runs apart.
    assert {path.stem for path in (out / "tables").iterdir()} - {"skipped"} == MEASURED
    assert set(read_tables(out).get("skipped", pd.DataFrame({"study": []}))["study"]) <= {"circuit"}
    assert {path.name for path in out.iterdir()} == {
        "report.html", "manifest.json", "attention.json", "tables", "figures", "checkpoints"
    }  # fmt: skip
    assert len(list((out / "figures").glob("*.html"))) >= 8


def test_the_manifest_names_what_was_used(out):
    manifest = json.loads((out / "manifest.json").read_text())
    for spec in tiny_specs():
        run = load_run(out / "checkpoints" / spec.slug)
        assert manifest["weight_hashes"][spec.slug] == run.weight_hash
        assert RunSpec.model_validate_json(json.dumps(manifest["specs"][spec.slug])) == spec
    assert manifest["threads"] == 1
    assert manifest["wall_time_seconds"] > 0


def test_finished_models_are_measured_again_with_the_same_result(out, tmp_path):
    again = tmp_path / "again"
    reproduce(out=again, root=out / "checkpoints", specs=tiny_specs(), device="cpu", quick=True, jobs=1)
    for name in MEASURED:
        assert (again / "tables" / f"{name}.csv").read_bytes() == (out / "tables" / f"{name}.csv").read_bytes()


def verdict_table(page):
    return page.split('<table class="verdicts">')[1].split("</table>")[0]


def test_the_catalog_is_judged_by_stored_evidence_and_not_on_other_specs(out, tmp_path, monkeypatch):
    heldout = [
        SyntheticCell(measure="accuracy", expected=rate, k=4, regime=of, condition="heldout")
        for of, rate in RATES.items()
    ]
    made_up = synthetic("s3", heldout, seeds=range(5), spread=0.02, rng=np.random.default_rng(0))
    made_up.save(tmp_path / "evidence")
    write_sweep_table(made_up_sweep(("parity",), k_max=6), tmp_path / "evidence" / "depth_frontier.csv")
    settings = {"root": out / "checkpoints", "device": "cpu", "quick": True, "jobs": 1}
    monkeypatch.setattr(f"{reproduce.__module__}.reference_specs", lambda: tiny_specs()[:1])
    places = [out / "checkpoints" / spec.slug for spec in tiny_specs()[:1]]
    monkeypatch.setattr(f"{reproduce.__module__}.reference_directories", lambda root: tuple(places))
    reproduce(out=tmp_path / "judged", evidence=tmp_path / "evidence", **settings)
    verdicts = json.loads((tmp_path / "judged" / "verdicts.json").read_text())
    assert verdicts == json.loads(judge_stored(CATALOG, made_up)[0].json())
    assert [(one["claim"], one["task"]) for one in verdicts] == [(claim.name, "s3") for claim in CATALOG]
    assert {name for name in SCHEMAS if (tmp_path / "judged" / "tables" / f"{name}.csv").is_file()} >= (
        OF_CLAIMS | OF_SWEEPS
    )
    first, again = ((tmp_path / "judged" / "report.html").read_text(), rebuild_report(tmp_path / "judged").read_text())
    assert verdict_table(again) == verdict_table(first)
    assert "verdicts.json" not in {path.name for path in out.iterdir()}


def test_evidence_that_lacks_a_column_is_refused_before_any_work(tmp_path):
    made_up = synthetic(
        "s3",
        [SyntheticCell(measure="accuracy", expected=0.5, k=4)],
        seeds=[0],
        spread=0.0,
        rng=np.random.default_rng(0),
    )
    made_up.save(tmp_path)
    table = pd.read_csv(tmp_path / "evidence.csv").drop(columns="condition")
    table.to_csv(tmp_path / "evidence.csv", index=False)
    with pytest.raises(ValueError, match="lacks the columns"):
        reproduce(out=tmp_path / "out", root=tmp_path / "nowhere", evidence=tmp_path)


def test_a_quick_run_stores_no_evaluation(out):
    assert all(read_evaluation(out / "checkpoints" / spec.slug) is None for spec in tiny_specs())


def test_an_output_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(NotADirectoryError, match="is a file"):
        reproduce(out=tmp_path / "out", specs=tiny_specs())
    assert (tmp_path / "out").read_text() == "mine"


def test_a_failing_study_is_raised_and_nothing_is_half_written(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        reproduce(out=tmp_path / "out", root=tmp_path / "nowhere", specs=tiny_specs(), device="cpu")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_task_of_ones_own_goes_through_the_whole_pipeline(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from cotinterp.tasks import FoldTask\n"
        "class Doubling(FoldTask):\n"
        "    name, operands, commutative = 'doubling', '0123456', False\n"
        "    def step(self, total, operand):\n"
        "        return (2 * total + operand) % 7\n"
    )
    (spec,) = (spec.model_copy(update={"task": f"{tmp_path}/mine.py:Doubling"}) for spec in tiny_specs()[:1])
    reproduce(out=tmp_path / "out", from_scratch=True, specs=[spec], device="cpu", quick=True, jobs=1)
    assert ",".join(("doubling", "direct", "0")) in (tmp_path / "out" / "tables" / "accuracy.csv").read_text()
