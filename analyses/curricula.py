"""Does a direct answer gain from traces that were shown in training?

Each way of teaching (`cotinterp curricula`) beside its control, the same phases with dots in place of the content, on
the same problems and seeds. Right on new problems of three operands and more; means over seeds, 95% intervals; what
traces taught is the difference. All that is measured of them, and what follows: `analyses.setups`.

    python -m analyses.curricula [--quick] [--table FOLDER]
    python -m analyses.curricula --train ROOT --task TASK --seeds 0 1 2 [--ways naive] [--n-train 20000]
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from analyses.publishing import publish
from cotinterp import ModelSpec, RunSpec
from cotinterp.claims.setups import setup_table
from cotinterp.cli.parsing import script
from cotinterp.figures import lines
from cotinterp.studies.evidence import CONTROL_VARIANT, Evidence, read_evidence
from cotinterp.studies.subject import FULL, QUICK, Effort
from cotinterp.sweeps.replication import Measuring, replicate, taught_plan
from cotinterp.training.spec import OptimizerSpec

TABLE = Path("analyses/out/curricula")
WAYS = ("mixed-50", "two-pass-0.3", "sequential", "naive", "hidden-states", "internalize", "thoughts")
PHASE, LEARNED = 4000, OptimizerSpec(steps=60_000, until="converged", patience=0.5)  # a full phase; the last one


def main(
    quick: bool = False,
    table: Path | None = None,
    train: Path | None = None,
    task: str = "z6",
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4),
    ways: tuple[str, ...] = WAYS,
    until_converged: bool = False,
    n_train: int = 3000,
    k_max: int = 6,
    out: Path = Path("out/curricula"),
) -> list[str]:
    """Compare, publish, return the answer in words. `quick` trains tiny runs; `train` what is missing of one task.

    `until_converged`: the last phase, and a teacher, takes what it takes (`naive`, which is never asked so: a phase).
    """
    small = ModelSpec(n_layers=2, d_model=16 if quick else 64, n_heads=4, d_mlp=32 if quick else 256, n_ctx=64)
    base = RunSpec(task=task, regime="direct", model=small, n_train=n_train, k_max=k_max)
    if quick:
        with TemporaryDirectory() as scratch:
            evidence = taught_and_measured(base, OptimizerSpec(steps=4), (0,), ways[:1], Path(scratch), QUICK)
    elif train is not None:
        optimizer = LEARNED if until_converged else OptimizerSpec(steps=PHASE)
        evidence = taught_and_measured(base, optimizer, seeds, ways, train, FULL)
        evidence.save(out / "evidence")
    else:
        evidence = read_evidence(table or TABLE)
    found = pd.concat([setup_table(evidence, one) for one in evidence.tasks], ignore_index=True)
    figure = lines(
        found[found["measure"] == "at once"], x="setup", y="value", low="ci_low", high="ci_high", facet="task",
        bounds=(0, 1), title="New problems answered at once, by way of teaching: mean and interval over seeds",
    )  # fmt: skip
    return publish(out, tables={"curricula": found}, figures={"curricula": figure}, answer=list(said(found)))


def taught_and_measured(
    base: RunSpec, optimizer: OptimizerSpec, seeds: tuple[int, ...], ways: tuple[str, ...], root: Path, effort: Effort
) -> Evidence:
    """The runs of the plan, trained under `root` where they are missing, and measured."""
    plan = taught_plan(ways, seeds=seeds, base=base.model_copy(update={"optimizer": optimizer}))
    kept = Measuring(effort=effort, store=root / "rows")
    return replicate([replace(one, spec=phased(one.spec)) for one in plan], root=root, measuring=kept)


def phased(spec: RunSpec) -> RunSpec:
    """Phases as long as without `until_converged`, but for the last; and that too where its regime is never shown."""
    if spec.optimizer.until == "steps":
        return spec
    phases = tuple(one.model_copy(update={"steps": one.steps * PHASE // LEARNED.steps}) for one in spec.stages)
    unasked = spec.mix and spec.regime not in {one.regime for one in spec.mix}
    last = OptimizerSpec(steps=PHASE) if unasked else spec.optimizer.model_copy(update={"steps": LEARNED.steps})
    return spec.model_copy(update={"stages": phases, "optimizer": last})


def said(found: pd.DataFrame) -> Iterator[str]:
    """A line for each setup that has a control: what it answers at once, beside the control, and the difference."""
    ends = zip(found["value"], found["ci_low"], found["ci_high"], strict=True)
    texts = found.assign(text=[f"{value:.2f} [{low:.2f}, {high:.2f}]" for value, low, high in ends])
    of = texts.set_index(["task", "setup", "measure"])["text"]
    for _, one in found[found["measure"] == "content"].iterrows():
        task, setup = one["task"], one["setup"]
        both = f"{of[task, setup, 'at once']} at once, {of[task, setup + CONTROL_VARIANT, 'at once']} its control"
        yield f"{task}, {setup}, {one['n']} seeds: {both}; the content adds {of[task, setup, 'content']}"


if __name__ == "__main__":
    script(main, __doc__)
