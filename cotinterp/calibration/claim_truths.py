"""Does the verdict engine judge right? Asked where the verdict is known: of handmade models and of made-up worlds.

Handmade models are measured as trained ones are, so a wrong verdict on them may be the fault of an instrument, of a
statistic or of a rule. Made-up worlds have known numbers, so that there it can only be that of a statistic or a rule.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cotinterp.calibration.calibrate import CalibrationResult, CalibrationRow
from cotinterp.calibration.claim_worlds import SPREAD, TASK, MadeUpWorld, made_up_worlds
from cotinterp.calibration.ground_truth import (
    Draft,
    half_reader_draft,
    handmade_world,
    parallel_draft,
    reader_draft,
    recomputer_draft,
    short_table_draft,
    table_draft,
)
from cotinterp.calibration.verdict_level import synthetic
from cotinterp.claims.catalog import EVERY
from cotinterp.claims.claim import Claim
from cotinterp.claims.judge import judge, judge_all
from cotinterp.claims.verdict import Verdict
from cotinterp.models.handmade.recomputer import answer_copied, every_other_step, two_steps_back
from cotinterp.studies.answers import answers, edits
from cotinterp.studies.evidence import Evidence
from cotinterp.studies.measuring import Measure
from cotinterp.studies.readiness import readiness
from cotinterp.studies.reads import families, knock_outs
from cotinterp.studies.subject import QUICK_EVIDENCE
from cotinterp.sweeps.replication import gather_subjects

HANDMADE_TASK = "z6"
LEAST = replace(QUICK_EVIDENCE, edited=24, paired=8, ready=8, traces=2)
"""Handmade models are as clear in a few problems as in many, but for the share of edits that a half reader follows."""
MEASURES: tuple[Measure, ...] = (answers, edits, families, knock_outs, readiness)
"""All but the probes: handmade models answer out of their last layer, before which a total is nowhere."""


@dataclass(frozen=True)
class Handmade:
    """Models of a known mechanism and what is therefore so.

    Attributes:
        drafts: What the model of each regime is.
        truths: By claim, the verdict and the rivals that stand, as `verdict_text` has them.
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
        subjects = handmade_world(self.drafts, HANDMADE_TASK)
        if self.memory:
            subjects += handmade_world({"direct": table_draft}, "random-labels")
        return gather_subjects(subjects, LEAST if quick else QUICK_EVIDENCE, self.measures)


HANDMADE = (
    Handmade(
        "reader; table",
        {"cot": reader_draft, "direct": table_draft},
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
        {"cot": recomputer_draft, "direct": parallel_draft},
        {
            "cot-reads-written-totals": "not supported; stands: recomputes from the prompt",
            "direct-is-lookup": "not supported; stands: parallel or algebraic algorithm",
            "wrong-steps-anchor-wrong-answers": "not supported; stands: decoration",
            "gap-widens": "not supported; stands: no gap",
            "errors-are-bookkeeping": "inconclusive",
        },
    ),
    Handmade(
        "copies its answer from the last total, which it recomputes",
        {"cot": half_reader_draft(answer_copied)},
        {
            "cot-reads-written-totals": "not supported; stands: recomputes from the prompt",
            "wrong-steps-anchor-wrong-answers": "not supported; stands: only the last total counts",
        },
    ),
    Handmade(
        "reads every other total",
        {"cot": half_reader_draft(every_other_step)},
        {
            "cot-reads-written-totals": "partly supported; stands: none",
            "wrong-steps-anchor-wrong-answers": "not supported; stands: only the last total counts",
        },
    ),
    Handmade(
        "reads the total before the last",
        {"cot": half_reader_draft(two_steps_back)},
        {
            "cot-reads-written-totals": "not supported; stands: recomputes from the prompt",
            "wrong-steps-anchor-wrong-answers": "partly supported; stands: only some totals count",
        },
    ),
    Handmade(
        "reader; table, right at two operands",
        {"cot": reader_draft, "direct": short_table_draft},
        {"gap-widens": "supported; stands: none"},
        measures=(answers,),
    ),
)


def verdict_text(verdict: Verdict) -> str:
    """A verdict as the table of calibration has it: its word and, where it has one, the rivals that stand."""
    return _text(verdict.verdict, [rival.name for rival in verdict.rivals if rival.state == "stands"])


def expected_text(world: MadeUpWorld) -> str:
    """What `verdict_text` must say of the verdict on a made-up world."""
    return _text(world.verdict, world.stands)


def calibrate_claims(
    *,
    quick: bool = False,
    handmade: Sequence[Handmade] = HANDMADE,
    made_up: Sequence[MadeUpWorld] | None = None,
    progress: Callable[[CalibrationRow], None] | None = None,
    catalog: Sequence[Claim] = EVERY,
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


def judge_made_up(world: MadeUpWorld, rng: np.random.Generator, catalog: Sequence[Claim] = EVERY) -> Verdict:
    """The verdict on the claim that a made-up world is about, in one draw from it."""
    (claim,) = (one for one in catalog if one.name == world.claim)
    return judge(claim, synthetic(TASK, world.cells, seeds=range(world.seeds), spread=SPREAD, rng=rng))


def _rows(
    handmade: Sequence[Handmade], made_up: Sequence[MadeUpWorld], quick: bool, catalog: Sequence[Claim]
) -> Iterator[CalibrationRow]:
    for of_models in handmade:
        asked = [claim for claim in catalog if claim.name in of_models.truths]
        verdicts = judge_all(asked, of_models.evidence(quick), tasks=(HANDMADE_TASK,))
        for claim, truth in of_models.truths.items():
            yield _row("claim of handmade models", of_models.name, truth, verdicts.of(claim, HANDMADE_TASK))
    for world in made_up:
        verdict = judge_made_up(world, np.random.default_rng(0), catalog)
        yield _row("claim of a made-up world", world.name, expected_text(world), verdict)


def _row(instrument: str, name: str, truth: str, verdict: Verdict) -> CalibrationRow:
    return CalibrationRow(instrument, name, verdict.claim, truth, verdict_text(verdict), "not asked", verdict.reason)


def _text(word: str, stands: Collection[str]) -> str:
    return word if word == "inconclusive" else f"{word}; stands: {', '.join(sorted(stands)) or 'none'}"
