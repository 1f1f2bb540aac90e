"""Where runs are carried out: processes of this machine, a Dask cluster, or Slurm jobs by submitit."""

import re
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from threading import Event, Lock
from typing import Any

from cotinterp.results.shipped import optional
from cotinterp.sweeps.pool import DIED, ExecutorLostError, Value, local_executor

KINDS = "local:N (N processes of this machine), dask://HOST:PORT (a running Dask scheduler), or slurm:KEY=VALUE,..."
CONNECT_SECONDS = 10
SLURM_JOBS, SLURM_MINUTES = 64, 60
"""Jobs with Slurm at a time and time limit of each, where the options do not say."""
TIMEOUTS = 1000
"""How often a job that ran out of time is put into the queue again."""
POLL_SECONDS, CANCEL_SECONDS = 1.0, 60.0


@contextmanager
def open_executor(ref: str, *, folder: Path) -> Iterator[Executor]:
    """The executor that `ref` names; it is closed at the end of the block, and what it has not started is dropped.

    - `local:N`: N new processes. They end with this one, at once where the block ends with an exception.
    - `dask://HOST:PORT`: the workers of that Dask scheduler, as many as there are from moment to moment. Dask hands the
      work of a worker that is lost to another one. Needs the extra `dask`.
    - `slurm:partition=NAME,time=MINUTES,mem=GB,jobs=64,...`: one Slurm job for each run, by submitit, at most `jobs` at
      a time. Needs the extra `slurm`.

    Workers of the last two need the same cotinterp and must see the folders of the runs under the same path.

    Args:
        folder: Where submitit keeps what it hands to Slurm and the output of the jobs; on the shared file system.

    Raises:
        ValueError: No such kind of executor, options that make no sense, or no Slurm on this machine.
        ModuleNotFoundError: The package that it needs is not installed.
        ExecutorLostError: No scheduler answers there.
    """
    check_executor(ref)
    kind, _, rest = ref.partition(":")
    if kind == "local":
        with local_executor(_count(rest, ref)) as executor:
            yield executor
    elif kind == "dask":
        with _dask(f"tcp://{rest.removeprefix('//')}") as executor:
            yield executor
    else:
        with slurm_executor(rest, folder) as executor:
            yield executor


def check_executor(ref: str) -> None:
    """Raise what `open_executor` would, as far as that can be known without starting or asking anything."""
    kind, _, rest = ref.partition(":")
    if kind == "local":
        _count(rest, ref)
    elif kind == "dask":
        if not re.fullmatch(r"(//)?[^\s/:]+:\d{1,5}", rest):
            raise ValueError(
                f"executor {ref!r}: give the address of a running scheduler, such as dask://localhost:8786"
            )
        optional("distributed", "dask", ref)
    elif kind == "slurm":
        options = parse_slurm(rest)
        optional("submitit", "slurm", ref)
        if options.cluster == "slurm" and shutil.which("srun") is None:
            raise ValueError(
                f"executor {ref!r}: there is no Slurm on this machine (no srun on PATH). Give the command where there "
                "is, or take local:N; slurm:cluster=local tries everything but Slurm itself"
            )
    else:
        raise ValueError(f"unknown executor {ref!r}; give {KINDS}")


def _count(text: str, ref: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"executor {ref!r}: give the number of processes, 1 or more, such as local:2")
    return int(text)


@contextmanager
def _dask(address: str) -> Iterator[Executor]:
    distributed = optional("distributed", "dask", address)
    try:
        client: Any = distributed.Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ExecutorLostError(
            f"no Dask scheduler answers at {address} ({error}). Start one with `dask scheduler --port PORT`, and "
            "workers with `dask worker HOST:PORT --nthreads 1 --nworkers N --preload cotinterp.sweeps.single_run`"
        ) from error
    try:
        _same_version_there(client, address)
        # Not pure: the same call made twice is two attempts, not one result.
        yield client.get_executor(pure=False)
    finally:
        client.close(timeout=CONNECT_SECONDS)


def _same_version_there(client: Any, address: str) -> None:
    """Raises ValueError where a worker has no cotinterp or another one: its weights could be others.

    A worker asks its own packages; nothing of cotinterp is loaded for that. In a source tree that was never installed
    there is no version to compare.
    """
    from cotinterp.training.checkpoints import installed_version

    here = installed_version()
    found = client.run(version, "cotinterp", on_error="return") if here != "unknown" else {}
    wrong = {worker: there for worker, there in found.items() if there != here}
    if wrong:
        worker, there = next(iter(wrong.items()))
        raise ValueError(
            f"{len(wrong)} of {len(found)} workers of {address} do not have cotinterp {here}: {worker} says {there!r}. "
            "Install the same version there, in the environment that `dask worker` runs in"
        )


@dataclass(frozen=True)
class SlurmOptions:
    """What `slurm:...` asks for.

    Attributes:
        cluster: "slurm", or "local": processes of this machine under submitit, to try everything but Slurm itself.
        jobs: Most jobs that are with Slurm at a time, waiting ones included.
        minutes: Time limit of a job. A run that reaches it is put into the queue again and goes on where it was.
        parameters: Everything else, for submitit's AutoExecutor.
    """

    cluster: str
    jobs: int
    minutes: int
    parameters: dict[str, str | int | float]


def parse_slurm(text: str) -> SlurmOptions:
    """The options in `partition=NAME,time=MINUTES or H:MM:SS,mem=GB,cpus=1,jobs=64`; any other is sbatch's own.

    Raises:
        ValueError: Not of the form key=value, or a value that makes no sense.
    """
    given: dict[str, str] = {}
    for part in filter(None, text.split(",")):
        key, equals, value = part.partition("=")
        if not (key and equals and value):
            raise ValueError(f"slurm:{text}: {part!r} is not KEY=VALUE, such as partition=cpu,time=240,mem=4,jobs=64")
        given[key] = value
    parameters: dict[str, str | int | float] = {"cpus_per_task": _whole(given.pop("cpus", "1"), "cpus")}
    if "mem" in given:
        parameters["mem_gb"] = _gigabytes(given.pop("mem"))
    jobs, minutes = _whole(given.pop("jobs", str(SLURM_JOBS)), "jobs"), _minutes(given.pop("time", str(SLURM_MINUTES)))
    cluster = given.pop("cluster", "slurm")
    if cluster not in ("slurm", "local"):
        raise ValueError(f"slurm:{text}: cluster is 'slurm', or 'local' to try it without one, not {cluster!r}")
    parameters |= {f"slurm_{key}": value for key, value in given.items()}
    return SlurmOptions(cluster, jobs, minutes, parameters | {"timeout_min": minutes})


@contextmanager
def slurm_executor(text: str, folder: Path) -> Iterator[Executor]:
    """The executor of `slurm:<text>`. At an exception the jobs that are with Slurm are canceled.

    Where this process is killed instead they go on, and a sweep that is started again finds what they finished.

    Raises:
        ValueError: Options that make no sense, or that Slurm does not know. RuntimeError: There is no Slurm here.
    """
    options = parse_slurm(text)
    executor = SubmititExecutor(_submitit(options, folder), options.jobs)
    try:
        yield executor
    except BaseException:
        executor.terminate()
        raise
    finally:
        executor.shutdown(cancel_futures=True)


class SubmititExecutor(Executor):
    """submitit's jobs as `concurrent.futures`: a thread waits for each, and there are so many threads."""

    def __init__(self, executor: Any, jobs: int) -> None:
        self._executor, self._terminated, self._submitting = executor, Event(), Lock()
        self._threads = ThreadPoolExecutor(jobs, thread_name_prefix="cotinterp-slurm")

    def submit(self, work: Callable[..., Value], /, *args: Any, **kwargs: Any) -> Future[Value]:
        """The future of a job; BrokenExecutor where the job ended without a result."""
        return self._threads.submit(self._wait, work, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Waits for the jobs that are with Slurm, and with `cancel_futures` hands it no more."""
        self._threads.shutdown(wait, cancel_futures=cancel_futures)

    def terminate(self) -> None:
        """Hands Slurm no more, and cancels what is with it."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._terminated.set()

    def _wait(self, work: Callable[..., Value], *args: Any, **kwargs: Any) -> Value:
        with self._submitting:
            job = self._executor.submit(Resumable(work), *args, **kwargs)
        while not job.done():
            if self._terminated.wait(POLL_SECONDS):
                _cancel(job)
                raise BrokenExecutor("the sweep was ended")
        submitit = optional("submitit", "slurm", "slurm:")
        try:
            value: Value = job.result()
        except (submitit.core.utils.UncompletedJobError, submitit.core.utils.FailedJobError) as error:
            raise BrokenExecutor(DIED) from error
        return value


class Resumable:
    """Work that submitit may put into the queue again, as it is, when its job runs out of time or makes room."""

    def __init__(self, work: Callable[..., Any]) -> None:
        self.work = work

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.work(*args, **kwargs)

    def checkpoint(self, *args: Any, **kwargs: Any) -> Any:
        """What submitit queues: the same call. The run itself has saved how far it is."""
        return optional("submitit", "slurm", "slurm:").helpers.DelayedSubmission(self, *args, **kwargs)


def _cancel(job: Any) -> None:
    """Cancels a job and waits a while for its end, so that a sweep that is started again finds nobody at work."""
    job.cancel(check=False)
    deadline = time.monotonic() + CANCEL_SECONDS
    while not job.done() and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)


def _submitit(options: SlurmOptions, folder: Path) -> Any:
    submitit = optional("submitit", "slurm", "slurm:")
    timeouts = {"slurm_max_num_timeout": TIMEOUTS} if options.cluster == "slurm" else {}
    executor = submitit.AutoExecutor(folder=folder, cluster=options.cluster, **timeouts)
    executor.update_parameters(name="cotinterp", **options.parameters)
    return executor


def _whole(text: str, key: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"slurm: {key} must be a whole number, 1 or more, not {text!r}")
    return int(text)


def _gigabytes(text: str) -> float:
    number = text.upper().removesuffix("B").removesuffix("G")
    try:
        return float(number)
    except ValueError as error:
        raise ValueError(f"slurm: mem is a number of gigabytes, such as mem=4, not {text!r}") from error


def _minutes(text: str) -> int:
    parts = text.split(":")
    if len(parts) not in (1, 3) or not all(part.isdecimal() for part in parts):
        raise ValueError(f"slurm: time is a number of minutes or H:MM:SS, not {text!r}")
    if len(parts) == 1:
        return _whole(text, "time")
    hours, minutes, seconds = map(int, parts)
    return max(1, 60 * hours + minutes + (seconds > 0))
