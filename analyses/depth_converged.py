"""What can each depth express, apart from what training happens to find?

Models are trained until they have learned, short problems first. Two frontiers answer two questions: by seed, how long
a problem training finds a way to solve; and over all seeds and ways, how long a problem a depth was shown to solve. The
second is an existence proof with a checkpoint, and the laws of depth are about it alone: a seed that fails while
another solves is no evidence about depth. That a depth cannot solve a length is taken to be so where three runs had
converged without solving it, which is an assumption.

    python -m analyses.depth_converged [--quick] [--tables sweep.csv ...]
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from analyses.publishing import publish, tiny_sweep
from cotinterp.cli.parsing import script
from cotinterp.depth.frontier import CONVERGED, LEAST_PROBLEMS, MEASURED, as_answered, depth_frontier, expressed
from cotinterp.depth.laws import consistent_laws
from cotinterp.sweeps.table import read_sweep_table

TABLES = (Path("analyses/out/depth_converged.csv"), Path("analyses/out/tagging_converged.csv"))
OUT = Path("out/depth_converged")
GROUP = ["task", "regime", "reading"]


def main(quick: bool = False, tables: tuple[Path, ...] = (), out: Path = OUT) -> list[str]:
    """Judge, publish, and return the answer in words. `quick` trains tiny runs, whose numbers mean nothing."""
    if quick:
        with TemporaryDirectory() as scratch:
            sweep = tiny_sweep("depth_converged", Path(scratch), *tables)
    else:
        sweep = pd.concat(map(read_sweep_table, tables or TABLES), ignore_index=True).drop_duplicates()
    frontier = depth_frontier(sweep)
    best = expressed(frontier.frame())
    figure = frontier.figure()
    answered = as_answered(frontier.frame())
    answer = [line for key, runs in best.groupby(GROUP) for line in lines_of(key, runs, answered, sweep)]
    answer += list(ended(frontier.frame()))
    return publish(
        out, tables={"frontier": frontier.frame(), "expressed": best}, figures={"frontier": figure}, answer=answer
    )


def lines_of(key: Sequence[object], best: pd.DataFrame, frontier: pd.DataFrame, sweep: pd.DataFrame) -> Iterator[str]:
    """Both frontiers of one task and regime, accuracy by length of every run, and the laws that are left."""
    laws = consistent_laws(best)
    law = laws[0] if len(laws) == 1 else "cannot tell" if laws else "none of the four"
    yield f"{key[0]} {key[1]}{'' if key[2] == 'answer' else f' ({key[2]})'}: {law}"
    mine = frontier[(frontier[GROUP] == list(key)).all(axis=1) & frontier["convergence"].isin(MEASURED)]
    for depth in best.to_dict("records"):
        runs = mine[mine["n_layers"] == depth["n_layers"]].sort_values("run_seed")
        plain = runs[(runs["taught"] == runs["regime"]) & (runs["start_from"] == "")]
        ends = plain["convergence"].isin(CONVERGED).map({True: "", False: "+"})
        seeds = " ".join(plain["frontier"].astype(str) + ends) or "not measured"
        proof = f", by {depth['proof']}" if depth["proof"] else ""
        whole = f"all lengths: {int((plain['next_k'] < 0).sum())} of {len(plain)} runs"
        yield f"    L{depth['n_layers']}: training finds K = {seeds} of {depth['k_top']} ({whole})"
        yield f"        expressed: {depth['best']}{proof}"
        for slug, held in sweep[(sweep["split"] == "heldout") & sweep["slug"].isin(runs["slug"])].groupby("slug"):
            held = held[(held["n"] >= LEAST_PROBLEMS) & (held["reading"] == key[2])].sort_values("k")
            shares = " ".join(f"{100 * share:.0f}" for share in held["accuracy"])
            ended = f"{held['step'].max():,} updates, {held['ended'].max() or 'fixed'}"
            yield f"        {slug}: held out {shares} % at K = {held['k'].min()} to {held['k'].max()} ({ended})"
    if len(laws) > 1:
        short = [f"L{row.n_layers} ({row.converged} of 3)" for row in best.itertuples() if not row.tried]
        wanted = f"runs that have converged at {', '.join(short)}" if short else "longer problems, or more depths"
        yield f"    left: {', '.join(laws)}. What would decide: {wanted}"


def ended(frontier: pd.DataFrame) -> Iterator[str]:
    """How the runs ended."""
    counts = frontier.drop_duplicates("slug")["convergence"].value_counts()
    yield "runs by convergence: " + ", ".join(f"{n} {name}" for name, n in counts.items())


if __name__ == "__main__":
    script(main, __doc__)
