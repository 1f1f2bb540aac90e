"""The claim that small models are hurt by writing their steps, with its numbers.

It is judged on the part `widths` of a plan (`sweeps.replication`): direct and cot at several widths of the residual
stream, on the same problems, each trained until it has learned what it is going to. Thresholds stand in
`claims.claim.THRESHOLDS`.
"""

from collections.abc import Callable, Iterable
from functools import partial

from cotinterp.claims.cells import Cells, MissingEvidence, Values
from cotinterp.claims.claim import Claim, Rival, control, criterion
from cotinterp.claims.statistics import SHORTEST, average, bookkeeping_share, cot_accuracy, difference, heldout, lengths
from cotinterp.studies.evidence import WIDTH_VARIANT

Pick = Callable[[Iterable[int]], int]


def widths(cells: Cells) -> tuple[int, ...]:
    """The widths of the models of which both regimes were measured, ascending."""
    names = set(cells.variants("direct")) & set(cells.variants("cot"))
    digits = [name.removeprefix(WIDTH_VARIANT) for name in names if name.startswith(WIDTH_VARIANT)]
    return tuple(sorted(int(text) for text in digits if text.isdigit()))


def of_width(cells: Cells, pick: Pick) -> str:
    """The variant of the narrowest (`min`) or widest (`max`) of them. MissingEvidence for fewer than two."""
    if len(found := widths(cells)) < 2:
        raise MissingEvidence(
            f"direct and cot at two widths or more (--part widths); measured variants: {cells.variants('cot')}"
        )
    return f"{WIDTH_VARIANT}{pick(found)}"


def gain(cells: Cells, variant: str) -> Values:
    """Accuracy of cot minus that of direct, of such models, mean over K."""
    ks = lengths(cells, "cot", shortest=SHORTEST, variant=variant)
    gaps = [difference(heldout(cells, "cot", k, variant), heldout(cells, "direct", k, variant)) for k in ks]
    return average(gaps)


def fluent(cells: Cells, variant: str) -> Values:
    """Share of well-formed traces with a wrong step among the wrong outputs of cot."""
    share: Values = 1 - bookkeeping_share(cells, variant)
    return share


def gain_at(cells: Cells, pick: Pick, sign: int = 1) -> Values:
    """`gain` at that width (`sign` -1: the loss)."""
    return sign * gain(cells, of_width(cells, pick))


def cot_at(cells: Cells, pick: Pick) -> Values:
    """Accuracy of cot at that width, mean over K."""
    return cot_accuracy(cells, of_width(cells, pick))


def fluent_at(cells: Cells, pick: Pick) -> Values:
    """`fluent` at that width."""
    return fluent(cells, of_width(cells, pick))


SMALL_HURT = Claim(
    name="small-models-are-hurt",
    statement="Writing its steps costs a small model accuracy, by fluent and wrong steps; a larger one gains by it.",
    source="a reader's post on Wei et al. 2022 (arXiv 2201.11903): below some scale chains are fluent and incorrect",
    criteria=(
        criterion(
            "hurt",
            "accuracy of direct minus that of cot, the narrowest models",
            partial(gain_at, pick=min, sign=-1),
        ),
        criterion(
            "wide-gain",
            "accuracy of cot minus that of direct, the widest models",
            partial(gain_at, pick=max),
        ),
        criterion(
            "fluent",
            "wrong outputs of the narrowest cot that are well-formed traces",
            partial(fluent_at, pick=min),
            pool=True,
            optional=True,
            bounds=(0.0, 1.0),
        ),
    ),
    predicts={"hurt": "above", "wide-gain": "above", "fluent": "above"},
    rivals=(
        Rival(
            "helps at any width", "the narrowest gain as well or lose nothing", {"hurt": "below", "wide-gain": "above"}
        ),
        Rival("helps at no width", "where direct has learned, nothing is left to gain", {"wide-gain": "below"}),
        Rival(
            "garbled",
            "the narrowest lose by traces that are none",
            {"hurt": "above", "wide-gain": "above", "fluent": "below"},
        ),
    ),
    controls=(control("wide-cot-solves-it", "accuracy of the widest cot", partial(cot_at, pick=max), "above"),),
    decisive=frozenset({"hurt"}),
    evidence=("accuracy", "errors"),
    limits="Widths of the residual stream at two layers; between the narrowest and the widest it does not say where.",
)

SIZE = (SMALL_HURT,)
"""`cotinterp claims --claim size --from checkpoints --train --part widths --task TASK`."""
