"""Does the model read the totals that it wrote?

One written total is replaced by a wrong one of the same length, the text is cut there, and the model goes on alone
(after Lanham et al. 2023, arXiv 2307.13702). A reader of its trace arrives at the edited total's consequence, a model
that recomputes from the prompt at the original answer. Eight other kinds of edit stand beside: another problem's trace,
whole or in part, a trace closed early, filled, reordered or short of a step, another prompt. A closed trace asks only
whether the last total is copied. `none` is the true trace, and chance another problem's two answers.

    python -m analyses.trace_edits [--quick]
"""

from pathlib import Path

import pandas as pd

from analyses.publishing import publish, reference_runs
from cotinterp import Effort, Subject, study
from cotinterp.behavior.edits import EditResult
from cotinterp.cli.parsing import script
from cotinterp.figures import edit_kinds_figure, trace_edits_figure
from cotinterp.studies.subject import FULL, QUICK
from cotinterp.training.checkpoints import Run

WORDS = {"resumed": "of it the trace gone on with"}


def main(quick: bool = False, root: Path = Path("checkpoints"), out: Path = Path("out/trace_edits")) -> list[str]:
    """Measure, publish, and return the answer in words."""
    effort = QUICK if quick else FULL
    results = [edited(run, effort) for run in reference_runs(root, regimes=("cot",))]
    table = pd.concat([result.frame() for result in results], ignore_index=True)
    kinds = pd.concat([result.pooled() for result in results], ignore_index=True)
    distance = pd.concat([result.by_distance() for result in results], ignore_index=True)
    excluded = pd.concat([result.exclusions() for result in results], ignore_index=True)
    tables = {"trace_edits": table, "trace_edit_kinds": kinds, "trace_edits_by_distance": distance}
    figures = {f"trace_edits_{task}": trace_edits_figure(rows) for task, rows in table.groupby("task", sort=False)}
    figures |= {f"trace_edit_kinds_{task}": edit_kinds_figure(rows) for task, rows in kinds.groupby("task", sort=False)}
    return publish(out, tables=tables | {"trace_edits_excluded": excluded}, figures=figures, answer=answer(kinds))


def edited(run: Run, effort: Effort) -> EditResult:
    """The standard edits of one run."""
    result = study("edit", Subject.of_run(run), effort)["trace_edits"]["trace_edits"]
    assert isinstance(result, EditResult)
    return result


def answer(kinds: pd.DataFrame) -> list[str]:
    """One line a run and kind of edit: the outcomes, pooled over steps, and what following is worth by chance."""
    lines = []
    for (task, edit, closed), rows in kinds.groupby(["task", "edit", "closed"], sort=False):
        of = rows.set_index("outcome")
        shares = ", ".join(f"{WORDS.get(str(outcome), outcome)} {rate:.1%}" for outcome, rate in of["rate"].items())
        chance = of["by_chance"].get("follows")
        beside = "" if chance is None or pd.isna(chance) else f" (follows by chance {chance:.1%})"
        form = "closed" if closed else "cut"
        lines.append(f"{task} cot, {edit} ({form}, {of['n'].iloc[0]} edits): {shares}{beside}")
    return lines


if __name__ == "__main__":
    script(main, __doc__)
