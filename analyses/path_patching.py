"""By which way does what one head writes reach the answer: which later head, and through its q, k or v?

Two looks at each reference model. Between heads: every head's output over the whole sequence, along every direct path
to an input of a later head, with the MLPs on the way recomputed. Between roles: the three largest of these paths, split
by the role at which the sender writes and by the role at which the receiver acts. Pairs and readouts are those of
`cotinterp.studies.protocol.standard_pairs`, declared before anything was run. The paths of the second look are
selected by the first: it shows where they go, not whether they are there. Wang et al. 2022, arXiv 2211.00593.

    python -m analyses.path_patching [--quick]
"""

from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from analyses.publishing import publish, reference_runs
from cotinterp import Contrast, Site, Subject, head_paths, path_sweep
from cotinterp.cli.parsing import script
from cotinterp.mechanism.patching.path_patching import PathPatchingResult
from cotinterp.mechanism.patching.paths import Path as Route
from cotinterp.mechanism.patching.runs import PatchingControls
from cotinterp.mechanism.sites import head_sites
from cotinterp.studies.protocol import standard_pairs
from cotinterp.training.checkpoints import Run

SHOWN, LEVEL, MOST = 0.05, 0.05, 4


def main(quick: bool = False, root: Path = Path("checkpoints"), out: Path = Path("out/path_patching")) -> list[str]:
    """Measure, publish, and return the answer in words."""
    tables, figures = [], {}
    lines: list[str] = []
    for run in reference_runs(root, tasks=("digit-sum",) if quick else ("digit-sum", "s3")):
        for name, pairs in standard_pairs(Subject.of_run(run), 6 if quick else 24, k=4).items():
            looks = {"heads": between_heads(run, Contrast.from_pairs(pairs), quick=quick)}
            if not quick:
                looks["roles"] = between_roles(run, Contrast.from_pairs(pairs), looks["heads"])
            for look, result in looks.items():
                tables.append(result.frame().assign(look=look))
                figures[f"paths_{look}_{run.spec.slug}_{name}"] = result.figure()
                lines += answer(result, look)
            if quick:
                break
    return publish(out, tables={"paths": pd.concat(tables, ignore_index=True)}, figures=figures, answer=lines)


def between_heads(run: Run, contrast: Contrast, *, quick: bool) -> PathPatchingResult:
    """Every path from head to head, all positions together; the first layer's heads only where it must be quick."""
    senders = [site for site in head_sites(run.model) if site.layer == 0 or not quick]
    paths = head_paths(run.model, senders=senders, inputs=("v",) if quick else ("q", "k", "v"))
    return path_sweep(run.model, contrast, paths, labels=run.labels, controls=PatchingControls(require_gap=False))


def between_roles(run: Run, contrast: Contrast, found: PathPatchingResult) -> PathPatchingResult:
    """The three largest paths between two heads, by place written at and, separately, by place acted at."""
    effects = dict(zip(found.paths, abs(found.effects().effect), strict=True))
    largest = sorted((path for path in effects if isinstance(path.receiver, Site)), key=lambda path: -effects[path])[:3]
    places = contrast.until_readout().places
    split = [Route(path.sender, path.receiver, place, None) for path in largest for place in places]
    split += [Route(path.sender, path.receiver, None, place) for path in largest for place in places]
    return path_sweep(run.model, contrast, split, labels=run.labels, controls=PatchingControls(require_gap=False))


def answer(result: PathPatchingResult, look: str) -> Iterator[str]:
    """The largest paths of one sweep that are different from 0 in the whole scan and at least 0.05 in size."""
    table = result.frame()
    name = " ".join(str(value) for key, value in result.labels.items() if key != "run_seed")
    fully = ", ".join(f"{row.sender} {row.effect:.3f}" for row in table[table["sender_layer"] < 0].itertuples())
    yield f"{name}, {result.pair}, {result.direction}, between {look}: {fully}"
    paths = table[(table["sender_layer"] >= 0) & (table["p_adjusted"] <= LEVEL) & (table["effect"].abs() >= SHOWN)]
    for kind, rows in paths.groupby("receiver_kind", sort=False):
        shown = rows.reindex(rows["effect"].abs().sort_values(ascending=False).index).head(MOST)
        yield f"    {kind}: " + "; ".join(map(named, shown.to_dict("records")))
    if paths.empty:
        yield "    no path that is different from 0 in the scan and as large as 0.05"


def named(row: Mapping[Hashable, Any]) -> str:
    """A path in words: `L1H2.z at total 2 into L3H0: 0.31 [0.25, 0.36]`."""
    receiver = "" if row["receiver"] == row["receiver_kind"] else f" into {row['receiver']}{_at(row, 'destination')}"
    interval = f"{row['effect']:.2f} [{row['ci_low']:.2f}, {row['ci_high']:.2f}]"
    return f"{row['sender']}{_at(row, 'source')}{receiver}: {interval}"


def _at(row: Mapping[Hashable, Any], end: str) -> str:
    role, step = row[f"{end}_role"], row[f"{end}_step"]
    return "" if role == "all" else f" at {role}" + (f" {step}" if step >= 0 else "")


if __name__ == "__main__":
    script(main, __doc__)
