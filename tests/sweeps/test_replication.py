"""Evidence from many runs: trained, measured, kept and listed."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from cotinterp.models.spec import ModelSpec
from cotinterp.results import with_labels
from cotinterp.studies.answers import answers, edits
from cotinterp.studies.evidence import COLUMNS, RUN_COLUMNS, joined, read_evidence, tally
from cotinterp.studies.subject import FULL, QUICK, Subject
from cotinterp.sweeps import replication as stored_rows
from cotinterp.sweeps.replication import (
    Measuring,
    Planned,
    RowStore,
    final_loss,
    gather,
    gather_subjects,
    plan,
    read_rows,
    replicate,
    source_hash,
    text_of,
)
from cotinterp.sweeps.sweep import RunOutcome
from cotinterp.training.checkpoints import load_run
from cotinterp.training.curriculum import taught
from cotinterp.training.loop import train
from cotinterp.training.progress import metrics_line
from cotinterp.training.spec import OptimizerSpec, RunSpec

pytestmark = pytest.mark.slow

BASE = RunSpec(
    task="s3",
    regime="direct",
    k_max=3,
    n_train=20,
    model=ModelSpec(n_layers=1, d_model=8, n_heads=2, d_mlp=16, n_ctx=40),
    optimizer=OptimizerSpec(steps=40, batch_size=4, warmup=5),
)
PLAN = plan("s3", seeds=[0, 1], base=BASE, parts=["regimes"])


def trained_accuracy(subject, effort):
    """A stand-in: right on all training problems, but for seed 1, and at a loss with filler."""
    if subject.regime == "filler":
        raise TypeError("dots\nare not measured")
    right = [1.0, 1.0] if subject.run_seed == 0 else [1.0, 0.0]
    cells = [tally("accuracy", pd.Series(right).to_numpy(), k=k, condition="train") for k in (3, 2)]
    return joined([*cells, tally("third", pd.Series([1 / 3]).to_numpy(), k=2, condition="x,y")])


def measured_in(store):
    return Measuring(jobs=0, effort=QUICK, measures=[trained_accuracy], store=store)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("replication") / "checkpoints"
    for one in PLAN:
        train(one.spec, directory=root / one.spec.slug, device="cpu", threads=1)
    return root


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("replication") / "rows"


@pytest.fixture(scope="module")
def gathered(root, store):
    return gather(PLAN, root=root, measuring=measured_in(store))


def test_every_run_is_listed_in_the_order_of_the_plan(gathered):
    assert list(gathered.runs.columns) == list(RUN_COLUMNS)
    assert gathered.runs["slug"].tolist() == [one.spec.slug for one in PLAN]
    assert gathered.runs["status"].tolist() == ["finished", "unconverged"] * 2 + ["failed"] * 2


def test_a_failed_run_has_its_error_and_no_rows(gathered):
    failed = gathered.runs[gathered.runs["status"] == "failed"]
    assert set(failed["note"]) == {"TypeError: dots are not measured"}
    assert failed["train_accuracy"].isna().all()
    assert not (gathered.table["regime"] == "filler").any()


def test_an_unconverged_run_is_measured_and_says_where_it_falls_short(gathered):
    first, second = gathered.runs.to_dict("records")[:2]
    assert (first["train_accuracy"], first["note"]) == (1.0, "")
    assert (second["train_accuracy"], second["note"]) == (
        0.5,
        "right on 50.0% of its training problems at K = 2, below 90%",
    )
    assert sorted(gathered.table["run_seed"].unique()) == [0, 1]


def test_a_run_that_its_budget_ended_is_unconverged_whatever_it_answers(root):
    until = OptimizerSpec(until="converged", steps=40, batch_size=4, warmup=5)
    one = Planned(BASE.model_copy(update={"optimizer": until}), "converged-n20")
    train(one.spec, directory=root / one.spec.slug, device="cpu", threads=1)
    (run,) = gather([one], root=root, measuring=measured_in(None)).runs.to_dict("records")
    assert run["train_accuracy"] == 1.0
    assert (run["status"], run["note"]) == ("unconverged", "ended by its budget of 40 updates")


def asked_and_written(subject, effort):
    """A stand-in for a model that writes every trace and answers nothing at once."""
    sides = {"accuracy": ("train", 0.0), "exact": ("trace-train", 1.0)}
    return joined([tally(name, np.array([x]), k=2, condition=side) for name, (side, x) in sides.items()])


def test_a_run_that_is_asked_otherwise_than_it_was_shown_has_learned_where_it_writes_its_trace(root):
    measuring = replace(measured_in(None), measures=[asked_and_written])
    naive = Planned(taught("naive", BASE), "naive")
    train(naive.spec, directory=root / naive.spec.slug, device="cpu", threads=1)
    runs = gather([naive, PLAN[0]], root=root, measuring=measuring).runs
    assert runs["status"].tolist() == ["finished", "unconverged"]


def test_of_runs_that_settled_short_of_their_training_problems_a_narrow_one_alone_is_finished(root, monkeypatch):
    """Seed 1 of the stand-in is right on half of its training problems, whatever its file says of its end."""
    record = stored_rows.read_record
    monkeypatch.setattr(stored_rows, "read_record", lambda path: replace(record(path), ended="settled"))
    base = PLAN[1].spec
    found = [
        gather([Planned(base, variant)], root=root, measuring=measured_in(None)).runs.iloc[0]
        for variant in ("", "w8", "converged-n20")
    ]
    assert [run["status"] for run in found] == ["unconverged", "finished", "unconverged"]
    assert {run["note"] for run in found} == {"right on 50.0% of its training problems at K = 2, below 90%"}


def test_rows_carry_the_labels_of_their_run(gathered):
    assert list(gathered.table.columns) == list(COLUMNS)
    labels = gathered.table[["task", "regime", "variant", "n_layers", "run_seed"]].drop_duplicates()
    assert labels.values.tolist() == [["s3", regime, "", 1, seed] for regime in ("direct", "cot") for seed in (0, 1)]


def test_stored_evidence_reads_as_it_was(gathered, tmp_path):
    gathered.save(tmp_path)
    again = read_evidence(tmp_path)
    for found, expected in ((again.table, gathered.table), (again.runs, gathered.runs)):
        by = [name for name in COLUMNS if name in expected]
        found, expected = (frame.sort_values(by, ignore_index=True) for frame in (found, expected))
        assert_frame_equal(found, expected, check_dtype=False)


def test_rows_that_are_stored_are_not_measured_again(gathered, root, store):
    """Rows of a name that only this measurement has: other ones in their place are what a second gathering finds."""
    kept = sorted(store.iterdir())
    assert len(kept) == 4, "a run that failed leaves nothing"
    before = [path.read_bytes() for path in kept]
    again = gather(PLAN[:4], root=root, measuring=measured_in(store))
    assert [path.read_bytes() for path in sorted(store.iterdir())] == before
    assert_frame_equal(again.table, gathered.table)
    for path in kept:
        rows = RowStore(store).read(path)
        RowStore(store).write(path, rows.assign(measure=rows["measure"].replace("third", "fourth")))
    altered = gather(PLAN[:4], root=root, measuring=measured_in(store))
    assert set(altered.table["measure"]) == {"accuracy", "fourth"}


def test_the_number_of_processes_changes_nothing(gathered, root):
    with_one = gather(PLAN, root=root, measuring=replace(measured_in(None), jobs=1))
    assert_frame_equal(with_one.table, gathered.table)
    assert_frame_equal(with_one.runs, gathered.runs)


def test_runs_that_are_not_trained_are_listed_with_the_command(root):
    absent = Planned(PLAN[0].spec.model_copy(update={"seed": 9}))
    with pytest.raises(FileNotFoundError, match=rf"1 of 7 runs.*{absent.spec.slug}\. `cotinterp claims.*--train`"):
        gather([*PLAN, absent], root=root)


def test_a_training_that_failed_is_listed_not_asked_for(tmp_path):
    spec = PLAN[0].spec
    outcome = RunOutcome(spec, tmp_path / spec.slug, "failed", "NonFiniteLossError: the loss became nan", 3.0)
    evidence = gather([PLAN[0]], root=tmp_path, outcomes=[outcome])
    (row,) = evidence.runs.to_dict("records")
    assert (row["status"], row["note"], row["slug"]) == ("failed", outcome.error, spec.slug)
    assert evidence.table.empty
    assert list(evidence.table.columns) == list(COLUMNS)


def test_two_runs_in_one_place_of_the_evidence_are_refused(root):
    other = Planned(PLAN[0].spec.model_copy(update={"n_train": 21}))
    with pytest.raises(ValueError, match=r"same task, regime, variant and seed: \[\('s3', 'direct', '', 0\)\]"):
        gather([PLAN[0], other], root=root)


def test_what_is_not_trained_is_trained_and_what_cannot_be_is_listed(root, tmp_path):
    """Real measures and a task in a file: the whole way that a user goes."""
    (tmp_path / "mine.py").write_text(
        "from cotinterp.tasks import FoldTask\n"
        "class Doubling(FoldTask):\n"
        "    name, operands, commutative = 'doubling', '0123456', False\n"
        "    def step(self, total, operand):\n"
        "        return (2 * total + operand) % 7\n"
    )
    reference = f"{tmp_path}/mine.py:Doubling"
    fine, diverging = plan(reference, seeds=[0, 1], base=BASE, parts=["regimes"])[:2]
    wild = BASE.optimizer.model_copy(update={"lr": 1e30})
    diverging = Planned(diverging.spec.model_copy(update={"optimizer": wild}))
    shallow = Planned(BASE.model_copy(update={"task": reference, "n_train": 10}), "n10")
    seen = []
    evidence = replicate(
        [fine, diverging, shallow],
        root=tmp_path / "runs",
        measuring=Measuring(jobs=0, effort=QUICK),
        progress=seen.append,
    )
    assert evidence.runs["status"].tolist() == ["unconverged", "failed", "unconverged"]
    assert evidence.runs["note"][1].startswith("NonFiniteLossError")
    assert set(evidence.table["task"]) == {"doubling"}
    measured = evidence.table.groupby("variant")["measure"].agg(set)
    assert measured["n10"] == {"accuracy", "chance", "nearest"}
    assert measured[""] > {"accuracy", "chance", "nearest", "probe"}
    assert {run.state for run in seen[-1]} == {"done"}


def test_the_final_loss_is_the_mean_over_the_last_tenth(tmp_path):
    lines = [metrics_line({"step": step, "loss": x}) for step, x in enumerate([9.0] * 18 + [1.0, 2.0], start=1)]
    (tmp_path / "metrics.jsonl").write_text("".join(lines))
    assert final_loss(tmp_path) == 1.5
    (tmp_path / "metrics.jsonl").write_text(lines[0])
    assert final_loss(tmp_path) == 9.0
    assert pd.isna(final_loss(tmp_path / "nowhere"))


def test_models_of_any_origin(root):
    subjects = [Subject.of_run(load_run(root / one.spec.slug)) for one in PLAN[:4]]
    evidence = gather_subjects(subjects, QUICK, measures=[trained_accuracy])
    assert evidence.runs["status"].tolist() == ["finished", "unconverged"] * 2
    assert set(evidence.runs["slug"]) == {""}
    assert evidence.seeds == (0, 1)
    with pytest.raises(ValueError, match="give one of them a variant"):
        gather_subjects([subjects[0], subjects[0]], QUICK, measures=[trained_accuracy])
    with pytest.raises(TypeError, match="dots"):
        gather_subjects([Subject.of_run(load_run(root / PLAN[4].spec.slug))], QUICK, measures=[trained_accuracy])


def test_a_model_that_a_measure_refuses_is_listed_with_the_reason(root):
    def refuses(subject, effort):
        raise ValueError("no pairs\nto exchange")

    subjects = [Subject.of_run(load_run(root / one.spec.slug)) for one in PLAN[:2]]
    evidence = gather_subjects(subjects, QUICK, measures=[trained_accuracy, refuses])
    first, second = evidence.runs.to_dict("records")
    assert (first["status"], first["note"]) == ("incomplete", "refuses: ValueError: no pairs to exchange")
    assert second["status"] == "unconverged"
    assert "below 90%; refuses: ValueError" in second["note"]
    assert set(evidence.table["measure"]) == {"accuracy", "third", "refused"}


LABELS = {"task": "s3", "regime": "cot", "variant": "", "n_layers": 1, "run_seed": 0}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    spec = RunSpec(
        task="s3",
        regime="direct",
        k_max=2,
        n_train=4,
        model=ModelSpec(n_layers=1, d_model=4, n_heads=1, d_mlp=4, n_ctx=8),
        optimizer=OptimizerSpec(steps=1, batch_size=2),
    )
    return train(spec, directory=tmp_path_factory.mktemp("run") / spec.slug, device="cpu", threads=1)


@pytest.fixture
def rows():
    values = np.array([1 / 3, 1e-17, -2.5e9, 1.0])
    return with_labels(tally("share", values, k=3, condition='a,"b"|c'), LABELS)


def test_rows_come_back_to_the_last_digit_and_with_their_types(rows):
    again = read_rows(text_of(rows))
    assert_frame_equal(again.reset_index(drop=True), rows.reset_index(drop=True), check_exact=True, check_dtype=False)
    assert [again[name].dtype.kind for name in ("value", "trials", "problems", "k", "run_seed")] == list("ffiii")
    assert text_of(again) == text_of(rows)


def test_a_table_without_rows_comes_back_as_one(rows):
    assert read_rows(text_of(rows.iloc[:0])).empty


def test_what_was_written_is_read_and_nothing_else(tmp_path, run, rows):
    store = RowStore(tmp_path / "new" / "rows")
    path = store.path(run, "", QUICK, "cpu", [answers])
    assert store.read(path) is None
    store.write(path, rows)
    assert text_of(store.read(path)) == text_of(rows)
    assert store.read(store.path(run, "L1", QUICK, "cpu", [answers])) is None
    for place in (0, 40, path.stat().st_size - 3):
        store.write(path, rows)
        content = bytearray(path.read_bytes())
        content[place] ^= 1
        path.write_bytes(content)
        assert store.read(path) is None, "what is not what was written is measured again"


def test_everything_that_decides_the_rows_is_in_the_name(tmp_path, run):
    store = RowStore(tmp_path)
    usual = store.path(run, "", QUICK, "cpu", [answers])
    others = {
        store.path(replace(run, weight_hash="0" * 64), "", QUICK, "cpu", [answers]),
        store.path(replace(run, metadata={**run.metadata, "task": "x"}), "", QUICK, "cpu", [answers]),
        store.path(replace(run, metadata={**run.metadata, "data": "x"}), "", QUICK, "cpu", [answers]),
        store.path(run, "L1", QUICK, "cpu", [answers]),
        store.path(run, "", FULL, "cpu", [answers]),
        store.path(run, "", QUICK, "cuda", [answers]),
        store.path(run, "", QUICK, "cpu", [answers, edits]),
    }
    assert len(others | {usual}) == 8
    assert store.path(run, "", QUICK, "cpu", [answers]) == usual
    assert usual.name.startswith(f"{run.spec.slug}-rows-")


def test_another_source_is_another_name(tmp_path, run, monkeypatch):
    store = RowStore(tmp_path)
    usual = store.path(run, "", QUICK, "cpu", [answers])
    (tmp_path / "more.py").write_text("SITES = 3\n")
    monkeypatch.setattr(stored_rows, "MEASURING", (*stored_rows.MEASURING, tmp_path / "more.py"))
    changed = store.path(run, "", QUICK, "cpu", [answers])
    (tmp_path / "more.py").write_text("SITES = 4\n")
    assert len({usual, changed, store.path(run, "", QUICK, "cpu", [answers])}) == 3


def test_source_is_read_in_any_order_and_to_any_depth(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "deep.py").write_text("x = 1")
    (tmp_path / "b.py").write_text("y = 1")
    places = (tmp_path / "a", tmp_path / "b.py")
    before = source_hash(places)
    assert source_hash(places[::-1]) == before
    (tmp_path / "a" / "notes.txt").write_text("no source")
    assert source_hash(places) == before
    (tmp_path / "a" / "deep.py").write_text("x = 2")
    assert source_hash(places) != before


def test_the_places_that_decide_a_measurement_exist():
    assert all(place.exists() for place in stored_rows.MEASURING)
