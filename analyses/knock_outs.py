"""Which reads does the next total rest on: the written total, or the operands of the prompt?

Attention weight is no evidence, so each read is cut: its attention set to 0 and the rest renormalized, or the values
that it moves replaced by another problem's (`cotinterp.mechanism.heads.knock_outs`). In all heads together, in each
layer and in each head; from the readout alone, and from everywhere, which also cuts detours. Controls: as many random
tokens, and totals that are out of date. Beside it what a single ablation cannot show: heads that stand in for one
another, and verdicts that depend on what a head is replaced by.

    python -m analyses.knock_outs [--quick]
"""

from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from analyses.publishing import publish, reference_runs
from cotinterp import Contrast, Subject, backup_heads, compare_ablations, knock_out_reads
from cotinterp.cli.parsing import script
from cotinterp.mechanism.heads.ablation import AblationResult
from cotinterp.mechanism.heads.backups import BACKUPS, BackupResult
from cotinterp.mechanism.heads.knock_outs import Cuts, KnockOutResult
from cotinterp.mechanism.heads.losses import Draws
from cotinterp.mechanism.heads.reads import EARLIER_OPERANDS_READ, KNOCK_OUT_READS
from cotinterp.studies.protocol import head_pairs

READS = (*KNOCK_OUT_READS, EARLIER_OPERANDS_READ)


def main(quick: bool = False, root: Path = Path("checkpoints"), out: Path = Path("out/knock_outs")) -> list[str]:
    """Measure, publish, and return the answer in words."""
    lines: list[str] = []
    tables: dict[str, list[pd.DataFrame]] = {"knock_outs": [], "ablations": [], "ablation_agreement": [], "backups": []}
    figures: dict[str, go.Figure] = {}
    for run in reference_runs(root, regimes=["cot"]):
        contrast = Contrast.from_pairs(head_pairs(Subject.of_run(run), 8 if quick else 60, k=4))
        knocked = knock_out_reads(
            run.model,
            contrast,
            READS,
            cuts=Cuts(dests=["everywhere"], scopes=["all"]) if quick else Cuts(),
            draws=Draws(n_donors=1 if quick else 2),
            labels=run.labels,
        )
        ablated = compare_ablations(run.model, contrast, draws=Draws(n_donors=1 if quick else 4), labels=run.labels)
        strongest = [ablated.head_sets[i][0] for i in ablated.lost[0].nanmean(dim=1).argsort(descending=True)[:4]]
        chosen = strongest if quick else None
        paired = backup_heads(run.model, contrast, chosen, draws=Draws(n_donors=1), labels=run.labels)
        for name, table in zip(tables, map_frames(knocked, ablated, paired), strict=True):
            tables[name].append(table)
        slug = run.spec.slug
        figures |= {f"knock_outs_{slug}": knocked.figure(), f"ablations_{slug}": ablated.figure()}
        figures[f"backups_{slug}"] = paired.figure()
        lines += answer(knocked, ablated, paired)
    stacked = {name: pd.concat(parts, ignore_index=True) for name, parts in tables.items()}
    return publish(out, tables=stacked, figures=figures, answer=lines)


def map_frames(knocked: KnockOutResult, ablated: AblationResult, paired: BackupResult) -> list[pd.DataFrame]:
    """The tables of one run, in the order in which they are published."""
    return [knocked.frame(), ablated.frame(), ablated.agreement(), paired.frame()]


def answer(knocked: KnockOutResult, ablated: AblationResult, paired: BackupResult) -> list[str]:
    """What is lost without each read, the heads that need one, and what single ablations do not show."""
    name = " ".join(str(value) for key, value in knocked.labels.items() if key != "run_seed")
    clean, table = float(knocked.clean.mean()), knocked.frame()
    lines = [f"{name}: lost of a logit difference of {clean:.2f} when another problem's values are moved"]
    moved = table[(table["method"] == "resample") & (table["dest"] == "everywhere")]
    for row in moved[moved["scope"] == "all"].to_dict("records"):
        what = str(row["read"]).replace("_", " ") + (f" ({row['control']})" if row["control"] else "")
        p = "p < 0.001" if row["p"] < 0.001 else f"p {row['p']:.3f}"
        lines.append(f"    {what}: {row['effect']:.2f} [{row['ci_low']:.2f}, {row['ci_high']:.2f}], {p}")
    heads = moved[(moved["head"] >= 0) & (moved["p"] <= 0.05) & (moved["effect"] >= 0.05)]
    for row in heads.nlargest(4, "effect").to_dict("records"):
        lines.append(
            f"    L{row['layer']}H{row['head']} alone, {str(row['read']).replace('_', ' ')}: {row['effect']:.2f}"
        )
    single, agreement, pairs = ablated.frame(), ablated.agreement().to_dict("records"), paired.frame()
    ranks = ", ".join(f"{row['method']} and {row['other']} {row['spearman']:.2f}" for row in agreement)
    differ = " ".join(single.loc[single["methods_differ"], "site"].unique()) or "none"
    lines.append(f"    single heads, rank agreement of methods: {ranks}; verdict depends on it: {differ}")
    found = pairs[pairs["verdict"] == BACKUPS].to_dict("records")
    named = ", ".join(f"{row['first']} and {row['second']}" for row in found[:4]) or "none"
    lines.append(f"    pairs that stand in for one another, {len(found)} of {len(pairs)}: {named}")
    return lines


if __name__ == "__main__":
    script(main, __doc__)
