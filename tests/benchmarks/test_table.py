import pytest

from benchmarks.measurement import Measurement
from benchmarks.table import BEGIN, COLUMNS, END, put_table, table

ROW = Measurement(
    work="adding", peer="by hand", ours=2.0, theirs=15000.0, unit="ms", ratio=7500.0, spread=(7000.0, 8000.0),
    floor=0.5, equal=True, pairs=7, memory_mib=(1.0, 20.4), note="",
)  # fmt: skip
UNKNOWN = Measurement(**{**vars(ROW), "floor": None, "memory_mib": None, "equal": False})


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_line_for_each_measurement():
    head, rule, first, second = table([ROW, UNKNOWN]).splitlines()
    assert cells(head) == list(COLUMNS)
    assert set(rule) == {"|", "-"}
    assert cells(first) == [
        "adding", "by hand", "2 ms", "15 s", "7500.0", "7000.0 to 8000.0", "0.5 ms", "4.0", "1 / 20", "yes"
    ]  # fmt: skip
    assert cells(second)[6:] == ["", "", "", "NO"]


def test_a_page_gets_the_table_again_and_keeps_the_rest(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n\n{BEGIN}\nold\n{END}\n\nafter\n")
    once = put_table(page, [ROW]).read_text()
    assert table([ROW]) in once
    assert (once[:7], once[-6:]) == ("before\n", "after\n")
    assert "old" not in once
    assert put_table(page, [ROW]).read_text() == once


@pytest.mark.parametrize("text", ["", BEGIN, f"{END} {BEGIN}", f"{BEGIN}{BEGIN}{END}"])
def test_a_page_without_a_place_for_it_is_refused(tmp_path, text):
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(ValueError, match="no place for the table"):
        put_table(page, [ROW])
