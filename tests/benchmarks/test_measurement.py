"""Pairs of times, peaks of memory, and the table that they are printed as."""

import json
from dataclasses import asdict, fields, replace
from itertools import count

import numpy as np
import pytest

from benchmarks import measurement as memory
from benchmarks.comparison import Agreement, Comparison, Rates
from benchmarks.measurement import (
    BEGIN,
    COLUMNS,
    END,
    Measurement,
    added_memory,
    measured,
    put_table,
    read_measurements,
    table,
    write_measurements,
)

PROMISED = {"work", "peer", "ours", "theirs", "unit", "ratio", "spread", "floor", "equal"}


def adding(log, **changes):
    """Each way notes that it was called and returns how often."""
    ours, theirs = count(1), count(1)

    def note(name, numbers):
        log.append(name)
        return next(numbers)

    given = {
        "work": "adding",
        "peer": "adding too",
        "ours": lambda: note("A", ours),
        "theirs": lambda: note("B", theirs),
        "agree": lambda our, their: Agreement(our == their == 1, "first calls"),
        "floor": lambda rates: 1e6 / rates.fp32,
    }
    return Comparison(**{**given, **changes})


def test_pairs_are_interleaved_after_a_warm_up_and_a_look_at_the_memory():
    log = []
    row = measured(adding(log), Rates(1e9, 1e9), repeats=5)
    assert "".join(log) == "AB" * (2 + 5)
    assert row.pairs == 5
    assert row.equal
    assert row.floor == pytest.approx(1.0)  # ms


def test_slow_pairs_are_fewer():
    log = []
    assert measured(adding(log), Rates(1e9, 1e9), repeats=50, fewest=2, limit_s=0).pairs == 2
    assert "".join(log) == "AB" * (1 + 2)  # no call for the memory alone


def test_a_long_work_is_done_once():
    log = []
    row = measured(adding(log, once=True, unit="s"), Rates(1e9, 1e9), repeats=5)
    assert log == ["A", "B"]
    assert (row.pairs, row.spread) == (1, (row.ratio, row.ratio))
    assert row.floor == pytest.approx(1e-3)  # s


def test_the_time_of_a_peer_that_did_a_part_is_scaled_up_and_said(monkeypatch):
    clock = count()
    monkeypatch.setattr("benchmarks.measurement.time.perf_counter", lambda: float(next(clock)))
    row = measured(adding([], their_share=0.25), Rates(1e9, 1e9), repeats=3)
    assert (row.ours, row.theirs, row.ratio) == (1000.0, 4000.0, 4.0)
    assert "25.0% of the work" in row.note


def test_a_planted_inequality_is_reported():
    comparison = adding([])
    assert not measured(replace(comparison, theirs=lambda: 2), Rates(1e9, 1e9), repeats=1).equal


def test_what_is_written_is_read_again(tmp_path):
    rows = [measured(adding([], floor=lambda _: None), Rates(1e9, 1e9), repeats=1)]
    path = write_measurements(tmp_path / "benchmark.json", rows)
    assert read_measurements(path) == rows
    (entry,) = json.loads(path.read_text())
    assert set(entry) == {field.name for field in fields(Measurement)} >= PROMISED
    assert entry["floor"] is None
    assert entry == json.loads(json.dumps(asdict(rows[0])))


@pytest.mark.parametrize("text", ["[{}]", "{", '["work"]'])
def test_another_file_is_refused(tmp_path, text):
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="no list of measurements"):
        read_measurements(path)


def test_every_field_is_documented():
    assert [field.name for field in fields(Measurement) if field.name not in (Measurement.__doc__ or "")] == []


def test_what_a_block_takes_and_gives_back_is_counted():
    with added_memory() as added:
        held = np.ones(2**23)
        del held
    assert added() == pytest.approx(64, abs=16)


def test_a_block_that_takes_nothing_adds_nothing():
    with added_memory() as added:
        pass
    assert added() < 4


def test_a_system_that_does_not_tell(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_CLEAR", tmp_path / "missing" / "clear_refs")
    with added_memory() as added:
        pass
    assert added() is None


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
