"""What do five seeds say about each claim, and what would other thresholds, fewer seeds or another order say?

Judges the stored evidence (`cotinterp claims --from checkpoints --train --update-tables` makes it anew), then asks the
verdicts' own robustness: every threshold a tenth lower and higher, the seeds renumbered, the rows shuffled,
and no correction for the number of claims and looks. Nothing is measured here, so it takes seconds.

    python -m analyses.claims [--quick]
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd

from analyses.publishing import publish
from cotinterp import read_evidence
from cotinterp.claims.catalog import CATALOG
from cotinterp.claims.judge import STAGE, decide, judge_stored, judged_tasks, threshold_changes
from cotinterp.claims.verdict import Verdicts, rivals_text, shown
from cotinterp.cli.parsing import script
from cotinterp.studies.evidence import Evidence

Words = Mapping[tuple[str, str], str]


def main(quick: bool = False, tables: Path = Path("analyses/out"), out: Path = Path("out/claims_check")) -> list[str]:
    """Judge, publish, and return the answer in words."""
    evidence = read_evidence(tables)
    tasks = judged_tasks(evidence)[:1] if quick else judged_tasks(evidence)
    verdicts, estimates = judge_stored(CATALOG, evidence, tasks)
    thresholds = threshold_changes(estimates)
    others = {"seeds renumbered backwards": renumbered(evidence), "rows in another order": shuffled(evidence)}
    lines = [line for one in verdicts.verdicts for line in verdict_lines(verdicts, one.claim, one.task)]
    lines += [
        f"{row.task}, {row.claim}: {row.part} x {row.factor}: {row.moved_verdict}" for row in thresholds.itertuples()
    ]
    declared = words(verdicts)
    changes = {
        name: differing(declared, words(judge_stored(CATALOG, other, tasks)[0])) for name, other in others.items()
    }
    alone = {(one.claim.name, one.task): decide([replace(one, penalty=1.0)])[0].verdict for one in estimates}
    changes["each claim alone, no correction"] = differing(declared, alone)
    lines += [f"{name}: {'; '.join(found) or 'the same verdicts'}" for name, found in changes.items()]
    changed = [(name, text) for name, found in changes.items() for text in found]
    return publish(
        out,
        tables={
            "verdicts": verdicts.frame(),
            "claim_criteria": verdicts.criteria_frame(),
            "claim_seeds": verdicts.by_seed_frame(),
            "thresholds": thresholds,
            "robustness": pd.DataFrame(changed, columns=["what", "change"]),
        },
        figures={"claims": verdicts.figure()},
        answer=lines,
    )


def verdict_lines(verdicts: Verdicts, claim: str, task: str) -> Iterator[str]:
    """The verdict, and every criterion with its number at each seed."""
    one = verdicts.of(claim, task)
    yield f"{task}, {claim}: {one.verdict} ({rivals_text(one.rivals)})"
    for part in one.criteria:
        seeds = ", ".join(shown(value, part.unit).removesuffix(f" {part.unit}") for value in part.by_seed.values())
        number = f"{part.sentence}, {part.state}; by seed {seeds}" if part.by_seed else f"{part.name} {part.state}"
        yield f"    {number}"


def words(verdicts: Verdicts) -> Words:
    """The word of every verdict."""
    return {(one.claim, one.task): one.verdict for one in verdicts.verdicts}


def differing(declared: Words, other: Words) -> list[str]:
    """The verdicts that are not the same, in words."""
    return [
        f"{key[1]}, {key[0]}: {declared[key]} becomes {other[key]}" for key in declared if declared[key] != other[key]
    ]


def renumbered(evidence: Evidence) -> Evidence:
    """The same evidence with the seeds of each look in the opposite order; everything drawn for them is drawn anew."""
    seed = evidence.table["run_seed"]
    return Evidence(evidence.table.assign(run_seed=seed - 2 * (seed % STAGE) + STAGE - 1), evidence.runs)


def shuffled(evidence: Evidence) -> Evidence:
    """The same rows in another order; nothing at all may change."""
    return Evidence(evidence.table.sample(frac=1, random_state=0), evidence.runs)


if __name__ == "__main__":
    script(main, __doc__)
