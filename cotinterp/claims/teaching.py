"""The claims about ways of teaching, each with its numbers, its rivals, and the control of the same phases.

They are judged on the part `curricula` of a plan (`sweeps.designs`), as `studies.measuring.as_taught` measures it: a
variant is a curriculum (`training.curriculum`), empty for `direct` as it is, and behind a name `-control` the same
phases with dots in place of the content, or with the states of other problems in place of the teacher's. `exact` counts
a response that is right in every symbol: a model that writes its trace where it was asked for the answer has not
answered at once. Thresholds stand in `claims.claim.THRESHOLDS`.
"""

from functools import partial

import numpy as np

from cotinterp.claims.cells import Cells, MissingEvidence, Values
from cotinterp.claims.claim import Claim, Criterion, Rival, control, criterion
from cotinterp.claims.statistics import (
    average,
    cot_accuracy,
    difference,
    net_at,
    net_decodable,
    over_lengths,
    slope_over,
    used_in,
)
from cotinterp.studies.evidence import CONTROL_VARIANT, TEACHER_VARIANT, ProbeCondition

DIRECT, MIXED, NAIVE, INTERNALIZED, DISTILLED = "", "mixed-50", "naive", "internalize", "hidden-states"
NOTES = "nanodistill's notes on thinking traces"


def asked_in(cells: Cells, variant: str) -> str:
    """The regime in which the runs of a curriculum are asked for their answer at once."""
    found = [regime for regime in ("direct", "direct-mode") if variant in cells.variants(regime)]
    if not found:
        there = sorted({name for regime in ("direct", "direct-mode") for name in cells.variants(regime)})
        raise MissingEvidence(f"no run was taught {variant!r}; ways of teaching that were measured: {there}")
    return found[0]


def exact(cells: Cells, variant: str, condition: str = "asked") -> Values:
    """Share of new problems whose whole response is right, `over_lengths`.

    Asked for the answer at once (`asked`), or for the trace and the answer (`trace`).
    """
    return over_lengths(cells, "exact", regime=asked_in(cells, variant), condition=condition, variant=variant)


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


FAINT = 0.05
"""Net probe accuracy below which a total counts as not there at all, when it is asked from which layer on it is."""


def _by_layer(cells: Cells, variant: str) -> dict[int, list[Values]]:
    """By step j before the answer: `net_at` of s_j where the answer is predicted, at each layer's input and the end."""
    regime, last = asked_in(cells, variant), "prompt_end"
    layers = cells.n_layers(regime, variant)
    sites = [*(f"L{layer}.resid_pre" for layer in range(layers)), f"L{layers - 1}.resid_post"]
    probed = ProbeCondition(model="trained", site=sites[0], place=last)
    steps = cells.steps("probe", regime=regime, condition=probed, variant=variant)[:-1]
    if not steps:
        raise MissingEvidence(f"{variant!r} was probed on problems without a total before the answer: ask for longer")
    return {step: [net_at(cells, regime, last, site, step, variant) for site in sites] for step in steps}


def totals_at_answer(cells: Cells, variant: str) -> Values:
    """`net_at` of the totals before the answer, where it is predicted, each at its best layer; mean over steps."""
    return average([np.max(np.broadcast_arrays(*nets), axis=0) for nets in _by_layer(cells, variant).values()])


def layers_a_step(cells: Cells, variant: str) -> Values:
    """By how many layers a total appears after the one of the step before it, where the answer is predicted.

    The slope over steps of the layer at which s_j appears: the sum, over the inputs of all layers, of the part of its
    final net accuracy (the highest at or below a layer; at least FAINT at the end) that is not reached yet. A total
    that never appears counts as appearing above the last layer.
    """
    found = {}
    for step, nets in _by_layer(cells, variant).items():
        reached = np.maximum.accumulate(np.stack(np.broadcast_arrays(*nets)).clip(min=0), axis=0)
        found[step] = (1 - reached[:-1] / reached[-1].clip(min=FAINT)).sum(axis=0)
    return slope_over(list(found), list(found.values()))


def used_at_answer(cells: Cells, variant: str) -> Values:
    """Share of the gap that exchanging what the probe reads of a total before the answer closes, where it is predicted.

    Beyond random directions, each total at the input of the layer where it does most, the first layer's left out; mean
    over steps.
    """
    regime = asked_in(cells, variant)
    of = partial(cells.mean, "probe_use", regime=regime, variant=variant)
    sites = [f"L{layer}.resid_pre" for layer in range(1, cells.n_layers(regime, variant))]
    conditions = [ProbeCondition(site=site, place="prompt_end") for site in sites]
    if not conditions:
        raise MissingEvidence(f"{variant!r} has one layer, before which nothing is computed")
    steps = cells.steps("probe_use", regime=regime, condition=conditions[0], variant=variant)[:-1]
    if not steps:
        raise MissingEvidence(f"of {variant!r} no total before the answer was exchanged (uses_on_the_way)")
    best = [np.max(np.broadcast_arrays(*(of(condition=at, step=step) for at in conditions)), axis=0) for step in steps]
    return average(best)


def _gain(variant: str) -> Criterion:
    return criterion("gain", f"right at once, taught {variant}, beyond direct", partial(gain, variant=variant))


def _content(variant: str, other: str = "dots in the same phases") -> Criterion:
    return criterion(
        "content-gain",
        f"right at once, taught {variant}, beyond {other}",
        partial(beyond_control, variant=variant),
    )


_WRITES = control(
    "writes-it",
    "whole traces of new problems that are right",
    partial(exact, variant=MIXED, condition="trace"),
    "above",
)

NAIVE_HURTS = Claim(
    name="naive-training-hurts",
    statement="Trained on traces and asked for the answer at once, a model does worse than one that never saw a trace.",
    source=f"{NOTES}: decoder, naive",
    criteria=(
        criterion("lost-at-once", "right at once of direct beyond naive", partial(lost, variant=NAIVE)),
        criterion("leaks", "responses of naive that begin a trace", partial(leakage, variant=NAIVE), bounds=(0.0, 1.0)),
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
    criteria=(
        criterion("trace-gain", "right with the trace beyond right at once", partial(trace_gain, variant=MIXED)),
    ),
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
        criterion(
            "totals-inside", "probe for s_j at operand j, net of controls", partial(totals_inside, variant=MIXED)
        ),
        criterion("totals-gain", "the same beyond dots in its place", partial(totals_beyond_control, variant=MIXED)),
        criterion(
            "totals-used",
            "share of the gap that exchanging it closes",
            partial(totals_used, variant=MIXED),
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

DISTILLATION_HELPS = Claim(
    name="hidden-state-distillation-helps",
    statement="Drawn toward the states of a model that writes the trace, a model answers better at once, because of "
    "what those states say of the problem.",
    source=f"{NOTES}: decoder, hidden-state distillation; Deng et al. 2023 (arXiv 2311.01460)",
    criteria=(_content(DISTILLED, "the states of other problems"), _gain(DISTILLED)),
    predicts={"content-gain": "above", "gain": "above"},
    rivals=(
        Rival(
            "any states, not their content",
            "the states of other problems do as much",
            {"content-gain": "below", "gain": "above"},
        ),
        Rival("no help", "direct as it is does as well", {"content-gain": "below", "gain": "below"}),
    ),
    controls=(
        control(
            "teacher-writes-it",
            "accuracy of the teacher",
            partial(cot_accuracy, variant=TEACHER_VARIANT),
            "above",
        ),
    ),
    decisive=frozenset({"content-gain"}),
    evidence=("curricula",),
    limits="One weight of the loss, every layer, and one stage where the authors have three; equal updates.",
)


def _is_vertical(name: str, variant: str, words: str, source: str) -> Claim:
    """That a model taught so computes from layer to layer, where it answers."""
    return Claim(
        name=name,
        statement=f"Where a model {words} answers at once, the totals before the answer appear one layer after the "
        "other, and are used.",
        source=source,
        criteria=(
            criterion(
                "at-the-answer",
                "probe for the totals before the answer, where it is predicted, net of controls",
                partial(totals_at_answer, variant=variant),
            ),
            criterion(
                "order",
                "layers by which a total there appears after the one before it",
                partial(layers_a_step, variant=variant),
                "",
            ),
            criterion(
                "used-at-the-answer",
                "share of the gap that exchanging them there closes",
                partial(used_at_answer, variant=variant),
                "",
            ),
            criterion(
                "at-operands", "probe for s_j at operand j, net of controls", partial(totals_inside, variant=variant)
            ),
        ),
        predicts={"at-the-answer": "above", "order": "above", "used-at-the-answer": "above"},
        rivals=(
            Rival(
                "only the answer is there",
                "no total before it can be read, there or at the operands",
                {"at-the-answer": "below", "at-operands": "below"},
            ),
            Rival(
                "from left to right",
                "totals lie at the operands and not at the answer",
                {"at-the-answer": "below", "at-operands": "above"},
            ),
            Rival("all at one layer", "no order among them", {"at-the-answer": "above", "order": "below"}),
            Rival(
                "there and not used",
                "decodable one after the other, and nothing reads them",
                {"at-the-answer": "above", "order": "above", "used-at-the-answer": "below"},
            ),
        ),
        controls=(
            control(
                "answers-at-once",
                "right at once",
                partial(exact, variant=variant),
                "above",
            ),
        ),
        decisive=frozenset({"at-the-answer"}),
        evidence=("curricula",),
        limits="Totals of a left fold, in linear form, at four operands: another algorithm has others. That teaching "
        "put them there is not asked; direct as it is may hold them, too.",
    )


VERTICAL = (
    _is_vertical(
        "internalized-computation-is-vertical",
        INTERNALIZED,
        "whose trace was internalized step by step",
        f"{NOTES}: reasoning goes vertically, through layers; Deng et al. 2024 (arXiv 2405.14838)",
    ),
    _is_vertical(
        "distilled-computation-is-vertical",
        DISTILLED,
        "that was drawn toward the states along a trace",
        f"{NOTES}: reasoning goes vertically, through layers; Deng et al. 2023 (arXiv 2311.01460)",
    ),
)

TEACHING = (
    *(NAIVE_HURTS, MIXED_HELPS, CURRICULUM_NOT_CONTENT, TRACE_HELPS_MOST, LEAVES_TOTALS),
    *(DISTILLATION_HELPS, *VERTICAL),
)
"""All of them: `cotinterp claims --claim teaching --from checkpoints --train --part curricula --task TASK`."""
