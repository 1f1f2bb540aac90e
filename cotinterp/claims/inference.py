"""Claims about tokens at inference, and about learning to spend them by reward; each with its numbers and rivals.

They are judged on the parts `search` and `rewards` of a plan (`sweeps.designs`), as `studies.inference` measures them.
Thresholds stand in `claims.claim.THRESHOLDS`.
"""

from collections.abc import Mapping
from functools import partial

import numpy as np

from cotinterp.claims.cells import Cells, MissingEvidence, Values
from cotinterp.claims.claim import LEAST_ERRORS, Claim, Rival, control, criterion
from cotinterp.claims.statistics import accuracy, difference
from cotinterp.studies.evidence import (
    BASE_VARIANT,
    CHOSEN_FROM,
    DEALT_VARIANT,
    LARGE_VARIANT,
    REWARD_VARIANT,
    SEARCH_DRAWS,
    SMALL_VARIANT,
    TWIN_VARIANT,
    SearchCondition,
    VerifierCondition,
)

GREEDY = SearchCondition("greedy")
SHARED, NEVER, EARLY = "10", "0", "early"
"""What a base was shown: traces in a tenth of its examples, in none; nothing but traces, and stopped early."""
TRACED = "cot"
"""The regime in which all of them are asked."""


def small(cells: Cells, condition: SearchCondition, measure: str = "chosen_right") -> Values:
    """Of the small model that writes its steps, at its most operands."""
    return cells.mean(measure, regime="cot", variant=SMALL_VARIANT, condition=condition)


def large(cells: Cells, measure: str = "chosen_right") -> Values:
    """Of the larger one that answers at once, on problems as long."""
    return cells.mean(measure, regime="direct", variant=LARGE_VARIANT, condition=GREEDY)


def paid_votes(cells: Cells) -> SearchCondition:
    """A vote among as many responses as take no more operations, on average, than the larger one's answer."""
    limit = large(cells, "flops").mean()
    paid = [n for n in SEARCH_DRAWS if small(cells, SearchCondition("vote", n), "flops").mean() <= limit]
    if not paid:
        raise MissingEvidence("one response of the small model takes more operations than the larger one's answer")
    return SearchCondition("vote", max(paid))


def equal_flops_gain(cells: Cells) -> Values:
    """Accuracy of that vote minus that of the larger one."""
    return difference(small(cells, paid_votes(cells)), large(cells))


def votes_gain(cells: Cells) -> Values:
    """The same minus that of a single greedy response of the small one, on the same problems."""
    return small(cells, paid_votes(cells), "beyond_greedy")


def times_larger(cells: Cells) -> Values:
    """Learned values of the larger model for each of the small one."""
    sizes = [
        cells.mean("parameters", regime=regime, variant=variant)
        for regime, variant in (("direct", LARGE_VARIANT), ("cot", SMALL_VARIANT))
    ]
    ratio: Values = sizes[0] / sizes[1]
    return ratio


def verifier_gain(cells: Cells, scorer: str, beyond: str = "beyond_vote") -> Values:
    """Accuracy of the response that scores highest minus that of the vote among the same ones, or of the likeliest."""
    return small(cells, SearchCondition("best-of-n", CHOSEN_FROM, scorer), beyond)


def auroc(cells: Cells, scorer: str, of: str = "") -> Values:
    """How often a right step scores higher than a wrong one, up to first errors."""
    return cells.mean("auroc", regime="cot", variant=SMALL_VARIANT, condition=VerifierCondition(scorer, of))


def beyond_text(cells: Cells, of: str = "") -> Values:
    """That of a probe of the middle layer minus that of a classifier of the step's text."""
    return difference(auroc(cells, "probe", of), auroc(cells, "surface"))


def on_shuffled_labels(cells: Cells) -> Values:
    """That of the probe with labels dealt out anew, beyond one half."""
    return auroc(cells, "probe", "shuffled") - 0.5


def next_step_changes(cells: Cells) -> Values:
    """Next steps behind a wrong one that change when the probe's part of a right one is put in, beyond random ones."""
    return cells.mean("verifier_use", regime="cot", variant=SMALL_VARIANT, condition="wrong:changed")


def effects(cells: Cells, begun: str) -> dict[str, Values]:
    """By head, how far patching it turns the logit difference around, of a model begun from the early base."""
    variant = f"{begun}{EARLY}"
    heads = {key.condition for key in cells.index.cells if (key.measure, key.variant) == ("head_effect", variant)}
    of = partial(cells.mean, "head_effect", regime=TRACED, variant=variant)
    return {head: of(condition=head) for head in sorted(heads)} or {"": of()}


def largest_effect(cells: Cells, begun: str) -> Values:
    """The largest of them: what a single head carries of a changed total to the next one."""
    found: Values = np.max(np.broadcast_arrays(*effects(cells, begun).values()), axis=0)
    return found


def _shares(found: Mapping[str, Values]) -> dict[str, Values]:
    """Of what heads carry together, the part of each; effects below 0 count as none."""
    positive = {head: np.maximum(values, 0.0) for head, values in found.items()}
    total = np.maximum(sum(positive.values(), np.zeros(1)), 1e-9)
    return {head: values / total for head, values in positive.items()}


def overlap(cells: Cells, begun: str) -> Values:
    """Of what heads carry, the part that the same heads carry in the rewarded model and in another: 1 - half of the
    summed differences of their shares."""
    own, other = (_shares(effects(cells, one)) for one in (REWARD_VARIANT, begun))
    found: Values = np.sum([np.minimum(own[head], other[head]) for head in own if head in other], axis=0)
    return found


def overlap_by_chance(cells: Cells) -> Values:
    """The same with the twin's heads dealt out anew within their layers, the mean over all ways of doing so."""
    own, other = (_shares(effects(cells, one)) for one in (REWARD_VARIANT, TWIN_VARIANT))
    layers = {head: head.partition("H")[0] for head in own}
    parts = []
    for layer in sorted(set(layers.values())):
        heads = [head for head in own if layers[head] == layer and head in other]
        pairs = [np.minimum(own[one], other[two]) for one in heads for two in heads]
        parts.append(np.sum(pairs, axis=0) / max(len(heads), 1))
    found: Values = np.sum(parts, axis=0)
    return found


def beyond_base(cells: Cells) -> Values:
    """Overlap with the twin minus that with the base that both began from."""
    return difference(overlap(cells, TWIN_VARIANT), overlap(cells, BASE_VARIANT))


def both_right(cells: Cells) -> Values:
    """The lower accuracy of the rewarded model and its twin."""
    found: Values = np.minimum(*(accuracy(cells, TRACED, f"{one}{EARLY}") for one in (REWARD_VARIANT, TWIN_VARIANT)))
    return found


def right_of(cells: Cells, begun: str, share: str) -> Values:
    """Accuracy of greedy responses, with a trace or without."""
    return accuracy(cells, TRACED, f"{begun}{share}")


def beyond(cells: Cells, begun: str, other: str, share: str) -> Values:
    """The same minus that of another model of the same share."""
    return difference(right_of(cells, begun, share), right_of(cells, other, share))


def base_room(cells: Cells) -> Values:
    """What the base that was shown traces leaves to gain: one minus its accuracy."""
    return 1 - right_of(cells, BASE_VARIANT, SHARED)


def shown_are_right(cells: Cells) -> Values:
    """Of the traces that the base begins when responses are drawn, the share that ends with the right answer."""
    return cells.mean("trace_right", regime=TRACED, variant=f"{BASE_VARIANT}{SHARED}", condition="sample")


LONGER_THINKING = Claim(
    name="longer-thinking-beats-larger-model",
    statement="A small model that writes its steps, several times, is right more often than a far larger one that "
    "answers at once for as many operations.",
    source="Snell et al. 2024 (arXiv 2408.03314): up to 14 times the parameters; a course on reasoning models",
    criteria=(
        criterion(
            "equal-flops-gain",
            "accuracy of the small one's vote minus that of the larger one's answer, at equal operations",
            equal_flops_gain,
        ),
        criterion("votes-gain", "accuracy of that vote minus that of one greedy response", votes_gain),
    ),
    predicts={"equal-flops-gain": "above", "votes-gain": "above"},
    rivals=(
        Rival("size wins", "the larger one is right as often, at once", {"equal-flops-gain": "below"}),
        Rival(
            "writing once is all it takes",
            "to write the steps is what helps, and to write them again adds nothing",
            {"equal-flops-gain": "above", "votes-gain": "below"},
        ),
    ),
    controls=(
        control("times-larger", "learned values of the larger one for each of the small", times_larger, "above", ""),
    ),
    decisive=frozenset({"equal-flops-gain"}),
    evidence=("search",),
    limits="Operations are counted, for writing alone, and are no time; training costs are not weighed. One shape of "
    "each, on the same problems, at the longest of their lengths; the small one was stopped while it erred.",
)

VERIFIERS_BEAT_VOTES = Claim(
    name="verifiers-beat-votes",
    statement="Of the same responses a verifier chooses a right one more often than a vote does.",
    source="Lightman et al. 2023 (arXiv 2305.20050), Snell et al. 2024 (arXiv 2408.03314); a course on reasoning",
    criteria=(
        criterion(
            "verifier-gain",
            f"accuracy of the best of {CHOSEN_FROM} by a process reward model minus that of their vote",
            partial(verifier_gain, scorer="process reward"),
        ),
        criterion(
            "own-verifier-gain",
            "the same by a probe of the model's own middle layer",
            partial(verifier_gain, scorer="probe"),
        ),
        criterion(
            "beyond-likelihood",
            "the best by a process reward model minus the best by the model's own likelihood",
            partial(verifier_gain, scorer="process reward", beyond="beyond_likelihood"),
        ),
    ),
    predicts={"verifier-gain": "above", "own-verifier-gain": "above", "beyond-likelihood": "above"},
    rivals=(
        Rival("votes suffice", "a vote is right as often", {"verifier-gain": "below"}),
        Rival(
            "likelihood is verifier enough",
            "so does the response that the model itself finds likeliest",
            {"verifier-gain": "above", "beyond-likelihood": "below"},
        ),
        Rival(
            "a second reader is needed",
            "a model trained to verify gains, and what the writer holds does not",
            {"verifier-gain": "above", "beyond-likelihood": "above", "own-verifier-gain": "below"},
        ),
    ),
    controls=(
        control(
            "room",
            f"accuracy of the best of {CHOSEN_FROM} by the oracle minus that of their vote",
            partial(verifier_gain, scorer="oracle"),
            "above",
        ),
    ),
    decisive=frozenset({"verifier-gain"}),
    evidence=("search",),
    limits="At equal tokens written; a reward model reads them once more. Its labels are exact, of which a vote needs "
    "none. A score of a response is that of its worst step.",
)

PROBES_KNOW = Claim(
    name="probes-know-wrong-steps",
    statement="A model's own states tell its wrong steps from right ones better than their text does, and what tells "
    "them apart is used.",
    source="Sun & Stolfo 2025 (arXiv 2507.12379); arXiv 2605.09502: told apart, and mostly not used",
    criteria=(
        criterion(
            "knows",
            "AUROC of a probe of the middle layer at the end of a step minus that of the step's text",
            beyond_text,
            unit="",
            least=LEAST_ERRORS,
            bounds=(-1.0, 1.0),
        ),
        criterion(
            "acts-on-it",
            "steps behind a wrong one that change when what the probe reads is exchanged, beyond random directions",
            next_step_changes,
            least=LEAST_ERRORS,
        ),
    ),
    predicts={"knows": "above", "acts-on-it": "above"},
    rivals=(
        Rival("the text is enough", "a slip shows in its symbols", {"knows": "below"}),
        Rival("known and not used", "it is there and nothing reads it", {"knows": "above", "acts-on-it": "below"}),
    ),
    controls=(
        control("by-shuffled-labels", "AUROC on labels dealt out anew, beyond 0.5", on_shuffled_labels, "below", ""),
        control(
            "untrained-knows",
            "AUROC of the probe of an untrained model minus that of the text",
            partial(beyond_text, of="untrained"),
            "below",
            "",
        ),
    ),
    decisive=frozenset({"knows"}),
    evidence=("search",),
    limits="Wrong is what departs from the task's own steps, up to the first error of a response drawn at temperature "
    "1: an unlucky draw counts as an error. One layer, chosen beforehand; what is read elsewhere plays no part.",
)

SAME_HEADS = Claim(
    name="reward-finds-the-same-heads",
    statement="Reward on the answer alone builds a reader of the written totals out of the heads that supervised "
    "training from the same base takes for it.",
    source="arXiv 2509.25758: supervised training adds heads, GRPO turns few over",
    criteria=(
        criterion(
            "same-heads",
            "what heads carry of a written total to the next one: the part that the same heads carry in both",
            partial(overlap, begun=TWIN_VARIANT),
            bounds=(0.0, 1.0),
        ),
        criterion("beyond-base", "the same minus that with the base that both began from", beyond_base),
        criterion(
            "read-by-heads",
            "how far the head that carries most turns the next total around, in the rewarded model",
            partial(largest_effect, begun=REWARD_VARIANT),
            unit="",
        ),
    ),
    predicts={"same-heads": "above", "beyond-base": "above", "read-by-heads": "above"},
    rivals=(
        Rival("no head at all", "it is right without reading what it wrote", {"read-by-heads": "below"}),
        Rival("other heads", "reward takes others", {"read-by-heads": "above", "same-heads": "below"}),
        Rival(
            "the base had them",
            "both kept what was there before",
            {"read-by-heads": "above", "same-heads": "above", "beyond-base": "below"},
        ),
    ),
    controls=(
        control("both-solve-it", "accuracy of the rewarded model and of its twin, the lower", both_right, "above"),
        control(
            "by-permuted-heads",
            "the part in the same heads with the twin's heads dealt out anew within their layers",
            overlap_by_chance,
            "below",
        ),
        control(
            "twin-reads",
            "how far the head that carries most turns the next total around, in the twin",
            partial(largest_effect, begun=TWIN_VARIANT),
            "above",
            "",
        ),
    ),
    evidence=("rewards",),
    limits="One read, that of the total before the last, in models of two layers from a base that was stopped early. "
    "Heads that stand in for one another share an effect; MLPs are not asked.",
)

NEEDS_DEMONSTRATIONS = Claim(
    name="reward-needs-some-demonstrations",
    statement="Reward on the answer alone teaches a model that was shown a trace now and then to write it, where more "
    "of the same examples do not; one that never saw a trace learns nothing by it.",
    source="arXiv 2510.11495 (a third of the examples without reward); Ran-Milo et al. (arXiv 2601.15158)",
    criteria=(
        criterion(
            "reward-gain",
            "accuracy of the rewarded model minus that of its base, traces in a tenth of the examples",
            partial(beyond, begun=REWARD_VARIANT, other=BASE_VARIANT, share=SHARED),
        ),
        criterion(
            "gain-from-nothing",
            "the same without any trace in the examples",
            partial(beyond, begun=REWARD_VARIANT, other=BASE_VARIANT, share=NEVER),
        ),
        criterion(
            "beyond-twin",
            "accuracy of the rewarded model minus that of its supervised twin, traces in a tenth",
            partial(beyond, begun=REWARD_VARIANT, other=TWIN_VARIANT, share=SHARED),
        ),
    ),
    predicts={"reward-gain": "above", "gain-from-nothing": "below", "beyond-twin": "above"},
    rivals=(
        Rival("reward needs none", "it teaches where no trace was shown", {"gain-from-nothing": "above"}),
        Rival(
            "demonstrations suffice",
            "reward gains no more than as many updates on the same examples",
            {"gain-from-nothing": "below", "reward-gain": "above", "beyond-twin": "below"},
        ),
        Rival(
            "reward never helps",
            "not even where traces were shown",
            {"gain-from-nothing": "below", "reward-gain": "below"},
        ),
    ),
    controls=(
        control(
            "dealt-gain",
            "accuracy gained by as many updates on rewards of other responses",
            partial(beyond, begun=DEALT_VARIANT, other=BASE_VARIANT, share=SHARED),
            "below",
        ),
        control("base-room", "problems that the base is not right on, traces in a tenth", base_room, "above"),
        control("shown-are-right", "traces that the base begins and that end right", shown_are_right, "above"),
    ),
    decisive=frozenset({"reward-gain", "gain-from-nothing"}),
    evidence=("rewards",),
    limits="Two shares, one length, one number of updates, no divergence held; asked greedily. A model that never "
    "begins a trace is given no reward for one: longer exploration might.",
)

INFERENCE = (LONGER_THINKING, VERIFIERS_BEAT_VOTES, PROBES_KNOW, SAME_HEADS, NEEDS_DEMONSTRATIONS)
"""`cotinterp claims --claim inference --from checkpoints --train --part search rewards --task TASK`."""
