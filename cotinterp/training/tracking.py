"""A run's numbers in TensorBoard, or offline in Weights & Biases: those of metrics.jsonl, line by line.

Both packages are optional (extra `tracking`) and see numbers only: the weights are the same, bit for bit, with and
without. A training that goes on shows its whole log again, from metrics.jsonl, in the place of what was tracked before,
so no step stands there twice, and none is lost that was tracked by a process that was killed.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType

from cotinterp.results import output_folder
from cotinterp.results.shipped import optional
from cotinterp.training.spec import RunSpec

Line = Mapping[str, int | float]
Tracker = Callable[[RunSpec, Path, Sequence[Line]], AbstractContextManager[Callable[[Line], None]]]
"""Given a spec, the run's directory and the lines that are in its metrics.jsonl, yields what takes each later line."""
TRACKERS = ("tensorboard", "wandb")


def tracker(name: str, folder: Path | None = None) -> Tracker:
    """The `tracker` that `loop.train` takes.

    TensorBoard's files lie in `tensorboard/` of the run's directory, or in `folder`/<slug>; the offline runs of Weights
    & Biases in `wandb/` of the directory or of `folder`, where `wandb sync` finds them. Nothing is sent anywhere:
    of the modes in WANDB_MODE only `disabled` counts.

    Raises:
        ValueError: No such tracker. ModuleNotFoundError: Its package is not installed; says the command that does it.
    """
    if name not in TRACKERS:
        raise ValueError(f"no tracker {name!r}; there are {', '.join(TRACKERS)}")
    package = optional(name, "tracking", f"tracking with {name}")
    if folder is not None:
        folder = output_folder(folder)
    return partial(_wandb, package, folder) if name == "wandb" else partial(_tensorboard, folder)


@contextmanager
def _tensorboard(
    folder: Path | None, spec: RunSpec, directory: Path, lines: Sequence[Line]
) -> Iterator[Callable[[Line], None]]:
    from torch.utils.tensorboard import SummaryWriter

    place = directory / "tensorboard" if folder is None else folder / spec.slug
    # A reader drops what files of earlier processes say of steps from this one on.
    with SummaryWriter(str(place), purge_step=0) as writer:

        def log(line: Line) -> None:
            for name, value in line.items():
                if name != "step":
                    writer.add_scalar(name, value, int(line["step"]))

        for line in lines:
            log(line)
        yield log


@contextmanager
def _wandb(
    wandb: ModuleType, folder: Path | None, spec: RunSpec, directory: Path, lines: Sequence[Line]
) -> Iterator[Callable[[Line], None]]:
    place, name = folder or directory, spec.sha256[:16]
    for earlier in (place / "wandb").glob(f"offline-run-*-{name}"):
        shutil.rmtree(earlier)
    quiet = wandb.Settings(
        silent=True, console="off", save_code=False, disable_git=True, x_disable_stats=True, x_disable_machine_info=True
    )
    run = wandb.init(
        mode="disabled" if os.environ.get("WANDB_MODE") == "disabled" else "offline",
        dir=str(place),
        id=name,
        name=spec.slug,
        project=os.environ.get("WANDB_PROJECT", "cotinterp"),
        config=spec.model_dump(mode="json"),
        settings=quiet,
    )

    def log(line: Line) -> None:
        run.log({name: value for name, value in line.items() if name != "step"}, step=int(line["step"]))

    failed = 1
    try:
        for line in lines:
            log(line)
        yield log
        failed = 0
    finally:  # `with run` would print the traceback of a Ctrl-C
        run.finish(exit_code=failed)
