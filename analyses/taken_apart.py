"""Is a model that reward built another one inside than its supervised twin, and which of its weights moved?

From a base that errs: reward on the answer alone, rewards of other responses (control), right traces (the twin). Heads
that carry restore a tenth of what a changed total makes at the next, totals are read at "=". Published (arXiv
2509.25758): supervised training adds heads, GRPO turns few over, queries and keys move most.

    cotinterp sweep analyses/grids/rewards_twins.toml --root ROOT
    python -m analyses.taken_apart [--quick] [--root ROOT] [--table FILE]
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from analyses.publishing import of_each_run, over_seeds, phase_of, publish
from cotinterp import Contrast, Subject, accuracy_by_k, load_run, patch_sweep, trace_edits
from cotinterp.behavior.edit_kinds import SUBSTITUTE
from cotinterp.cli.parsing import script
from cotinterp.figures import lines
from cotinterp.mechanism.patching.runs import PatchingControls
from cotinterp.models.weights import MATRICES, matrices_moved
from cotinterp.studies.probes import totals_across_inputs
from cotinterp.studies.protocol import head_pairs
from cotinterp.studies.subject import FULL
from cotinterp.training.checkpoints import Run
from cotinterp.training.progress import METRICS_FILE, read_metrics

OUT, KEYS, CARRY = Path("out/taken_apart"), ["task", "measure", "phase", "part"], "head >= 0 and effect >= 0.1"


def main(quick: bool = False, root: Path | None = None, table: Path | None = None, out: Path = OUT) -> list[str]:
    """Measure the runs under `root`, or read `table`, publish, and return the answer in words; `quick`: tiny runs."""
    by_run = of_each_run("rewards_twins", measured, quick, root, table, 200, "taken_apart")
    rows = [(*key, *over_seeds(of.to_numpy()), len(of)) for key, of in by_run.groupby(KEYS, sort=False)["value"]]
    found = pd.DataFrame(rows, columns=[*KEYS, "mean", "low", "high", "seeds"])
    of = found[found["measure"] != "symbols"]
    figure = lines(of, x="part", y="mean", low="low", high="high", color="phase", facet="measure", title="Means, 95%")
    answer = [*listed(found), *judged(by_run)]
    return publish(out, tables={"by_run": by_run, "means": found}, figures={"means": figure}, answer=answer)


def measured(run: Run, problems: int) -> pd.DataFrame:
    """A row of one run for each part of each measure; what is held against its base, the base is loaded for."""
    spec, subject, rng = run.spec, Subject.of_run(run), np.random.default_rng(0)
    responses = spec.optimizer.steps * spec.optimizer.batch_size
    asked = subject.heldout_of_each_k(problems)
    right = accuracy_by_k(run.model, run.task, spec.regime, {"heldout": asked}).frame()
    rows = [("right", f"K = {k}", float(share)) for k, share in zip(right["k"], right["accuracy"], strict=True)]
    edits = trace_edits(run.model, run.task, spec.regime, asked[::4], edits=(SUBSTITUTE,), rng=rng).pooled()
    rows += [("edited trace", *of) for of in edits.loc[edits["edit"] == SUBSTITUTE, ["outcome", "rate"]].to_numpy()]
    shown = float(np.mean([len(one.response) for one in subject.batch(subject.trained_on).transcripts]))
    symbols = read_metrics(run.directory / METRICS_FILE)[-1].get("sampled_tokens", shown * responses)
    rows += [("symbols", "written or shown", symbols), ("heads", "that carry", len(heads := carriers(subject)))]
    probed = totals_across_inputs(subject, FULL).frame().query("model == 'trained' and layer >= 0")
    rows += [("totals read", str(at), beyond) for at, beyond in probed.groupby("site")["selectivity"].mean().items()]
    if spec.start_from is not None:
        before = carriers(Subject.of_run(base := load_run(spec.start_from, root=run.directory.parent)))
        rows += [("heads", "gained", len(heads - before)), ("heads", "lost", len(before - heads))]
        rows += [("moved", kind, far) for kind, far in matrices_moved(run.model, base.model).items()]
    found = pd.DataFrame(rows, columns=["measure", "part", "value"]).assign(run_seed=spec.seed)
    return found.assign(task=spec.task_name, phase=phase_of(spec))


def carriers(subject: Subject) -> set[tuple[int, int, int]]:
    """Length, layer and head of each head that carries the total before the last to the last one."""
    found, controls = set(), PatchingControls(require_gap=False)
    for k in {subject.length(FULL), subject.k_range[1]}:
        contrast = Contrast.from_pairs(head_pairs(subject, 48, k=k))
        sweep = patch_sweep(subject.model, contrast, kinds=(), heads=True, metrics=("logit_diff",), controls=controls)
        found |= {(k, int(at), int(head)) for at, head in sweep.frame().query(CARRY)[["layer", "head"]].to_numpy()}
    return found


def listed(found: pd.DataFrame) -> Iterator[str]:
    """A line by measure and phase."""
    for (task, measure, phase), rows in found.groupby(KEYS[:3], sort=False):
        cells = [f"{row.part} {row.mean:.3g} [{row.low:.3g}, {row.high:.3g}]" for row in rows.itertuples()]
        yield f"{task}, {measure}, {phase} ({rows['seeds'].min()} seeds): {', '.join(cells)}"


def judged(by_run: pd.DataFrame) -> Iterator[str]:
    """What was published, by seed."""
    of = by_run.pivot_table(index="run_seed", columns=["phase", "measure", "part"], values="value").dropna()
    twin, rewards = (of[phase, "heads"][["gained", "lost"]].to_numpy().T for phase in ("twin", "rewards"))
    moved = of["rewards", "moved"][list(MATRICES)].to_numpy()
    published = {
        "the twin gains more heads than it loses": twin[0] - twin[1],
        "reward turns fewer heads over than the twin": twin.sum(0) - rewards.sum(0),
        "of the rewarded queries and keys move more than the rest": moved[:, :2].mean(1) - moved[:, 2:].mean(1),
    }
    for words, values in published.items():
        mean, low, high = over_seeds(values)
        word = "cannot tell" if len(values) < 3 or low <= 0 <= high else "agrees" if low > 0 else "differs"
        yield f"{words}: {mean:+.3g} [{low:+.3g}, {high:+.3g}]: {word}"


if __name__ == "__main__":
    script(main, __doc__)
