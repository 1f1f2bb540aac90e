"""The collection that every command joins."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

if TYPE_CHECKING:
    from cotinterp.studies.instruments import StudyName
    from cotinterp.training.spec import RunSpec


DESCRIPTION = "What written reasoning tokens buy a fixed-depth transformer, and by which mechanism."

app = tyro.extras.SubcommandApp()


@dataclass(frozen=True)
class Subject:
    """The trained model that an instrument is pointed at, and where its tables go.

    Attributes:
        run: Slug under --root, or path of a run's directory.
        root: Where checkpoints live.
        task: path/to/file.py:ClassName where the run's task is not registered.
        out: Tables and figures go here; out/<command> by default.
        device: auto, cpu, cuda, ...
        quick: Small samples: a look, not a measurement.
    """

    run: tyro.conf.Positional[str]
    root: Path = Path("checkpoints")
    task: str | None = None
    out: Path | None = None
    device: str = "auto"
    quick: bool = False


On = Annotated[Subject, tyro.conf.arg(name="")]


@app.command(name="tasks")
def tasks_command(k: int = 4) -> None:
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
    threads: int | None = None,
    checkpoint_every: int = 200,
) -> None:
    """Train one model, or go on with it where an earlier process left off.

    Args:
        spec: What to train.
        root: The run's directory is <root>/<slug>.
        device: auto, cpu, cuda, ...
        threads: CPU threads; the weights are the same, bit for bit, for the same number.
        checkpoint_every: Updates between two saved states; a killed process loses at most so many.
    """
    from cotinterp.training.loop import train
    from cotinterp.training.progress import rich_progress

    with rich_progress(spec.slug) as progress:
        run = train(
            spec,
            directory=root / spec.slug,
            device=device,
            threads=threads,
            checkpoint_every=checkpoint_every,
            progress=progress,
        )
    print(f"run     {run.directory}\nweights {run.weight_hash}")


@app.command(name="evaluate")
def evaluate_command(on: On, store: bool = False) -> None:
    """Accuracy by number of operands and side of the split, and what the errors are; both free-running.

    Args:
        on: The trained model.
        store: Keep the accuracies beside the weights too, in evaluation.json.
    """
    _study("evaluate", on, store=store)


@app.command(name="edit")
def edit_command(on: On) -> None:
    """Edit the written trace in nine ways and see whether the answer follows the trace or the prompt."""
    _study("edit", on)


@app.command(name="probe")
def probe_command(on: On, max_bytes: int | None = None) -> None:
    """Linear probes for the running totals by layer and role, with their controls.

    Args:
        on: The trained model.
        max_bytes: Most memory that activations and fits may take, by estimate.
    """
    _study("probe", on, max_bytes=max_bytes)


@app.command(name="patch")
def patch_command(on: On, max_bytes: int | None = None) -> None:
    """Activation patching on minimal pairs, denoising and noising, by role and by head.

    Args:
        on: The trained model.
        max_bytes: Most memory that activations may take, by estimate; 1 GiB unless told.
    """
    _study("patch", on, max_bytes=max_bytes)


@app.command(name="attribute")
def attribute_command(on: On) -> None:
    """What each head adds to the logit difference, what its loss costs, and where it looks."""
    _study("attribute", on)


def _study(name: "StudyName", on: Subject, *, store: bool = False, max_bytes: int | None = None) -> None:
    from cotinterp.results import output_folder, write_atomic
    from cotinterp.studies.instruments import store_accuracy, study, table_of
    from cotinterp.studies.subject import FULL, QUICK
    from cotinterp.studies.subject import Subject as Studied
    from cotinterp.training.checkpoints import load_run

    folder = output_folder(on.out or Path("out") / name)
    run = load_run(on.run, root=on.root, device=on.device, task=on.task)
    tables = study(name, Studied.of_run(run), replace(QUICK if on.quick else FULL, max_bytes=max_bytes))
    if store:
        store_accuracy(run, tables)
    for table, results in tables.items():
        frame = table_of(results)
        print(frame.to_string(max_rows=40, index=False, float_format="{:.3f}".format))
        written = [path for figure, result in results.items() for path in result.save(folder, figure)]
        if table not in results:
            written.append(write_atomic(folder / "tables" / f"{table}.csv", frame.to_csv(index=False)))
        print(*written, sep="\n")
