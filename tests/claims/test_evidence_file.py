import pandas as pd
import pytest

from cotinterp.studies.evidence import cells_text, read_cells

NAMES = ["task", "run_seed", "measure", "condition"]
ROWS = pd.DataFrame(
    [
        ("toy", 0, "accuracy", "heldout", 1.0, 1.0, 964),
        ("toy", 0, "accuracy", "heldout", 0.0, 1.0, 36),
        ("toy", 1, "edit", "", 2.0, 3.0, 5),
        ("toy", 1, "lost", "", -0.1234, 12.5, 1),
    ],
    columns=[*NAMES, "value", "trials", "problems"],
)


def test_a_cell_is_a_line():
    assert cells_text(ROWS, NAMES).splitlines() == [
        "task,run_seed,measure,condition,outcomes",
        "toy,0,accuracy,heldout,0:36 1:964",
        "toy,1,edit,,2/3:5",
        "toy,1,lost,,-0.1234/12.5:1",
    ]


def test_what_is_read_is_what_was_written():
    found = read_cells(cells_text(ROWS, NAMES))
    expected = ROWS.sort_values([*NAMES, "value"]).reset_index(drop=True)
    pd.testing.assert_frame_equal(found, expected, check_dtype=False)
    assert cells_text(found, NAMES) == cells_text(ROWS, NAMES)


def test_a_table_without_outcomes_is_refused():
    with pytest.raises(ValueError, match="lacks the column outcomes"):
        read_cells("task,run_seed\ntoy,0\n")


def test_a_damaged_line_is_shown():
    with pytest.raises(ValueError, match="'1;2' is no outcome"):
        read_cells("task,run_seed,measure,condition,outcomes\ntoy,0,accuracy,x,1;2\n")
