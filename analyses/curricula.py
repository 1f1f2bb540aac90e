"""Does a direct answer gain from traces that were shown in training?

Each way of teaching (`cotinterp curricula`) beside its control, which has the same phases with dots in place of the
content, on the same problems and seeds. What traces taught is the difference. Over seeds: mean, lowest and highest.

    python -m analyses.curricula [--quick] [--table FOLDER] [--train ROOT --task TASK --seeds 0 1 2]
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from analyses.publishing import publish
from cotinterp import ModelSpec, RunSpec
from cotinterp.cli.parsing import script
from cotinterp.figures import heatmap
from cotinterp.studies.evidence import CONTROL_VARIANT, Evidence, read_evidence
from cotinterp.studies.measuring import as_taught
from cotinterp.studies.subject import FULL, QUICK
from cotinterp.sweeps.replication import Measuring, replicate, taught_plan
from cotinterp.training.spec import OptimizerSpec

TABLE = Path("analyses/out/curricula")
CURRICULA = ("mixed-50", "two-pass-0.3", "sequential", "naive", "internalize", "internalize-log")
LONGEST = 6
"""Operands of the problems that the table is about."""
COLUMNS = {"direct": ("exact", "asked"), "trace": ("exact", "trace"), "leakage": ("leakage", "")}
COLUMNS |= {"follows": ("edit", "substitute_total:follows")}


def main(
    quick: bool = False,
    table: Path | None = None,
    train: Path | None = None,
    task: str = "z6",
    seeds: tuple[int, ...] = (0, 1, 2),
    out: Path = Path("out/curricula"),
) -> list[str]:
    """Compare, publish, and return the answer in words. `quick` trains tiny runs, whose numbers mean nothing.

    `train` trains and measures what is missing of one task under that folder, and leaves the evidence in `out`.
    """
    if quick:
        with TemporaryDirectory() as scratch:
            evidence = taught_and_measured("z6", (0,), Path(scratch), quick=True)
    elif train is not None:
        evidence = taught_and_measured(task, seeds, train)
        evidence.save(out / "evidence")
    else:
        evidence = read_evidence(table or TABLE)
    found = setups(evidence)
    title = f"By way of teaching (rows), on new problems of {LONGEST} operands; means over seeds"
    figure = heatmap(
        found, x="measure", y="setup", value="value", facet="task", bounds=(0, 1), title=title, y_title=" "
    )
    return publish(out, tables={"curricula": found}, figures={"curricula": figure}, answer=said(found))


def taught_and_measured(task: str, seeds: tuple[int, ...], root: Path, *, quick: bool = False) -> Evidence:
    """The runs of the plan, trained under `root` where they are missing, and measured."""
    small = ModelSpec(n_layers=2, d_model=16 if quick else 64, n_heads=4, d_mlp=32 if quick else 256, n_ctx=64)
    base = RunSpec(task=task, regime="direct", model=small, optimizer=OptimizerSpec(steps=4 if quick else 4000))
    planned = taught_plan(CURRICULA[:1] if quick else CURRICULA, seeds=seeds, base=base)
    kept = Measuring(effort=QUICK if quick else FULL, measures=(as_taught,), store=None if quick else root / "rows")
    return replicate(planned, root=root, measuring=kept)


def setups(evidence: Evidence) -> pd.DataFrame:
    """One row for each task, setup and measure: the mean over seeds, the lowest, the highest, and how many."""
    rows, found = evidence.table, []
    for name, (measure, condition) in COLUMNS.items():
        chosen = rows[(rows["measure"] == measure) & (rows["condition"] == condition) & (rows["k"] == LONGEST)]
        weighed = chosen.assign(hits=chosen["value"] * chosen["problems"], of=chosen["trials"] * chosen["problems"])
        by_run = weighed.groupby(["task", "variant", "run_seed"], sort=False)[["hits", "of"]].sum()
        for (one, variant), runs in (by_run["hits"] / by_run["of"]).groupby(["task", "variant"], sort=False):
            fields = {"task": one, "setup": variant or "direct", "measure": name, "value": runs.mean()}
            found.append(fields | {"lowest": runs.min(), "highest": runs.max(), "n": len(runs)})
    return pd.DataFrame(found)


def said(found: pd.DataFrame) -> list[str]:
    """A line for each setup that has a control: what it answers at once, beside the control."""
    rows = found[["task", "setup", "measure", "value", "lowest", "highest", "n"]].itertuples(index=False)
    of = {
        (task, setup, name): f"{value:.2f}" + (f" ({low:.2f} to {high:.2f}, {n} seeds)" if n > 1 else " (one seed)")
        for task, setup, name, value, low, high, n in rows
    }
    pairs = [key[:2] for key in of if key[2] == "direct" and (key[0], key[1] + CONTROL_VARIANT, "direct") in of]
    return [
        f"{task}, direct: {of[task, 'direct', 'direct']} at once" for task in dict.fromkeys(key[0] for key in of)
    ] + [
        f"{task}, {setup}: {of[task, setup, 'direct']} at once, control {of[task, setup + CONTROL_VARIANT, 'direct']}; "
        f"the trace {of[task, setup, 'trace']}, leakage {of[task, setup, 'leakage']}"
        for task, setup in pairs
    ]


if __name__ == "__main__":
    script(main, __doc__)
