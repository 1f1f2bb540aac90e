"""How much does the answer of a model hang on each step that it writes?

Three ways of asking, on the same steps. On-policy: the model is let say the step again, and the draws in which it says
another total are kept (Thought Anchors; Bogdan et al. 2025, arXiv 2506.19143). Off-policy: a wrong total is written in
place of the step's, or, as a control, of an earlier one's. As a mediator: an operand of the prompt is changed, and the
step changes with it, or does not (arXiv 2602.03994). A trained model says the same again, so steps are drawn at several
temperatures; how often a draw differs stands beside.

    python -m analyses.step_importance [--quick]
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from analyses.publishing import publish, reference_runs
from cotinterp import Subject
from cotinterp.behavior.step_importance import Resampling, StepImportance, step_importance
from cotinterp.cli.parsing import script
from cotinterp.training.checkpoints import Run

K, TEMPERATURES = 4, (1.0, 2.0, 4.0)


def main(quick: bool = False, root: Path = Path("checkpoints"), out: Path = Path("out/step_importance")) -> list[str]:
    """Measure, publish, and return the answer in words."""
    runs = reference_runs(root, regimes=("cot",))
    results = {
        (run.task.name, t): measured(run, t, quick=quick) for run in runs for t in TEMPERATURES[: 1 + 2 * (not quick)]
    }
    table = pd.concat([result.frame().assign(temperature=t) for (_, t), result in results.items()], ignore_index=True)
    return publish(
        out,
        tables={"step_importance": table},
        figures={f"step_importance-{task}-{t:g}": result.figure() for (task, t), result in results.items()},
        answer=list(answer(table)),
    )


def measured(run: Run, temperature: float, *, quick: bool) -> StepImportance:
    """Every step of held-out problems of one run; steps are drawn at one temperature, what follows is the likeliest."""
    subject = Subject.of_run(run)
    return step_importance(
        subject.writer,
        run.task,
        run.spec.regime,
        subject.heldout(4 if quick else 100, k=K),
        rng=np.random.default_rng(0),
        resampling=Resampling(draws=4 if quick else 64, temperature=temperature),
        run_seed=run.spec.seed,
    )


def answer(table: pd.DataFrame) -> Iterator[str]:
    """One line a task, temperature and step for what is drawn, and one a task and step for the rest."""
    for (task, temperature, step), rows in table.groupby(["task", "temperature", "step"], sort=False):
        of = rows.set_index("measure")
        drawn = of.T["resampled"]
        yield (
            f"{task} cot, step {step}, temperature {temperature:g}: another total in {drawn['differing']:.1%} of "
            f"draws, {said(drawn)} (KL {drawn['kl']:.2f}, by chance {drawn['kl_by_chance']:.2f})"
        )
        if temperature == TEMPERATURES[0]:
            yield f"{task} cot, step {step}: " + "; ".join(
                f"{measure} {said(row)}" for measure, row in of.drop(index="resampled").iterrows()
            )


def said(row: "pd.Series[float]") -> str:
    """An importance with its interval."""
    if not row["n"]:
        return f"no number (too few in {row['refused']:.0f} problems)"
    return f"{row['importance']:.2f} [{row['ci_low']:.2f}, {row['ci_high']:.2f}], n = {row['n']:.0f}"


if __name__ == "__main__":
    script(main, __doc__)
