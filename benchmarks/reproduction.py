"""Against an earlier revision of this repository, checked out into a folder of its own for that time.

Updates of models that are trained until they have learned. Timed: twenty updates of small models on 100,000 problems,
in a process of each revision that waits for the word to go on. Equal: the losses of the first twenty, to 1e-4.

`cotinterp reproduce --from-scratch`, the whole of it. Timed: both commands once, in a process each, with the same
number of jobs. Equal: both accuracy tables have the same rows, and where a row is about held-out problems the two
intervals overlap. Each revision trains its own models, and the intervals are over problems alone.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from benchmarks.comparison import Agreement, Comparison, Precision
from benchmarks.training import PRECISIONS

REPOSITORY = Path(__file__).resolve().parents[1]
KEYS = ["task", "regime", "run_seed", "split", "k"]


@contextmanager
def reproductions(revision: str, *, jobs: int, quick: bool) -> Iterator[Comparison]:
    """The comparison, for as long as the earlier revision lies there. ValueError for a revision that git lacks."""
    with checked_out(revision) as earlier, TemporaryDirectory() as folder:
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


def updates(
    earlier: Path, precisions: Sequence[Precision] = PRECISIONS, n_train: int = 100_000
) -> Iterator[Comparison]:
    """Twenty updates of each kind of model, beside those of the code in `earlier`."""
    for precision, (regime, d_model, n_layers) in product(precisions, MODELS):
        model = {"n_layers": n_layers, "d_model": d_model, "d_mlp": 4 * d_model, "n_ctx": 128}
        model |= {"thoughts": True} if regime == "dots" else {}
        spec = {"task": "s3", "regime": regime, "k_max": 12, "n_train": n_train, "precision": precision, "model": model}
        with _updater(REPOSITORY, spec) as ours, _updater(earlier, spec) as theirs:
            yield Comparison(
                work=f"20 updates, s3 {regime}, d_model {d_model}, L = {n_layers}, {n_train:,} problems, {precision}",
                peer="the earlier revision",
                ours=ours,
                theirs=theirs,
                agree=same_losses,
                floor=lambda _: None,
            )


MODELS = (("direct", 64, 1), ("direct", 64, 2), ("direct", 64, 4), ("direct", 128, 4), ("cot", 64, 1), ("dots", 64, 2))
"""Regime, width and layers; dots are continuous thoughts."""

UPDATER = """
import json, sys, torch
from cotinterp.tasks import get_task
from cotinterp.training.learner import Learner
from cotinterp.training.spec import RunSpec
torch.set_num_threads(1)
spec = RunSpec(**json.loads(sys.argv[1]))
learner, step = Learner.begin(spec, get_task(spec.task), torch.device("cpu")), 0
for _ in sys.stdin:
    print(json.dumps([learner.update(step + i).loss for i in range(20)]), flush=True)
    step += 20
"""


@contextmanager
def _updater(source: Path, spec: Mapping[str, object]) -> Iterator[Callable[[], list[float]]]:
    """Makes the next twenty updates with the code of `source` and returns their losses."""
    with subprocess.Popen(
        [sys.executable, "-c", UPDATER, json.dumps(spec)],
        cwd=source,
        env=os.environ | {"PYTHONPATH": str(source)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        words, answers = process.stdin, process.stdout
        assert words is not None
        assert answers is not None

        def go() -> list[float]:
            print(file=words, flush=True)
            line = answers.readline()
            if not line:
                raise RuntimeError(f"the code of {source} could not train {spec}: its message stands above")
            return [float(loss) for loss in json.loads(line)]

        yield go
        words.close()


def same_losses(ours: Sequence[float], theirs: Sequence[float]) -> Agreement:
    """Equal where no loss differs by more than 1e-4."""
    return Agreement.within(max(abs(a - b) for a, b in zip(ours, theirs, strict=True)), 1e-4, "loss in nats")


@contextmanager
def checked_out(revision: str) -> Iterator[Path]:
    """A folder with this revision, for as long as the block runs. ValueError for one that git lacks."""
    git = ["git", "-C", str(REPOSITORY), "worktree"]
    with TemporaryDirectory() as parent:
        folder = Path(parent) / "earlier"
        command = [*git, "add", "--detach", str(folder), revision]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ValueError(f"git has no revision {revision!r} to compare with: {done.stderr.strip()}")
        try:
            yield folder
        finally:
            subprocess.run([*git, "remove", "--force", str(folder)], capture_output=True, check=True)
