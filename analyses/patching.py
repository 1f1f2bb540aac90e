"""Which places carry the difference between two minimally different runs, and through which sites?

Pairs and readouts are declared in `cotinterp.studies.protocol.standard_pairs` before anything is run: a prompt
operand changed; the last but one written total changed and read where the next total is computed; the last written
total changed and read where the answer is copied. Denoising asks what suffices, noising what is necessary.

    python -m analyses.patching [--quick]
"""

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from analyses.publishing import publish, reference_runs
from cotinterp import Subject, study
from cotinterp.cli.parsing import script
from cotinterp.figures import patching_figures
from cotinterp.figures.patching import is_cell
from cotinterp.studies.instruments import table_of
from cotinterp.studies.subject import FULL, QUICK
from cotinterp.transcripts.roles import place_words

BASELINES = ("self", "full", "random_donor")
SHOWN = 0.05


def main(quick: bool = False, root: Path = Path("checkpoints"), out: Path = Path("out/patching")) -> list[str]:
    """Measure, publish, and return the answer in words."""
    effort = QUICK if quick else FULL
    results = [study("patch", Subject.of_run(run), effort)["patching"] for run in reference_runs(root)]
    table = pd.concat([table_of(result) for result in results], ignore_index=True)
    figures = {figure.name: figure.figure for figure in patching_figures(table)}
    return publish(out, tables={"patching": table}, figures=figures, answer=answer(table))


def answer(table: pd.DataFrame, most: int = 3) -> list[str]:
    """For each sweep the baselines, and per kind of site the cells with the largest effect, where it is 0.05 or more.

    The largest of many cells is biased upward: the interval is that of a cell, not of a maximum.
    """
    lines = []
    rows = table[table["metric"] == "logit_diff"]
    for (task, regime, pair, direction), sweep in rows.groupby(["task", "regime", "pair", "direction"], sort=False):
        baselines = sweep[sweep["site"].isin(BASELINES)]
        shown = ", ".join(
            f"{site} {effect:.3f}" for site, effect in zip(baselines["site"], baselines["effect"], strict=True)
        )
        lines.append(f"{task} {regime}, {pair}, {direction}: {shown}")
        cells = sweep[is_cell(sweep) & (sweep["effect"] >= SHOWN)]
        for kind, of_kind in cells.groupby("kind", sort=False):
            top = ", ".join(named(cell) for cell in of_kind.nlargest(most, "effect").to_dict("records"))
            lines.append(f"    {kind}: {top}")
    return lines


def named(cell: Mapping[Hashable, Any]) -> str:
    """A cell in words: `L2H1 at total 2: 0.81 [0.74, 0.88]`."""
    head = "" if pd.isna(cell["head"]) or float(cell["head"]) < 0 else f"H{int(cell['head'])}"
    place = place_words(cell["role"], int(cell["step"]))
    interval = f"{cell['effect']:.2f} [{cell['ci_low']:.2f}, {cell['ci_high']:.2f}]"
    return f"L{int(cell['layer'])}{head} at {place}: {interval}"


if __name__ == "__main__":
    script(main, __doc__)
