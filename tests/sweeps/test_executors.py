"""What the names of executors mean, and what is said where there is none. Their work: test_slurm, test_cluster."""

import socket
from pathlib import Path

import pytest

from cotinterp.sweeps.engine import ExecutorLostError
from cotinterp.sweeps.executors import _same_version_there, open_executor, optional
from cotinterp.sweeps.processes import LocalExecutor


def opened(ref, folder=Path()):
    with open_executor(ref, folder=folder) as executor:
        return executor


def test_local_is_so_many_processes():
    assert isinstance(opened("local:2"), LocalExecutor)


@pytest.mark.parametrize("ref", ["local:0", "local:two", "local:", "local"])
def test_a_number_of_processes_is_asked_for(ref):
    with pytest.raises(ValueError, match="give the number of processes, 1 or more, such as local:2"):
        opened(ref)


def test_an_unknown_kind_is_told_what_there_is():
    with pytest.raises(ValueError, match="unknown executor 'ray:2'; give local:N .* dask://HOST:PORT .* slurm:"):
        opened("ray:2")


@pytest.mark.parametrize(("ref", "module", "extra"), [
    ("dask://localhost:1", "distributed", "dask"), ("slurm:partition=cpu", "submitit", "slurm"),
])  # fmt: skip
def test_a_package_that_is_missing_is_told_with_the_command_that_installs_it(monkeypatch, ref, module, extra):
    def absent(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("cotinterp.sweeps.executors.import_module", absent)
    with pytest.raises(ModuleNotFoundError, match=rf'needs the package {module}.*pip install "cotinterp\[{extra}\]"'):
        opened(ref)


def test_a_package_that_is_there_is_handed_out():
    assert optional("json", "any", "reading").__name__ == "json"


class Workers:
    """A client whose workers have these versions."""

    def __init__(self, *versions):
        self.versions = versions

    def run(self, function, *arguments, on_error):
        return {f"tcp://worker:{number}": told for number, told in enumerate(self.versions)}


def test_workers_with_another_version_are_refused(monkeypatch):
    monkeypatch.setattr("cotinterp.sweeps.executors.installed_version", lambda: "1.2")
    _same_version_there(Workers("1.2", "1.2"), "tcp://here")
    _same_version_there(Workers(), "tcp://here")
    with pytest.raises(
        ValueError, match="1 of 2 workers of tcp://here do not have cotinterp 1.2: tcp://worker:1 says '1"
    ):
        _same_version_there(Workers("1.2", "1.1"), "tcp://here")
    monkeypatch.setattr("cotinterp.sweeps.executors.installed_version", lambda: "unknown")
    _same_version_there(Workers("1.2"), "tcp://here")


def test_no_scheduler_is_told_with_the_command_that_starts_one(monkeypatch):
    monkeypatch.setattr("cotinterp.sweeps.executors.CONNECT_SECONDS", 0.5)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        free = taken.getsockname()[1]
    with pytest.raises(
        ExecutorLostError, match=rf"no Dask scheduler answers at tcp://127.0.0.1:{free} .*dask scheduler"
    ):
        opened(f"dask://127.0.0.1:{free}")
