import json
import os

import pytest

from benchmarks.__main__ import WORKS, Options, chosen_works, main
from benchmarks.measurement import BEGIN, END, read_measurements
from cotinterp.training.loop import train


@pytest.fixture(scope="module")
def run(spec, tmp_path_factory):
    longer = spec.model_copy(update={"model": spec.model.model_copy(update={"n_ctx": 64})})
    return str(train(longer, directory=tmp_path_factory.mktemp("run") / "tiny", device="cpu", threads=1).directory)


def test_one_work_is_measured_printed_and_written(run, tmp_path, capsys):
    rows = main(Options(run=run, only=("resid_pre",), quick=True, threads=1, out=tmp_path))
    assert [row.equal for row in rows] == [True, True]
    assert read_measurements(tmp_path / "benchmark.json") == rows
    assert json.loads((tmp_path / "benchmark_machine.json").read_text())["threads"] == 1
    printed = capsys.readouterr().out
    assert printed.count("resid_pre sweep, 2 layers") == 2
    page = tmp_path / "page.md"
    page.write_text(f"{BEGIN}\n{END}\n")
    assert main(Options(table=tmp_path / "benchmark.json")) == rows
    assert capsys.readouterr().out == printed
    main(Options(table=tmp_path / "benchmark.json", into=page))
    assert printed in page.read_text()


def test_works_are_chosen_by_name():
    assert chosen_works(()) == tuple(WORKS)
    assert chosen_works(("probes",)) == ("probes",)
    with pytest.raises(KeyError, match="start-up"):
        chosen_works(("decoding",))


def test_by_default_every_core_computes():
    assert Options().threads == (os.cpu_count() or 1)
