"""The command in small: evidence trained, measured and stored; verdicts judged, said and written."""

import json
from dataclasses import replace

import pandas as pd
import pytest
from rich.console import Console

from cotinterp.claims.catalog import CATALOG
from cotinterp.claims.judge import judge_all
from cotinterp.claims.session import Sources, Stages, claims_session, gather_evidence
from cotinterp.models.spec import ModelSpec
from cotinterp.studies.evidence import Evidence, read_evidence
from cotinterp.training.spec import OptimizerSpec, RunSpec
from tests.claims.claims import ACCURATE, BOTH
from tests.claims.worlds import accuracies, evidence

HIGH, LOW = [0.53, 0.54, 0.53, 0.54, 0.53], [0.1, 0.12, 0.09, 0.1, 0.11]
RUNS = [
    *({"task": "toy", "status": "finished", "slug": f"a{seed}", "run_seed": seed, "draw": seed} for seed in range(5)),
    {"task": "toy", "status": "failed", "slug": "b", "note": "the loss is not finite"},
]
MADE = evidence([*accuracies("cot", HIGH), *accuracies("direct", LOW)], RUNS)


def test_everything_is_said_and_written(tmp_path):
    said = []
    verdicts = claims_session(MADE, out=tmp_path, claims=(ACCURATE, BOTH), say=said.append)
    text = "\n".join(said)
    assert "toy, cot-is-accurate: supported. Every prediction holds, at 5 of 5 seeds" in text
    assert "toy, both-are-accurate: partly supported." in text
    assert "rivals: cot alone: stands; neither: contradicted" in text
    assert "runs: 5 finished, 1 failed" in text
    assert "failed: b: the loss is not finite" in text
    assert "toy, cot-is-accurate: accuracy times 1.1: supported becomes" in text
    assert json.loads((tmp_path / "verdicts.json").read_text())[0]["verdict"] == "supported"
    for name in ("verdicts", "claim_criteria", "claim_seeds", "claim_runs", "claim_thresholds"):
        assert len(pd.read_csv(tmp_path / "tables" / f"{name}.csv")), name
    assert (tmp_path / "figures" / "verdicts.html").exists()
    assert verdicts.of("both-are-accurate", "toy").verdict == "partly supported"


def test_a_task_without_evidence_says_how_to_get_some(tmp_path):
    with pytest.raises(ValueError, match=r"no evidence on \['parity'\]; there is some on \['toy'\].*--train --task"):
        claims_session(MADE, out=tmp_path, tasks=["parity"], claims=(ACCURATE,), say=lambda _: None)


def test_a_task_whose_runs_failed_is_not_told_to_be_trained_again(tmp_path):
    failed = [{"task": "parity", "status": "failed", "slug": "c", "note": "the loss is not finite"}]
    made = evidence([MADE.table], failed)
    with pytest.raises(ValueError, match="It was tried: 1 of 1 runs failed, such as c: the loss is not finite"):
        claims_session(made, out=tmp_path, tasks=["parity"], claims=(ACCURATE,), say=lambda _: None)


BASE = RunSpec(
    task="parity",
    regime="direct",
    k_max=3,
    n_train=40,
    model=ModelSpec(n_layers=1, d_model=16, n_heads=2, d_mlp=16, n_ctx=24),
    optimizer=OptimizerSpec(steps=2, warmup=0, batch_size=8),
)


def sources(tmp_path, **more):
    return Sources(
        tasks=("parity",), seeds=1, root=tmp_path / "runs", jobs=0, quick=True, base=BASE, parts=("regimes",), **more
    )


def test_stored_evidence_gives_the_verdicts_of_the_models(tmp_path):
    quiet = Console(quiet=True)
    evidence(accuracies("direct", [0.5])).save(tmp_path / "tables")
    made = gather_evidence(sources(tmp_path, train=True, tables=tmp_path / "tables"), tmp_path / "out", quiet)
    assert set(made.table["regime"]) == {"direct", "cot", "filler"}
    stored = read_evidence(tmp_path / "tables")
    assert stored.tasks == ("parity", "toy")
    mine = Evidence(*(frame[frame["task"] == "parity"] for frame in (stored.table, stored.runs)))
    assert judge_all(CATALOG, mine).frame().equals(judge_all(CATALOG, made).frame())
    again = gather_evidence(sources(tmp_path), tmp_path / "out", quiet)
    assert judge_all(CATALOG, again).frame().equals(judge_all(CATALOG, made).frame())


def test_runs_that_are_missing_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="3 of 3 runs are not trained .*--train"):
        gather_evidence(sources(tmp_path), tmp_path / "out", Console(quiet=True))


def test_random_labels_of_another_design_are_refused_before_anything_is_trained(tmp_path):
    ceiling = {"task": "random-labels", "slug": "random-labels-direct-L4-s0-0000"}
    evidence([*accuracies("direct", [0.5])], [ceiling]).save(tmp_path / "tables")
    asked = replace(sources(tmp_path, train=True, tables=tmp_path / "tables"), parts=("regimes", "memory"))
    with pytest.raises(
        ValueError, match=r"\['toy'\] is compared with 'random-labels' of another design .*--part regimes"
    ):
        gather_evidence(asked, tmp_path / "out", Console(quiet=True))
    assert not (tmp_path / "runs").exists()


def test_stages_of_models_grow_and_keep_what_is_decided(tmp_path, monkeypatch):
    """A task of one's own is asked for by its path, and a task that is asked no more stays in the evidence."""
    path = tmp_path / "mine.py"
    path.write_text(
        "from cotinterp.tasks import FoldTask\n"
        "class Doubling(FoldTask):\n"
        "    name, operands, commutative = 'doubling', '0123456', False\n"
        "    def step(self, total, operand):\n"
        "        return (2 * total + operand) % 7\n"
    )
    asked = []

    def gathered(sources, folder):
        asked.append((sources.seeds, sources.tasks))
        names = ["doubling" if task.startswith(str(path)) else task for task in sources.tasks]
        parts = [accuracies("direct", [0.5] * sources.seeds, task=name) for name in names]
        return evidence([row for of_task in parts for row in of_task])

    monkeypatch.setattr("cotinterp.claims.session.gather_evidence", gathered)
    stages = Stages.of_models(Sources(tasks=("parity", f"{path}:Doubling")), tmp_path, most=10)
    stages.evidence_of(5, ("parity", "doubling"))
    last = stages.evidence_of(10, ("doubling",))
    assert asked == [(5, ("parity", f"{path}:Doubling")), (10, (f"{path}:Doubling",))]
    by_task = last.table.groupby("task")["run_seed"].nunique().to_dict()
    assert by_task == {"doubling": 10, "parity": 5}
    assert read_evidence(tmp_path / "evidence").tasks == ("doubling", "parity")
