"""How soon does a model that is taught the answer alone forget the trace that it was taught first?

Runs of the curriculum `sequential`, with the weights along the way. At each of them new problems are asked twice: for
the answer at once, and for the trace, its opening brace given. Their controls learn dots in place of the trace.

    python -m analyses.forgetting [--quick] [--table FILE] [--train ROOT --task TASK --seeds 0 1 2]
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from analyses.publishing import publish, stored
from cotinterp import ModelSpec, RunSpec, load_run, render, sample_problems
from cotinterp.behavior.accuracy import accuracy_by_k
from cotinterp.behavior.answer_given_trace import CLOSE, OPEN, Opening, greedy_traces
from cotinterp.cli.parsing import script
from cotinterp.figures import lines
from cotinterp.training.checkpoints import Run, kept_snapshots
from cotinterp.training.curriculum import control_of, taught
from cotinterp.training.loop import train as trained
from cotinterp.training.spec import OptimizerSpec, log_spaced

TABLE = Path("analyses/out/forgetting.csv")
LONGEST, PROBLEMS = 6, 500  # operands, and problems of so many
ASKED = ("answer at once", "trace, once begun")
"""What is asked for; right is a response, or a trace, that is right in every symbol."""


def main(
    quick: bool = False,
    table: Path = TABLE,
    train: Path | None = None,
    task: str = "z6",
    seeds: tuple[int, ...] = (0, 1, 2),
    out: Path = Path("out/forgetting"),
) -> list[str]:
    """Follow the runs, publish, and return the answer in words. `quick` trains tiny runs: its numbers mean nothing."""
    if quick:
        with TemporaryDirectory() as scratch:
            found = followed("z6", (0,), Path(scratch), steps=20, n=20)
    elif train is not None:
        found = followed(task, seeds, train)
    else:
        found = stored(table, "python -m analyses.forgetting --train ROOT")
    means = found.groupby(["task", "setup", "asked", "update"], sort=False)["right"].agg(["mean", "min", "max"])
    drawn = means.reset_index().assign(line=lambda rows: rows["setup"] + ", " + rows["asked"])
    figure = lines(
        drawn.assign(update=drawn["update"].astype(str)),
        x="update", y="mean", low="min", high="max", color="line", facet="task", bounds=(0, 1),
        title=f"New problems of {LONGEST} operands, by updates of the answer alone; lowest and highest seed",
        x_title="updates on answers alone", y_title="share right",
    )  # fmt: skip
    return publish(out, tables={"forgetting": found}, figures={"forgetting": figure}, answer=said(drawn, found))


def followed(task: str, seeds: tuple[int, ...], root: Path, *, steps: int = 4000, n: int = PROBLEMS) -> pd.DataFrame:
    """A row for each run, moment and question; runs are trained under `root` where they are missing."""
    rows, shape = [], ModelSpec(n_layers=2, d_model=64, n_heads=4, d_mlp=256, n_ctx=64)
    for seed in seeds:
        base = RunSpec(task=task, regime="direct", model=shape, optimizer=OptimizerSpec(steps=steps), seed=seed)
        way = taught("sequential", base)
        way = way.model_copy(update={"snapshots": tuple(steps + one for one in log_spaced(way.optimizer.steps, 9))})
        for setup, spec in (("sequential", way), ("control", control_of(way))):
            directory = trained(spec, directory=root / spec.slug, device="cpu", threads=1).directory
            for step in (*kept_snapshots(directory), None):
                run = load_run(directory, step=step)
                update = int(run.metadata["step"]) - steps
                fields = {"task": task, "setup": setup, "run_seed": seed, "update": update, "n": n}
                asked = shares(run, n)[: 2 if setup == "sequential" else 1]
                rows += [fields | {"asked": question, "right": right} for question, right in asked]
    return pd.DataFrame(rows)


def shares(run: Run, n: int) -> list[tuple[str, float]]:
    """Of new problems of the longest kind, the share that is right, asked in either way."""
    problems = sample_problems(run.task, LONGEST, n, split="heldout", rng=np.random.default_rng(0))
    at_once = accuracy_by_k(run.model, run.task, "direct", {"heldout": problems})
    written = greedy_traces(run.model, run.task, "cot", [Opening(one, OPEN) for one in problems])
    true = [render(run.task, one, "cot").response.partition(CLOSE)[0] + CLOSE for one in problems]
    traces = [one.written == text for one, text in zip(written, true, strict=True)]
    return list(
        zip(ASKED, (float(np.mean([one.exact for one in at_once.outputs])), float(np.mean(traces))), strict=True)
    )


def said(drawn: pd.DataFrame, found: pd.DataFrame) -> list[str]:
    """A line for each task, setup and question: every third of the moments, from the last update on traces on."""
    seeds = found["run_seed"].nunique()
    words = [f"{right:.2f} after {at}" for right, at in zip(drawn["mean"], drawn["update"], strict=True)]
    return [
        f"{' '.join(map(str, key))}: {', '.join(words.iloc[::-3][::-1])} (mean of {seeds} runs)"
        for key, words in drawn.assign(words=words).groupby(["task", "setup", "asked"], sort=False)["words"]
    ]


if __name__ == "__main__":
    script(main, __doc__)
