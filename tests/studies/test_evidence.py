"""The table of evidence: rows, files, and what is read back."""

import numpy as np
import pandas as pd
import pytest

from cotinterp.studies.evidence import COLUMNS, Evidence, cells_text, joined, read_cells, read_evidence, tally
from cotinterp.tasks import get_task
from cotinterp.tasks.definition import task_definition
from tests.claims.worlds import accuracies, evidence, rows


def test_a_tally_keeps_how_many_problems_came_out_how():
    table = tally("accuracy", np.array([1, 0, 1, 1]), k=3, condition="heldout")
    assert table[["value", "trials", "problems"]].values.tolist() == [[0, 1, 1], [1, 1, 3]]
    assert set(table["k"]) == {3}
    assert set(table["step"]) == {-1}


def test_a_tally_keeps_pairs_of_value_and_trials():
    table = tally("edit", np.array([2, 2, 3]), k=3, trials=np.array([3, 3, 3]))
    assert table[["value", "trials", "problems"]].values.tolist() == [[2, 3, 2], [3, 3, 1]]
    assert (table["value"] @ table["problems"]) / (table["trials"] @ table["problems"]) == pytest.approx(7 / 9)


def test_a_tally_refuses_what_is_not_finite():
    with pytest.raises(ValueError, match="probe .*not finite"):
        tally("probe", np.array([1.0, np.nan]), k=3)


def test_no_problems_make_no_rows():
    assert len(tally("accuracy", np.array([]), k=3)) == 0
    assert list(joined([]).columns)[:4] == ["measure", "k", "step", "condition"]


def test_what_is_written_is_what_is_read(tmp_path):
    values = np.random.default_rng(0).normal(size=50)
    table = tally("own_log_prob", values, k=4).assign(task="toy", regime="cot", variant="L1", n_layers=1, run_seed=3)
    made = evidence([*accuracies("direct", [0.5, 0.25]), table], [{"task": "toy", "status": "failed", "note": "no"}])
    made.save(tmp_path)
    found = read_evidence(tmp_path)
    order = [*COLUMNS]
    expected = made.table[order].sort_values(order).reset_index(drop=True)
    pd.testing.assert_frame_equal(
        found.table[order].sort_values(order).reset_index(drop=True), expected, check_dtype=False, check_exact=True
    )
    assert found.runs.iloc[0]["note"] == "no"
    assert found.table["variant"].isin(["", "L1"]).all()


def test_equal_evidence_gives_equal_files_whatever_the_order(tmp_path):
    parts = accuracies("direct", [0.5, 0.25, 0.75])
    for name, order in (("one", parts), ("other", parts[::-1])):
        evidence(order).save(tmp_path / name)
    assert (tmp_path / "one/evidence.csv").read_bytes() == (tmp_path / "other/evidence.csv").read_bytes()


def test_no_evidence_says_which_command_makes_some(tmp_path):
    with pytest.raises(FileNotFoundError, match="cotinterp claims --from checkpoints"):
        read_evidence(tmp_path)


def test_the_lowest_seeds_alone():
    made = evidence(accuracies("direct", [0.5, 0.25, 0.75]))
    assert made.of_seeds(2).seeds == (0, 1)
    with pytest.raises(ValueError, match="4 seeds were asked for; measured are 3"):
        made.of_seeds(4)


def test_chosen_tasks_keep_the_yardstick_of_memory():
    made = evidence([rows("accuracy", 5, 10, task=name) for name in ("toy", "other", "random-labels")])
    assert (
        set(made.of_tasks(["toy"]).table["task"])
        == set(made.of_tasks(["toy"]).runs["task"])
        == {"toy", "random-labels"}
    )


def test_runs_that_were_measured_again_take_the_place_of_themselves_alone():
    stored = evidence([rows("accuracy", 5, 10), rows("accuracy", 6, 10, seed=1), rows("accuracy", 7, 10, task="other")])
    again = {"task": "toy", "regime": "cot", "run_seed": 1, "status": "failed", "note": "no memory"}
    new = evidence([rows("accuracy", 8, 10), rows("accuracy", 9, 10, variant="L1")], [again])
    now = stored.updated(new)
    right = now.table[now.table["value"] == 1].set_index(["task", "variant", "run_seed"])["problems"].to_dict()
    assert right == {("toy", "", 0): 8, ("toy", "L1", 0): 9, ("other", "", 0): 7}
    assert stored.updated(stored).table.equals(stored.table)


def test_a_missing_column_is_named():
    with pytest.raises(ValueError, match="lacks the columns .*trials"):
        Evidence(rows("accuracy", 1, 2).drop(columns="trials"))


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


def test_a_number_that_is_none_or_rests_on_nothing_is_no_evidence():
    made = evidence(accuracies("cot", [0.5, 0.25]))
    for change in ({"value": np.nan}, {"trials": np.inf}, {"problems": 0}):
        with pytest.raises(ValueError, match="evidence.table: 'accuracy' of 'toy', 'cot', seed 0 has value"):
            Evidence(made.table.assign(**change), made.runs)


def test_a_cell_that_stands_twice_in_a_file_does_not_count_twice(tmp_path):
    evidence(accuracies("cot", [0.5, 0.25])).save(tmp_path)
    lines = (tmp_path / "evidence.csv").read_text().splitlines()
    (tmp_path / "evidence.csv").write_text("\n".join([*lines, lines[1]]))
    with pytest.raises(ValueError, match="stands twice"):
        read_evidence(tmp_path)


def test_evidence_of_a_task_says_what_the_task_was(tmp_path):
    here = task_definition(get_task("z6"))
    rows = accuracies("cot", [0.5, 0.25], task="z6")
    evidence(rows, [{"task": "z6", "definition": here}]).save(tmp_path)
    read_evidence(tmp_path).check_tasks([get_task("z6"), get_task("s3")])
    changed = evidence(rows, [{"task": "z6", "definition": "0123456789abcdef"}])
    with pytest.raises(ValueError, match="the evidence has task 'z6' by another definition"):
        changed.check_tasks([get_task("z6")])
    with pytest.raises(ValueError, match="the evidence has two different tasks of the name 'z6'"):
        evidence(rows, [{"task": "z6", "definition": text} for text in (here, "0123456789abcdef")])


def test_evidence_from_before_there_were_definitions_is_read(tmp_path):
    evidence(accuracies("cot", [0.5]), [{"task": "toy"}]).save(tmp_path)
    runs = pd.read_csv(tmp_path / "runs.csv").drop(columns=["definition", "draw", "core_seconds"])
    runs.to_csv(tmp_path / "runs.csv", index=False)
    found = read_evidence(tmp_path).runs
    assert set(found["definition"]) == {""}
    # All seeds were measured on the same problems then.
    assert set(found["draw"]) == {0}
