"""The claims about ways of teaching, each with its numbers, its rivals, and the control of the same phases.

They are judged on what `studies.measuring.as_taught` measures of runs of `sweeps.replication.taught_plan`: a variant is
a curriculum (`training.curriculum`), empty for `direct` as it is, and behind a name `-control` the same phases with
dots in place of the content. `exact` counts a response that is right in every symbol: a model that writes its trace
where it was asked for the answer has not answered at once. Thresholds stand in `claims.claim.THRESHOLDS`.
"""

from functools import partial

from cotinterp.claims.cells import Cells, MissingEvidence, Values
from cotinterp.claims.claim import SOLVED, Claim, Control, Criterion, Rival
from cotinterp.claims.claim import THRESHOLDS as AT
from cotinterp.claims.statistics import SHORTEST, average, difference, net_decodable, used_in
from cotinterp.studies.evidence import CONTROL_VARIANT

DIRECT, MIXED, NAIVE, INTERNALIZED = "", "mixed-50", "naive", "internalize"
NOTES = "nanodistill's notes on thinking traces"


def asked_in(cells: Cells, variant: str) -> str:
    """The regime in which the runs of a curriculum are asked for their answer at once."""
    found = [regime for regime in ("direct", "direct-mode") if variant in cells.variants(regime)]
    if not found:
        there = sorted({name for regime in ("direct", "direct-mode") for name in cells.variants(regime)})
        raise MissingEvidence(f"no run was taught {variant!r}; ways of teaching that were measured: {there}")
    return found[0]


def exact(cells: Cells, variant: str, condition: str = "asked") -> Values:
    """Share of new problems whose whole response is right, mean over K from SHORTEST on.

    Asked for the answer at once (`asked`), or for the trace and the answer (`trace`).
    """
    of = partial(cells.mean, "exact", regime=asked_in(cells, variant), condition=condition, variant=variant)
    ks = cells.ks("exact", regime=asked_in(cells, variant), condition=condition, variant=variant)
    return average([of(k=k) for k in ks if k >= SHORTEST] or [of(k=k) for k in ks])


def gain(cells: Cells, variant: str) -> Values:
    """Right at once beyond `direct` as it is."""
    return difference(exact(cells, variant), exact(cells, DIRECT))


def lost(cells: Cells, variant: str) -> Values:
    """The same, where it is a loss."""
    return -gain(cells, variant)


def beyond_control(cells: Cells, variant: str) -> Values:
    """Right at once beyond the control of the same phases: what the content of the traces is worth."""
    return difference(exact(cells, variant), exact(cells, variant + CONTROL_VARIANT))


def trace_gain(cells: Cells, variant: str) -> Values:
    """Right with the trace beyond right at once, of the same models."""
    return difference(exact(cells, variant, "trace"), exact(cells, variant))


def leakage(cells: Cells, variant: str) -> Values:
    """Share of new problems to which the response begins a trace that was not asked for."""
    return cells.mean("leakage", regime=asked_in(cells, variant), variant=variant)


def totals_inside(cells: Cells, variant: str) -> Values:
    """Probe accuracy for s_j at operand j beyond its controls (`statistics.net_decodable`), in the prompt."""
    return net_decodable(cells, asked_in(cells, variant), "operand", variant)


def totals_beyond_control(cells: Cells, variant: str) -> Values:
    """The same minus that of the control of the same phases."""
    return difference(totals_inside(cells, variant), totals_inside(cells, variant + CONTROL_VARIANT))


def totals_used(cells: Cells, variant: str) -> Values:
    """Share of the gap that exchanging what the probe reads closes (`statistics.used_in`), in the prompt."""
    return used_in(cells, asked_in(cells, variant), "operand", variant)


def _points(name: str, words: str, statistic: partial[Values], *, share: bool = False) -> Criterion:
    return Criterion(name, words, statistic, AT[name], bounds=(0.0, 1.0) if share else (-1.0, 1.0))


def _gain(variant: str) -> Criterion:
    return _points("gain", f"right at once, taught {variant}, beyond direct", partial(gain, variant=variant))


def _content(variant: str) -> Criterion:
    return _points(
        "content-gain",
        f"right at once, taught {variant}, beyond dots in the same phases",
        partial(beyond_control, variant=variant),
    )


_WRITES = Control(
    "writes-it",
    "whole traces of new problems that are right",
    partial(exact, variant=MIXED, condition="trace"),
    SOLVED,
    "above",
)

NAIVE_HURTS = Claim(
    name="naive-training-hurts",
    statement="Trained on traces and asked for the answer at once, a model does worse than one that never saw a trace.",
    source=f"{NOTES}: decoder, naive",
    criteria=(
        _points("lost-at-once", "right at once of direct beyond naive", partial(lost, variant=NAIVE)),
        _points("leaks", "responses of naive that begin a trace", partial(leakage, variant=NAIVE), share=True),
    ),
    predicts={"lost-at-once": "above", "leaks": "above"},
    rivals=(
        Rival("it does not matter", "the answer comes as well", {"lost-at-once": "below"}),
        Rival(
            "it cannot, in any format",
            "no trace is begun, and no answer right",
            {"lost-at-once": "above", "leaks": "below"},
        ),
    ),
    evidence=("curricula",),
    limits="The cue for both ways is the end of the prompt; nothing tells the model which is wanted.",
)

MIXED_HELPS = Claim(
    name="mixed-training-helps",
    statement="Shown traces beside answers, a model answers better at once, because of what the traces say.",
    source=f"{NOTES}: decoder, multi-task; Hsieh et al. 2023 (arXiv 2305.02301)",
    criteria=(_content(MIXED), _gain(MIXED)),
    predicts={"content-gain": "above", "gain": "above"},
    rivals=(
        Rival(
            "the phases, not the content",
            "dots in place of totals do as much",
            {"content-gain": "below", "gain": "above"},
        ),
        Rival("no help", "direct as it is does as well", {"content-gain": "below", "gain": "below"}),
    ),
    controls=(_WRITES,),
    decisive=frozenset({"content-gain"}),
    evidence=("curricula",),
    limits="Equal updates, half of the problems of each batch in either way; other shares are other curricula.",
)

CURRICULUM_NOT_CONTENT = Claim(
    name="curriculum-not-content",
    statement="What stepwise internalization gains at once, its phases gain with dots in place of the totals.",
    source="Hao et al. 2024 (arXiv 2412.06769), whose pause tokens under the same curriculum did nearly as well",
    criteria=(_content(INTERNALIZED), _gain(INTERNALIZED)),
    predicts={"content-gain": "below", "gain": "above"},
    rivals=(
        Rival("content", "what the totals say is what helps", {"content-gain": "above", "gain": "above"}),
        Rival("no gain", "direct as it is does as well", {"gain": "below"}),
    ),
    evidence=("curricula",),
    limits="Internalization has more updates than direct; its control has as many.",
)

TRACE_HELPS_MOST = Claim(
    name="trace-helps-most",
    statement="A model that was shown both is right more often with its trace than at once.",
    source=f"{NOTES}: decoder, chain of thought at inference",
    criteria=(_points("trace-gain", "right with the trace beyond right at once", partial(trace_gain, variant=MIXED)),),
    predicts={"trace-gain": "above"},
    rivals=(Rival("at once is as good", "nothing is left to gain", {"trace-gain": "below"}),),
    controls=(_WRITES,),
    evidence=("curricula",),
    limits="One model, asked in both ways; two models of one regime each are another comparison (gap-widens).",
)

LEAVES_TOTALS = Claim(
    name="rationale-training-leaves-running-totals",
    statement="A model that was shown traces holds and uses running totals where it is asked for the answer at once.",
    source=f"{NOTES}: the rationale loss shapes shared hidden states",
    criteria=(
        _points("totals-inside", "probe for s_j at operand j, net of controls", partial(totals_inside, variant=MIXED)),
        _points("totals-gain", "the same beyond dots in its place", partial(totals_beyond_control, variant=MIXED)),
        Criterion(
            "totals-used",
            "share of the gap that exchanging it closes",
            partial(totals_used, variant=MIXED),
            AT["totals-used"],
            "",
        ),
    ),
    predicts={"totals-inside": "above", "totals-gain": "above", "totals-used": "above"},
    rivals=(
        Rival("no totals inside", "none are there to be used", {"totals-inside": "below"}),
        Rival("dots leave them, too", "answers alone teach them", {"totals-inside": "above", "totals-gain": "below"}),
        Rival(
            "there and not used",
            "decodable, and nothing reads it",
            {"totals-inside": "above", "totals-gain": "above", "totals-used": "below"},
        ),
    ),
    controls=(_WRITES,),
    evidence=("curricula",),
    limits="One site, the input of the last layer, and the operands: a total may be held elsewhere, or the algorithm "
    "may be no left fold.",
)

TEACHING = (NAIVE_HURTS, MIXED_HELPS, CURRICULUM_NOT_CONTENT, TRACE_HELPS_MOST, LEAVES_TOTALS)
"""All of them: `cotinterp claims --claim teaching --tables FOLDER`."""
