"""Questions about running totals: are they there before they are written, and does the model use them?"""

import numpy as np

from cotinterp.calibration.ground_truth import GroundTruth, InstrumentAnswer, Question, families_of, percent
from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.probing.controls import Controls
from cotinterp.mechanism.probing.linear_probe import LinearProbe
from cotinterp.mechanism.probing.result import ProbeResult
from cotinterp.mechanism.probing.solver import FitOptions
from cotinterp.mechanism.probing.totals import TotalTargets, probe_totals
from cotinterp.mechanism.probing.use import RandomSubspaces, probe_use
from cotinterp.mechanism.sites import Site
from cotinterp.studies.protocol import FAMILIES_STEP, before_total
from cotinterp.transcripts.pairs import operand_pairs
from cotinterp.transcripts.roles import Place, Role, place_words

STEP = FAMILIES_STEP
"""The running total asked about: the sum of three of four operands, written before the last step."""

RENAMINGS = 19


def probed(model: GroundTruth, quick: bool, *places: Place, sites: tuple[Site, ...] = ()) -> ProbeResult:
    """The total of STEP at these places, by default after the last layer."""
    problems = (*model.trained(400 if quick else 700), *model.heldout(100 if quick else 250))
    last = Site("resid_post", int(model.model.cfg.n_layers) - 1)
    return probe_totals(
        model.model,
        model.batch(problems),
        places=places,
        targets=[STEP],
        sites=sites or (last,),
        controls=Controls(task=model.task, n_renamings=RENAMINGS),
        fit=FitOptions(keep=True),
    )


def decodable(result: ProbeResult) -> InstrumentAnswer:
    """`yes` where the scan flags the total at any of the places and sites."""
    found = result.scan().frame()
    top = found.iloc[int(found["accuracy"].argmax())]
    said = "yes" if bool(found["flagged"].any()) else "no"
    return InstrumentAnswer(
        said, f"accuracy {percent(top['accuracy'])}, other labelings up to {percent(top['null_max'])}"
    )


def selective(result: ProbeResult) -> InstrumentAnswer:
    """What the first version says: `yes` where the interval of the selectivity at one of the places lies above 0."""
    found = result.detail()
    found = found[found["site"] != "input"]
    said = "yes" if bool((found["selectivity_low"] > 0).any()) else "no"
    return InstrumentAnswer(said, f"selectivity {found['selectivity'].max():.2f}")


def before_it_is_written(model: GroundTruth, quick: bool) -> InstrumentAnswer:
    """Whether total 2 stands where it is about to be written."""
    return decodable(probed(model, quick, _before_total(model)))


def in_the_prompt(model: GroundTruth, quick: bool) -> InstrumentAnswer:
    """Whether total 2 stands at its operand or at the end of the prompt."""
    return decodable(probed(model, quick, (Role.OPERAND, STEP), (Role.PROMPT_END, -1)))


def in_the_prompt_before(model: GroundTruth, quick: bool) -> InstrumentAnswer:
    """The same by selectivity."""
    return selective(probed(model, quick, (Role.OPERAND, STEP), (Role.PROMPT_END, -1)))


def probe_at(model: GroundTruth, place: Place, target: int, site: Site, quick: bool) -> LinearProbe:
    """A probe for a total at one place, fitted on training problems."""
    batch = model.batch(model.trained(400 if quick else 700))
    result = probe_totals(
        model.model,
        batch,
        sites=[site],
        places=[place],
        targets=TotalTargets(steps=[target], written=True),
        fit=FitOptions(keep=True),
    )
    (cell,) = [cell for cell in result.cells if cell.at.site != "input"]
    assert cell.probe is not None
    return cell.probe


def uses_previous_total(model: GroundTruth, quick: bool) -> InstrumentAnswer:
    """Whether total 2 is computed from total 1 as a probe reads it in what attention brings to where it is predicted.

    The pairs change operand 0 and everything after it, so that whoever is right tells them apart.
    """
    both = families_of(model, 30 if quick else 60)["both"]
    return _used(model, Contrast.from_pairs(both), _before_total(model), quick, target=STEP - 1, kind="attn_out")


def uses_total_in_the_prompt(model: GroundTruth, quick: bool) -> InstrumentAnswer:
    """Whether the answer is computed from the running total that a probe reads at its operand."""
    rng = np.random.default_rng(0)
    problems = model.heldout(30 if quick else 60)
    pairs = operand_pairs(model.task, problems, model.regime, index=1, rng=rng)
    return _used(model, Contrast.from_pairs(pairs), (Role.OPERAND, STEP), quick, target=STEP, kind="resid_post")


def _before_total(model: GroundTruth) -> Place:
    """The place that predicts total STEP."""
    (transcript,) = model.batch(model.heldout(1)).transcripts
    (place,) = before_total(transcript, STEP).values()
    return place


def _used(
    model: GroundTruth, contrast: Contrast, place: Place, quick: bool, *, target: int, kind: str
) -> InstrumentAnswer:
    site = Site.parse(f"L{int(model.model.cfg.n_layers) - 1}.{kind}")
    probe = probe_at(model, place, target, site, quick)
    result = probe_use(
        model.model, contrast, probe, site, place_words(*place), controls=RandomSubspaces(n=20 if quick else 40)
    )
    ((answer, reason),) = result.answers
    return InstrumentAnswer(answer, reason)


def _written(model: GroundTruth) -> str | None:
    if not model.writes_totals:
        return None
    return "no" if model.kind == "untrained" else "yes"


def _prompt(model: GroundTruth) -> str | None:
    return "yes" if model.kind == "parallel" and model.decoy else "no"


def _uses(model: GroundTruth) -> str | None:
    """Only where it can be decoded at all: in the reader and in the decoy."""
    if model.kind == "reader":
        return "used"
    return "not shown to be used" if model.decoy and model.kind == "recomputer" else None


def _uses_in_prompt(model: GroundTruth) -> str | None:
    return "not shown to be used" if model.decoy and model.kind == "parallel" else None


PROBE_QUESTIONS = (
    Question("probes", "is a total there when it is about to be written?", _written, before_it_is_written),
    Question("probes", "is a running total there in the prompt?", _prompt, in_the_prompt, in_the_prompt_before),
    Question("causal use", "is the previous total, as decoded, what the next is made of?", _uses, uses_previous_total),
    Question(
        "causal use",
        "is a total decoded in the prompt what the answer is made of?",
        _uses_in_prompt,
        uses_total_in_the_prompt,
    ),
)
