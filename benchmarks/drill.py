"""The drill, `python -m benchmarks.drill`: kills, damage, nonsense, full disks and crowds.

Every try is compared with the same work undisturbed: weight hashes, tables, files left, processes left. Models are
tiny, and processes are forked from one that has torch loaded, so that hundreds of kills take minutes.
"""

import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from errno import ENOSPC
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import torch
import tyro

from benchmarks.damage import DAMAGE, TINY, damaged, fuzzed_grid, fuzzed_spec
from benchmarks.fuzz import fault_of_output, fuzzed_outputs, fuzzed_task_files, outcome_of_task_file
from benchmarks.measurement import put_between
from cotinterp.claims.session import Sources, claims_session, gather_evidence
from cotinterp.cli import main as command_line
from cotinterp.results import output_folder, write_atomic
from cotinterp.sweeps import pool
from cotinterp.sweeps.executors import open_executor
from cotinterp.sweeps.grid import Grid, read_grid
from cotinterp.sweeps.single_run import valid_evaluation
from cotinterp.sweeps.sweep import run_sweep
from cotinterp.sweeps.table import sweep_table, write_sweep_table
from cotinterp.training.checkpoints import EVALUATION_FILE, MODEL_FILE, STATE_FILE, Run, load_run, read_model
from cotinterp.training.loop import train
from cotinterp.training.progress import METRICS_FILE, StepEvent, read_metrics
from cotinterp.training.spec import RunSpec
from cotinterp.training.spec_file import SPEC_FILE, read_spec

PROBLEMS = 10
PATIENCE_S = 600.0
"""Longer than any piece of the drill takes undisturbed, many times over: what lasts longer hangs."""

MARKS = ("<!-- drill -->", "<!-- end of drill -->")


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one drill came to.

    Attributes:
        drill: Its name.
        tried: How often something was done to the bench.
        lost: Tries after which weights, tables or files were not what they are undisturbed, something was left over, an
            error was none that its reader can use, or nothing came to an end.
        accepted: Tries in which something damaged or impossible was taken for sound.
        wrong: The first of these, in words.
    """

    drill: str
    tried: int
    lost: int
    accepted: int
    wrong: str


@dataclass
class Tally:
    """Counts while a drill goes on."""

    tried: int = 0
    lost: list[str] = field(default_factory=list)
    accepted: list[str] = field(default_factory=list)

    def add(self, what: str, lost: str = "", accepted: str = "") -> None:
        self.tried += 1
        self.lost += [f"{what}: {lost}"] * bool(lost)
        self.accepted += [f"{what}: {accepted}"] * bool(accepted)

    def row(self, name: str) -> Row:
        wrong = " | ".join((self.accepted + self.lost)[:3])
        return Row(drill=name, tried=self.tried, lost=len(self.lost), accepted=len(self.accepted), wrong=wrong)


@dataclass(frozen=True)
class Work:
    """Where a drill works, what it draws from, and how often it tries."""

    folder: Path
    draw: random.Random
    tries: int


# ---------------------------------------------------------------------------------------------- processes


def started(function: Callable[..., object], *arguments: object, log: Path) -> BaseProcess:
    """A process forked from a server that has everything loaded; what it says goes to `log`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cotinterp.claims.session", "cotinterp.sweeps.sweep", "cotinterp.cli", "tyro"])
    process = context.Process(target=_in_child, args=(log, function, arguments))
    process.start()
    return process


def _in_child(log: Path, function: Callable[..., object], arguments: Sequence[object]) -> None:
    with log.open("ab") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    torch.set_num_threads(1)
    # Workers of a sweep are forked too, in place of loading torch for seconds each.
    pool.get_context = lambda _: multiprocessing.get_context("fork")  # type: ignore[attr-defined, assignment]
    function(*arguments)


def ended(process: BaseProcess) -> str:
    """Waits for a process; empty where it ended well, else what happened."""
    process.join(PATIENCE_S)
    if process.exitcode is None:
        process.kill()
        return f"it hung for {PATIENCE_S:.0f} s"
    return "" if process.exitcode == 0 else f"exit status {process.exitcode}"


def killed(process: BaseProcess, after_s: float, victim: Callable[[], int | None] = lambda: None) -> bool:
    """SIGKILL to a process, or to the victim if there is one by then, so many seconds from now; whether it hit."""
    time.sleep(after_s)
    pid = victim() or process.pid
    if pid is None or not process.is_alive():
        return False
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def undisturbed(function: Callable[..., object], *arguments: object, log: Path) -> float:
    """Seconds that a process takes which nobody disturbs, the server of processes being up."""
    ended(started(os.getpid, log=log))
    began = time.monotonic()
    if fault := ended(started(function, *arguments, log=log)):
        raise RuntimeError(f"undisturbed: {fault}; {log.read_text(errors='replace')[-500:]}")
    return time.monotonic() - began


def leftovers(folder: Path) -> str:
    """Temporary files and states below a folder in which all work is done; empty where there are none."""
    names = sorted(path.name for path in folder.rglob("*") if path.name.endswith(".tmp") or path.name == STATE_FILE)
    return f"left over: {names}" if names else ""


def alive(pids: Sequence[int], within_s: float = 20.0) -> str:
    """Processes that do not end by themselves; empty where all do."""
    due = time.monotonic() + within_s
    while left := [pid for pid in pids if Path(f"/proc/{pid}").exists() and "Z" not in _state(pid)]:
        if time.monotonic() > due:
            return f"processes {left} go on"
        time.sleep(0.02)
    return ""


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "Z"


# ---------------------------------------------------------------------------------------------- kills


def train_kills(work: Work) -> Row:
    """`train` killed once or twice at any moment of its life, then given again."""
    tally, spec = Tally(), _steps(TINY, 100)
    calm = work.folder / "calm" / spec.slug
    log = work.folder / "log"
    seconds = undisturbed(train_run, spec, calm, log=log)
    while tally.tried < work.tries:
        number, hits = tally.tried, 0
        directory = work.folder / str(number) / spec.slug
        shutil.rmtree(directory, ignore_errors=True)
        for _ in range(work.draw.choice([1, 1, 2])):
            process = started(train_run, spec, directory, log=log)
            hits += killed(process, work.draw.uniform(0, seconds))
            process.join()
        if hits:
            lost = ended(started(train_run, spec, directory, log=log)) or _other_run(directory, calm)
            tally.add(f"kill {number}", lost)
    return tally.row("train-kills")


def train_run(spec: RunSpec, directory: Path) -> Run:
    return train(spec, directory=directory, device="cpu", threads=1, checkpoint_every=5)


def _steps(spec: RunSpec, steps: int, **fields: object) -> RunSpec:
    optimizer = spec.optimizer.model_copy(update={"steps": steps})
    return spec.model_copy(update={"optimizer": optimizer, **fields})


def _other_run(directory: Path, calm: Path) -> str:
    """How a finished run differs from the same one undisturbed; empty where it does not."""
    if read_model(directory).weight_hash != read_model(calm).weight_hash:
        return "other weights"
    if _losses(directory) != _losses(calm):
        return "another log"
    return _other_files(directory, calm)


def _losses(directory: Path) -> list[tuple[int | float, int | float]]:
    return [(line["step"], line["loss"]) for line in read_metrics(directory / METRICS_FILE)]


def _other_files(folder: Path, calm: Path) -> str:
    there, here = ({str(path.relative_to(each)) for path in each.rglob("*")} for each in (folder, calm))
    return leftovers(folder) or (f"other files: {sorted(there ^ here)}" if there != here else "")


def sweep_kills(work: Work) -> Row:
    """`sweep` on two processes, of which one or the main one is killed; the same command follows."""
    tally, grid = Tally(), Grid("drill", tuple(_steps(TINY, 100, regime=name) for name in ("cot", "direct")), PROBLEMS)
    calm, log = work.folder / "calm", work.folder / "log"
    seconds = undisturbed(sweep_runs, grid, calm, work.folder / "pids", log=log)
    table = _table(grid, calm, work.folder)
    while tally.tried < work.tries:
        number = tally.tried
        root, pids = work.folder / str(number), work.folder / f"pids-{number}"
        shutil.rmtree(root, ignore_errors=True)
        pids.unlink(missing_ok=True)
        process, main = started(sweep_runs, grid, root, pids, log=log), bool(number % 2)
        if not killed(process, work.draw.uniform(0, seconds), partial(_one_of, pids, work.draw, main)):
            process.join()
            continue
        first = "" if (fault := ended(process)) and process.exitcode == -signal.SIGKILL else fault
        lost = first or alive(_pids(pids)) or ended(started(sweep_runs, grid, root, pids, log=log))
        lost = lost or ("another table" if _table(grid, root, work.folder) != table else "")
        lost = lost or next(filter(None, (_other_run(root / spec.slug, calm / spec.slug) for spec in grid.specs)), "")
        tally.add(f"kill {number} of {'the main process' if main else 'a worker'}", lost or _other_files(root, calm))
    return tally.row("sweep-kills")


def sweep_runs(grid: Grid, root: Path, pids: Path) -> None:
    """A sweep that leaves the numbers of its workers in `pids`; status 1 where a run failed."""
    with open_executor("local:2", folder=root) as executor:
        write_atomic(pids, " ".join(str(executor.submit(os.getpid).result()) for _ in range(2)))
        outcomes = run_sweep(grid, root, executor)
    if any(outcome.status == "failed" for outcome in outcomes):
        raise SystemExit(f"failed: {[outcome.error for outcome in outcomes]}")


def _pids(path: Path) -> list[int]:
    return [int(word) for word in path.read_text().split()] if path.exists() else []


def _one_of(path: Path, draw: random.Random, main: bool) -> int | None:
    """A worker; None for the main process, or as long as there are no workers."""
    return draw.choice(_pids(path)) if path.exists() and not main else None


def _table(grid: Grid, root: Path, folder: Path) -> bytes:
    return write_sweep_table(sweep_table(grid, root), folder / "table.csv").read_bytes()


def claims_kills(work: Work) -> Row:
    """`claims --from checkpoints --train` killed at any moment of training, measuring and judging, then given again."""
    tally, calm, log = Tally(), work.folder / "calm", work.folder / "log"
    seconds, tables = undisturbed(judge_runs, calm, log=log), _texts(calm)
    while tally.tried < work.tries:
        number = tally.tried
        folder = work.folder / str(number)
        shutil.rmtree(folder, ignore_errors=True)
        process = started(judge_runs, folder, log=log)
        hit = killed(process, work.draw.uniform(0, seconds))
        process.join()
        if not hit:
            continue
        lost = ended(started(judge_runs, folder, log=log)) or _other_files(folder, calm)
        changed = [name for name, text in _texts(folder).items() if tables.get(name) != text]
        tally.add(f"kill {number}", lost or (f"other tables: {changed}" if changed else ""))
    return tally.row("claims-kills")


def judge_runs(folder: Path) -> None:
    sources = Sources(
        tasks=("s3",), seeds=1, root=folder / "runs", train=True, jobs=1, quick=True,
        base=_steps(TINY, 60), parts=("memory",),
    )  # fmt: skip
    claims_session(gather_evidence(sources, folder), out=folder, tasks=["random-labels"], say=print)


def _texts(folder: Path) -> dict[str, bytes]:
    """Tables and verdicts below a folder, by path."""
    found = (path for kind in ("*.csv", "verdicts.json") for path in folder.rglob(kind))
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


# ---------------------------------------------------------------------------------------------- damage


def damages(work: Work) -> Row:
    """A file of a run after one damage, or in the place of another run's; what reads it must refuse it."""
    tally, runs = Tally(), [_steps(TINY, 20), _steps(TINY, 20, seed=1)]
    for spec in runs:
        _evaluated(spec, work.folder / "sound" / spec.slug)
        _interrupted(spec, work.folder / "begun" / spec.slug)
    kinds = [*DAMAGE, "another run's"]
    for number in range(work.tries):
        name, kind = work.draw.choice(list(READERS)), kinds[number % len(kinds)]
        kept = work.folder / ("begun" if name == STATE_FILE else "sound")
        source = kept / runs[0].slug
        directory = shutil.copytree(source, work.folder / "damaged" / runs[0].slug, dirs_exist_ok=True)
        content = (source / name).read_bytes()
        other = (kept / runs[1].slug / name).read_bytes()
        (directory / name).write_bytes(other if kind == "another run's" else damaged(content, kind, work.draw))
        read = READERS[name]
        lost, value = answer(partial(read, directory))
        believed = value is not None and value != read(source)
        tally.add(f"{kind} in {name}", lost, "believed with another content" if believed else "")
        shutil.rmtree(directory)
    return tally.row("damage")


def _evaluated(spec: RunSpec, directory: Path) -> None:
    with ThreadPoolExecutor(1) as thread:
        run_sweep(Grid("sound", (spec,), PROBLEMS), directory.parent, thread)


def _interrupted(spec: RunSpec, directory: Path) -> None:
    class Stop(Exception):
        pass

    def stop(event: StepEvent) -> None:
        if event.step == 12:
            raise Stop

    try:
        train(spec, directory=directory, device="cpu", threads=1, checkpoint_every=5, progress=stop)
    except Stop:
        return


def _loaded(directory: Path) -> object:
    run = load_run(directory)
    return run.spec, run.weight_hash, dict(run.metadata)


def _gone_on(directory: Path) -> object:
    """The weights in the end: those of the undisturbed run, whose spec the directory's name tells."""
    with TemporaryDirectory() as name:
        copy = Path(shutil.copytree(directory, Path(name) / directory.name))
        spec, _ = read_spec(copy)
        return train(spec, directory=copy, device="cpu", threads=1).weight_hash


READERS: Mapping[str, Callable[[Path], object]] = {
    MODEL_FILE: _loaded,
    STATE_FILE: _gone_on,
    SPEC_FILE: _loaded,
    EVALUATION_FILE: lambda directory: valid_evaluation(directory, PROBLEMS),
}
"""What reads each file of a run, and gives None or an error where it cannot be believed."""


# ---------------------------------------------------------------------------------------------- nonsense


def answer(read: Callable[[], object], limit_s: int = 20) -> tuple[str, object]:
    """What is wrong with how something was read, and the value; an error that its reader can use is nothing wrong."""

    def expire(*_: object) -> None:
        raise TimeoutError(f"it took more than {limit_s} s")

    before = signal.signal(signal.SIGALRM, expire)
    signal.alarm(limit_s)
    try:
        return "", read()
    except TimeoutError as error:
        return str(error), None
    except (ValueError, KeyError, OSError) as error:
        text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
        return ("" if text and "\n" not in text.strip() else f"a message of no or many lines: {text!r:.200}"), None
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return f"{type(error).__name__}: {error}"[:300], None
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def outputs(work: Work) -> Row:
    """What a model might write: in one category, always the same, that agrees with its answer and its end."""
    tally = Tally()
    for number, output in enumerate(fuzzed_outputs(work.tries, seed=work.draw.randrange(2**32))):
        tally.add(f"output {number}", fault_of_output(output) or "")
    return tally.row("outputs")


def task_files(work: Work) -> Row:
    """A user's file of a task with lines put in or lost, characters changed, cut off."""
    tally = Tally()
    for number, content in enumerate(fuzzed_task_files(work.tries, seed=work.draw.randrange(2**32))):
        tally.add(f"task file {number}", answer(partial(outcome_of_task_file, content, work.folder))[0])
    return tally.row("task-files")


def specs(work: Work) -> Row:
    """spec.json with wrong values, keys, types and bytes."""
    tally, path = Tally(), output_folder(work.folder / "spec") / SPEC_FILE
    for number in range(work.tries):
        path.write_bytes(fuzzed_spec(work.draw))
        lost, value = answer(lambda: read_spec(path.parent)[0].slug)
        tally.add(f"spec {number} {path.read_bytes()!r:.200}" if lost else f"spec {number}", lost)
    return tally.row("specs")


def grids(work: Work) -> Row:
    """A grid's TOML with wrong values, keys, tables and bytes."""
    tally, path = Tally(), work.folder / "grid.toml"
    for number in range(work.tries):
        path.write_bytes(fuzzed_grid(work.draw))
        lost, _ = answer(lambda: [spec.slug for spec in read_grid(path).specs])
        tally.add(f"grid {number} {path.read_bytes()!r:.300}" if lost else f"grid {number}", lost)
    return tally.row("grids")


# ---------------------------------------------------------------------------------------------- disks and crowds


def commands(run: str, out: Path, root: Path, grid: Path) -> dict[str, tuple[str, ...]]:
    """Commands that write, each into its own folder below `out`; `run` and `grid` are read from `root`."""
    of_run = ("--root", str(root), "--quick", "--device", "cpu")
    one = {name: (name, run, *of_run, "--out", str(out / name)) for name in ("evaluate", "edit", "probe", "patch")}
    collect = ("collect", str(grid), "--out", str(out / "collect" / "table.csv"), "--root", str(root))
    return {"collect": collect, **one} | {
        "attribute": ("attribute", run, *of_run, "--out", str(out / "attribute")),
        "claims": ("claims", "--out", str(out / "claims"), "--tables", "analyses/out"),
    }


def writing(out: Path, grid: Path) -> dict[str, tuple[str, ...]]:
    """Commands whose outputs are runs."""
    shape = ("--model.n-layers", "1", "--model.d-model", "16", "--model.n-heads", "2", "--model.d-mlp", "32")
    spec = ("--task", "s3", "--regime", "cot", "--k-max", "3", "--n-train", "20", *shape, "--optimizer.steps", "20")
    return {
        "train": ("train", *spec, "--root", str(out / "train"), "--device", "cpu", "--threads", "1"),
        "sweep": ("sweep", str(grid), "--root", str(out / "sweep"), "--executor", "local:1"),
    }


def slow(out: Path) -> dict[str, tuple[str, ...]]:
    """Commands that compute for minutes: that they cannot write they must say before."""
    return {name: (name, "--quick", "--out", str(out / name)) for name in ("reproduce", "calibrate")}


def _grid_file(folder: Path) -> tuple[Path, RunSpec]:
    path = folder / "drill.toml"
    path.write_text(
        'problems_per_k = 10\n[[runs]]\ntask = "s3"\nregime = "cot"\nk_max = 3\nn_train = 20\n'
        "optimizer = { steps = 20, batch_size = 4, warmup = 5 }\n"
        "model = { n_layers = 1, d_model = 16, n_heads = 2, d_mlp = 32, n_ctx = 32 }\n"
    )
    return path, read_grid(path).specs[0]


def full_disk(work: Work) -> Row:
    """Every command that writes, on a disk with no room or room for a little."""
    return _on_disk(work, "full-disk", ("full", "little"))


def read_only_disk(work: Work) -> Row:
    """Every command that writes, on a disk that cannot be written."""
    return _on_disk(work, "read-only-disk", ("read-only",))


def _on_disk(work: Work, name: str, kinds: Sequence[str]) -> Row:
    tally, (grid, spec) = Tally(), _grid_file(work.folder)
    _evaluated(spec, work.folder / "runs" / spec.slug)
    for kind in kinds:
        with disk(work.folder / kind, kind) as (place, trouble):
            asked = writing(place, grid) | commands(spec.slug, place, work.folder / "runs", grid)
            asked |= slow(place) if kind == "read-only" else {}
            for command, arguments in list(asked.items())[: work.tries]:
                log = work.folder / f"{kind}-{command}.log"
                process = started(run_command, arguments, trouble, log=log)
                hung = "hung" in (fault := ended(process))
                fine = kind == "little" and process.exitcode == 0
                lost = fault if hung else "" if fine else _unhelpful(process, log, command)
                tally.add(f"{command} on a {kind} disk", lost or leftovers_of(place))
    return tally.row(name)


def leftovers_of(place: Path) -> str:
    names = sorted(path.name for path in place.rglob("*.tmp"))
    return f"left over: {names}" if names else ""


def _unhelpful(process: BaseProcess, log: Path, command: str) -> str:
    """What is wrong with how a command ended that could not write; empty for one line with the place and the cause."""
    text = log.read_text(errors="replace")
    said = [line for line in text.splitlines() if "error" in line or "failed:" in line]
    wanted = (1, 2) if command == "sweep" else (2,)
    if process.exitcode not in wanted:
        return f"exit status {process.exitcode}: {text[-200:]!r}"
    if "Traceback" in text or not said or not any(cause in said[-1] for cause in CAUSES):
        return f"no line that says the cause: {text[-300:]!r}"
    return ""


CAUSES = ("No space left on device", "Read-only file system", "no permission")


@contextmanager
def disk(place: Path, kind: str) -> Iterator[tuple[Path, str]]:
    """A folder on a small disk where this user may mount one; else an ordinary one, and which trouble to play."""
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "drill", str(place)], capture_output=True)
    if mounted.returncode:
        yield place, kind
        return
    try:
        if kind == "read-only":
            subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True, capture_output=True)
        else:
            room = 0 if kind == "full" else 24_000
            (place / "filler").write_bytes(bytes(128 * 1024 - room // 4096 * 4096))
        yield place, ""
    finally:
        subprocess.run(["umount", str(place)], check=True, capture_output=True)


def run_command(arguments: Sequence[str], trouble: str = "") -> None:
    """A command line as a shell would run it, with a disk's trouble played where none could be mounted."""
    if trouble:

        def refuse(*_: object, **__: object) -> None:
            raise OSError(ENOSPC, os.strerror(ENOSPC))

        os.fsync = refuse
    command_line(list(arguments))


def two_processes(work: Work) -> Row:
    """Every command that writes tables, twice at once into one folder: both end well, the tables are those of one."""
    tally, (grid, spec) = Tally(), _grid_file(work.folder)
    _evaluated(spec, work.folder / "runs" / spec.slug)
    for name in list(commands("", Path(), Path(), grid))[: work.tries]:
        folders = [work.folder / each for each in ("calm", "crowded")]
        alone, shared = (commands(spec.slug, each, work.folder / "runs", grid)[name] for each in folders)
        log = work.folder / f"{name}.log"
        faults = [ended(started(run_command, alone, log=log))]
        pair = [started(run_command, shared, log=log) for _ in range(2)]
        faults += [ended(process) for process in pair]
        lost = next(filter(None, faults), "") or _other_files(folders[1], folders[0])
        lost = lost or ("" if _texts(folders[1]) == _texts(folders[0]) else "other tables")
        tally.add(name, lost)
    return tally.row("two-processes")


# ---------------------------------------------------------------------------------------------- the command

DRILLS: Mapping[str, tuple[Callable[[Work], Row], int, int]] = {
    "train-kills": (train_kills, 100, 2),
    "sweep-kills": (sweep_kills, 30, 1),
    "claims-kills": (claims_kills, 10, 0),
    "damage": (damages, 1000, 40),
    "outputs": (outputs, 10_000, 200),
    "specs": (specs, 1000, 60),
    "grids": (grids, 1000, 60),
    "task-files": (task_files, 1000, 20),
    "full-disk": (full_disk, 99, 1),
    "read-only-disk": (read_only_disk, 99, 1),
    "two-processes": (two_processes, 99, 1),
}
"""Each drill, and how often it tries: in full, and quickly."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Nothing may be lost, and nothing wrong believed.

    Attributes:
        only: These drills alone; all by default.
        quick: A few tries of each.
        seed: Of everything that is drawn: the moments of the kills, the damage, the nonsense.
        out: drill.csv goes here.
        into: Put the table into this page, between its two marks.
    """

    only: tuple[str, ...] = ()
    quick: bool = False
    seed: int = 0
    out: Path = Path("out")
    into: Path | None = None


def drill(options: Options) -> list[Row]:
    """The rows, one for each drill that was asked for. KeyError for a name that is none."""
    if unknown := [name for name in options.only if name not in DRILLS]:
        raise KeyError(f"no drills {unknown}; there are {list(DRILLS)}")
    rows = []
    for name in options.only or tuple(DRILLS):
        run, full, quick = DRILLS[name]
        tries = quick if options.quick else full
        if not tries:
            continue
        with TemporaryDirectory() as folder:
            rows.append(run(Work(Path(folder), random.Random(f"{options.seed} {name}"), tries)))
        sys.stderr.write(f"{rows[-1]}\n")
    return rows


def main(options: Options) -> list[Row]:
    """Drills, writes drill.csv, prints the table; status 1 where anything was lost or accepted."""
    rows = drill(options)
    frame = pd.DataFrame([asdict(row) for row in rows])
    write_atomic(output_folder(options.out) / "drill.csv", frame.to_csv(index=False, lineterminator="\n"))
    text = table(rows)
    sys.stdout.write(text if options.into is None else f"{put_between(options.into, MARKS, text)}\n")
    return rows


def table(rows: Sequence[Row]) -> str:
    """As Markdown."""
    cells = [(row.drill, f"{row.tried:,}", str(row.lost), str(row.accepted), row.wrong or "nothing") for row in rows]
    lines = [("drill", "tried", "lost", "accepted", "what was wrong"), ("---",) * 5, *cells]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    if any(row.lost or row.accepted for row in main(tyro.cli(Options, description=__doc__))):
        raise SystemExit(1)
