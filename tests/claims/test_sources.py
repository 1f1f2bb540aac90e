"""Evidence of trained models through the command, in small: trained, measured, stored, and judged alike from both."""

import pytest
from rich.console import Console

from cotinterp.claims.catalog import CATALOG
from cotinterp.claims.judge import judge_all
from cotinterp.claims.session import Sources, gathered
from cotinterp.models.spec import ModelSpec
from cotinterp.studies.evidence import read_evidence
from cotinterp.training.spec import OptimizerSpec, RunSpec

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
    made = gathered(sources(tmp_path, train=True, tables=tmp_path / "tables"), tmp_path / "out", quiet)
    assert set(made.table["regime"]) == {"direct", "cot", "filler"}
    stored = read_evidence(tmp_path / "tables")
    assert judge_all(CATALOG, stored).frame().equals(judge_all(CATALOG, made).frame())
    again = gathered(sources(tmp_path), tmp_path / "out", quiet)
    assert judge_all(CATALOG, again).frame().equals(judge_all(CATALOG, made).frame())


def test_runs_that_are_missing_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="3 of 3 runs are not trained .*--train"):
        gathered(sources(tmp_path), tmp_path / "out", Console(quiet=True))
