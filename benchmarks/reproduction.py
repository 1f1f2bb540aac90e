"""`cotinterp reproduce --from-scratch`, the whole of it, against an earlier revision of this repository.

Timed: both commands once, in a process each, with the same number of jobs. The earlier revision is checked out into a
folder of its own for that time. Equal: both accuracy tables have the same rows, and where a row is about held-out
problems the two intervals overlap. Each revision trains its own models, and the intervals are over problems alone.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from benchmarks.comparison import Agreement, Comparison

REPOSITORY = Path(__file__).resolve().parents[1]
KEYS = ["task", "regime", "run_seed", "split", "k"]


@contextmanager
def reproductions(revision: str, *, jobs: int, quick: bool) -> Iterator[Comparison]:
    """The comparison, for as long as the earlier revision lies there. ValueError for a revision that git lacks."""
    with TemporaryDirectory() as folder, _checked_out(revision, Path(folder) / "earlier") as earlier:
        yield Comparison(
            work=f"cotinterp reproduce --from-scratch{' --quick' if quick else ''}, {jobs} jobs",
            peer=f"revision {revision}",
            ours=partial(reproduced, REPOSITORY, Path(folder) / "ours", jobs, quick),
            theirs=partial(reproduced, earlier, Path(folder) / "theirs", jobs, quick),
            agree=same_tables,
            floor=lambda _: None,
            unit="s",
            once=True,
        )


def reproduced(source: Path, out: Path, jobs: int, quick: bool) -> pd.DataFrame:
    """The accuracy table of the whole command, run with the code of `source`. RuntimeError where it fails."""
    words = ["reproduce", "--from-scratch", "--out", str(out), "--jobs", str(jobs), *(["--quick"] if quick else [])]
    environment = os.environ | {"PYTHONPATH": str(source)}
    done = subprocess.run(
        [sys.executable, "-m", "cotinterp.cli", *words],
        cwd=source,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"cotinterp {' '.join(words)} of {source} failed: {done.stderr[-500:]}")
    return pd.read_csv(out / "tables" / "accuracy.csv")


def same_tables(ours: pd.DataFrame, theirs: pd.DataFrame) -> Agreement:
    """Equal where the rows are the same and the intervals of held-out rows overlap."""
    both = ours.merge(theirs, on=KEYS, how="outer", suffixes=("", "_earlier"), indicator=True)
    alone = int((both["_merge"] != "both").sum())
    heldout = both[both["split"] == "heldout"]
    apart = (heldout["ci_low"] > heldout["ci_high_earlier"]) | (heldout["ci_low_earlier"] > heldout["ci_high"])
    largest = float((heldout["accuracy"] - heldout["accuracy_earlier"]).abs().max())
    words = f"{len(both)} rows of accuracy, {alone} of them on one side only; held-out accuracies differ by at most"
    return Agreement(not alone and not apart.any(), f"{words} {largest:.3f}, {int(apart.sum())} beyond both intervals")


@contextmanager
def _checked_out(revision: str, folder: Path) -> Iterator[Path]:
    git = ["git", "-C", str(REPOSITORY), "worktree"]
    done = subprocess.run([*git, "add", "--detach", str(folder), revision], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"git has no revision {revision!r} to compare with: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run([*git, "remove", "--force", str(folder)], capture_output=True, check=True)
