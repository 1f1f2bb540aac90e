"""Are models that differ in their seed alone the same up to a rotation, and which of their heads are the same?

Residual streams before each written total, seen in the basis of another seed (orthogonal Procrustes), its probes and
states carried over (arXiv 2605.24577: such a map restores transfer). Beside it no map, a map fitted on problems dealt
out anew, and a model that was not trained. Heads are matched one to one and looked at on other problems.

    python -m analyses.across_seeds [--quick] [--train ROOT | --runs FOLDER ... | --table FILE]
"""

from collections.abc import Iterator, Sequence
from itertools import permutations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

import pandas as pd

from analyses.publishing import over_seeds, publish, stored, tiny_grid
from cotinterp import RunSpec, Subject, load_run
from cotinterp import train as train_run
from cotinterp.cli.parsing import script
from cotinterp.figures import lines
from cotinterp.mechanism.heads.matching import MatchBy, match_heads
from cotinterp.mechanism.probing.alignment import UNTRAINED, align_streams
from cotinterp.studies.protocol import before_total
from cotinterp.sweeps.grid import read_grid
from cotinterp.training.checkpoints import Run, is_finished

OUT, TABLE, GRID = Path("out/across_seeds"), Path("analyses/out/across_seeds.csv"), "across_seeds"
KEYS = ["task", "measure", "site", "compared"]


def main(
    quick: bool = False, train: Path | None = None, runs: tuple[Path, ...] = (), table: Path = TABLE, out: Path = OUT
) -> list[str]:
    """Measure the runs, or read `table`, publish, and return the answer in words; `quick`: tiny runs of three seeds."""
    if quick:
        specs = [tiny_grid(GRID).specs[0].model_copy(update={"seed": seed}) for seed in range(3)]
        with TemporaryDirectory() as scratch:
            found = measured(trained(specs, Path(scratch)), 40)
    elif runs or train is not None:
        specs = list(read_grid(Path(__file__).parent / f"grids/{GRID}.toml").specs)
        found = measured([load_run(one) for one in runs] if train is None else trained(specs, train), 600)
    else:
        found = stored(table, "python -m analyses.across_seeds --train ROOT")
    by_seed = found.groupby([*KEYS, "model"], sort=False)["value"].mean().reset_index()
    rows = [(*key, *over_seeds(of.to_numpy()), len(of)) for key, of in by_seed.groupby(KEYS, sort=False)["value"]]
    means = pd.DataFrame(rows, columns=[*KEYS, "mean", "low", "high", "seeds"])
    title, drawn = "Mean over seeds, 95%", means.assign(asked=means["task"] + ", " + means["measure"])
    figure = lines(drawn, x="site", y="mean", low="low", high="high", color="compared", facet="asked", title=title)
    return publish(out, tables={"pairs": found, "means": means}, figures={"means": figure}, answer=[*in_words(means)])


def trained(specs: Sequence[RunSpec], root: Path) -> list[Run]:
    """The runs under `root`, trained where they are not finished."""
    for spec in specs:
        if not is_finished(root / spec.slug):
            train_run(spec, directory=root / spec.slug, threads=1)
    return [load_run(spec.slug, root=root) for spec in specs]


def measured(runs: Sequence[Run], n: int) -> pd.DataFrame:
    """A row for each ordered pair of seeds, site, measure and control, on `n` problems that no seed was trained on."""
    rows: list[tuple[object, ...]] = []
    for task in dict.fromkeys(run.task.name for run in runs):
        subjects = {str(run.spec.seed): Subject.of_run(run) for run in runs if run.task.name == task}
        first = next(iter(subjects.values()))
        batch = first.batch(first.heldout(n))
        places = [(*before_total(batch.transcripts[0], step)["equals"], step) for step in range(1, first.k_range[1])]
        models = {seed: subject.model for seed, subject in subjects.items()}
        aligned = align_streams(models, batch, places, untrained=first.untrained).frame()
        for one in aligned.to_dict("records"):
            of, who = (task, one["model"], one["other"], one["site"]), kind(str(one["other"]))
            rows += [(*of, m, f"{who}, {one['map']}", one[m]) for m in ("r_squared", "accuracy", "follows")]
            rows += [(*of, m, "itself", one[f"home_{m}"]) for m in ("accuracy", "follows") if one["map"] == "rotation"]
        everyone = models | ({UNTRAINED: first.untrained} if first.untrained is not None else {})
        dests = [(role, step) for role, step, _ in places]
        for mine, theirs in ((a, b) for a, b in permutations(everyone, 2) if a in models):
            for by in get_args(MatchBy):
                found = match_heads(models[mine], everyone[theirs], batch, dests, by=by).frame()
                shown = {"matched": "similarity", "at random": "random_mean", "share that hold": "holds"}
                pair = (task, mine, theirs, "all heads", f"heads by {by}")
                rows += [(*pair, f"{kind(theirs)}, {word}", found[name].mean()) for word, name in shown.items()]
    return pd.DataFrame(rows, columns=["task", "model", "other", "site", "measure", "compared", "value"])


def kind(name: str) -> str:
    """Whether a model is another seed or the untrained one."""
    return name if name == UNTRAINED else "seeds"


def in_words(means: pd.DataFrame) -> Iterator[str]:
    """A line for each task, measure and site."""
    for (task, measure, site), part in means.groupby(KEYS[:3], sort=False):
        cells = [f"{one.compared} {one.mean:.2f} [{one.low:.2f}, {one.high:.2f}]" for one in part.itertuples()]
        yield f"{task}, {measure}, {site} ({part['seeds'].max()} seeds): {'; '.join(cells)}"


if __name__ == "__main__":
    script(main, __doc__)
