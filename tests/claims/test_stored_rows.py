"""Rows are found again where, and only where, they would come out the same."""

from dataclasses import replace

import numpy as np
import pytest
from pandas.testing import assert_frame_equal

from cotinterp.models.spec import ModelSpec
from cotinterp.results import with_labels
from cotinterp.studies.answers import answers, edits
from cotinterp.studies.evidence import tally
from cotinterp.studies.subject import FULL, QUICK
from cotinterp.sweeps import replication as stored_rows
from cotinterp.sweeps.replication import RowStore, read_rows, source_hash, text_of
from cotinterp.training.loop import train
from cotinterp.training.spec import OptimizerSpec, RunSpec

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
