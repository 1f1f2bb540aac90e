"""Where do outputs go wrong?

The source expects the residual errors of written reasoning to be bookkeeping (a miscounted step, an unclosed brace),
not arithmetic. Every output is put into exactly one category by the first fault in writing order.

    python -m analyses.errors [--quick]
"""

from pathlib import Path

import pandas as pd

from analyses.publishing import publish, reference_runs
from cotinterp import error_taxonomy, evaluate_run
from cotinterp.behavior import CORRECT_ANSWER
from cotinterp.behavior.errors import BOOKKEEPING
from cotinterp.cli.parsing import script
from cotinterp.figures import errors_figure
from cotinterp.transcripts.regimes import get_regime


def main(quick: bool = False, root: Path = Path("checkpoints"), out: Path = Path("out/errors")) -> list[str]:
    """Measure, publish, and return the answer in words."""
    results = []
    for run in reference_runs(root):
        outputs = evaluate_run(run, max_per_k=20 if quick else 1000).of_split("heldout")
        results.append(error_taxonomy(run.task, run.spec.regime, outputs, run_seed=run.spec.seed))
    table = pd.concat([result.frame() for result in results], ignore_index=True)
    by_step = pd.concat([result.by_step() for result in results], ignore_index=True)
    figures = {f"errors_{task}": errors_figure(rows) for task, rows in table.groupby("task", sort=False)}
    return publish(out, tables={"errors": table, "errors_by_step": by_step}, figures=figures, answer=answer(table))


def answer(table: pd.DataFrame) -> list[str]:
    """One line a run: how many wrong answers, and how many of them are bookkeeping."""
    lines = []
    for (task, regime), rows in table.groupby(["task", "regime"], sort=False):
        counts = rows.groupby("category", sort=False)["count"].sum()
        wrong = counts.drop([category.value for category in CORRECT_ANSWER], errors="ignore")
        bookkeeping = int(counts.reindex([category.value for category in BOOKKEEPING], fill_value=0).sum())
        seen = ", ".join(f"{name} {count}" for name, count in wrong[wrong > 0].items()) or "none"
        kind = "" if not get_regime(str(regime)).writes_totals else f"; bookkeeping {bookkeeping} of {int(wrong.sum())}"
        lines.append(
            f"{task} {regime}: {int(wrong.sum())} of {int(counts.sum())} held-out answers wrong ({seen}){kind}"
        )
    return lines


if __name__ == "__main__":
    script(main, __doc__)
