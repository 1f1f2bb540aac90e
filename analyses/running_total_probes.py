"""Where and when is a running total linearly decodable before it is written?

A probe is read by what it adds to its controls: random labels per distinct input (selectivity; Hewitt & Liang 2019,
arXiv 1909.03368), the same probe on an untrained model, and on the current token and position alone. Decodable is not
used: nothing here shows that the model reads what the probe reads.

    python -m analyses.running_total_probes [--quick]
"""

from pathlib import Path

import pandas as pd

from analyses.publishing import publish, reference_runs
from cotinterp import Subject, study
from cotinterp.cli.parsing import script
from cotinterp.figures import probe_figures
from cotinterp.studies.instruments import table_of
from cotinterp.studies.subject import FULL, QUICK

CELL = ["task", "regime", "target", "left_out", "role", "step", "site"]


def main(
    quick: bool = False, root: Path = Path("checkpoints"), out: Path = Path("out/running_total_probes")
) -> list[str]:
    """Measure, publish, and return the answer in words."""
    results = [study("probe", Subject.of_run(run), QUICK if quick else FULL)["probes"] for run in reference_runs(root)]
    table = pd.concat([table_of(result) for result in results], ignore_index=True)
    gained = learned(table)
    figures = {figure.name: figure.figure for figure in probe_figures(table)}
    return publish(out, tables={"probes": table, "probes_learned": gained}, figures=figures, answer=answer(gained))


def learned(table: pd.DataFrame) -> pd.DataFrame:
    """Each trained cell beside the accuracy of its untrained twin and of the input alone at the same place.

    `learned` is the accuracy beyond the better of the two: what training put there in linear form.
    """
    trained, untrained = (table[(table["model"] == name) & (table["layer"] >= 0)] for name in ("trained", "untrained"))
    place = ["task", "regime", "target", "left_out", "role", "step"]
    inputs = table[(table["site"] == "input") & (table["model"] == "trained")]
    cells = trained.merge(untrained[[*CELL, "accuracy"]], on=CELL, how="left", suffixes=("", "_untrained"))
    cells = cells.merge(inputs[[*place, "accuracy"]], on=place, how="left", suffixes=("", "_input"))
    baseline = cells[["accuracy_untrained", "accuracy_input", "chance"]].max(axis=1)
    return cells.assign(learned=cells["accuracy"] - baseline)


def answer(cells: pd.DataFrame) -> list[str]:
    """One line a run and target: the place where training added most on other problems, with its controls."""
    lines = []
    tested = cells[cells["left_out"] == "problems"]
    for (task, regime, target), rows in tested.groupby(["task", "regime", "target"], sort=False):
        best = rows.nlargest(1, "learned").iloc[0]
        where = f"{best['role']} {best['step']}" if best["step"] >= 0 else best["role"]
        lines.append(
            f"{task} {regime} {target}: best {best['site']} at {where}: accuracy "
            f"{best['accuracy']:.1%} [{best['ci_low']:.1%}, {best['ci_high']:.1%}], untrained "
            f"{best['accuracy_untrained']:.1%}, input {best['accuracy_input']:.1%}, control "
            f"{best['control_accuracy']:.1%}, chance {best['chance']:.1%}"
        )
    return lines


if __name__ == "__main__":
    script(main, __doc__)
