"""What a sweep costs beside training: `python -m benchmarks.sweep_overhead`. docs/scaling.md stands on its numbers.

Runs whose training is nothing: how long the engine, the start of a worker, the disk and the table take. `--speedup`
measures something else, on a machine that is idle: one sweep of real runs under local:1 and under local:2.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import tyro

from benchmarks.measurement import put_between
from cotinterp.models.spec import ModelSpec
from cotinterp.models.weights import read_weights, write_weights
from cotinterp.results import output_folder, write_atomic
from cotinterp.sweeps.executors import open_executor
from cotinterp.sweeps.grid import Grid
from cotinterp.sweeps.pool import executor_map
from cotinterp.sweeps.sweep import run_sweep, sweep_status
from cotinterp.sweeps.table import sweep_table, write_sweep_table
from cotinterp.training.checkpoints import EVALUATION_FILE, MODEL_FILE
from cotinterp.training.loop import LOG_EVERY
from cotinterp.training.progress import METRICS_FILE, metrics_line, read_metrics
from cotinterp.training.spec import OptimizerSpec, RunSpec
from cotinterp.training.spec_file import SPEC_FILE, write_spec

SHAPE = ModelSpec(n_layers=4, d_model=64, n_heads=4, d_mlp=256, n_ctx=128)
"""That of the depth frontier's largest runs: what lies on disk is for models of this size."""


PRELOAD = "cotinterp.sweeps.single_run"
MARKS = ("<!-- sweep overhead -->", "<!-- end of sweep overhead -->")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a sweep costs beside training.

    Attributes:
        out: sweep_overhead.json goes here.
        tasks: Pieces of work that do nothing, for each executor.
        runs: Numbers of run directories whose table is collected.
        workers: Processes of each executor.
        executors: Of local, dask and slurm (by submitit's local jobs; there is no Slurm behind it).
        speedup: Measure only how much faster local:2 is than local:1, on so many runs; 0 for not.
        steps: Updates of each of those runs.
        into: Put the table into this page, between its two marks.
    """

    out: Path = Path("out")
    tasks: int = 100
    runs: tuple[int, ...] = (1000, 10_000)
    workers: int = 2
    executors: tuple[str, ...] = ("local", "dask", "slurm")
    speedup: int = 0
    steps: int = 1000
    into: Path | None = None


def main(options: Options) -> dict[str, float]:
    """Measures what was asked for and returns it by name; seconds unless the name says bytes or ratio."""
    found: dict[str, float] = {"cores": float(os.cpu_count() or 1)}
    with TemporaryDirectory() as name:
        folder = Path(name)
        if options.speedup:
            found |= speedup(folder, options.speedup, options.steps)
        else:
            for kind in options.executors:
                with executor_of(kind, options.workers, folder) as executor:
                    found |= {f"{kind}: {what}": value for what, value in overheads(executor, options).items()}
            found |= sizes(folder)
            for number in options.runs:
                found |= {f"{number} runs: {what}": value for what, value in tables(folder, number).items()}
    rounded = {what: float(f"{value:.4g}") for what, value in found.items()}
    write_atomic(output_folder(options.out) / "sweep_overhead.json", json.dumps(rounded, indent=1) + "\n")
    sys.stdout.write(
        table(rounded) if options.into is None else f"{put_between(options.into, MARKS, table(rounded))}\n"
    )
    return rounded


def table(found: Mapping[str, float]) -> str:
    """One line for each number, with its unit."""
    lines = [f"| {what} | {_with_unit(what, value)} |\n" for what, value in found.items()]
    return "".join(["| what | measured |\n", "|---|---|\n", *lines])


def _with_unit(what: str, value: float) -> str:
    if "bytes" in what:
        return f"{value:,.0f}"
    if "cores" in what or "ratio" in what:
        return f"{value:.3g}"
    return f"{value:.3g} s" if value >= 1 else f"{1000 * value:.3g} ms"


def overheads(executor: Executor, options: Options) -> dict[str, float]:
    """Seconds until so many first runs are done, for which torch is loaded, and of one more that does nothing."""
    first = _spent("start of the workers", lambda: _carried(executor, load_everything, options.workers))
    rest = _spent("a run that does nothing", lambda: _carried(executor, nothing, options.tasks))
    return first | {what: value / options.tasks for what, value in rest.items()}


def _carried(executor: Executor, work: Callable[[int], None], number: int) -> None:
    answers = executor_map(work, range(number), executor)
    if errors := {answer.error for answer in answers if answer.error}:
        raise RuntimeError(f"work that was to be measured failed: {errors}")


def _spent(what: str, work: Callable[[], object]) -> dict[str, float]:
    """Wall time of `work`, and the time for which this process kept a processor busy: others do not add to it."""
    began, busy = time.perf_counter(), time.process_time()
    work()
    return {what: time.perf_counter() - began, f"{what}, processor time here": time.process_time() - busy}


def nothing(_: int) -> None:
    """A run that is over at once."""


def load_everything(_: int) -> None:
    """What a worker loads before its first run."""
    import cotinterp.sweeps.single_run  # noqa: F401


def sizes(folder: Path) -> dict[str, float]:
    """Bytes of what one finished run leaves, by file, but for its metrics, which grow with its updates."""
    root = folder / "sizes"
    with ThreadPoolExecutor(1) as thread:
        run_sweep(Grid("sizes", (real_run(0, 40),), 50), root, thread)
    directory = root / real_run(0, 40).slug
    files = (directory / name for name in (MODEL_FILE, EVALUATION_FILE, SPEC_FILE))
    return {f"bytes of {path.name}": float(path.stat().st_size) for path in files}


def tables(folder: Path, number: int) -> dict[str, float]:
    """Seconds to look at so many finished runs again, and to collect their table.

    The directories are made up: all have the same weights (0.8 MB each), under the hash of their own spec.
    """
    grid = Grid("made-up", tuple(real_run(seed, 4000) for seed in range(number)), 50)
    root, example = folder / f"runs-{number}", folder / "sizes" / real_run(0, 40).slug
    line, stored = read_metrics(example / METRICS_FILE)[-1], read_weights(example / MODEL_FILE)
    metrics = "".join(metrics_line(line | {"step": step}) for step in range(LOG_EVERY, 4001, LOG_EVERY))
    for spec in grid.specs:
        directory = output_folder(root / spec.slug)
        write_spec(directory, spec)
        write_weights(directory / MODEL_FILE, stored.tensors, {**stored.metadata, "spec": spec.sha256})
        shutil.copy(example / EVALUATION_FILE, directory / EVALUATION_FILE)
        (directory / METRICS_FILE).write_text(metrics)
    if sweep_status(grid, root).counts["finished"] != number:
        raise RuntimeError("the made-up runs are not finished ones")
    path = folder / "table.csv"
    with ThreadPoolExecutor(1) as thread:
        found = _spent("status", lambda: sweep_status(grid, root))
        found |= _spent("a sweep in which all are finished", lambda: run_sweep(grid, root, thread))
        found |= _spent("collect", lambda: write_sweep_table(sweep_table(grid, root), path))
    return found | {"bytes of metrics.jsonl": float(len(metrics)), "bytes of the table": float(path.stat().st_size)}


def speedup(folder: Path, runs: int, steps: int) -> dict[str, float]:
    """Seconds of one sweep under local:1 and under local:2, and their ratio; the tables must be the same."""
    grid = Grid("speedup", tuple(real_run(seed, steps) for seed in range(runs)), 100)
    seconds, contents = {}, set()
    for jobs in (1, 2):
        root = folder / f"local-{jobs}"
        began = time.perf_counter()
        with open_executor(f"local:{jobs}", folder=root) as executor:
            run_sweep(grid, root, executor)
        seconds[f"sweep under local:{jobs}"] = time.perf_counter() - began
        contents.add(write_sweep_table(sweep_table(grid, root), folder / "table.csv").read_bytes())
    if len(contents) != 1:
        raise RuntimeError("the two sweeps have different tables")
    one, two = seconds.values()
    return seconds | {"ratio of local:1 to local:2": one / two}


def real_run(seed: int, steps: int) -> RunSpec:
    """A run of the depth frontier's largest shape."""
    return RunSpec(
        task="s3",
        regime="direct",
        k_max=12,
        n_train=10_000,
        model=SHAPE,
        optimizer=OptimizerSpec(steps=steps),
        seed=seed,
        precision="bf16",
    )


@contextmanager
def executor_of(kind: str, workers: int, folder: Path) -> Iterator[Executor]:
    """An executor of so many processes on this machine; for Dask, with a scheduler and workers of its own."""
    with ExitStack() as stack:
        ref = {"local": f"local:{workers}", "slurm": f"slurm:cluster=local,jobs={workers}"}.get(kind)
        if ref is None:
            ref = stack.enter_context(_cluster(workers, folder))
        yield stack.enter_context(open_executor(ref, folder=folder / "jobs"))


@contextmanager
def _cluster(workers: int, folder: Path) -> Iterator[str]:
    file = folder / "scheduler.json"
    shared = ["--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", str(file)]
    with ExitStack() as stack:
        stack.enter_context(_process(["distributed.cli.dask_scheduler", *shared, "--port", "0"]))
        while not (file.exists() and file.read_text().strip().endswith("}")):
            time.sleep(0.02)
        alone = ["--nthreads", "1", "--no-nanny", "--local-directory", str(folder), "--preload", PRELOAD]
        for _ in range(workers):
            stack.enter_context(_process(["distributed.cli.dask_worker", *shared, *alone]))
        yield json.loads(file.read_text())["address"].replace("tcp://", "dask://")


@contextmanager
def _process(module_and_options: Sequence[str]) -> Iterator[None]:
    command = [sys.executable, "-m", *module_and_options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
