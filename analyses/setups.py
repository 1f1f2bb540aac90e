"""Which rows of the sources' table of setups hold, and what does each way of teaching leave behind?

The table of `claims.setups.setup_table`: ways of teaching (`cotinterp curricula`) and their controls, the same phases
with dots in place of the content; and the encoders of `analyses.encoder_control`. Means over seeds, 95% intervals.

A row of nanodistill's table holds where the whole interval of each of its numbers (`ROWS`) lies on its side of the
threshold, fails where one lies on the other, and is open otherwise: from fewer than three seeds, with a run that had
not converged, and where less than the threshold is left to gain.

    python -m analyses.setups [--quick] [--table FOLDER] [--encoders FILE]
"""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import pandas as pd

from analyses.publishing import over_seeds, publish
from cotinterp.claims.claim import THRESHOLDS
from cotinterp.claims.setups import setup_table
from cotinterp.claims.statistics import SHORTEST
from cotinterp.cli.parsing import script
from cotinterp.figures import heatmap
from cotinterp.studies.evidence import read_evidence

TABLE, ENCODERS, OUT = Path("analyses/out/curricula"), Path("analyses/out/encoder_control.csv"), Path("out/setups")
LEAST_SEEDS, AT = 3, {name: one.value for name, one in THRESHOLDS.items()}
HELPS = {"gain": AT["gain"], "content": AT["content-gain"]}
ROWS = {
    "encoder, rationale never read: no help": ("rationale in the data, never read", -1, {"gain": AT["gain"]}),
    "encoder, rationale in the input: no help": ("rationale in the input, missing", -1, {"gain": AT["gain"]}),
    "decoder, naive: hurts": ("naive", -1, {"gain": -AT["lost-at-once"]}),
    "decoder, mixed formats: helps": ("mixed-50", 1, HELPS),
    "decoder, two losses: helps": ("two-pass-0.3", 1, HELPS),
    "decoder, traces first: helps": ("sequential", 1, HELPS),
    "decoder, hidden states: helps": ("hidden-states", 1, HELPS),
    "decoder, with its trace: helps most": ("mixed-50", 1, {"over all": AT["trace-gain"]}),
}
"""Of each row (multi-task is three) the setup, and of its numbers on which side they lie (1: above) of what."""
LEVEL = {"gain": "at once", "content": "at once", "over all": "trace"}


def main(quick: bool = False, table: Path = TABLE, encoders: Path = ENCODERS, out: Path = OUT) -> list[str]:
    """Read the evidence of `analyses.curricula`, publish, and return the answer in words; `quick` reads one task."""
    evidence = read_evidence(table)
    parts = [setup_table(evidence, task) for task in evidence.tasks[: 1 if quick else None]]
    parts += [of_encoders(pd.read_csv(encoders))] if encoders.is_file() else []
    found = pd.concat(parts, ignore_index=True)
    shown = found[~found["measure"].isin((*LEVEL, "forgotten"))]
    shown = shown.assign(setup=shown["setup"] + " (" + shown["n"].astype(str) + ")")
    drawn = partial(heatmap, x="measure", y="setup", value="value", bounds=(0, 1), y_title=" ")
    figures = {str(task): drawn(rows, title=f"{task}, by setup (seeds)") for task, rows in shown.groupby("task")}
    answer = [line for task, rows in found.groupby("task", sort=False) for line in judged(str(task), rows)]
    for (task, setup, n, short), rows in found.groupby(["task", "setup", "n", "unconverged"], sort=False):
        answer.append(f"{task}, {setup}, seeds: {n}{short and f' (not converged: {short})'}: {spelled(rows)}")
    return publish(out, tables={"setups": found}, figures=figures, answer=answer)


def of_encoders(by_run: pd.DataFrame) -> pd.DataFrame:
    """Rows as those of `setup_table`: right (`at once`), and beyond the encoder without a rationale (`gain`)."""
    rows = []
    for task, runs in by_run[by_run["k"] >= SHORTEST].groupby("task", sort=False):
        right = runs.groupby(["run_seed", "setup"])["accuracy"].mean().unstack()
        short = " ".join(map(str, sorted(runs.loc[runs["ended"] == "budget", "run_seed"].unique())))
        for measure, of in (("at once", right), ("gain", right.sub(right["no rationale"], axis=0))):
            for setup, values in of.items():
                rows.append((task, setup, measure, *over_seeds(values.to_numpy()), len(values), short))
    return pd.DataFrame(rows, columns=["task", "setup", "measure", "value", "ci_low", "ci_high", "n", "unconverged"])


def judged(task: str, found: pd.DataFrame) -> Iterator[str]:
    """A line for each row of the sources' table: what it comes to, and the numbers."""
    for row, (setup, sign, wanted) in ROWS.items():
        rows = found[found["setup"] == setup]
        told = spelled(rows[rows["measure"].isin(wanted)])
        yield f"{task}, {row}: {word(rows, sign, wanted)}{told and f'; {setup}: {told}'}"


def word(rows: pd.DataFrame, sign: int, wanted: Mapping[str, float]) -> str:
    """`holds`, `fails`, or `open` and for want of what; of the rows of one setup."""
    of, at = rows[rows["measure"].isin(wanted)], rows.set_index("measure")["value"]
    if len(of) < len(wanted) or of["n"].min() < LEAST_SEEDS:
        return f"open, {of['n'].min()} of {LEAST_SEEDS} seeds" if len(of) == len(wanted) else "open, not measured"
    if short := sorted({seed for seeds in of["unconverged"] for seed in seeds.split()}, key=int):
        return f"open, not converged at seed {' '.join(short)}"
    if any(least > 0 and at[name] + 1 - at[LEVEL[name]] <= least for name, least in wanted.items()):
        return "open, nothing left to gain"
    ends = sign * of[["ci_low", "ci_high"]].sub(of["measure"].map(wanted), axis=0)
    return "holds" if (ends > 0).all(axis=None) else "fails" if (ends < 0).all(axis=1).any() else "open, too wide"


def spelled(rows: pd.DataFrame) -> str:
    """Measures, values and intervals."""
    of = zip(*(rows[name] for name in ("measure", "value", "ci_low", "ci_high")), strict=True)
    return ", ".join(f"{measure} {value:.2f} [{low:.2f}, {high:.2f}]" for measure, value, low, high in of)


if __name__ == "__main__":
    script(main, __doc__)
