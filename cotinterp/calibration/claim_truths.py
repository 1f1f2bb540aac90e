"""Does the verdict engine judge right? Asked where the verdict is known: of handmade models and of made-up worlds.

Handmade models are measured as trained ones are, so a wrong verdict on them may be the fault of an instrument, of a
statistic or of a rule. Made-up worlds have known numbers, so that there it can only be that of a statistic or a rule.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cotinterp.calibration import claim_subjects
from cotinterp.calibration.calibrate import CalibrationResult, Row
from cotinterp.calibration.claim_subjects import Draft
from cotinterp.calibration.claim_worlds import SPREAD, TASK, MadeUp, made_up_worlds
from cotinterp.calibration.verdict_level import synthetic
from cotinterp.claims.catalog import CATALOG
from cotinterp.claims.claim import Claim
from cotinterp.claims.judge import judge, judge_all
from cotinterp.claims.verdict import Verdict
from cotinterp.studies.answers import answers, edits
from cotinterp.studies.evidence import Evidence
from cotinterp.studies.measuring import Measure
from cotinterp.studies.readiness import readiness
from cotinterp.studies.reads import families, knock_outs
from cotinterp.studies.subject import QUICK_EVIDENCE
from cotinterp.sweeps.replication import gather_subjects

HANDMADE_TASK = "z6"
LEAST = replace(QUICK_EVIDENCE, edited=6, paired=8, ready=8, traces=2)
"""Handmade models are as clear in a few problems as in many."""
MEASURES: tuple[Measure, ...] = (answers, edits, families, knock_outs, readiness)
"""All but the probes: handmade models answer out of their last layer, before which a total is nowhere."""


@dataclass(frozen=True)
class Handmade:
    """Models of a known mechanism and what is therefore so.

    Attributes:
        drafts: What the model of each regime is.
        truths: By claim, the verdict and the rivals left standing, as `told` puts them.
        measures: What is measured of them.
        memory: Models of random labels are measured as well, tables all of them.
    """

    name: str
    drafts: Mapping[str, Draft]
    truths: Mapping[str, str]
    measures: tuple[Measure, ...] = MEASURES
    memory: bool = False

    def evidence(self, quick: bool) -> Evidence:
        """Measured on every model."""
        subjects = claim_subjects.world(self.drafts, HANDMADE_TASK)
        if self.memory:
            subjects += claim_subjects.world({"direct": claim_subjects.table}, "random-labels")
        return gather_subjects(subjects, LEAST if quick else QUICK_EVIDENCE, self.measures)


HANDMADE = (
    Handmade(
        "reader; table",
        {"cot": claim_subjects.reader, "direct": claim_subjects.table},
        {
            "cot-reads-written-totals": "supported; stands: none",
            "direct-is-lookup": "supported; stands: none",
            "wrong-steps-anchor-wrong-answers": "supported; stands: none",
            # It makes no errors, of whatever kind.
            "errors-are-bookkeeping": "inconclusive",
        },
        memory=True,
    ),
    Handmade(
        "recomputer; parallel",
        {"cot": claim_subjects.recomputer, "direct": claim_subjects.parallel},
        {
            "cot-reads-written-totals": "not supported; stands: ignores the trace, recomputes from the prompt",
            "direct-is-lookup": "not supported; stands: parallel or algebraic algorithm",
            "wrong-steps-anchor-wrong-answers": "not supported; stands: decoration",
            "gap-widens": "not supported; stands: no gap",
            "errors-are-bookkeeping": "inconclusive",
        },
    ),
    Handmade(
        "reader; table, right at two operands",
        {"cot": claim_subjects.reader, "direct": claim_subjects.short_table},
        {"gap-widens": "supported; stands: none"},
        measures=(answers,),
    ),
)


def told(verdict: Verdict) -> str:
    """A verdict as the table of calibration has it: its word and, where it has one, the rivals that stand."""
    if verdict.verdict == "inconclusive":
        return verdict.verdict
    rivals = (rival.rsplit(": ", 1) for rival in verdict.rivals.split("; ") if rival)
    return _told(verdict.verdict, [name for name, state in rivals if state == "stands"])


def truth_of(world: MadeUp) -> str:
    """What `told` must say of the verdict on a made-up world."""
    return world.verdict if world.verdict == "inconclusive" else _told(world.verdict, world.standing)


def calibrate_claims(
    *,
    quick: bool = False,
    handmade: Sequence[Handmade] = HANDMADE,
    made_up: Sequence[MadeUp] | None = None,
    progress: Callable[[Row], None] | None = None,
    catalog: Sequence[Claim] = CATALOG,
) -> CalibrationResult:
    """Every claim in every world in which its verdict is known.

    Args:
        quick: Handmade models are asked fewer problems; the truths are the same.
        made_up: By default all.
        progress: Called with each row as it is found.
    """
    worlds = made_up_worlds() if made_up is None else tuple(made_up)
    rows = []
    for row in _rows(handmade, worlds, quick, catalog):
        rows.append(row)
        if progress is not None:
            progress(row)
    return CalibrationResult(tuple(rows))


def judge_made_up(world: MadeUp, rng: np.random.Generator, catalog: Sequence[Claim] = CATALOG) -> Verdict:
    """The verdict on the claim that a made-up world is about, in one draw from it."""
    (claim,) = (one for one in catalog if one.name == world.claim)
    return judge(claim, synthetic(TASK, world.cells, seeds=range(world.seeds), spread=SPREAD, rng=rng))


def _rows(
    handmade: Sequence[Handmade], made_up: Sequence[MadeUp], quick: bool, catalog: Sequence[Claim]
) -> Iterator[Row]:
    for of_models in handmade:
        asked = [claim for claim in catalog if claim.name in of_models.truths]
        verdicts = judge_all(asked, of_models.evidence(quick), tasks=(HANDMADE_TASK,))
        for claim, truth in of_models.truths.items():
            yield _row("claim of handmade models", of_models.name, truth, verdicts.of(claim, HANDMADE_TASK))
    for world in made_up:
        verdict = judge_made_up(world, np.random.default_rng(0), catalog)
        yield _row("claim of a made-up world", world.name, truth_of(world), verdict)


def _row(instrument: str, name: str, truth: str, verdict: Verdict) -> Row:
    return Row(instrument, name, verdict.claim, truth, told(verdict), "not asked", verdict.reason)


def _told(word: str, standing: Sequence[str] | frozenset[str]) -> str:
    return f"{word}; stands: {', '.join(sorted(standing)) or 'none'}"
