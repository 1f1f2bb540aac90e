import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from benchmarks import sweep_overhead
from benchmarks.sweep_overhead import (
    MARKS,
    Options,
    executor_of,
    main,
    overheads,
    real_run,
    sizes,
    speedup,
    table,
    tables,
)
from cotinterp.sweeps.pool import LocalExecutor


def small(seed, steps):
    return real_run(seed, 4).model_copy(update={"k_max": 3, "n_train": 20})


def test_what_is_measured_is_written_and_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sweep_overhead, "executor_of", lambda *_: ThreadPoolExecutor(1))
    monkeypatch.setattr(sweep_overhead, "real_run", small)
    found = main(Options(out=tmp_path, tasks=3, runs=(2,), executors=("local",)))
    assert json.loads((tmp_path / "sweep_overhead.json").read_text()) == found
    assert {
        "local: start of the workers",
        "local: a run that does nothing",
        "bytes of model.safetensors",
        "2 runs: collect",
    } <= set(found)
    assert all(value > 0 for value in found.values())
    assert "2 runs: collect" in capsys.readouterr().out
    assert found["bytes of model.safetensors"] > 4 * small(0, 1).model.n_parameters(20)


def test_the_table_says_the_unit_of_each_number():
    lines = table({"cores": 2.0, "start": 1.26, "a run": 0.00312, "bytes of it": 243480.0}).splitlines()
    assert lines[2:] == ["| cores | 2 |", "| start | 1.26 s |", "| a run | 3.12 ms |", "| bytes of it | 243,480 |"]


def test_the_page_has_a_place_for_the_table():
    page = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text()
    assert [page.count(mark) for mark in MARKS] == [1, 1]


def test_work_that_fails_is_no_measurement(monkeypatch):
    monkeypatch.setattr(sweep_overhead, "nothing", lambda _: 1 / 0)
    with ThreadPoolExecutor(1) as thread, pytest.raises(RuntimeError, match="ZeroDivisionError"):
        overheads(thread, Options(tasks=3))


def test_directories_that_are_no_finished_runs_are_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep_overhead, "real_run", small)
    sizes(tmp_path)
    (tmp_path / "sizes" / small(0, 1).slug / "evaluation.json").write_text("{}")
    with pytest.raises(RuntimeError, match="not finished ones"):
        tables(tmp_path, 2)


def test_a_speedup_is_one_of_equal_tables(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep_overhead, "real_run", small)
    monkeypatch.setattr(sweep_overhead, "open_executor", lambda *_, **__: ThreadPoolExecutor(1))
    found = speedup(tmp_path, 1, 4)
    one, two = found["sweep under local:1"], found["sweep under local:2"]
    assert found["ratio of local:1 to local:2"] == one / two


def test_executors_are_those_of_the_library(tmp_path):
    with executor_of("local", 1, tmp_path) as executor:
        assert isinstance(executor, LocalExecutor)
