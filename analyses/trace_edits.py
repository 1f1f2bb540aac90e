"""Does the model read the totals that it wrote?

One written total is replaced by a wrong one of the same length, the text is cut there, and the model goes on alone
(after Lanham et al. 2023, arXiv 2307.13702). A reader of its trace arrives at the edited total's consequence, a model
that recomputes from the prompt at the original answer. `none` writes the true total back; `shuffled_target` is chance.

    python -m analyses.trace_edits [--quick]
"""

from pathlib import Path

import pandas as pd
import tyro

from analyses.desk import publish, reference_runs
from cotinterp.behavior.outcomes import EditResult
from cotinterp.report import trace_edits_figure
from cotinterp.report.studies import FULL, QUICK, Budget, study
from cotinterp.training.checkpoints import Run


def main(quick: bool = False, root: Path = Path("checkpoints"), out: Path = Path("out/trace_edits")) -> list[str]:
    """Measure, publish, and return the answer in words."""
    budget = QUICK if quick else FULL
    results = [edited(run, budget) for run in reference_runs(root, regimes=("cot",))]
    table = pd.concat([result.frame() for result in results], ignore_index=True)
    distance = pd.concat([result.by_distance() for result in results], ignore_index=True)
    excluded = pd.concat([result.exclusions() for result in results], ignore_index=True)
    tables = {"trace_edits": table, "trace_edits_by_distance": distance, "trace_edits_excluded": excluded}
    figures = {f"trace_edits_{task}": trace_edits_figure(rows) for task, rows in table.groupby("task", sort=False)}
    return publish(out, tables=tables, figures=figures, answer=answer(table))


def edited(run: Run, budget: Budget) -> EditResult:
    """The standard edits of one run."""
    result = study("edit", run, budget)["trace_edits"]["trace_edits"]
    assert isinstance(result, EditResult)
    return result


def answer(table: pd.DataFrame) -> list[str]:
    """One line a run and kind of edit: the outcomes, pooled over steps."""
    lines = []
    for (task, edit), rows in table.groupby(["task", "edit"], sort=False):
        count = (rows["n"] * rows["rate"]).groupby(rows["outcome"]).sum()
        n = int(rows.drop_duplicates("step")["n"].sum())
        shares = ", ".join(f"{outcome} {count[outcome] / n:.1%}" for outcome in count.index)
        lines.append(f"{task} cot, {edit} ({n} edits): {shares}")
    return lines


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
