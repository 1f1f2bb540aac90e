"""Is the direct model a table of its training problems?

A table answers training problems and nothing else; an algorithm answers both alike (ratio 1). What the nearest training
problem is worth stands beside it, and where order does not matter, whether a trained problem is answered alike in an
order never seen. With --sizes, the same run is trained on fewer and on more problems. One trained model each.

    python -m analyses.memorization [--quick] [--sizes 100 300 1000 3000 --task s3]
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from analyses.publishing import publish, reference_runs
from cotinterp import RunSpec, evaluate_run, generalization_by_k, permutation_invariance, train
from cotinterp.behavior.generalization import GeneralizationResult, SizeCurve, size_specs
from cotinterp.behavior.invariance import InvarianceResult
from cotinterp.cli.parsing import script
from cotinterp.training.checkpoints import Run
from cotinterp.training.data import problems_of


def main(
    quick: bool = False,
    root: Path = Path("checkpoints"),
    out: Path = Path("out/memorization"),
    sizes: tuple[int, ...] = (),
    task: str | None = None,
    steps: int | None = None,
) -> list[str]:
    """Measure, publish, and return the answer in words. `sizes` trains one model each, of `task` (s3), resumably."""
    if not sizes and (task is not None or steps is not None):
        raise ValueError("--task and --steps are of the models that --sizes trains: give it, or neither of them")
    most = 30 if quick else 1000
    runs = reference_runs(root)
    results = [generalized(run, most) for run in runs]
    table = pd.concat([result.frame() for result in results], ignore_index=True)
    figures = {"memorization_" + "_".join(map(str, list(r.labels.values())[:2])): r.figure() for r in results}
    tables = {"memorization": table}
    answers = [line(result) for result in results]
    orders = [invariant(run, 20 if quick else 200) for run in runs if run.task.commutative]
    if orders:
        tables["reorderings"] = pd.concat([result.frame() for result in orders], ignore_index=True)
        figures |= {
            f"reorderings_{result.labels['task']}_{result.labels['regime']}": result.figure() for result in orders
        }
        answers += [agreement(result) for result in orders]
    if sizes:
        curve = trained_curve(task or "s3", sizes, steps or 2000, most, out / "checkpoints")
        tables["training_sizes"], figures["training_sizes"] = curve.frame(), curve.figure()
    return publish(out, tables=tables, figures=figures, answer=answers)


def generalized(run: Run, most: int) -> GeneralizationResult:
    """Ratio and baselines of one run."""
    return generalization_by_k(run.task, evaluate_run(run, max_per_k=most), problems_of(run.spec, run.task))


def invariant(run: Run, most: int) -> InvarianceResult:
    """Trained problems asked again in orders that were never trained on."""
    trained = problems_of(run.spec, run.task)
    rng = np.random.default_rng(0)
    return permutation_invariance(
        run.model, run.task, run.spec.regime, trained, rng=rng, max_per_k=most, run_seed=run.spec.seed
    )


def trained_curve(task: str, sizes: Sequence[int], steps: int, most: int, root: Path) -> SizeCurve:
    """The direct reference run of `task` at each number of training problems; finished ones are not trained again."""
    base = RunSpec(task=task, regime="direct")
    base = base.model_copy(update={"optimizer": base.optimizer.model_copy(update={"steps": steps})})
    specs = size_specs(base, sizes)
    runs = {n: train(spec, directory=root / spec.slug, threads=1) for n, spec in specs.items()}
    return SizeCurve({n: generalized(run, most) for n, run in runs.items()})


def line(result: GeneralizationResult) -> str:
    """The ratio at each K, and what the nearest training problem would have been worth."""
    named = f"{result.labels['task']} {result.labels['regime']}"
    cells = [f"K={x.k}: {x.ratio:.2f} (nearest neighbor {x.nearest:.0%}, model {x.heldout:.0%})" for x in result.cells]
    return f"{named}, generalization ratio: {', '.join(cells)}"


def agreement(result: InvarianceResult) -> str:
    """Agreement at each K, and what it is worth by chance."""
    rows = result.frame().itertuples()
    cells = [f"K={row.k}: {row.agreement:.0%} (chance {row.chance:.0%})" for row in rows]
    return f"{result.labels['task']} {result.labels['regime']}, same answer in an unseen order: {', '.join(cells)}"


if __name__ == "__main__":
    script(main, __doc__)
