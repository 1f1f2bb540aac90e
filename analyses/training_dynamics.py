"""What forms first in training: the step's table, the read of the written total, or right answers?

Forner et al. 2026 (arXiv 2606.18164), of a solvable one-block tracker: first the MLP, then attention locks, then
accuracy jumps. Here: events are the updates at which a measure durably passes halfway; the order of two agrees where the
95% interval of the share of seeds that have it so lies above one half, differs where below. Kinetics of Reasoning (arXiv
2510.25791): accuracies are logistic in log updates, and early traces are not read: here the time from steps durably
written right (WRITTEN) to answers that durably follow an edited total (READ).

    python -m analyses.training_dynamics [--quick] [--table FILE]
    python -m analyses.training_dynamics --train ROOT --task s3 --seeds 0 1 2 3 4 5
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from analyses.publishing import publish, stored
from cotinterp import ModelSpec, RunSpec
from cotinterp import train as trained
from cotinterp.cli.parsing import script
from cotinterp.studies.dynamics import training_dynamics
from cotinterp.studies.subject import Effort
from cotinterp.training.spec import OptimizerSpec

TABLE, OUT = Path("analyses/out/training_dynamics.csv"), Path("out/training_dynamics")
STEPS, MOMENTS = {"cot": 1000, "direct": 6000}, 22
"""Updates by regime, at the end of which accuracy is flat; and how often they are looked at, from update 20 on."""
EFFORT = Effort(evaluated=200, edited=40, edits_per_step=1, probed=800, paired=64)


def followed(task: str, seeds: tuple[int, ...], root: Path, *, short: int = 1, effort: Effort = EFFORT) -> pd.DataFrame:
    """The measures of every run, which is trained under `root` where it is missing, on a `short`th of the updates."""
    shape, found = ModelSpec(n_layers=2, d_model=64, n_heads=4, d_mlp=256, n_ctx=64), []
    for regime, steps in STEPS.items():
        for seed in seeds:
            last = steps // short
            kept = tuple(sorted({0, *np.geomspace(min(20, last // 2), last - 1, MOMENTS // short + 2).astype(int).tolist()}))
            spec = RunSpec(
                task=task, regime=regime, k_max=5, n_train=20_000 // short, model=shape, seed=seed, snapshots=kept,
                optimizer=OptimizerSpec(steps=last),
            )  # fmt: skip
            run = trained(spec, directory=root / spec.slug, device="cpu", threads=1)
            found.append(training_dynamics(run, effort).frame())
            pd.concat(found).round(4).to_csv(root / "training_dynamics.csv", index=False)
    return pd.concat(found, ignore_index=True).round(4)
