"""Do solved examples in the prompt help beyond the mode token, with and without their traces, and from which width on?

Models of three widths that learned both cues on one mixture (the grid says how). Before a question stand 1, 2 or 4
shorter training problems, with their traces or without; 0 is the mode token alone, zero-shot. Sources: few-shot is
best, zero-shot slightly worse (Wei et al. 2022, arXiv 2201.11903; Kojima et al. 2022, arXiv 2205.11916), and below some
scale a trace hurts. These models were taught to read examples. Right is the final answer, on held-out problems of the
longest kind. Differences are within a model: means over seeds, 95% intervals; open below three seeds, and where a run
was ended by its budget.

    cotinterp sweep analyses/grids/few_shot.toml --root ROOT
    python -m analyses.few_shot [--quick] [--root ROOT] [--table FILE]
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from analyses.publishing import of_each_run, over_seeds, publish
from cotinterp import accuracy_by_k, sample_problems
from cotinterp.cli.parsing import script
from cotinterp.figures import lines
from cotinterp.training.checkpoints import Run
from cotinterp.training.data import problems_of
from cotinterp.transcripts.examples import Shots

OUT = Path("out/few_shot")
SHOTS, KEYS, LEAST_SEEDS, GAIN = (0, 1, 2, 4), ["task", "width", "asked"], 3, 0.05
"""`GAIN`: the least difference that counts."""
ASKED = {"with traces": ("cot", "cot"), "at once": ("direct-mode", "direct")}
"""What is asked for: the regime with the mode token alone, and that of examples and question with examples."""


def main(
    quick: bool = False, root: Path | None = None, table: Path | None = None, out: Path = OUT, problems: int = 300
) -> list[str]:
    """Measure the runs under `root`, or read `table`, publish, and return the answer in words; `quick`: tiny runs."""
    by_run = of_each_run("few_shot", measured, quick, root, table, problems)
    by_shots = by_run.groupby([*KEYS, "shots"], sort=False)["right"].agg(["mean", "min", "max", "size"]).reset_index()
    drawn = by_shots.assign(shots=by_shots["shots"].astype(str), width="width " + by_shots["width"].astype(str))
    figure = lines(
        drawn, x="shots", y="mean", low="min", high="max", color="asked", facet="width", bounds=(0, 1),
        title="Right answers by examples in the prompt (0: the mode token alone); mean, lowest and highest seed",
        x_title="examples", y_title="share right",
    )  # fmt: skip
    tables = {"by_run": by_run, "by_shots": by_shots}
    return publish(out, tables=tables, figures={"by_shots": figure}, answer=[*rates(by_shots), *differences(by_run)])


def measured(run: Run, problems: int) -> pd.DataFrame:
    """A row of one run for each way of asking; `begun` is the share of the responses that begin a trace."""
    spec, rows = run.spec, []
    asked = sample_problems(run.task, spec.k_max, problems, split="heldout", rng=np.random.default_rng(0))
    pool = tuple(one for one in problems_of(spec, run.task) if one.k < spec.k_max)  # None is the question, reordered.
    for name, (alone, shown) in ASKED.items():
        for n in SHOTS:
            shots = Shots(n=n, regime=shown, pool=pool) if n else None
            result = accuracy_by_k(run.model, run.task, shown if n else alone, {"heldout": asked}, shots=shots)
            found = result.examples()
            of = {"task": spec.task_name, "width": spec.model.d_model, "run_seed": spec.seed, "asked": name, "shots": n}
            begun = found["text"].str.startswith("{").mean()
            rows.append(of | {"k": spec.k_max, "n": len(found), "right": found["correct"].mean(), "begun": begun})
    return pd.DataFrame(rows).assign(ended=run.metadata.get("ended", ""))


def rates(by_shots: pd.DataFrame) -> Iterator[str]:
    """A line by width and way of asking: share right after each number of examples."""
    for (task, width, asked), of in by_shots.groupby(KEYS, sort=False):
        cells = [f"{r['mean']:.2f} ({r['min']:.2f} to {r['max']:.2f}) with {r['shots']}" for _, r in of.iterrows()]
        yield f"{task}, width {width}, {asked}: {', '.join(cells)} examples; {of['size'].min()} seeds"


def differences(by_run: pd.DataFrame) -> Iterator[str]:
    """By width: examples beyond the mode token alone, of each way; and the trace beyond the answer at once."""
    for (task, width), of in by_run.groupby(["task", "width"], sort=False):
        right = of.assign(few=of["shots"] > 0).groupby(["run_seed", "asked", "few"])["right"].mean()
        few, alone = (right.xs(shown, level="few").unstack() for shown in (True, False))
        short = " ".join(map(str, sorted(of.loc[of["ended"] == "budget", "run_seed"].unique())))
        gains = {f"examples beyond the mode token, {asked}": few[asked] - alone[asked] for asked in ASKED}
        for words, table in (("the mode token alone", alone), ("examples", few)):
            gains[f"a trace beyond the answer at once, by {words}"] = table["with traces"] - table["at once"]
        for words, values in gains.items():
            yield f"{task}, width {width}: {words}: {word(values.to_numpy(), short)}"


def word(values: Float[np.ndarray, " seeds"], short: str) -> str:
    """The mean difference with its interval, and whether it helps, hurts, does neither, or is open."""
    mean, low, high = over_seeds(values)
    number = f"{mean:+.2f} [{low:+.2f}, {high:+.2f}], "
    if short or len(values) < LEAST_SEEDS:
        return number + (f"open: ended by the budget at seed {short}" if short else f"open: {len(values)} seeds")
    sides = {"helps": low > GAIN, "hurts": high < -GAIN, "no difference": max(-low, high) < GAIN}
    return number + next((one for one, so in sides.items() if so), "open")


if __name__ == "__main__":
    script(main, __doc__)
