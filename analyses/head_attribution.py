"""Which heads does the answer rest on, and where do they look?

Three numbers a head, because each alone misleads: direct logit attribution (Elhage et al. 2021) is the direct path and
no cause; resample ablation is a cause that other heads may compensate; attention says where a head looks, not what it
does with it. An iteration head (Cabannes et al. 2024, arXiv 2406.02128) looks at the previous total and at the next
operand and is needed. Labels follow the rules of `cotinterp.mechanism.heads.labels`.

    python -m analyses.head_attribution [--quick]
"""

from pathlib import Path

import pandas as pd

from analyses.publishing import publish, reference_runs
from cotinterp import Contrast, Subject, head_table
from cotinterp.cli.parsing import script
from cotinterp.mechanism.heads.labels import READER_LABELS, rule_text
from cotinterp.mechanism.heads.table import HeadResult
from cotinterp.studies.protocol import head_pairs
from cotinterp.training.checkpoints import Run


def main(quick: bool = False, root: Path = Path("checkpoints"), out: Path = Path("out/head_attribution")) -> list[str]:
    """Measure, publish, and return the answer in words."""
    results = {
        run.spec.slug: head_table(run.model, asked(run, 12 if quick else 100), labels=run.labels)
        for run in reference_runs(root)
    }
    tables = {
        "heads": pd.concat([result.frame() for result in results.values()], ignore_index=True),
        "heads_detail": pd.concat([result.detail() for result in results.values()], ignore_index=True),
    }
    figures = {f"heads_{slug}": result.figure() for slug, result in results.items()}
    lines = [line for result in results.values() for line in answer(result)]
    return publish(out, tables=tables, figures=figures, answer=[*lines, "", "Labels:", rule_text()])


def asked(run: Run, n: int) -> Contrast:
    """The standard question to the heads: which total does the last step start from, or what is the answer?"""
    return Contrast.from_pairs(head_pairs(Subject.of_run(run), n, k=4))


def answer(result: HeadResult) -> list[str]:
    """The heads of one run that are needed or write the answer, and what is lost without all readers together."""
    name = " ".join(str(value) for key, value in result.labels.items() if key != "run_seed")
    lines = [f"{name}: mean logit difference {float(result.logit_difference.double().mean()):.2f}"]
    for row in result.frame().sort_values("ablation_effect", ascending=False).head(4).to_dict("records"):
        lines.append(
            f"    L{row['layer']}H{row['head']} {row['label']}: ablation {row['ablation_effect']:.2f}, attribution "
            f"{row['attribution']:.2f}, attention to previous total {row['attention_to_previous_total']:.2f}, "
            f"to next operand {row['attention_to_next_operand']:.2f}"
        )
    readers = [label for label in result.head_labels if label in READER_LABELS]
    effects = f"{result.joint_effect:.2f} lost, as many random others: {result.random_joint_effect:.2f}"
    lines.append(f"    {len(readers)} readers" + (f"; all of them ablated: {effects}" if readers else ""))
    return lines


if __name__ == "__main__":
    script(main, __doc__)
