"""Does a model know that its step is wrong, and does it act on it?

The reference models that write their steps hardly err, so responses to held-out problems are drawn at a high
temperature: a wrong step here is mostly an unlucky draw of a model that would have written the right one, and not a
mistake of its own. Up to the first error of each response, right steps are told from wrong ones by linear probes of the
model's states at the end of the step, by an untrained model's states, by the text of the step alone, by the model's own
likelihood, and with shuffled labels. What the probe of the middle layer reads (chosen beforehand) is then exchanged
between right and wrong steps, and the next step that the model writes looked at, against random directions.

    python -m analyses.verifiers [--quick]
"""

from pathlib import Path

import numpy as np
import pandas as pd

from analyses.publishing import publish, reference_runs
from cotinterp import Subject, sample_problems
from cotinterp.behavior.search.labeled_steps import LabeledSteps, label_steps
from cotinterp.behavior.search.verification import Verification
from cotinterp.cli.parsing import script
from cotinterp.studies.verifier_use import VerifierUse, verifier_use
from cotinterp.studies.verifiers import fitted_probe, verify_steps
from cotinterp.training.checkpoints import Run

K = 5
TEMPERATURE = 2.0


def main(quick: bool = False, root: Path = Path("checkpoints"), out: Path = Path("out/verifiers")) -> list[str]:
    """Measure, publish, and return the answer in words; `quick` asks one model of few problems, which says nothing."""
    runs = {run.task.name: run for run in reference_runs(root) if Subject.of_run(run).writes_totals}
    found = {name: measured(run, quick=quick) for name, run in list(runs.items())[: 1 if quick else None]}
    return publish(
        out,
        tables={
            "verifiers": pd.concat([told.frame() for told, _ in found.values()], ignore_index=True),
            "verifier_use": pd.concat([use.frame() for _, use in found.values()], ignore_index=True),
        },
        figures={
            **{f"verifiers-{name}": told.figure() for name, (told, _) in found.items()},
            **{f"verifier_use-{name}": use.figure() for name, (_, use) in found.items()},
        },
        answer=[line for name, (told, use) in found.items() for line in answer(name, told, use)],
    )


def measured(run: Run, *, quick: bool) -> tuple[Verification, VerifierUse]:
    """How well steps are told apart, and what the exchange changes."""
    n_train, n_test = (80, 60) if quick else (800, 300)
    subject = Subject.of_run(run)
    train, test = (labeled(subject, run, split, n) for split, n in (("train", n_train), ("heldout", n_test)))
    probe = fitted_probe(subject, train)
    sites, untrained = ([probe.site], None) if quick else (None, subject.untrained)
    told = verify_steps(run.model, train, test, facts=run.labels, sites=sites, untrained=untrained)
    return told, verifier_use(
        run.model,
        run.task,
        test.select(np.isin(test.problem, np.unique(test.problem)[:100])),
        probe,
        n_random=19 if quick else 40,
        facts=run.labels,
    )


def labeled(subject: Subject, run: Run, split: str, n: int) -> LabeledSteps:
    """Steps up to the first error."""
    rng = np.random.default_rng(0)
    batch = subject.batch(sample_problems(run.task, K, n, split=split, rng=rng))
    return label_steps(run.model, run.task, batch, rng=rng, temperature=TEMPERATURE).until_first_error()


def answer(name: str, told: Verification, use: VerifierUse) -> list[str]:
    """A line for each scorer and each exchange."""
    lines = [
        f"{name}, {row.model} {row.scorer} at {row.site}, {row.labels} labels: AUROC {row.auroc:.2f} "
        f"[{row.ci_low:.2f}, {row.ci_high:.2f}], among steps of one number {row.auroc_at_step:.2f} "
        f"({row.n_wrong} of {row.n} steps wrong)"
        for row in told.frame().itertuples()
    ]
    return lines + [
        f"{name}, {row.prefix} prefixes, {row.subspace} exchanged at {row.site}: {row.changed:.0%} of the next steps "
        f"change [{row.ci_low:.0%}, {row.ci_high:.0%}], {row.right:.0%} are right ({row.right_before:.0%} before)"
        + (f"; p {row.p:.3f} against random directions" if row.subspace == "probe" else "")
        for row in use.frame().itertuples()
    ]


if __name__ == "__main__":
    script(main, __doc__)
