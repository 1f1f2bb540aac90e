"""What of an answer does a direct model know where it does not know the answer?

A model that has learned a coarser automaton alone, for s3 the sign of the permutation, is right in one answer of three
on every length, which looks like neither a table nor an algorithm. Asked of the reference model without a trace, and of
the models that show what a depth can express, beyond the length that they solve too.

    python -m analyses.quotients [--quick] [--runs checkpoints/proofs/s3-direct-L4-s0-f8434037 ...]
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from analyses.publishing import publish
from cotinterp import accuracy_by_k, load_run, sample_problems
from cotinterp.behavior.quotients import QuotientResult, accuracy_by_quotient
from cotinterp.cli.parsing import script
from cotinterp.tasks.task import FoldTask
from cotinterp.training.checkpoints import Run

RUNS = tuple(
    Path("checkpoints") / name
    for name in ("s3-direct-L4-s0-53221af6", "proofs/s3-direct-L2-s0-9f92e042", "proofs/s3-direct-L4-s0-f8434037")
)
SHORTEST = 3


def main(quick: bool = False, runs: tuple[Path, ...] = (), out: Path = Path("out/quotients")) -> list[str]:
    """Measure, publish, and return the answer in words."""
    found = {path.name: by_quotient(load_run(path), 20 if quick else 300) for path in runs or RUNS}
    table = pd.concat([one.frame().assign(slug=slug) for slug, one in found.items()], ignore_index=True)
    figures = {slug: one.figure() for slug, one in found.items()}
    return publish(out, tables={"quotients": table}, figures=figures, answer=[*answer(table)])


def by_quotient(run: Run, n: int) -> QuotientResult:
    """`n` held-out problems of every length that the run was trained on."""
    task, spec = run.task, run.spec
    if not isinstance(task, FoldTask):
        raise ValueError(
            f"task {task.name!r} is no fold: it has no states for steps to respect; give runs of a FoldTask"
        )
    rng = np.random.default_rng(0)
    lengths = range(max(SHORTEST, spec.k_min), spec.k_max + 1)
    problems = [problem for k in lengths for problem in sample_problems(task, k, n, split="heldout", rng=rng)]
    measured = accuracy_by_k(run.model, task, spec.regime, {"heldout": problems}, run_seed=spec.seed)
    return accuracy_by_quotient(task, measured)


def answer(table: pd.DataFrame) -> Iterator[str]:
    """Two lines a run and quotient: the class, and the whole answer where the class is right."""
    for (slug, quotient), rows in table.groupby(["slug", "quotient"], sort=False):
        span = f"K = {rows['k'].min()} to {rows['k'].max()}"
        classes = " ".join(f"{100 * share:.0f}" for share in rows["accuracy"])
        within = " ".join(f"{100 * share:.0f}" for share in rows["within"])
        chance = f"chance {100 * rows['chance'].mean():.0f}"
        yield f"{slug}, {quotient}, {span}: right class {classes} % ({chance})"
        yield f"    right altogether among those: {within} % (chance {100 * rows['within_chance'].mean():.0f})"


if __name__ == "__main__":
    script(main, __doc__)
