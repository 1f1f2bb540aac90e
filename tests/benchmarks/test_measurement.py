import json
from dataclasses import asdict, fields, replace
from itertools import count

import pytest

from benchmarks.comparison import Agreement, Comparison, Rates
from benchmarks.measurement import Measurement, measured, read_measurements, write_measurements

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
