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
    import pandas as pd

    from cotinterp.behavior.search.answers import Answer
    from cotinterp.mechanism.model import HookedModel
    from cotinterp.studies.instruments import StudyName
    from cotinterp.studies.subject import Subject
    from cotinterp.tasks import Task
    from cotinterp.training.checkpoints import Run
    from cotinterp.training.spec import Rewards, RunSpec


Function = TypeVar("Function", bound=Callable[..., None])


class Commands(dict[str, Callable[..., None]]):
    """Functions by the word that calls them, in the order in which `--help` lists them.

    Attributes:
        examples: Lines that somebody might type, by the same word: the end of the command's `--help`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.examples: dict[str, tuple[str, ...]] = {}

    def command(self, *, name: str, examples: tuple[str, ...]) -> Callable[[Function], Function]:
        """Decorator: the function is the command `name`, its arguments are the options."""

        def join(function: Function) -> Function:
            self[name], self.examples[name] = function, examples
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


@app.command(
    name="tasks",
    examples=(
        "cotinterp tasks",
        "cotinterp tasks --k 6",
    ),
)
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


@app.command(name="curricula", examples=("cotinterp curricula", "cotinterp curricula --k 4 --steps 1000"))
def curricula_command(k: Count = 6, steps: Count = 2000) -> None:
    """Print the named ways of teaching: what a run is shown, in which order and for how many updates, and its control.

    Args:
        k: Most operands of the problems.
        steps: Updates of one full phase (`optimizer.steps`).
    """
    from rich.console import Console
    from rich.table import Table

    from cotinterp.training.curriculum import CURRICULA, control_of
    from cotinterp.training.spec import OptimizerSpec, RunSpec

    table = Table("curriculum", "what it does", "asked as", "stages, mix", "updates", "control", "source")
    base = RunSpec(task="z6", regime="direct", k_max=k, optimizer=OptimizerSpec(steps=steps))
    for name, one in CURRICULA.items():
        spec = one.teach(base)
        control = control_of(spec)
        table.add_row(
            name,
            one.words,
            spec.regime,
            spec.schedule or "-",
            f"{spec.most_steps:,}",
            f"{control.regime} {control.schedule}".strip(),
            one.source,
        )
    Console(width=None if sys.stdout.isatty() else 190).print(table, markup=False)


@app.command(
    name="train",
    examples=(
        "cotinterp train --task s3 --regime cot",
        "cotinterp train --task digit-sum --regime direct --seed 1 --root out/runs --threads 1",
        "cotinterp train --task s3 --regime cot --start-from s3-cot-L4-s0-42df236d --rewards.method grpo",
    ),
)
def train_command(
    spec: "RunSpec",
    rewards: "Rewards",
    curriculum: str | None = None,
    root: Path = Path("checkpoints"),
    device: str = "auto",
    threads: Count | None = None,
    checkpoint_every: Count = 200,
    track: Literal["tensorboard", "wandb"] | None = None,
    track_dir: Path | None = None,
) -> None:
    """Train one model; a training that was interrupted goes on where it was.

    Args:
        spec: What to train.
        rewards: Teach it by what it writes itself in place of transcripts; --rewards.method says how.
        curriculum: Teach it so (`cotinterp curricula`), in place of the regime that the spec names.
        root: The run's directory is <root>/<slug>.
        device: auto, cpu, cuda, ...
        threads: CPU threads; the weights are the same, bit for bit, for the same number.
        checkpoint_every: Updates between two saved states; a killed process loses at most so many.
        track: Also log for TensorBoard, or offline for Weights & Biases, what metrics.jsonl has; changes no weight.
        track_dir: With --track, logs go here; into the run's directory by default.
    """
    if track_dir is not None and track is None:
        raise ValueError("--track-dir says where the logs of --track go: give --track tensorboard or wandb too")
    if rewards != type(rewards)():  # type: ignore[call-arg]  # none is required as an option
        spec = spec.model_copy(
            update={"rewards": {name: one for name, one in vars(rewards).items() if one is not None}}
        )
    from cotinterp.results import output_folder
    from cotinterp.sweeps.progress import progress_stages

    output_folder(root)
    with progress_stages("train", ("load torch",)):
        from cotinterp.training.tracking import tracker

        tracked = None if track is None else tracker(track, track_dir)
        from cotinterp.training.curriculum import taught
        from cotinterp.training.loop import train
        from cotinterp.training.progress import rich_progress

    if curriculum is not None:
        spec = taught(curriculum, spec)
    with rich_progress(spec.slug) as progress, notes():
        run = train(
            spec,
            directory=root / spec.slug,
            device=device,
            threads=threads,
            checkpoint_every=checkpoint_every,
            progress=progress,
            tracker=tracked,
        )
    print(f"run     {run.directory}\nweights {run.weight_hash}")
    if "adapter" in run.metadata:
        print(f"adapter {run.metadata['adapter']}")


@contextmanager
def notes() -> Iterator[None]:
    """Shows what the library warns of inside the block, one line each, without the place in its source."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: print(f"cotinterp: note: {message}", file=sys.stderr)
        yield


@app.command(
    name="evaluate",
    examples=(
        "cotinterp evaluate s3-cot-L4-s0-42df236d",
        "cotinterp evaluate digit-sum-direct-L4-s0-93146b24 --quick --json",
        "cotinterp evaluate out/runs/mine --task mine.py:Swap --store",
    ),
)
def evaluate_command(options: Options, store: bool = False) -> None:
    """Measure accuracy by number of operands, and sort the errors, of what the model writes by itself.

    Args:
        options: The trained model, and where its tables go.
        store: Keep the accuracies beside the weights too, in evaluation.json.
    """
    _study("evaluate", options, store=store)


@app.command(
    name="edit",
    examples=(
        "cotinterp edit s3-cot-L4-s0-42df236d",
        "cotinterp edit digit-sum-cot-L4-s0-3be51c67 --quick --out out/edits",
    ),
)
def edit_command(options: Options) -> None:
    """Edit the written trace in nine ways and see whether the answer follows the trace or the prompt."""
    _study("edit", options)


@app.command(
    name="probe",
    examples=(
        "cotinterp probe s3-cot-L4-s0-42df236d",
        "cotinterp probe s3-cot-L4-s0-42df236d --quick --max-bytes 500000000",
    ),
)
def probe_command(options: Options, max_bytes: Count | None = None) -> None:
    """Probe every layer and role for the running totals, with controls.

    Args:
        options: The trained model, and where its tables go.
        max_bytes: Most memory that activations and fits may take, by estimate.
    """
    _study("probe", options, max_bytes=max_bytes)


@app.command(
    name="patch",
    examples=(
        "cotinterp patch s3-cot-L4-s0-42df236d",
        "cotinterp patch digit-sum-direct-L4-s0-93146b24 --quick --device cpu",
    ),
)
def patch_command(options: Options, max_bytes: Count | None = None) -> None:
    """Patch activations between minimal pairs, denoising and noising, by role and by head.

    Args:
        options: The trained model, and where its tables go.
        max_bytes: Most memory that activations may take, by estimate; 1 GiB by default.
    """
    _study("patch", options, max_bytes=max_bytes)


@app.command(
    name="attribute",
    examples=(
        "cotinterp attribute s3-cot-L4-s0-42df236d",
        "cotinterp attribute s3-cot-L4-s0-42df236d --quick --json",
    ),
)
def attribute_command(options: Options) -> None:
    """Measure what each head adds to the logit difference, what ablating it costs, and where it attends."""
    _study("attribute", options)


@app.command(
    name="circuit",
    examples=(
        "cotinterp circuit s3-cot-L4-s0-42df236d",
        "cotinterp circuit digit-sum-cot-L4-s0-3be51c67 --quick --json",
    ),
)
def circuit_command(options: Options, max_bytes: Count | None = None) -> None:
    """Patch every edge between components by itself, and see how few edges keep the behavior.

    Args:
        options: The trained model, and where its tables go.
        max_bytes: Most memory that activations may take, by estimate; 1 GiB by default.
    """
    _study("circuit", options, max_bytes=max_bytes)


@app.command(
    name="dynamics",
    examples=(
        "cotinterp dynamics out/runs/mine",
        "cotinterp dynamics out/runs/mine --quick --json",
    ),
)
def dynamics_command(options: Options) -> None:
    """Draw what a run writes, and how it comes about, over the updates after which it kept its weights.

    Args:
        options: A run that was trained with --snapshots, and where its tables go.
    """
    directory, folder = checked("dynamics", options, store=False)
    from cotinterp.sweeps.progress import progress_stages

    with progress_stages(f"dynamics {directory.name}", ("load the models", "measure", "write")) as begin:
        from cotinterp.studies.dynamics import training_dynamics
        from cotinterp.studies.subject import FULL, QUICK
        from cotinterp.training.checkpoints import load_run

        run = load_run(directory, device=options.device, task=options.task)
        begin("measure")
        result = training_dynamics(run, QUICK if options.quick else FULL)
        begin("write")
        paths = result.save(folder, "dynamics", formats=options.formats)
    _show("dynamics", run, {"dynamics": (result.frame(), paths)}, as_json=options.json)


@app.command(
    name="solve",
    examples=(
        "cotinterp solve digit-sum-cot-L4-s0-3be51c67 3+4+5+6 --method mcts --budget 2000",
        "cotinterp solve s3-cot-L4-s0-42df236d '0*5*1*4' --method beam --scorer likelihood --temperature 4",
    ),
)
def solve_command(
    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")],
    problem: tyro.conf.Positional[str],
    method: Literal["greedy", "sample", "vote", "best-of-n", "beam", "mcts", "force"] = "mcts",
    scorer: Literal["oracle", "likelihood"] = "oracle",
    budget: Count = 500,
    temperature: float = 1.0,
    threshold: float | None = None,
    branches: Count = 3,
    width: Count = 2,
    least_steps: NonNegative = 0,
    most_steps: Count | None = None,
    seed: NonNegative = 0,
    root: Path | None = None,
    task: str | None = None,
    out: Path | None = None,
    device: str = "auto",
) -> None:
    """Let a model spend tokens on one problem: sample, vote, search; of a search its tree is written and drawn.

    Args:
        run: Slug of a run, or path of its directory.
        problem: As in a prompt, such as 3+4+5+6.
        method: How tokens are spent.
        scorer: What best-of-n, beam and mcts choose by.
        budget: Tokens that may be written in all.
        temperature: What logits are divided by before a symbol is drawn.
        threshold: Score that is good enough: a finished response that has it ends the search.
        branches: Steps drawn behind a prefix by beam and mcts.
        width: Prefixes that beam continues side by side.
        least_steps: Steps that force makes the model write at least.
        most_steps: Steps after which force closes the trace.
        seed: Of the draws.
        root: Where slugs are looked up; ./checkpoints by default, then the models that travel with the package.
        task: path/to/file.py:ClassName where the run's task is not registered.
        out: Table and figure of the tree go here; out/<slug>/solve by default.
        device: auto, cpu, cuda, ...
    """
    directory, folder = checked("solve", InstrumentOptions(run, root=root, task=task, out=out), store=False)
    from cotinterp.sweeps.progress import progress_stages
    from cotinterp.training.spec_file import read_spec
    from cotinterp.transcripts.problems import read_problem
    from cotinterp.transcripts.regimes import get_regime

    spec, known_task = read_spec(directory, task)
    asked, regime = read_problem(known_task, problem), spec.regime
    if get_regime(regime).reads != "response":
        raise ValueError(f"a run of the regime {regime!r} names a label and writes nothing that could be searched")

    with progress_stages(f"solve {directory.name}", ("load the model", "solve")) as begin:
        import numpy as np

        from cotinterp.behavior.accuracy import require_lengths
        from cotinterp.behavior.search.methods import METHODS
        from cotinterp.behavior.search.scoring import SCORERS
        from cotinterp.behavior.search.writer import Search
        from cotinterp.training.checkpoints import load_run
        from cotinterp.transcripts.batch import collate
        from cotinterp.transcripts.render import render

        loaded = load_run(directory, device=device, task=task)
        require_lengths(loaded.model, loaded.task, regime, [asked])
        begin("solve")
        found = METHODS[method](
            loaded.model,
            loaded.task,
            collate([render(loaded.task, asked, regime)], loaded.vocabulary),
            SCORERS[scorer],
            budget,
            rng=np.random.default_rng(seed),
            search=Search(
                temperature=temperature,
                threshold=threshold,
                branches=branches,
                width=width,
                least_steps=least_steps,
                most_steps=most_steps,
                trees=True,
            ),
        )
        (answer,) = found.answers
        written = found.tree().save(folder, "search_tree") if answer.tree else []
    spent = answer.spent
    print(f"response  {answer.text}")
    print(f"right     {'yes' if answer.correct else f'no: {loaded.task.state_text(asked.answer)} is'}")
    print(f"chosen    {_chosen(answer, str(found.labels['scorer']))}")
    print(f"spent     {spent.written} tokens written, {spent.read} read, {spent.passes} passes one after another")
    print(f"          {spent.flops:.3g} floating-point operations")
    print(*written, sep="\n", end="\n" if written else "")


def _chosen(answer: "Answer", scorer: str) -> str:
    """Out of how many responses an answer was chosen, and for what."""
    if not answer.drawn:
        return "no response came to an end: the budget or the room of the model was used up"
    of = "the only complete response" if answer.drawn == 1 else f"one of {answer.drawn} complete responses"
    if answer.score != answer.score:
        return of
    return f"{of}, {f'{scorer} {answer.score:.4g}' if scorer else f'with {answer.score:.0%} of the votes'}"


@app.command(
    name="explore",
    examples=(
        "cotinterp explore",
        "cotinterp explore s3-cot-L4-s0-42df236d s3-direct-L4-s0-53221af6 --port 0",
        "cotinterp explore mine.py:bridge --task s3 --regime cot",
    ),
)
def explore_command(
    run: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[RUN ...]")] = (),
    root: Path | None = None,
    task: str | None = None,
    regime: str | None = None,
    device: str = "cpu",
    port: NonNegative = 8765,
) -> None:
    """Play with trained models in the browser: change what they wrote, patch, knock out, and see what follows.

    Args:
        run: Slugs of runs, paths of their directories, or path/to/file.py:function that returns a TransformerLens-style
            model whose tokens are the symbols of --task (the file is run); the four reference models by default.
        root: Where slugs are looked up; ./checkpoints by default, then the models that travel with the package.
        task: The task of models of your own; of runs, path/to/file.py:ClassName where theirs is not registered.
        regime: How models of your own respond.
        device: cpu, auto, cuda, ...
        port: Of this machine's own address (127.0.0.1); 0 takes any that is free.
    """
    from cotinterp.sweeps.progress import progress_stages

    with progress_stages("explore", ("load the models",)):
        from cotinterp.explore.server import service
        from cotinterp.explore.session import Explorer
        from cotinterp.tasks import get_task
        from cotinterp.tasks.loading import is_reference
        from cotinterp.training.checkpoints import load_run
        from cotinterp.training.spec import reference_specs
        from cotinterp.training.spec_file import DEFAULT_ROOT

        names = run or tuple(spec.slug for spec in reference_specs())
        own = [name for name in names if is_reference(name) and not Path(name).exists()]
        if own and (task is None or regime is None):
            raise ValueError(f"{own[0]} is a model of your own: --task and --regime say what it was taught")
        if regime is not None and not own:
            raise ValueError("--regime is for models of your own, path/to/file.py:function; a run has its own")

        def held(name: str) -> "Run | Subject":
            if name not in own:
                return load_run(name, root=root or DEFAULT_ROOT, device=device, task=task)
            return own_subject(name, get_task(str(task)), str(regime))

        served = service(Explorer([held(name) for name in names]), port=port)
    print(served.link, "Open this link once, in one browser; Ctrl-C ends the explorer.", sep="\n", flush=True)
    served.run()


def own_model(reference: str) -> "tuple[HookedModel, str | None]":
    """The model that path/to/file.py:function returns, and the file. The file is run."""
    from cotinterp.mechanism.model import require_model
    from cotinterp.tasks.guard import UserCodeError
    from cotinterp.tasks.loading import load, user_code

    module, name, place = load(reference, "model", "function")
    function = vars(module).get(name)
    if not callable(function):
        raise UserCodeError(f"{place} has no function {name!r}; wanted is one without arguments that returns a model")
    file = getattr(module, "__file__", None)
    with user_code(f"{name}() in {place}", file):
        model = function()
    require_model(model)
    return model, file


def own_subject(reference: str, task: "Task", regime: str) -> "Subject":
    """That model, asked on problems of `task` of every length for which it has room."""
    from cotinterp.behavior.accuracy import longest_k
    from cotinterp.studies.subject import Subject
    from cotinterp.transcripts.regimes import get_regime

    model = own_model(reference)[0]
    try:
        k_range = task.min_k, longest_k(model, task, get_regime(regime))
    except KeyError as error:
        raise ValueError(error.args[0]) from error
    return Subject(model=model, task=task, regime=regime, run_seed=0, k_range=k_range, trained_on=(), variant=reference)


@app.command(
    name="export",
    examples=(
        "cotinterp export s3-cot-L4-s0-42df236d --to out/hub/s3-cot",
        "cotinterp export out/runs/mine --task mine.py:Swap --to out/hub/mine --license apache-2.0",
    ),
)
def export_command(
    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")],
    to: Path,
    root: Path | None = None,
    task: str | None = None,
    license: str | None = None,
) -> None:
    """Write a finished run as a folder for the Hugging Face hub, with its card; every command takes the folder as RUN.

    Args:
        run: Slug of a run, or path of its directory.
        to: The folder: a new or an empty one. Nothing is uploaded.
        root: Where slugs are looked up; ./checkpoints by default, then the models that travel with the package.
        task: path/to/file.py:ClassName where the run's task is not registered.
        license: As the hub names it, such as apache-2.0; by default mit for the reference models, else unknown.
    """
    from cotinterp.results.atomic import free_folder
    from cotinterp.sweeps.progress import progress_stages
    from cotinterp.training.spec_file import DEFAULT_ROOT, find_run, read_spec

    directory = find_run(run, root or DEFAULT_ROOT)
    read_spec(directory, task)
    free_folder(to)
    with progress_stages(f"export {directory.name}", ("check the run", "write")) as begin:
        from cotinterp.training.checkpoints import load_run
        from cotinterp.training.export import export_run

        loaded = load_run(directory, task=task)
        begin("write")
        print(export_run(loaded, to, license=license))


def _study(name: "StudyName", options: InstrumentOptions, *, store: bool = False, max_bytes: int | None = None) -> None:
    directory, folder = checked(name, options, store=store)
    from cotinterp.results import write_atomic
    from cotinterp.sweeps.progress import progress_stages

    frames: dict[str, tuple[pd.DataFrame, list[Path]]] = {}
    with progress_stages(f"{name} {directory.name}", ("load the model", "measure", "write")) as begin:
        from cotinterp.studies.instruments import store_accuracy, study, table_of
        from cotinterp.studies.subject import FULL, QUICK, Subject
        from cotinterp.training.checkpoints import load_run

        run = load_run(directory, device=options.device, task=options.task)
        begin("measure")
        tables = study(name, Subject.of_run(run), replace(QUICK if options.quick else FULL, max_bytes=max_bytes))
        begin("write")
        if store:
            store_accuracy(run, tables)
        for table, results in tables.items():
            frame = table_of(results)
            saved = (result.save(folder, figure, formats=options.formats) for figure, result in results.items())
            paths = [path for written in saved for path in written]
            if table not in results:
                paths.append(write_atomic(folder / "tables" / f"{table}.csv", frame.to_csv(index=False)))
            frames[table] = frame, paths
    _show(name, run, frames, as_json=options.json)


def _show(name: str, run: "Run", frames: "dict[str, tuple[pd.DataFrame, list[Path]]]", *, as_json: bool) -> None:
    """Print every table and the files that were written for it."""
    rows: dict[str, Any] = {}
    files: list[str] = []
    for table, (frame, written) in frames.items():
        if as_json:
            rows[table] = json.loads(frame.to_json(orient="records"))
            files += map(str, written)
        else:
            # Kinds of errors that no output has stand in the file.
            shown = frame[frame["count"] > 0] if {"category", "count"} <= {*frame} else frame
            print(shown.to_string(max_rows=40, index=False, float_format="{:.3f}".format))
            print(*written, sep="\n")
    if as_json:
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
