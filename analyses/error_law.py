"""Do errors add up over steps until they cross a threshold, as a law of two parameters has it?

Raju & Netrapalli 2026 (arXiv 2601.14175) predict accuracy by length from a noise rate r and a number q of plausible
errors. Fitted here to each model on the shorter half of the lengths and asked about the others, beside a law of one
rate of errors a step, e, and of none (`depth.error_law`): the evidence, then the sweep over depth with longer problems.

    python -m analyses.error_law [--quick] [--evidence FOLDER] [--table sweep.csv]
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analyses.publishing import publish
from cotinterp.cli.parsing import script
from cotinterp.depth.error_law import BOUNDS, ErrorLawFits, fit_error_laws
from cotinterp.figures import lines
from cotinterp.studies.evidence import read_evidence
from cotinterp.sweeps.table import read_sweep_table
from cotinterp.tasks import get_task

EVIDENCE, TABLE, OUT = Path("analyses/out"), Path("analyses/out/depth_frontier.csv"), Path("out/error_law")
KIND, LEAST_SEEDS = ["task", "model"], 3


def main(quick: bool = False, evidence: Path | None = None, table: Path | None = None, out: Path = OUT) -> list[str]:
    """Fit, publish, and return the answer in words. With `quick` intervals are rough: models are redrawn 20 times."""
    counts = {"evidence": of_evidence(evidence or EVIDENCE), "sweep": of_sweep(table or TABLE)}
    tables, figures, answer, sums = {}, {}, [], []
    for name, rows in counts.items():
        kinds = rows.groupby(KIND)
        found = [one for kind, models in kinds if (one := fitted(kind, models, 20 if quick else 400))]
        answer += [f"{name}: {len(found)} of {len(kinds)} kinds have {LEAST_SEEDS} that err", *map(said, found)]
        tables[name] = pd.concat([one.frame() for one in found], ignore_index=True)
        sums.append(summed(name, tables[name]))
        curves = pd.concat([one.curves() for one in found], ignore_index=True)
        figures[name] = lines(
            curves.assign(kind=curves["task"] + ", " + curves["model"]), x="k", y="accuracy", low="lowest",
            high="highest", color="curve", facet="kind", bounds=(0.0, 1.0),
            title=f"Accuracy by K ({name}), and laws that were fitted on the shorter half",
        )  # fmt: skip
    return publish(out, tables=tables, figures=figures, answer=[*answer, *sums])


def of_evidence(folder: Path) -> pd.DataFrame:
    """Held-out counts of the models of the standard budget, and of those that were stopped early and therefore err."""
    chosen = "measure == 'accuracy' and condition == 'heldout' and variant in ['', 'early']"
    rows = read_evidence(folder).table.query(chosen)
    model = (rows["regime"] + " " + rows["variant"]).str.strip()
    rows = rows.assign(correct=rows["value"] * rows["problems"], n=rows["problems"], model=model)
    return rows.groupby([*KIND, "run_seed", "k"], as_index=False)[["n", "correct"]].sum()


def of_sweep(path: Path) -> pd.DataFrame:
    """Held-out counts of the models of a sweep: regime, layers and updates, where these tell them apart."""
    rows = read_sweep_table(path).query("split == 'heldout' and reading == 'answer' and n >= 30")
    rows = rows.assign(model=rows["regime"] + " L" + rows["n_layers"].astype(str) + " " + rows["steps"].astype(str))
    return rows[rows.groupby([*KIND, "run_seed"])["slug"].transform("nunique") == 1]


def fitted(kind: Sequence[Any], models: pd.DataFrame, resamples: int) -> ErrorLawFits | None:
    """The laws fitted to the shorter half of the lengths, rounded up; None where too few models say anything."""
    lengths, labels = sorted(models["k"].unique()), dict(zip(KIND, kind, strict=True))
    short, chance = lengths[: (len(lengths) + 1) // 2], 1 / get_task(kind[0]).n_states
    try:
        found = fit_error_laws(models, fitted=short, chance=chance, resamples=resamples, labels=labels)
    except ValueError:
        return None
    return found if found.seeds >= LEAST_SEEDS else None


def said(one: ErrorLawFits) -> str:
    """Parameters, and by how many points each law is off on the lengths that it has not seen."""
    off = " / ".join(f"{100 * fit.error[0]:.1f}" for fit in one.fits.values())
    gain, low, high = (100 * part for part in one.fits["threshold"].gain)
    of = f"{one.labels['task']}, {one.labels['model']}, {one.seeds} seeds: {', '.join(in_words(one))}"
    return f"{of}; off by {off} ({' / '.join(one.fits)}); gain over one rate {gain:+.1f} [{low:+.1f}, {high:+.1f}]"


def in_words(one: ErrorLawFits) -> Iterator[str]:
    """Parameters with intervals; at an end of its range one says that the law has not the shape of the accuracies."""
    both = one.fits["threshold"].parameters | one.fits["one-rate"].parameters
    for name, (value, low, high) in both.items():
        bound = " (a bound)" if np.isclose(value, BOUNDS[name], rtol=0.01).any() else ""
        yield f"{name} {value:.2g}{bound} [{low:.2g}, {high:.2g}]"


def summed(name: str, table: pd.DataFrame) -> str:
    """In how many kinds of model the threshold predicts better than one rate and worse, by the interval of its gain."""
    law, best = table[table["law"] == "threshold"], table.loc[table.groupby(KIND)["error"].idxmin(), "law"]
    better, worse = (law["gain_low"] > 0).sum(), (law["gain_high"] < 0).sum()
    least = ", ".join(f"{law} in {n}" for law, n in best.value_counts().items())
    return f"{name}: threshold better than one rate in {better} of {len(law)}, worse in {worse}; least off: {least}"


if __name__ == "__main__":
    script(main, __doc__)
