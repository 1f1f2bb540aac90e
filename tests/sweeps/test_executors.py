"""What the names of executors mean, and Slurm jobs by submitit; Dask is in test_cluster.

There is no Slurm where these tests run: the jobs are those of submitit's local executor, which pickles, starts, watches
and cancels them in the same way; only sbatch and sacct are not asked.
"""

import os
import signal
import socket
import time
from concurrent.futures import BrokenExecutor
from pathlib import Path

import pytest

from cotinterp.results.shipped import optional
from cotinterp.sweeps.executors import (
    Resumable,
    _same_version_there,
    _submitit,
    open_executor,
    parse_slurm,
    slurm_executor,
)
from cotinterp.sweeps.pool import DIED, ExecutorLostError, LocalExecutor, RetryPolicy, executor_map


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

    monkeypatch.setattr("cotinterp.results.shipped.import_module", absent)
    with pytest.raises(ModuleNotFoundError, match=rf'needs the package {module}.*pip install "cotinterp\[{extra}\]"'):
        opened(ref)


def test_a_package_that_is_there_is_handed_out():
    assert optional("json", "any", "reading").__name__ == "json"


class Workers:
    """A client whose workers have these versions."""

    def __init__(self, *versions):
        self.versions = versions

    def run(self, function, *arguments, on_error):
        return {f"tcp://worker:{number}": version for number, version in enumerate(self.versions)}


def test_workers_with_another_version_are_refused(monkeypatch):
    monkeypatch.setattr("cotinterp.training.checkpoints.installed_version", lambda: "1.2")
    _same_version_there(Workers("1.2", "1.2"), "tcp://here")
    _same_version_there(Workers(), "tcp://here")
    with pytest.raises(
        ValueError, match="1 of 2 workers of tcp://here do not have cotinterp 1.2: tcp://worker:1 says '1"
    ):
        _same_version_there(Workers("1.2", "1.1"), "tcp://here")
    monkeypatch.setattr("cotinterp.training.checkpoints.installed_version", lambda: "unknown")
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


def halve(number):
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number // 2


def die_once(path):
    """Kills its process the first time."""
    if not path.exists():
        path.write_text("")
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


def sleep_long(path):
    path.write_text("")
    time.sleep(600)


def test_options_are_those_of_a_job_and_anything_else_is_sbatch_s_own():
    options = parse_slurm("partition=cpu,time=4:30:00,mem=4G,jobs=200,account=lab,cpus=2")
    assert (options.cluster, options.jobs, options.minutes) == ("slurm", 200, 270)
    assert options.parameters == {
        "cpus_per_task": 2, "mem_gb": 4.0, "timeout_min": 270, "slurm_partition": "cpu", "slurm_account": "lab",
    }  # fmt: skip


def test_a_job_has_one_processor_and_an_hour_unless_it_is_told():
    options = parse_slurm("")
    assert (options.jobs, options.parameters) == (64, {"cpus_per_task": 1, "timeout_min": 60})
    assert parse_slurm("time=0:00:30").minutes == 1


@pytest.mark.parametrize(("text", "message"), [
    ("partition", "'partition' is not KEY=VALUE"), ("jobs=0", "jobs must be a whole number, 1 or more, not '0'"),
    ("time=soon", "time is a number of minutes or H:MM:SS, not 'soon'"), ("mem=much", "mem is a number of gigabytes"),
    ("cluster=moon", "cluster is 'slurm', or 'local'"), ("cpus=1.5", "cpus must be a whole number"),
])  # fmt: skip
def test_options_that_make_no_sense_are_told(text, message):
    with pytest.raises(ValueError, match=message):
        parse_slurm(text)


def test_without_slurm_there_is_an_error_and_not_another_place(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="srun"):
        _submitit(parse_slurm("partition=cpu"), tmp_path)


def test_jobs_give_answers_errors_and_are_begun_again_when_they_die(tmp_path):
    with slurm_executor("cluster=local,jobs=3", tmp_path / "jobs") as executor:
        halved = executor_map(halve, [8, 3], executor)
        (survivor,) = executor_map(die_once, [tmp_path / "died"], executor, retry=RetryPolicy(deaths=1))
    assert [(answer.value, answer.error) for answer in halved] == [(4, ""), (None, "ValueError: 3 is odd")]
    assert (survivor.value, survivor.attempts) == ("alive", 2)
    assert list((tmp_path / "jobs").glob("*_log.err")), "the output of every job is kept"


@pytest.fixture
def heard():
    """submitit cancels a local job by SIGINT, which what a shell began in the background has inherited to ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_job_that_dies_is_broken_and_one_under_way_is_canceled_at_the_end(tmp_path, heard):
    work = []

    def leave_in_the_middle():
        with slurm_executor("cluster=local,jobs=1", tmp_path / "jobs") as executor:
            calls = [(die_once, "died"), (sleep_long, "began"), (sleep_long, "began")]
            work.extend(executor.submit(call, tmp_path / name) for call, name in calls)
            while not (tmp_path / "began").exists():
                time.sleep(0.05)
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        leave_in_the_middle()
    dead, under_way, waiting = work
    assert str(dead.exception()) == DIED
    assert isinstance(under_way.exception(), BrokenExecutor)
    assert waiting.cancelled()


def test_a_job_out_of_time_is_put_into_the_queue_as_it_was():
    again = Resumable(halve).checkpoint(8)
    assert again.function(*again.args, **again.kwargs) == 4
