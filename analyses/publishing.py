"""What the scripts share: the runs that they are about, and where their answers go."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float
from scipy import stats

from cotinterp import RunSpec, load_run, sample_problems, sweep_table, train
from cotinterp.depth.grid import measurable_lengths
from cotinterp.report.depth import write_answer
from cotinterp.sweeps.grid import Grid, read_grid
from cotinterp.sweeps.single_run import evaluate
from cotinterp.training.checkpoints import Run, is_finished
from cotinterp.training.spec import REFERENCE_REGIMES, REFERENCE_TASKS, reference_specs
from cotinterp.transcripts.problems import Problem


def reference_runs(
    root: Path, *, tasks: Sequence[str] = REFERENCE_TASKS, regimes: Sequence[str] = REFERENCE_REGIMES
) -> tuple[Run, ...]:
    """The reference models of those tasks and regimes, on the CPU."""
    specs = [spec for spec in reference_specs() if spec.task in tasks and spec.regime in regimes]
    return tuple(load_run(spec.slug, root=root) for spec in specs)


def tiny_sweep(name: str, root: Path, *given: Path | None) -> pd.DataFrame:
    """The table of `tiny_grid`, trained in `root`, for a look at what a script prints: the numbers mean nothing.

    ValueError where a table or folder was given as well.
    """
    if ignored := [str(path) for path in given if path is not None]:
        raise ValueError(f"--quick trains tiny runs of its own and would ignore {', '.join(ignored)}: omit one of them")
    grid = tiny_grid(name)
    for spec in grid.specs:
        evaluate(train(spec, directory=root / spec.slug, threads=1), grid.problems_per_k)
    return sweep_table(grid, root)


def tiny_grid(name: str) -> Grid:
    """A grid of `analyses/grids` whose runs are cut down to three updates of one seed."""
    tiny: dict[str | None, RunSpec] = {}
    for spec in read_grid(Path(__file__).parent / "grids" / f"{name}.toml").specs:
        if spec.seed == 0:
            small = {
                "k_min": min(spec.k_min, 4),
                "k_max": 4,
                "n_train": max(20, min(60, spec.n_train // 1000)),
                "stages": (),
                "precision": "fp32",
                "model": spec.model.model_copy(update={"d_model": 8, "n_heads": 1, "d_mlp": 16}),
                "optimizer": spec.optimizer.model_copy(update={"steps": 3, "batch_size": 24 if spec.mix else 8}),
            }
            start: dict[str, Any] = {"start_from": tiny[spec.start_from].slug} if spec.start_from else {}
            if spec.adapter is not None:
                start["adapter"] = spec.adapter.model_copy(update={"rank": min(spec.adapter.rank, 8)})
            if spec.distill:
                start["distill"] = spec.distill.model_copy(update={"teacher": tiny[spec.distill.teacher].slug})
            tiny[spec.slug] = spec.model_copy(update=small | start)
    return Grid(f"tiny-{name}", tuple(tiny.values()), problems_per_k=40)


def publish(
    out: Path, *, tables: Mapping[str, pd.DataFrame], figures: Mapping[str, go.Figure], answer: Sequence[str]
) -> list[str]:
    """Write tables, figures and the answer in words (`write_answer`), and print the last."""
    write_answer(out, tables=tables, figures=figures, answer=answer)
    print(*answer, f"tables and figures: {out}", sep="\n")
    return list(answer)


def of_each_run(
    name: str,
    measured: Callable[[Run, int], pd.DataFrame],
    quick: bool,
    root: Path | None,
    table: Path | None,
    n: int,
    script: str = "",
) -> pd.DataFrame:
    """What `measured` says, on `n` problems, of every run of a grid that is finished under `root`, one below the other.

    With `quick` of tiny runs that are trained now; without a root what an earlier look left in `table`. `script` is who
    asks, where that has not the name of the grid.
    """
    if quick:
        with TemporaryDirectory() as scratch:
            slugs = tiny_sweep(name, Path(scratch), root, table)["slug"].unique()
            return pd.concat([measured(load_run(slug, root=Path(scratch)), 20) for slug in slugs])
    if root is not None:
        grid = read_grid(Path(__file__).parent / f"grids/{name}.toml")
        there = [spec.slug for spec in grid.specs if is_finished(root / spec.slug)]
        return pd.concat([measured(load_run(slug, root=root), n) for slug in there], ignore_index=True)
    return stored(table or Path(f"analyses/out/{name}.csv"), f"python -m analyses.{script or name} --root ROOT")


def phase_of(spec: RunSpec) -> str:
    """`base`, or what a run that started from one is: `rewards`, `shuffled` ones, or `twin`, shown transcripts."""
    if spec.start_from is None:
        return "base"
    return "twin" if spec.rewards is None else "shuffled" if spec.rewards.shuffled else "rewards"


def heldout_of_each(run: Run, longest: int, n: int) -> dict[str, tuple[Problem, ...]]:
    """`n` held-out problems of each length up to `longest` that has enough of them, as `accuracy_by_k` takes them."""
    rng, lengths = np.random.default_rng(0), measurable_lengths(run.task, longest)
    asked = [sample_problems(run.task, k, n, split="heldout", rng=rng) for k in lengths]
    return {"heldout": sum(asked, ())}


def over_seeds(values: Float[np.ndarray, " seeds"]) -> tuple[float, float, float]:
    """Mean of one number a seed, and the ends of its 95% interval by Student's t; NaN for the ends of one seed."""
    mean, half = float(values.mean()), float("nan")
    if len(values) > 1:
        half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return mean, mean - half, mean + half


def stored(table: Path, command: str) -> pd.DataFrame:
    """A table of earlier runs. FileNotFoundError, with the command that makes it, where there is none."""
    if not table.is_file():
        raise FileNotFoundError(f"no table {table}: `{command}` trains the runs and measures them")
    return pd.read_csv(table)
