"""Do two layers that write a chain solve what one layer, or no chain, does not, and by an iteration head?

Cabannes et al. 2024 (arXiv 2406.02128): two layers of one head with a chain of totals solve parity and a polynomial,
one layer or no chain does not; layer 0 peaks on the end of the prompt, layer 1 on the next operand; parity comes sooner
after the polynomial. Here models run free, and each number of updates is a budget with its own schedule.

    python -m analyses.iteration_head [--quick] [--table sweep.csv --root folder_of_the_sweep]
"""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from analyses.publishing import publish, tiny_sweep
from cotinterp import collate, depth_frontier, load_run, render, sample_problems
from cotinterp.cli.parsing import script
from cotinterp.figures import lines
from cotinterp.mechanism.heads.read_scores import peakiness
from cotinterp.sweeps.table import read_sweep_table
from cotinterp.training.checkpoints import Run

TABLE, OUT, VERDICT = Path("analyses/out/iteration_head.csv"), Path("out/iteration_head"), ("DIFFERS", "agrees")


def main(quick: bool = False, table: Path | None = None, root: Path | None = None, out: Path = OUT) -> list[str]:
    """Compare, publish, and return the answer in words. `quick` trains tiny runs, whose numbers mean nothing."""
    with TemporaryDirectory() as scratch:
        sweep = tiny_sweep("iteration_head", Path(scratch), table, root) if quick else read_sweep_table(table or TABLE)
        root = Path(scratch) if quick else root or Path("checkpoints")
        main_runs = sweep[(sweep["n_train"] == sweep["n_train"].max()) & (sweep["start_from"] == "")]
        chained = main_runs.query("regime == 'chain' and n_layers == 2")["slug"].unique()
        heads = [peaks(load_run(slug, root=root)) for slug in chained if (root / slug).is_dir()]
    solved, moved = depth_frontier(main_runs).frame(), transfer(sweep)
    held = main_runs.query("split == 'heldout' and n >= 30")
    held = held.assign(model=held["regime"] + " L" + held["n_layers"].map(str))
    means = held.groupby(["task", "model", "k"], as_index=False)["accuracy"].mean()
    peaky = pd.concat(heads, ignore_index=True) if heads else pd.DataFrame({"layer": []})
    figures = {"solved": lines(means, x="k", y="accuracy", color="model", facet="task", title="Held-out accuracy")}
    if len(moved):
        figures["transfer"] = lines(moved, x="steps", y="accuracy", color="start", facet="run_seed", title="Parity")
    peaks_found = peaks_in_words(peaky) if heads else ["no peakiness"]
    answer = [*solved_in_words(solved), *peaks_found, *(transfer_in_words(moved) if len(moved) else ())]
    return publish(
        out, tables={"solved": solved, "transfer": moved, "peakiness": peaky}, figures=figures, answer=answer
    )


def peaks(run: Run) -> pd.DataFrame:
    """Peakiness of both heads on held-out problems of the longest length."""
    asked = sample_problems(run.task, run.spec.k_max, 100, split="heldout", rng=np.random.default_rng(0))
    batch = collate([render(run.task, problem, run.spec.regime) for problem in asked], run.vocabulary)
    return peakiness(run.model, batch, labels=run.labels).frame()


def transfer(sweep: pd.DataFrame) -> pd.DataFrame:
    """Held-out accuracy of parity over all lengths by number of updates, from scratch and from the polynomial."""
    like = sweep[sweep["start_from"] != ""][["task", "regime", "n_layers", "n_train", "run_seed"]].drop_duplicates()
    rows = sweep[sweep["split"] == "heldout"].merge(like)
    rows["start"] = rows["start_from"].map(lambda slug: "polynomial" if slug else "scratch")
    sums = rows.groupby(["start", "run_seed", "steps"], as_index=False)[["n", "correct"]].sum()
    return sums.assign(accuracy=sums["correct"] / sums["n"])


def solved_in_words(solved: pd.DataFrame) -> Iterator[str]:
    """How many seeds solve every measured length; in the paper two layers with a chain do, and no others."""
    for (task, regime, depth), runs in solved.groupby(["task", "regime", "n_layers"]):
        whole, top = int((runs["frontier"] == runs["k_top"]).sum()), runs["k_top"].max()
        share = runs["frontier"].min() / top if regime == "chain" and depth == 2 else float(whole == 0)
        agrees = "agrees" if share == 1 else "in part" if share > 0.5 else "DIFFERS"
        solve = f"{whole} of {len(runs)} seeds solve K to {top}, frontiers {sorted(runs['frontier'])}"
        yield f"{task}, {regime}, {depth} layers: {solve}: {agrees if task != 'binary-copy' else 'no claim'}"


def peaks_in_words(peaky: pd.DataFrame) -> Iterator[str]:
    """Mean peakiness over seeds; the brace after the prompt is a marker as good as its end."""
    for task, rows in peaky.groupby("task"):
        mean = rows.groupby(["layer", "link"])["peakiness"].mean()
        end, brace, step = mean[0, "prompt_end"], mean[0, "trace_start"], mean[1, "next_operand"]
        first = f"layer 0 end of prompt {end:.2f}, brace after it {brace:.2f}: {VERDICT[bool(end + brace > 0.5)]}"
        second = f"layer 1 next operand {step:.2f}, control {mean[1, 'previous_operand']:.2f}"
        yield f"{task}, peakiness: {first}; {second}: {VERDICT[bool(step > 0.5)]}"


def transfer_in_words(moved: pd.DataFrame) -> Iterator[str]:
    """Accuracy of parity at each budget, and the smallest budget that reaches a level, both from either start."""
    both = moved.pivot_table(index="steps", columns="start", values="accuracy")[["scratch", "polynomial"]]
    cells, gain = [f"{one.Index}: {one[1]:.0%}/{one[2]:.0%}" for one in both.itertuples()], both.diff(axis=1).iloc[:, 1]
    compared = f"ahead at {sum(gain > 0.05)} of {len(both)}, behind at {sum(gain < -0.05)}: {VERDICT[max(gain) > 0.05]}"
    yield f"parity by updates, from scratch/from the polynomial: {', '.join(cells)}; {compared}"
    for level in (0.9, 0.99):
        first = {start: min(both.index[both[start] >= level], default=np.inf) for start in both}
        yield f"parity to {level:.0%}, updates: {first}"


if __name__ == "__main__":
    script(main, __doc__)
