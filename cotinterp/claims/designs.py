"""Claims about what is trained, and of what shape: adapters, positions, an encoder; each with its numbers and rivals.

They are judged on the parts `adapters`, `positions` and `encoder` of a plan (`sweeps.designs`), and compare runs of one
part alone. Thresholds stand in `claims.claim.THRESHOLDS`.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np

from cotinterp.claims.cells import Cells, MissingEvidence, Values
from cotinterp.claims.claim import Claim, Rival, control, criterion
from cotinterp.claims.statistics import accuracy, average, cot_accuracy, difference, over_lengths
from cotinterp.studies.evidence import BEYOND, ENCODER_VARIANT, OTHER_START, POSITIONS_VARIANT, SAME_START, WITHOUT

NOTES = "nanodistill's notes on thinking traces"
ASKED = {OTHER_START: "cot", SAME_START: "totals"}
"""By the model that was begun with: the regime that was then taught."""
DISTANCES, PLACES, NOTHING = ("rotary", "alibi"), ("standard", "sinusoidal"), ("none",)
"""Schemes of positions: those that say how far apart two symbols are, those that number places, and none."""


def all_weights(cells: Cells, start: str) -> Values:
    """Accuracy of the runs in which all weights were trained, from that start."""
    return accuracy(cells, ASKED[start], f"{start}all")


def all_weights_learn(cells: Cells) -> Values:
    """The lower of the two, by start."""
    found: Values = np.minimum(*(all_weights(cells, start) for start in ASKED))
    return found


def lost_by_adapter(cells: Cells, start: str) -> Values:
    """Accuracy of training all weights minus that of an adapter at the better of its rates, from the same start."""
    regime = ASKED[start]
    names = [name for name in cells.variants(regime) if name.startswith(f"{start}rank")]
    if not names:
        raise MissingEvidence(f"no adapter {start}rank... in the regime {regime!r} was measured (--part adapters)")
    best = np.max(np.broadcast_arrays(*(accuracy(cells, regime, name) for name in names)), axis=0)
    return difference(all_weights(cells, start), best)


def beyond(cells: Cells, regime: str, schemes: Sequence[str]) -> Values:
    """Accuracy at lengths beyond those of training, mean over lengths and schemes of positions."""
    found = []
    for variant in (f"{POSITIONS_VARIANT}{scheme}" for scheme in schemes):
        of = partial(cells.mean, "accuracy", regime=regime, condition=BEYOND, variant=variant)
        found += [of(k=k) for k in cells.ks("accuracy", regime=regime, condition=BEYOND, variant=variant)]
    return average(found)


def beyond_places(cells: Cells, schemes: Sequence[str]) -> Values:
    """The same with the trace, minus that of schemes that number places."""
    return difference(beyond(cells, "cot", schemes), beyond(cells, "cot", PLACES))


def trace_beyond(cells: Cells) -> Values:
    """The same with the trace minus that at once, over all schemes."""
    schemes = (*DISTANCES, *PLACES, *NOTHING)
    return difference(beyond(cells, "cot", schemes), beyond(cells, "direct", schemes))


def within(cells: Cells) -> Values:
    """Accuracy with the trace at lengths of training, mean over schemes."""
    return average([cot_accuracy(cells, f"{POSITIONS_VARIANT}{name}") for name in (*DISTANCES, *PLACES, *NOTHING)])


def unread_gain(cells: Cells) -> Values:
    """Accuracy of an encoder with rationales in its data that it never reads, minus that of one without any."""
    return difference(*(accuracy(cells, name, ENCODER_VARIANT) for name in ("label-trace-unread", "label")))


def without_it(cells: Cells) -> Values:
    """Accuracy without a rationale of an encoder that had one in its input in training."""
    way = {"regime": "label-after-trace", "variant": ENCODER_VARIANT}
    return over_lengths(cells, "accuracy", condition=WITHOUT, **way)


def with_it(cells: Cells) -> Values:
    """Accuracy of the same one with its rationale."""
    return accuracy(cells, "label-after-trace", ENCODER_VARIANT)


def input_gain(cells: Cells) -> Values:
    """Accuracy without it of that encoder, minus that of one that never had any."""
    return difference(without_it(cells), accuracy(cells, "label", ENCODER_VARIANT))


def missed(cells: Cells) -> Values:
    """Accuracy with it minus that without it."""
    return difference(with_it(cells), without_it(cells))


LORA_HELPS_LESS = Claim(
    name="lora-helps-less",
    statement="On the same updates, an adapter on a frozen model learns less than all of its weights would.",
    source=f"{NOTES}: LoRA brings out what the base can do; Hu et al. 2021 (arXiv 2106.09685): it is as good",
    criteria=(
        criterion(
            "less-new",
            "accuracy of all weights minus that of an adapter, from a model of another task",
            partial(lost_by_adapter, start=OTHER_START),
        ),
        criterion(
            "less-known",
            "the same, from a model of this task to another format of its trace",
            partial(lost_by_adapter, start=SAME_START),
        ),
    ),
    predicts={"less-new": "above", "less-known": "above"},
    rivals=(
        Rival("as good", "an adapter learns either as well", {"less-new": "below", "less-known": "below"}),
        Rival(
            "brings out, teaches nothing",
            "less where the frozen model knows another task, as good where it knows this one",
            {"less-new": "above", "less-known": "below"},
        ),
    ),
    controls=(
        control("all-weights-learn", "accuracy of all weights, the lower of the two", all_weights_learn, "above"),
    ),
    decisive=frozenset({"less-new"}),
    evidence=("adapters",),
    limits="One rank (4), queries and values, at the better of two rates by seed, which favors adapters. Where the "
    "frozen model lacks symbols of the task, its embedding and unembedding are trained beside the adapter.",
)

POSITIONS_DECIDE = Claim(
    name="positions-decide-length",
    statement="With its trace, a model whose positions say distances answers problems longer than those it was trained "
    "on, and one whose positions number places does so less.",
    source="a reader's post: rotary and ALiBi extrapolate; Press et al. 2022 (arXiv 2108.12409)",
    criteria=(
        criterion(
            "relative-gain",
            "accuracy beyond the lengths of training of rotary and ALiBi minus that of learned and sinusoidal",
            partial(beyond_places, schemes=DISTANCES),
        ),
        criterion(
            "none-gain",
            "the same of no positions at all minus that of learned and sinusoidal",
            partial(beyond_places, schemes=NOTHING),
        ),
        criterion("trace-beyond", "the same with the trace minus at once, all schemes", trace_beyond),
    ),
    predicts={"relative-gain": "above"},
    rivals=(
        Rival(
            "none goes furthest",
            "Kazemnejad et al. 2023 (arXiv 2305.19466): leaving positions out does it, distances do not",
            {"relative-gain": "below", "none-gain": "above"},
        ),
        Rival(
            "the trace decides",
            "schemes are alike, and a trace goes further than an answer at once",
            {"relative-gain": "below", "none-gain": "below", "trace-beyond": "above"},
        ),
        Rival(
            "no scheme goes further",
            "schemes are alike, with a trace or at once",
            {"relative-gain": "below", "none-gain": "below", "trace-beyond": "below"},
        ),
    ),
    controls=(control("within", "accuracy with the trace at the lengths of training, all schemes", within, "above"),),
    evidence=("positions",),
    limits="Means over schemes of a kind: one of them may go further than the other. Up to twice the longest problem.",
)

ENCODER_GAINS_NOTHING = Claim(
    name="encoder-gains-nothing",
    statement="Rationales gain an encoder nothing: never read they change nothing, and in the input they are missed "
    "where they do not stand.",
    source=f"{NOTES}: encoder classifier",
    criteria=(
        criterion("missed", "accuracy with the rationale in the input minus without it", missed),
        criterion("unread-gain", "accuracy with rationales never read minus with none", unread_gain),
        criterion(
            "input-gain",
            "accuracy without it, having had it, minus having had none",
            input_gain,
        ),
    ),
    predicts={"missed": "above", "unread-gain": "below", "input-gain": "below"},
    rivals=(
        Rival("unread ones help", "to stand in the data is enough", {"unread-gain": "above"}),
        Rival(
            "what was in the input stays",
            "having had them helps where they are missing",
            {"unread-gain": "below", "input-gain": "above"},
        ),
        Rival(
            "they are not missed",
            "as right without them as with them",
            {"unread-gain": "below", "input-gain": "below", "missed": "below"},
        ),
    ),
    controls=(control("reads-it", "accuracy with the rationale in the input", with_it, "above"),),
    evidence=("encoder",),
    limits="A classifier of two layers that was trained from nothing; where it solves the task by itself nothing could "
    "be gained.",
)

DESIGNS = (LORA_HELPS_LESS, POSITIONS_DECIDE, ENCODER_GAINS_NOTHING)
"""`cotinterp claims --claim designs --from checkpoints --train --part adapters positions encoder --task TASK`."""
