"""Tables from disk: text stays text, numbers stay numbers, and what is missing is named."""

from pathlib import Path

import pandas as pd
import pytest

from cotinterp.report import SCHEMAS, ReportInputs, read_tables
from cotinterp.report.inputs import read_inputs

EDIT = {"task": "7", "regime": "cot", "run_seed": 0, "edit": "none", "step": 1, "outcome": "follows", "n": 9}


def write(folder: Path, name: str, frame: pd.DataFrame) -> None:
    (folder / "tables").mkdir(exist_ok=True)
    frame.to_csv(folder / "tables" / f"{name}.csv", index=False)


def test_text_that_looks_like_a_number_or_like_nothing_stays_text(tmp_path: Path) -> None:
    write(tmp_path, "trace_edits", pd.DataFrame([EDIT | {"rate": 0.5, "ci_low": 0.1, "ci_high": None}]))
    (row,) = read_tables(tmp_path)["trace_edits"].to_dict("records")
    assert (row["task"], row["edit"], row["step"], row["rate"]) == ("7", "none", 1, 0.5)
    assert pd.isna(row["ci_high"])


def test_every_table_survives_the_disk(tmp_path: Path, inputs: ReportInputs) -> None:
    for name, frame in inputs.tables.items():
        write(tmp_path, name, frame)
    back = read_tables(tmp_path)
    assert list(back) == [name for name in SCHEMAS if name != "skipped"]
    for name, frame in inputs.tables.items():
        pd.testing.assert_frame_equal(back[name], frame, check_dtype=False, check_exact=True)


def test_tables_that_are_not_there_are_left_out_and_others_ignored(tmp_path: Path, inputs: ReportInputs) -> None:
    write(tmp_path, "heads", inputs.tables["heads"])
    write(tmp_path, "errors_by_step", pd.DataFrame({"anything": [1]}))
    assert list(read_tables(tmp_path)) == ["heads"]


def test_a_missing_column_is_named_with_the_command_that_writes_it(tmp_path: Path, inputs: ReportInputs) -> None:
    short = inputs.tables["heads"].drop(columns=["label", "head"])
    write(tmp_path, "heads", short)
    with pytest.raises(ValueError, match=r"heads\.csv lacks the columns \['head', 'label'\].*cotinterp attribute"):
        read_tables(tmp_path)
    with pytest.raises(ValueError, match=r"'heads' lacks"):
        ReportInputs({"heads": short})


def test_an_unknown_table_is_refused_with_those_that_exist() -> None:
    with pytest.raises(KeyError, match=r"no table 'head'.*'heads'"):
        ReportInputs({"head": pd.DataFrame()})


def test_a_folder_without_tables_says_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="cotinterp reproduce --out"):
        read_tables(tmp_path)


def test_a_label_with_two_rules_gets_both(tmp_path: Path) -> None:
    write(tmp_path, "label_rules", pd.DataFrame({"label": ["a", "b", "a"], "rule": ["one", "two", "three"]}))
    assert read_inputs(tmp_path).rules == {"a": "one; or three", "b": "two"}
