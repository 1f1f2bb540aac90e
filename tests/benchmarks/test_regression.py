"""A changed cell is found, a renamed column is not taken for one."""

import pandas as pd
import pytest

from benchmarks.regression import differences, renaming


def stored(folder, **tables):
    for name, table in tables.items():
        path = folder / "claims" / f"{name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(path, index=False)
    return folder


BEFORE = pd.DataFrame({"seed": [0, 1], "accuracy": [0.5, 1 / 3]})


def test_equal_tables_and_renamed_columns_do_not_differ(tmp_path):
    before = stored(tmp_path / "a", accuracy=BEFORE)
    after = stored(tmp_path / "b", accuracy=BEFORE.rename(columns={"seed": "run_seed"}))
    assert list(differences(before, before)) == []
    assert list(differences(before, after, ["seed=run_seed"])) == []
    assert len(list(differences(before, after))) == 2


def test_the_last_digit_a_lost_row_and_a_lost_table_are_found(tmp_path):
    before = stored(tmp_path / "a", accuracy=BEFORE, rows=BEFORE, lost=BEFORE)
    changed = BEFORE.assign(accuracy=[0.5, 1 / 3 + 1e-16])
    after = stored(tmp_path / "b", accuracy=changed, rows=BEFORE.iloc[:1])
    assert list(differences(before, after)) == [
        "claims/accuracy.csv: accuracy differs in 1 of 2 rows, "
        "such as '0.3333333333333333' became '0.3333333333333334'",
        "claims/lost.csv: missing",
        "claims/rows.csv: 2 rows became 1",
    ]


def test_a_rule_may_be_of_one_table():
    rules = ["seed=run_seed", "probes.csv:site=kind"]
    assert renaming(rules, "probes.csv") == {"seed": "run_seed", "site": "kind"}
    assert renaming(rules, "heads.csv") == {"seed": "run_seed"}
    with pytest.raises(ValueError, match="'site' is no OLD=NEW"):
        renaming(["site"], "probes.csv")
