"""The tidy table: its columns, its order, its windows of the loss, and files that read back as they were."""

import json
import math

import pandas as pd
import pytest

from cotinterp.models.spec import Adapter
from cotinterp.sweeps.table import SWEEP_COLUMNS, read_sweep_table, sweep_table, write_sweep_table
from cotinterp.training.checkpoints import read_evaluation
from cotinterp.training.progress import metrics_line
from tests.sweeps.tiny import DIVERGING, FIVE, grid_of, tiny


@pytest.fixture(scope="module")
def root(five):
    return five.root


@pytest.fixture(scope="module")
def table(root):
    return sweep_table(FIVE, root)


def test_columns_and_types_are_those_that_are_declared(table):
    assert list(table.columns) == list(SWEEP_COLUMNS)
    assert {name: str(kind) for name, kind in table.dtypes.items()} == dict(SWEEP_COLUMNS)
    keys = table[["slug", "split", "reading", "k"]]
    assert keys.equals(keys.sort_values(list(keys), ignore_index=True))
    assert not keys.duplicated().any()


def test_rows_are_those_of_the_evaluation_beside_the_weights(root, table):
    spec = tiny("cot")
    rows = table[table["slug"] == spec.slug]
    stored = read_evaluation(root / spec.slug)["accuracy"]
    shared = ["split", "k", "n", "correct", "accuracy", "ci_low", "ci_high"]
    assert rows[shared].to_dict("records") == [{name: row[name] for name in shared} for row in stored]
    assert set(rows["reading"]) == {"answer"}
    first = rows.iloc[0]
    assert (first.task, first.regime, first.run_seed, first.n_layers, first.d_model) == ("s3", "cot", 0, 1, 8)
    assert (first.steps, first.batch_size, first.lr, first.n_train, first.k_max) == (20, 4, 1e-3, 20, 3)
    assert (first.status, first.step, first.start_from, first.error) == ("finished", 20, "", "")
    assert first.n_trained == first.n_parameters


def test_tagging_has_both_readings(table):
    rows = table[table["regime"] == "tagging"]
    assert set(rows["reading"]) == {"answer", "tags"}
    answers, tags = (rows.loc[rows["reading"] == name, "n"].tolist() for name in ("answer", "tags"))
    assert answers == tags


def test_a_run_without_an_evaluation_has_one_row_that_says_why(table):
    (row,) = table[table["slug"] == DIVERGING.slug].to_dict("records")
    assert (row["status"], row["k"], row["n"], row["correct"]) == ("failed", -1, 0, 0)
    assert (row["split"], row["reading"]) == ("heldout", "answer")
    assert math.isnan(row["accuracy"])
    assert row["error"].startswith("NonFiniteLossError: the loss became ")


def test_a_run_that_nobody_began_is_absent(root):
    (row,) = sweep_table(grid_of(tiny(seed=77)), root).to_dict("records")
    assert (row["status"], row["step"], row["k"]) == ("absent", 0, -1)
    with pytest.raises(FileNotFoundError, match="`cotinterp sweep` with this grid and --root makes it"):
        sweep_table(FIVE, root / "nowhere")


def test_losses_are_means_over_the_tenth_before_the_middle_and_the_last_tenth(tmp_path):
    spec = tiny(steps=200)
    (tmp_path / spec.slug).mkdir()
    (tmp_path / spec.slug / "spec.json").write_text(json.dumps(spec.model_dump(mode="json")))
    lines = [metrics_line({"step": step, "loss": float(step)}) for step in range(10, 201, 10)]
    (tmp_path / spec.slug / "metrics.jsonl").write_text("".join(lines))
    (row,) = sweep_table(grid_of(spec), tmp_path).to_dict("records")
    assert (row["loss_mid"], row["loss_end"]) == (95.0, 195.0), "of 90 and 100; of 190 and 200"
    (tmp_path / spec.slug / "metrics.jsonl").write_text("".join(lines[:12]))
    (row,) = sweep_table(grid_of(spec), tmp_path).to_dict("records")
    assert (row["step"], row["loss_mid"], math.isnan(row["loss_end"])) == (120, 95.0, True)


@pytest.mark.parametrize("name", ["table.csv", "table.parquet"])
def test_a_file_reads_back_as_it_was(table, tmp_path, name):
    path = write_sweep_table(table, tmp_path / "new" / name)
    back = read_sweep_table(path)
    pd.testing.assert_frame_equal(back, table, rtol=1e-5 if name.endswith("csv") else 0)
    assert set(back["start_from"]) == {""}
    assert write_sweep_table(back, tmp_path / f"again-{name}").read_bytes() == path.read_bytes()


def test_of_an_adapter_the_table_counts_what_is_trained_and_an_older_table_trained_all(tmp_path):
    adapter = Adapter(rank=2, targets=("q", "in"))
    spec = tiny(start_from="s3-direct-L1-s0-00000000", adapter=adapter)
    table = sweep_table(grid_of(spec), tmp_path)
    assert table["n_trained"].tolist() == [2 * (2 * 8 + 8 + 16)]
    assert table["schedule"].tolist() == ["lora2*16:q+in"]
    path = write_sweep_table(table.drop(columns="n_trained"), tmp_path / "older.csv")
    assert read_sweep_table(path)["n_trained"].tolist() == table["n_parameters"].tolist()


def test_floats_have_six_digits_in_a_csv(table, tmp_path):
    text = write_sweep_table(table.assign(accuracy=1 / 3), tmp_path / "table.csv").read_text()
    assert ",0.333333," in text
    assert "0.3333333" not in text


def test_files_that_are_no_tables_are_refused(tmp_path, table, monkeypatch):
    with pytest.raises(ValueError, match="a table is written as .csv or .parquet"):
        write_sweep_table(table, tmp_path / "table.xlsx")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="is no table of a sweep: it lacks .'slug'"):
        read_sweep_table(tmp_path / "other.csv")
    with pytest.raises(FileNotFoundError, match="`cotinterp collect` writes one"):
        read_sweep_table(tmp_path / "absent.csv")

    def absent(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("cotinterp.results.shipped.import_module", absent)
    with pytest.raises(ModuleNotFoundError, match=r'writing table.parquet needs .* pip install "cotinterp\[parquet\]"'):
        write_sweep_table(table, tmp_path / "table.parquet")
