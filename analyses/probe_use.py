"""Does the model use what a linear probe for a running total reads?

Probes are fitted on training problems; what they read is then exchanged between the two runs of minimal pairs of
held-out problems, at the place where it was read, against random subspaces that move every example as far. Pairs and
places are those of `cotinterp.studies.protocol`: where totals are written, the last but one of them is changed, and the
probes read it and the next total at the equals sign of the last step; in `direct` a prompt operand is changed, and the
probes read the total there, and the answer at the end of the prompt. The rule is that of
`cotinterp.mechanism.probing.use.UseRule`.

    python -m analyses.probe_use [--quick]
"""

from pathlib import Path

import numpy as np
import torch

from analyses.publishing import publish, reference_runs
from cotinterp import (
    Contrast,
    Site,
    Subject,
    activations,
    fit_probe,
    probe_use,
    residual_sites,
    running_total,
    sample_problems,
)
from cotinterp.cli.parsing import script
from cotinterp.mechanism.probing.linear_probe import ProbedAt
from cotinterp.mechanism.probing.use import ProbeUse, RandomSubspaces
from cotinterp.studies.protocol import standard_pairs, use_places
from cotinterp.training.checkpoints import Run
from cotinterp.transcripts.roles import place_words

K = 4


def main(quick: bool = False, root: Path = Path("checkpoints"), out: Path = Path("out/probe_use")) -> list[str]:
    """Measure, publish, and return the answer in words."""
    results = {f"{run.task.name}-{run.spec.regime}": used(run, quick=quick) for run in reference_runs(root)}
    return publish(
        out,
        tables={f"probe_use-{name}": result.frame() for name, result in results.items()},
        figures={f"probe_use-{name}": result.figure() for name, result in results.items()},
        answer=[line for name, result in results.items() for line in answer(name, result)],
    )


def used(run: Run, *, quick: bool) -> ProbeUse:
    """Every probe of one run at every site, as one scan."""
    n_train, n_pairs, n_random = (200, 8, 19) if quick else (1200, 48, 40)
    subject = Subject.of_run(run)
    pairs = f"total-{K - 2}-next" if subject.writes_totals else f"operand-{K // 2}"
    contrast = Contrast.from_pairs(standard_pairs(subject, n_pairs, k=K)[pairs])
    train = subject.batch(sample_problems(run.task, K, n_train, split="train", rng=np.random.default_rng(0)))
    sites = (*residual_sites(run.model)[1:], Site("resid_post", int(run.model.cfg.n_layers) - 1))
    probed = use_places(train.transcripts[0], k=K)
    positions = torch.stack([train.where(*place, part=-1) for _, place, _ in probed], dim=1)
    read = activations(run.model, train.tokens, sites, positions=positions, batch_size=256)
    results = []
    for column, (_, (role, step), target) in enumerate(probed):
        for site in sites[1:2] if quick else sites:
            at, name = ProbedAt(site=site, role=role, step=step), f"s_{target}"
            probe = fit_probe(read[site][:, column], running_total(train, target), at=at, target=name)
            results.append(
                probe_use(
                    run.model,
                    contrast,
                    probe,
                    site,
                    place_words(role, step),
                    removal=None if quick else "resample",
                    controls=RandomSubspaces(n=n_random),
                    labels=run.labels,
                )
            )
    return ProbeUse.joined(results)


def answer(name: str, result: ProbeUse) -> list[str]:
    """One line a cell: what was probed where, the verdict, and the numbers behind it."""
    return [
        f"{name}, {cell.name} (rank {cell.rank}): {found}; {reason}"
        for cell, (found, reason) in zip(result.cells, result.answers, strict=True)
    ]


if __name__ == "__main__":
    script(main, __doc__)
