"""Evidence from trained models, measured now: the other way is to read what was stored."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from cotinterp.claims.evidence import Evidence
from cotinterp.claims.planning import PARTS
from cotinterp.claims.replication import gather, joint_plan, replicate
from cotinterp.claims.subject import FULL, QUICK
from cotinterp.claims.thresholds import LEAST_SEEDS
from cotinterp.results import output_folder
from cotinterp.sweeps.standing import rich_standing
from cotinterp.training.reference import REFERENCE_TASKS
from cotinterp.training.spec import RunSpec


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Which trained models are measured, and how.

    Attributes:
        tasks: References; by default the reference tasks.
        seeds: The lowest so many.
        root: Folder of the checkpoints.
        tables: Folder in which the evidence is stored beside `gathered`'s own; None for none.
        train: Train runs that are missing under `root`.
        jobs: Processes, one CPU thread each.
        quick: Small samples: a look, not a measurement.
        base: The design of the runs where it is not the reference one.
        parts: Which of the plan is trained and measured (`planning.PARTS`).
    """

    tasks: tuple[str, ...] = ()
    seeds: int = LEAST_SEEDS
    root: Path = Path("out/replication")
    tables: Path | None = None
    train: bool = False
    jobs: int = 2
    device: str = "cpu"
    quick: bool = False
    base: RunSpec | None = None
    parts: tuple[str, ...] = PARTS


def gathered(sources: Sources, folder: Path, console: Console | None = None) -> Evidence:
    """The evidence of trained models, measured now.

    It is kept in `folder`/evidence, and the rows of each run in `folder`/rows as soon as there are any, so that a
    gathering that was killed goes on.

    Raises:
        FileNotFoundError: Runs are missing and `train` was not asked for.
    """
    tasks = sources.tasks or REFERENCE_TASKS
    planned = joint_plan(tasks, seeds=range(sources.seeds), base=sources.base, parts=sources.parts)
    work = replicate if sources.train else gather
    with rich_standing("claims", console) as progress:
        evidence = work(
            planned,
            root=sources.root,
            jobs=sources.jobs,
            effort=QUICK if sources.quick else FULL,
            device=sources.device,
            progress=progress,
            store=output_folder(folder / "rows"),
        )
    evidence.save(output_folder(folder / "evidence"))
    if sources.tables is not None:
        evidence.save(sources.tables)
    return evidence
