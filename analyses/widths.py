"""How small is a model that loses by writing its steps?

Direct and cot at several widths of the residual stream, on the same problems, trained until they had learned what they
were going to: right on new problems of three operands and more (each number of them counts alike), the gain by writing,
and the share of fluent ones, well-formed traces with a wrong step, among the wrong outputs of cot. 95% intervals over
seeds and problems; of a single seed, over problems alone. The claim about it: `small-models-are-hurt`.

    python -m analyses.widths [--quick] [--table FOLDER]
    python -m analyses.widths --train ROOT --task TASK --seeds 0 1 2
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from analyses.publishing import publish
from cotinterp import RunSpec
from cotinterp.claims.cells import EvidenceIndex, MissingEvidence
from cotinterp.claims.estimate import estimate
from cotinterp.claims.size import fluent, gain
from cotinterp.claims.statistics import accuracy
from cotinterp.cli.parsing import script
from cotinterp.figures import lines
from cotinterp.studies.evidence import WIDTH_VARIANT, Evidence, read_evidence
from cotinterp.studies.subject import FULL, QUICK
from cotinterp.sweeps.replication import Measuring, plan, replicate
from cotinterp.training.spec import OptimizerSpec

TABLE = Path("analyses/out/widths")
LEARNING = OptimizerSpec(steps=4000, lr=0.003, until="converged", patience=0.5, settle_after=5000)  # x 30, at most
OF = {"gain": gain, "fluent": fluent} | {one: partial(accuracy, regime=one) for one in ("direct", "cot")}
SEEDS = 3
"""From which on a width is called one that loses or gains."""


def main(
    quick: bool = False,
    table: Path | None = None,
    train: Path | None = None,
    task: str = "z6",
    seeds: tuple[int, ...] = (0, 1, 2),
    out: Path = Path("out/widths"),
) -> list[str]:
    """Compare, publish, return the answer in words. `quick` trains tiny runs; `train` what is missing of one task."""
    base = RunSpec(task=task, regime="direct", k_max=5, n_train=3000, optimizer=LEARNING)
    if quick:
        base = base.model_copy(update={"k_max": 4, "n_train": 60, "optimizer": OptimizerSpec(steps=1)})
    planned = plan(task, seeds=(0,) if quick else seeds, base=base, parts=("widths",))
    if quick:
        with TemporaryDirectory() as scratch:
            narrow = [one for one in planned if one.spec.model.d_model <= 8]
            evidence = replicate(narrow, root=Path(scratch), measuring=Measuring(effort=QUICK))
    elif train is not None:
        evidence = replicate(planned, root=train, measuring=Measuring(effort=FULL, store=train / "rows"))
        evidence.save(out / "evidence")
    else:
        evidence = read_evidence(table or TABLE)
    found = pd.concat([by_width(evidence, one) for one in evidence.tasks], ignore_index=True)
    figure = lines(
        found, x="d_model", y="value", low="ci_low", high="ci_high", color="measure", facet="task", bounds=(-1, 1),
        title="New problems by width: answered at once, with the trace, gain by writing; wrong traces that are fluent",
    )  # fmt: skip
    return publish(out, tables={"widths": found}, figures={"widths": figure}, answer=list(said(found)))


def by_width(evidence: Evidence, task: str) -> pd.DataFrame:
    """A row for each width and measure: value, interval (cut where the number cannot be), seeds, those ended early."""
    index, rows = EvidenceIndex(evidence.of_tasks([task])), []
    names = index.evidence.runs["variant"].unique()
    for width in sorted(int(name.removeprefix(WIDTH_VARIANT)) for name in names):
        for measure, of in OF.items():
            try:
                one = estimate(partial(of, variant=f"{WIDTH_VARIANT}{width}"), index, task, pool=of is fluent)
            except MissingEvidence:
                continue
            rows.append({"task": task, "d_model": width, "measure": measure} | one.row((-1 if of is gain else 0, 1)))
    return pd.DataFrame(rows)


def said(found: pd.DataFrame) -> Iterator[str]:
    """A line for each width, and which lose and which gain."""
    for task, of_task in found.groupby("task", sort=False):
        for width, of in of_task.groupby("d_model"):
            told = [f"{x.measure} {x.value:.2f} [{x.ci_low:.2f}, {x.ci_high:.2f}]" for x in of.itertuples()]
            yield f"{task}, width {width}, {of['n'].max()} seeds: {', '.join(told)}"
        gains = of_task[of_task["measure"] == "gain"].set_index("d_model")
        judged = (gains["n"] >= SEEDS) & (gains["unconverged"] == "")
        lost = gains.index[judged & (gains["ci_high"] < 0)]
        won = gains.index[(judged & (gains["ci_low"] > 0))[::-1].cummin()[::-1]]
        loses = f"writing loses up to width {lost.max()}" if len(lost) else "no width is shown to lose by writing"
        wins = f"gains from width {won.min()} on" if len(won) else "not even the widest is shown to gain"
        left = f"; too few seeds or ended by a budget: {gains.index[~judged].tolist()}" if not judged.all() else ""
        yield f"{task}: {loses}; {wins}{left}"


if __name__ == "__main__":
    script(main, __doc__)
