"""How a verdict comes to its word, and says why in a sentence."""

from collections.abc import Mapping, Sequence

from cotinterp.claims.claim import Claim, Rival, Side
from cotinterp.claims.estimate import Estimate
from cotinterp.claims.thresholds import LEAST_SEEDS
from cotinterp.claims.verdict import Measured, Word, shown

OPPOSITE: Mapping[Side, Side] = {"above": "below", "below": "above"}


def word_for(claim: Claim, measured: Sequence[Measured], broken: Sequence[str], *, supported: bool) -> tuple[Word, str]:
    """The verdict's word, and the sentence that says why.

    Args:
        measured: The claim's criteria with their states.
        broken: Controls that do not pass, in words.
        supported: Every prediction holds, after correction.
    """
    by_state = {state: [part for part in measured if part.state == state] for state in ("holds", "fails", "open")}
    said = {state: ", ".join(part.sentence for part in parts) for state, parts in by_state.items()}
    missing = [
        part for part in measured if part.state == "not measured" and part.predicted and not _optional(claim, part)
    ]
    fewest = min((part.seeds for part in measured if part.predicted and part.state != "not measured"), default=0)
    if missing:
        return "inconclusive", "Not measured: " + "; ".join(f"{part.name} ({part.note})" for part in missing) + "."
    if broken:
        return "inconclusive", f"A control does not pass, so nothing follows: {'; '.join(broken)}."
    if fewest < LEAST_SEEDS:
        everything = ", ".join(part.sentence for part in measured if part.predicted and part.state != "not measured")
        return "inconclusive", f"{fewest} of the {LEAST_SEEDS} seeds that a verdict needs: {everything}."
    if supported:
        return "supported", f"Every prediction holds: {said['holds']}."
    if by_state["fails"]:
        decisive = [part for part in by_state["fails"] if part.name in claim.decisive]
        against = ", ".join(_against(part) for part in by_state["fails"])
        if not by_state["holds"] or decisive:
            return "not supported", f"Predicted otherwise: {against}." + (
                f" Holds: {said['holds']}." if said["holds"] else ""
            )
        return "partly supported", f"Holds: {said['holds']}. Predicted otherwise: {against}."
    power = ", ".join(f"{part.sentence} ({_seen(part)})" for part in by_state["open"])
    return "inconclusive", f"Open: {power}." + (f" Holds: {said['holds']}." if said["holds"] else "")


def _seen(part: Measured) -> str:
    if part.detectable == float("inf"):
        return "nothing that it can be would have been seen"
    distance, at = shown(part.detectable, part.unit), shown(part.threshold, part.unit)
    side = f" {part.predicted}" if part.predicted else " to either side of"
    return f"a truth {distance}{side} the threshold of {at} would have been seen"


def _against(part: Measured) -> str:
    return f"{part.sentence}, not {part.predicted} {shown(part.threshold, part.unit)}"


def _optional(claim: Claim, part: Measured) -> bool:
    return next(criterion.optional for criterion in claim.criteria if criterion.name == part.name)


def controls_in_words(claim: Claim, numbers: Mapping[str, Estimate | str]) -> tuple[str, list[str]]:
    """All controls in words, and those that do not pass. `numbers`: each with its estimate, or why there is none."""
    words, broken = [], []
    for control in claim.controls:
        number, at = numbers[control.name], control.threshold.value
        if isinstance(number, str):
            text = f"{control.name} not measured ({number})"
            passes = control.optional
        else:
            passes = number.value > at if control.passes == "above" else number.value < at
            verb = "passes" if passes else "does not pass"
            rule = f"{control.passes} {shown(at, control.unit)}"
            text = f"{control.name} {shown(number.value, control.unit)} {verb} ({rule})"
        words.append(text)
        if not passes:
            broken.append(text)
    return "; ".join(words), broken


def standing(rival: Rival, states: Mapping[str, Side | None]) -> str:
    """`stands`, `contradicted` or `open`: whether the criteria lie where the rival has them."""
    known = {name: states[name] for name in rival.predicts if name in states}
    if any(side == OPPOSITE[rival.predicts[name]] for name, side in known.items()):
        return "contradicted"
    return "stands" if known and all(side is not None for side in known.values()) else "open"
