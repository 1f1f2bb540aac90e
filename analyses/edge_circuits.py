"""Which edges carry a change to the answer, how few of them keep the behavior, and how well do gradients find them?

Every edge of each reference model that writes its reasoning out is patched by itself (noising: one edge carries the
corrupted value), which is the truth that three estimates from gradients are held to, by kind of source and of input.
Circuits are the first edges of each ranking; all edges outside of one are corrupted at once. Pairs and readouts are
those of `cotinterp.studies.protocol.standard_pairs`, declared before anything was run. Areas over size (CPR, CMD) are
those of Mueller et al. 2025, arXiv 2504.13151; sources of the estimates: `cotinterp.mechanism.circuits.scores`.

    python -m analyses.edge_circuits [--quick]
"""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from analyses.publishing import publish, reference_runs
from cotinterp import Contrast, Subject
from cotinterp.cli.parsing import script
from cotinterp.mechanism.circuits import (
    EdgeAgreement,
    EdgeScores,
    FaithfulnessCurve,
    edge_agreement,
    edge_scores,
    faithfulness_curve,
)
from cotinterp.studies.protocol import standard_pairs

ESTIMATES, SHOWN, WANTED = ("eap", "eap-ig", "relp"), 8, 0.9


def main(quick: bool = False, root: Path = Path("checkpoints"), out: Path = Path("out/edge_circuits")) -> list[str]:
    """Measure, publish, and return the answer in words."""
    scored, agreed, curves, figures = [], [], [], {}
    lines: list[str] = []
    for run in reference_runs(root, tasks=("digit-sum",) if quick else ("digit-sum", "s3"), regimes=("cot",)):
        for name, pairs in standard_pairs(Subject.of_run(run), 4 if quick else 24, k=4).items():
            contrast = Contrast.from_pairs(pairs)
            exact = edge_scores(run.model, contrast, labels=run.labels)
            estimates = [edge_scores(run.model, contrast, method=method, labels=run.labels) for method in ESTIMATES]
            agreements = [edge_agreement(estimate, exact) for estimate in estimates]
            kept = [faithfulness_curve(run.model, contrast, scores) for scores in (exact, *estimates)]
            scored.append(exact.frame())
            agreed += [agreement.frame() for agreement in agreements]
            curves += [curve.frame() for curve in kept]
            figures[f"edges_{run.spec.slug}_{name}"] = exact.figure()
            figures[f"faithfulness_{run.spec.slug}_{name}"] = kept[0].figure()
            lines += [*answer(exact, kept), *agreement_words(agreements)]
            if quick:
                break
    tables = {"edges": scored, "edge_agreement": agreed, "faithfulness": curves}
    joined = {name: pd.concat(parts, ignore_index=True) for name, parts in tables.items()}
    return publish(out, tables=joined, figures=figures, answer=lines)


def answer(exact: EdgeScores, curves: list[FaithfulnessCurve]) -> Iterator[str]:
    """The largest edges, and what circuits of each ranking keep."""
    table, task = exact.frame().sort_values("rank").head(SHOWN), exact.labels["task"]
    yield f"{task}, {exact.pair}, largest of {len(exact.edges)} edges:"
    yield "    " + "; ".join(
        f"{row.edge} {row.effect:.2f} [{row.ci_low:.2f}, {row.ci_high:.2f}]" for row in table.itertuples()
    )
    for curve in curves:
        sizes = curve.frame()
        least = sizes[sizes["faithfulness"] >= WANTED].iloc[0]
        yield (
            f"    {curve.about['method']}: {least['size']} edges ({least['connected']} connected) keep "
            f"{least['faithfulness']:.2f} and put the answer first in {least['accuracy']:.0%}; CPR {curve.cpr:.3f}, "
            f"CMD {curve.cmd:.3f}"
        )


def agreement_words(agreements: list[EdgeAgreement]) -> Iterator[str]:
    """Correlation of every estimate with exact patching, by kind of edge."""
    for agreement in agreements:
        table = agreement.frame()
        known = table[table["pearson"].notna()]
        kinds = ", ".join(f"{row.edges} {row.pearson:.2f}" for row in known.itertuples())
        yield f"    {table['method'][0]}, correlation with exact patching: {kinds}"


if __name__ == "__main__":
    script(main, __doc__)
