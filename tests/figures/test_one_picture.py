"""A result and the report draw a table with one function: the same figure, from the frame and from the CSV file."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cotinterp.depth.compute import ComputeResult
from cotinterp.figures import (
    RunKey,
    accuracy_figure,
    edit_kinds_figure,
    errors_figure,
    families_figure,
    patching_figure,
    probe_figure,
    trace_edits_figure,
)
from cotinterp.figures.attention import AttentionView
from cotinterp.figures.labels import Symbols
from cotinterp.mechanism.patching.sweep import PatchedBothWays, PatchingResult
from cotinterp.mechanism.probing.result import ProbeResult
from cotinterp.models.spec import ModelSpec
from cotinterp.report import ReportInputs, write_report
from cotinterp.report.inputs import read_inputs
from cotinterp.report.sections import sections
from cotinterp.report.verdicts import verdict_tables
from cotinterp.results import Result
from cotinterp.studies.instruments import study
from cotinterp.studies.subject import QUICK, Subject
from cotinterp.training.loop import train
from cotinterp.training.spec import OptimizerSpec, RunSpec
from tests.report.verdict_frames import made_up_verdicts

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    """By table, what the studies of one run found that the report draws."""
    spec = RunSpec(
        task="s3",
        regime="cot",
        k_min=2,
        k_max=4,
        n_train=100,
        model=ModelSpec(n_layers=1, d_model=16, n_heads=2, d_mlp=32, n_ctx=32),
        optimizer=OptimizerSpec(steps=20, batch_size=8, warmup=5),
    )
    run = train(spec, directory=tmp_path_factory.mktemp("runs") / spec.slug, device="cpu", threads=1)
    subject = Subject.of_run(run)
    found: dict[str, Result] = {}
    for name in ("evaluate", "edit", "probe"):
        found |= {table: next(iter(parts.values())) for table, parts in study(name, subject, QUICK).items()}
    patched = study("patch", subject, QUICK)
    denoise, noise = list(patched["patching"].values())[:2]
    assert isinstance(denoise, PatchingResult)
    assert isinstance(noise, PatchingResult)
    return found | {
        "pair_families": patched["pair_families"]["pair_families"],
        "patching": PatchedBothWays(denoise, noise),
    }


def of_the_report(table: str, frame: pd.DataFrame, folder: Path, views: Sequence[AttentionView] = ()) -> list[str]:
    """The figures of a report of one table, from the files that it wrote."""
    write_report(ReportInputs({table: frame}, tuple(views)), folder)
    return [str(one.figure.to_json()) for part in sections(read_inputs(folder)) for one in part.figures]


def seen_at(symbols: Symbols) -> AttentionView:
    """An example of which these symbols are known."""
    places = list(symbols)
    nothing = np.zeros((1, 1, len(places), len(places)))
    roles, steps = zip(*places, strict=True)
    return AttentionView(RunKey("s3", "cot", 0), tuple(symbols.values()), roles, steps, nothing)


@pytest.mark.parametrize("table", ["accuracy", "errors", "trace_edits", "trace_edit_kinds", "pair_families"])
def test_the_figure_of_a_result_is_that_of_the_report(table: str, results: dict[str, Result], tmp_path: Path) -> None:
    result = results[table]
    assert of_the_report(table, result.frame(), tmp_path) == [result.figure().to_json()]


def test_probes(results: dict[str, Result], tmp_path: Path) -> None:
    result = results["probes"]
    assert isinstance(result, ProbeResult)
    drawn = [result.figure(measure).to_json() for measure in ("selectivity", "accuracy")]
    assert of_the_report("probes", result.frame(), tmp_path) == drawn


def test_patching(results: dict[str, Result], tmp_path: Path) -> None:
    result = results["patching"]
    assert isinstance(result, PatchedBothWays)
    views = [seen_at(result.denoise.symbols)]
    drawn = [result.figure(heads=heads).to_json() for heads in (False, True)]
    assert of_the_report("patching", result.frame(), tmp_path / "symbols", views) == drawn
    assert of_the_report("patching", result.frame(), tmp_path / "none") != drawn


def test_compute(inputs: ReportInputs, tmp_path: Path) -> None:
    result = ComputeResult(inputs.tables["compute"])
    assert of_the_report("compute", result.frame(), tmp_path) == [result.figure().to_json()]


def test_verdicts(tmp_path: Path) -> None:
    verdicts = made_up_verdicts()
    write_report(ReportInputs(verdict_tables(verdicts)), tmp_path)
    (section,) = (part for part in sections(read_inputs(tmp_path)) if part.name == "verdicts")
    assert [one.figure.to_json() for one in section.figures] == [verdicts.figure().to_json()]


@pytest.mark.parametrize("table", ["accuracy", "errors", "trace_edits", "trace_edit_kinds", "pair_families", "probes"])
def test_a_table_without_labels_is_drawn(table: str, results: dict[str, Result]) -> None:
    """A model of a user's own has no task of ours, no regime, and no seed."""
    drawn = {
        "accuracy": accuracy_figure,
        "errors": errors_figure,
        "trace_edits": trace_edits_figure,
        "trace_edit_kinds": edit_kinds_figure,
        "pair_families": families_figure,
        "probes": probe_figure,
    }
    frame = results[table].frame()
    figure = drawn[table](frame.drop(columns=["task", "regime", "run_seed"]))
    assert [trace.type for trace in figure.data] == [trace.type for trace in drawn[table](frame).data]
    assert not {"s3", "cot", "None", "nan", "-1"} & set(figure.layout.title.text.replace(",", "").split())


def test_patching_without_labels_is_drawn(results: dict[str, Result]) -> None:
    frame = results["patching"].frame()
    for unlabeled in (
        frame.drop(columns=["task", "regime", "run_seed"]),
        frame.assign(task="", regime="", run_seed=""),
    ):
        assert patching_figure(unlabeled).layout.title.text.startswith("Operand 2 differs")


def test_two_models_in_one_figure_of_one_model_are_refused(inputs: ReportInputs) -> None:
    for figure, table in ((probe_figure, "probes"), (patching_figure, "patching")):
        with pytest.raises(ValueError, match=r"about one trained model.*digit-sum, direct, seed 0.*select one first"):
            figure(inputs.tables[table])
