"""Commands for one model: train it, and point an instrument at it. `app` is the collection that every command joins."""

import json
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import tyro

if TYPE_CHECKING:
    from cotinterp.studies.instruments import StudyName
    from cotinterp.training.spec import RunSpec


Function = TypeVar("Function", bound=Callable[..., None])


class Commands(dict[str, Callable[..., None]]):
    """Functions by the word that calls them, in the order in which `--help` lists them."""

    def command(self, *, name: str) -> Callable[[Function], Function]:
        """Decorator: the function is the command `name`, its arguments are the options."""

        def join(function: Function) -> Function:
            self[name] = function
            return function

        return join


app = Commands()


@dataclass(frozen=True)
class AtLeast:
    """The least value of an option that is a number; the gate refuses what is below."""

    least: int


Count = Annotated[int, AtLeast(1)]
NonNegative = Annotated[int, AtLeast(0)]


@dataclass(frozen=True)
class InstrumentOptions:
    """What every instrument asks: which trained model, and where its tables go.

    Attributes:
        run: Slug of a run, or path of its directory.
        root: Where slugs are looked up; ./checkpoints by default, then the models that travel with the package.
        task: path/to/file.py:ClassName where the run's task is not registered.
        out: Tables and figures go here; out/<slug>/<command> by default.
        device: auto, cpu, cuda, ...
        quick: Small samples: a look, not a measurement.
        json: Print one JSON object, with every row of every table and the paths of the files, in place of the tables.
        formats: Write figures as svg, pdf or png too, beside their pages; needs the extra `static` and Chromium.
    """

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    root: Path | None = None
    task: str | None = None
    out: Path | None = None
    device: str = "auto"
    quick: bool = False
    json: bool = False
    formats: tuple[Literal["svg", "pdf", "png"], ...] = ()


Options = Annotated[InstrumentOptions, tyro.conf.arg(name="")]


@app.command(name="tasks")
def tasks_command(k: Count = 4) -> None:
    """Print every task with an example in every regime.

    Args:
        k: Number of operands of the examples.
    """
    import numpy as np
    from rich.console import Console
    from rich.table import Table

    from cotinterp.tasks import get_task, task_names
    from cotinterp.transcripts.problems import sample_problems
    from cotinterp.transcripts.regimes import regime_names
    from cotinterp.transcripts.render import render

    table = Table("task", "states", "k", "order", "regime", "example", title=None, show_lines=False)
    for name in task_names():
        task = get_task(name)
        (problem,) = sample_problems(task, k, 1, split="train", rng=np.random.default_rng(0))
        order = "does not matter" if task.commutative else "matters"
        facts = (name, str(task.n_states), f"{task.min_k}-{task.max_k}", order)
        for row, regime in enumerate(regime_names()):
            table.add_row(*(facts if row == 0 else ("",) * len(facts)), regime, render(task, problem, regime).text)
        table.add_section()
    Console(width=None if sys.stdout.isatty() else 150).print(table, markup=False)


@app.command(name="train")
def train_command(
    spec: "RunSpec",
    root: Path = Path("checkpoints"),
    device: str = "auto",
    threads: Count | None = None,
    checkpoint_every: Count = 200,
) -> None:
    """Train one model; a training that was interrupted goes on where it was.

    Args:
        spec: What to train.
        root: The run's directory is <root>/<slug>.
        device: auto, cpu, cuda, ...
        threads: CPU threads; the weights are the same, bit for bit, for the same number.
        checkpoint_every: Updates between two saved states; a killed process loses at most so many.
    """
    from cotinterp.results import output_folder

    output_folder(root)
    from cotinterp.training.loop import train
    from cotinterp.training.progress import rich_progress

    with rich_progress(spec.slug) as progress, notes():
        run = train(
            spec,
            directory=root / spec.slug,
            device=device,
            threads=threads,
            checkpoint_every=checkpoint_every,
            progress=progress,
        )
    print(f"run     {run.directory}\nweights {run.weight_hash}")


@contextmanager
def notes() -> Iterator[None]:
    """Shows what the library warns of inside the block, one line each, without the place in its source."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: print(f"cotinterp: note: {message}", file=sys.stderr)
        yield


@app.command(name="evaluate")
def evaluate_command(options: Options, store: bool = False) -> None:
    """Measure accuracy by number of operands, and sort the errors, of what the model writes by itself.

    Args:
        options: The trained model, and where its tables go.
        store: Keep the accuracies beside the weights too, in evaluation.json.
    """
    _study("evaluate", options, store=store)


@app.command(name="edit")
def edit_command(options: Options) -> None:
    """Edit the written trace in nine ways and see whether the answer follows the trace or the prompt."""
    _study("edit", options)


@app.command(name="probe")
def probe_command(options: Options, max_bytes: Count | None = None) -> None:
    """Probe every layer and role for the running totals, with controls.

    Args:
        options: The trained model, and where its tables go.
        max_bytes: Most memory that activations and fits may take, by estimate.
    """
    _study("probe", options, max_bytes=max_bytes)


@app.command(name="patch")
def patch_command(options: Options, max_bytes: Count | None = None) -> None:
    """Patch activations between minimal pairs, denoising and noising, by role and by head.

    Args:
        options: The trained model, and where its tables go.
        max_bytes: Most memory that activations may take, by estimate; 1 GiB by default.
    """
    _study("patch", options, max_bytes=max_bytes)


@app.command(name="attribute")
def attribute_command(options: Options) -> None:
    """Measure what each head adds to the logit difference, what ablating it costs, and where it attends."""
    _study("attribute", options)


@app.command(name="doctor")
def doctor_command(
    run: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[RUN ...]")] = (),
    root: Path | None = None,
    task: str | None = None,
) -> None:
    """Say what can be relied on: versions, device, bfloat16; and whether checkpoints are whole and have sites that act.

    Args:
        run: Slugs of runs, or paths of their directories; the four reference models by default.
        root: Where slugs are looked up; ./checkpoints by default, then the models that travel with the package.
        task: path/to/file.py:ClassName where the runs' task is not registered.
    """
    import platform
    from importlib.metadata import version

    import torch

    from cotinterp import check_model, load_run
    from cotinterp.models.build import fast_bfloat16, resolve_device
    from cotinterp.studies.subject import Subject
    from cotinterp.training.spec import reference_specs
    from cotinterp.training.spec_file import DEFAULT_ROOT

    device = resolve_device("auto")
    facts = {"python": platform.python_version()}
    facts |= {name: version(name) for name in ("cotinterp", "torch", "transformer-lens", "plotly", "circuitsvis")}
    facts |= {"device": str(device), "threads": str(torch.get_num_threads())}
    facts["bfloat16"] = "in hardware" if fast_bfloat16(device) else "emulated: train with --precision fp32"
    for name, value in facts.items():
        print(f"{name:18}{value}")
    failed = []
    slugs = run or tuple(spec.slug for spec in reference_specs())
    for slug in slugs:
        try:
            loaded = load_run(slug, root=root or DEFAULT_ROOT, task=task)
            subject = Subject.of_run(loaded)
            checked = check_model(loaded.model, subject.batch(subject.trained(4)).tokens)
            said = f"whole; trustworthy sites: {', '.join(checked.sound())}"
        except (ValueError, OSError) as error:
            failed.append(slug)
            said = f"NOT usable: {error}"
        print(f"{slug}  {said}")
    if failed:
        raise ValueError(f"{len(failed)} of {len(slugs)} checkpoints cannot be used: {', '.join(failed)}")


@app.command(name="explore")
def explore_command(
    run: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[RUN ...]")] = (),
    root: Path | None = None,
    task: str | None = None,
    device: str = "cpu",
    port: NonNegative = 8765,
) -> None:
    """Play with trained models in the browser: change what they wrote, patch, knock out, and see what follows.

    Args:
        run: Slugs of runs, or paths of their directories; the four reference models by default.
        root: Where slugs are looked up; ./checkpoints by default, then the models that travel with the package.
        task: path/to/file.py:ClassName where the runs' task is not registered.
        device: cpu, auto, cuda, ...
        port: Of this machine's own address (127.0.0.1); 0 takes any that is free.
    """
    from cotinterp.explore.server import service
    from cotinterp.explore.session import Explorer
    from cotinterp.training.spec import reference_specs
    from cotinterp.training.spec_file import DEFAULT_ROOT

    slugs = run or tuple(spec.slug for spec in reference_specs())
    served = service(Explorer.load(*slugs, root=root or DEFAULT_ROOT, device=device, task=task), port=port)
    print(served.link, "Open this link once, in one browser; Ctrl-C ends the explorer.", sep="\n", flush=True)
    served.run()


def _study(name: "StudyName", options: InstrumentOptions, *, store: bool = False, max_bytes: int | None = None) -> None:
    directory, folder = checked(name, options, store=store)
    from cotinterp.results import write_atomic
    from cotinterp.studies.instruments import store_accuracy, study, table_of
    from cotinterp.studies.subject import FULL, QUICK, Subject
    from cotinterp.training.checkpoints import load_run

    run = load_run(directory, device=options.device, task=options.task)
    tables = study(name, Subject.of_run(run), replace(QUICK if options.quick else FULL, max_bytes=max_bytes))
    if store:
        store_accuracy(run, tables)
    rows: dict[str, Any] = {}
    files: list[str] = []
    for table, results in tables.items():
        frame = table_of(results)
        saved = (result.save(folder, figure, formats=options.formats) for figure, result in results.items())
        written = [path for paths in saved for path in paths]
        if table not in results:
            written.append(write_atomic(folder / "tables" / f"{table}.csv", frame.to_csv(index=False)))
        if options.json:
            rows[table] = json.loads(frame.to_json(orient="records"))
            files += map(str, written)
        else:
            print(frame.to_string(max_rows=40, index=False, float_format="{:.3f}".format))
            print(*written, sep="\n")
    if options.json:
        print(json.dumps({"command": name, "run": run.spec.slug, "tables": rows, "files": files}))


def checked(name: str, options: InstrumentOptions, *, store: bool) -> tuple[Path, Path]:
    """The directory of the run and the folder of the output. All that can be wrong is asked before torch is loaded."""
    from cotinterp.results import output_folder
    from cotinterp.results.shipped import is_shipped
    from cotinterp.results.static import require_static
    from cotinterp.training.spec_file import DEFAULT_ROOT, find_run, read_spec

    require_static(options.formats)
    directory = find_run(options.run, options.root or DEFAULT_ROOT)
    if options.root is not None and not (options.root / options.run).exists():
        raise ValueError(
            f"--root {options.root} does not hold {options.run}, which is a directory of its own: omit one"
        )
    if store and is_shipped(directory):
        raise ValueError(f"--store writes beside the weights, and {directory} belongs to the package: copy it first")
    read_spec(directory, options.task)
    return directory, output_folder(options.out or Path("out") / directory.resolve().name / name)
