"""Where runs are carried out: processes of this machine, a Dask cluster, or Slurm, all as `concurrent.futures`."""

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

from cotinterp.sweeps.engine import ExecutorLostError
from cotinterp.sweeps.processes import local_executor
from cotinterp.training.state import installed_version

KINDS = "local:N (N processes of this machine), dask://HOST:PORT (a running Dask scheduler), or slurm:KEY=VALUE,..."
CONNECT_SECONDS = 10


@contextmanager
def open_executor(ref: str, *, folder: Path) -> Iterator[Executor]:
    """The executor that `ref` names; it is closed at the end of the block, and what it has not begun is dropped.

    - `local:N`: N new processes. They end with this one, at once where the block ends with an exception.
    - `dask://HOST:PORT`: the workers of that Dask scheduler, as many as there are from moment to moment. Dask hands the
      work of a worker that is lost to another one. Needs the extra `dask`.
    - `slurm:partition=NAME,time=MINUTES,mem=GB,jobs=64,...`: one Slurm job for each run, by submitit, at most `jobs` at
      a time. Needs the extra `slurm`.

    Workers of the last two need the same cotinterp and must see the folders of the runs under the same path.

    Args:
        folder: Where submitit keeps what it hands to Slurm and the output of the jobs; on the shared file system.

    Raises:
        ValueError: No such kind of executor, or options that make no sense.
        ModuleNotFoundError: The package that it needs is not installed.
        ExecutorLostError: No scheduler answers there.
    """
    kind, _, rest = ref.partition(":")
    if kind == "local":
        with local_executor(_count(rest, ref)) as executor:
            yield executor
    elif kind == "dask":
        with _dask(f"tcp://{rest.removeprefix('//')}") as executor:
            yield executor
    elif kind == "slurm":
        optional("submitit", "slurm", ref)
        from cotinterp.sweeps.slurm import slurm_executor

        with slurm_executor(rest, folder) as executor:
            yield executor
    else:
        raise ValueError(f"unknown executor {ref!r}; give {KINDS}")


def optional(module: str, extra: str, wanted: str) -> ModuleType:
    """A package that only some use. Raises ModuleNotFoundError, with the command that installs it."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'{wanted} needs the package {module}, which is not installed: pip install "cotinterp[{extra}]"'
        ) from error


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
    here = installed_version()
    found = client.run(version, "cotinterp", on_error="return") if here != "unknown" else {}
    wrong = {worker: told for worker, told in found.items() if told != here}
    if wrong:
        worker, told = next(iter(wrong.items()))
        raise ValueError(
            f"{len(wrong)} of {len(found)} workers of {address} do not have cotinterp {here}: {worker} says {told!r}. "
            "Install the same version there, in the environment that `dask worker` runs in"
        )
