"""The command line: every instrument as a verb. Nothing heavy is imported until a command needs it."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

if TYPE_CHECKING:
    from cotinterp.report.studies import StudyName
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


@app.command(name="calibrate")
def calibrate_command(
    out: Path = Path("out/calibrate"),
    quick: bool = False,
    mutations: bool = False,
    untrained: int = 0,
    nulls: int = 0,
    peers: bool = False,
    jobs: int = 2,
) -> None:
    """Ask every instrument and every claim about models whose mechanism is known; ends with status 1 if one is wrong.

    Args:
        out: Tables and figures go here.
        quick: Fewer examples.
        mutations: Also plant a bug for every control, which must notice it.
        untrained: Also scan that many untrained models: the share in which anything is flagged, against the level.
        nulls: Also judge all claims in that many worlds of untrained models, and in simulated ones at the threshold.
        peers: Also compare with TransformerLens's own patching and interchange, on several architectures.
        jobs: Processes for the untrained models, one thread each.
    """
    from cotinterp.calibration.session import calibration_session

    if not calibration_session(
        out=out,
        quick=quick,
        mutations=mutations,
        untrained=untrained,
        nulls=nulls,
        peers=peers,
        jobs=jobs,
        say=print,
    ):
        raise SystemExit(1)


@app.command(name="claims")
def claims_command(
    task: tuple[str, ...] = (),
    claim: tuple[str, ...] = (),
    seeds: int | None = None,
    origin: Annotated[Literal["tables", "checkpoints"], tyro.conf.arg(name="from")] = "tables",
    tables: Path = Path("analyses/out"),
    root: Path = Path("out/replication"),
    train: bool = False,
    update_tables: bool = False,
    out: Path = Path("out/claims"),
    jobs: int = 2,
    device: str = "cpu",
    quick: bool = False,
    k_max: int | None = None,
    n_layers: int | None = None,
    steps: int | None = None,
    part: tuple[str, ...] = (),
) -> None:
    """The verdict on every claim, with its evidence, rivals and controls.

    Args:
        task: Tasks by name or path/to/file.py:ClassName; by default all in the tables, or the reference tasks.
        claim: Claims by name or path/to/file.py:NAME; by default the catalog.
        seeds: The lowest so many seeds; by default all in the tables, five from checkpoints.
        origin: Judge stored tables, or measure trained runs anew.
        tables: Folder of the stored evidence.
        root: Where the runs of the replication lie.
        train: Train the runs that are missing under --root; one that was killed goes on.
        update_tables: Write what is measured to --tables.
        out: Verdicts, tables and figure go here.
        jobs: Runs that are trained or measured side by side, each on one CPU thread.
        device: cpu, auto, cuda, ...
        quick: Small samples: a look, not a measurement.
        k_max: Most operands of the runs, where not the reference design's.
        n_layers: Layers of the standard runs, where not the reference design's.
        steps: Updates of the runs, where not the reference design's.
        part: Which runs: regimes, depths, sizes, memory; by default all. Claims that need others stay inconclusive.
    """
    from cotinterp.claims.catalog import CATALOG
    from cotinterp.claims.evidence import read_evidence
    from cotinterp.claims.session import claims_session
    from cotinterp.claims.thresholds import LEAST_SEEDS
    from cotinterp.claims.user_claims import get_claim
    from cotinterp.tasks import get_task

    claims = [get_claim(ref) for ref in claim] or CATALOG
    names = [get_task(ref).name for ref in task]
    if origin == "tables":
        evidence = read_evidence(tables) if seeds is None else read_evidence(tables).of_seeds(seeds)
    else:
        from cotinterp.claims.planning import PARTS, base_spec
        from cotinterp.claims.sources import Sources, gathered

        sources = Sources(
            tasks=task,
            seeds=LEAST_SEEDS if seeds is None else seeds,
            tables=tables if update_tables else None,
            root=root,
            train=train,
            jobs=jobs,
            device=device,
            quick=quick,
            base=base_spec(task[0] if task else "s3", k_max=k_max, n_layers=n_layers, steps=steps),
            parts=part or PARTS,
        )
        evidence = gathered(sources, out)
    claims_session(evidence, out=out, tasks=names, claims=claims, say=print)


@app.command(name="report")
def report_command(out: Path = Path("out")) -> None:
    """Write report.html anew from the tables that lie in a folder.

    Args:
        out: Folder of an earlier `cotinterp reproduce`.
    """
    from cotinterp.report import rebuild_report

    print(rebuild_report(out))


@app.command(name="reproduce")
def reproduce_command(
    out: Path = Path("out"),
    root: Path = Path("checkpoints"),
    from_scratch: bool = False,
    device: str = "auto",
    jobs: int = 2,
    quick: bool = False,
    precision: Literal["bf16", "fp32"] = "bf16",
) -> None:
    """The reference experiment: load or train the four models, take them apart, write the report.

    Args:
        out: Report, figures, tables and manifest go here.
        root: Where the reference checkpoints lie.
        from_scratch: Train the models anew, under <out>/checkpoints, instead of loading them.
        device: auto, cpu, cuda, ...
        jobs: Models that are trained or measured side by side, each on one CPU thread.
        quick: Small samples: a look, not a measurement.
        precision: With --from-scratch, what to train in; fp32 is faster where bfloat16 is emulated.
    """
    from cotinterp.report.reproduce import reproduce
    from cotinterp.training.reference import reference_specs

    if precision == "fp32" and not from_scratch:
        raise ValueError("the reference models under --root were trained in bf16; fp32 ones need --from-scratch")
    specs = reference_specs(precision="fp32") if precision == "fp32" else None
    written = reproduce(
        out=out, root=root, from_scratch=from_scratch, device=device, jobs=jobs, quick=quick, specs=specs
    )
    print(written)


def _study(name: "StudyName", on: Subject, *, store: bool = False, max_bytes: int | None = None) -> None:
    from cotinterp.report.studies import FULL, QUICK, store_accuracy, study, table_of
    from cotinterp.results import output_folder, write_atomic
    from cotinterp.training.checkpoints import load_run

    folder = output_folder(on.out or Path("out") / name)
    run = load_run(on.run, root=on.root, device=on.device, task=on.task)
    tables = study(name, run, replace(QUICK if on.quick else FULL, max_bytes=max_bytes))
    if store:
        store_accuracy(run, tables)
    for table, results in tables.items():
        frame = table_of(results)
        print(frame.to_string(max_rows=40, index=False, float_format="{:.3f}".format))
        written = [path for figure, result in results.items() for path in result.save(folder, figure)]
        if table not in results:
            written.append(write_atomic(folder / "tables" / f"{table}.csv", frame.to_csv(index=False)))
        print(*written, sep="\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point. An error that tells its reader what to do next ends the program with status 2, no traceback."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["train"]:
        # Its options are the fields of a spec. To load those would double the time of every other command's --help.
        from cotinterp.training.spec import RunSpec

        train_command.__annotations__["spec"] = Annotated[RunSpec, tyro.conf.arg(name="")]
    try:
        app.cli(prog="cotinterp", description=DESCRIPTION, args=arguments)
    except (ValueError, KeyError, OSError, ArithmeticError) as error:
        print(f"cotinterp: error: {_text(error)}", file=sys.stderr)
        raise SystemExit(2) from error


def _text(error: Exception) -> str:
    """What an error says, without the quotes of a KeyError and the frame that pydantic puts around its messages."""
    from pydantic import ValidationError

    if isinstance(error, ValidationError):
        faults = [
            (".".join(map(str, fault["loc"])), fault["msg"].removeprefix("Value error, ")) for fault in error.errors()
        ]
        return "; ".join(f"{place}: {message}" if place else message for place, message in faults)
    return str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)


if __name__ == "__main__":
    main()
