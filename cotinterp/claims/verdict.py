"""What judging a claim gives: every criterion with its number, and the word for all of them together."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import ceil
from typing import Literal, NamedTuple, cast, get_args

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from scipy.stats import beta

from cotinterp.claims.claim import LEAST_SEEDS, Claim, Rival, Side
from cotinterp.claims.estimate import Estimate
from cotinterp.results.result import Result, facts_html, short_repr
from cotinterp.studies.evidence import RUN_COLUMNS, Kind

Word = Literal["supported", "partly supported", "not supported", "mixed", "inconclusive"]
State = Literal["holds", "fails", "above", "below", "mixed", "open", "not measured"]
RivalState = Literal["stands", "contradicted", "open"]

JSON_FIELDS = (
    *("claim", "task", "verdict", "effect", "ci_low", "ci_high", "n", "seeds", "threshold"),
    *("p", "controls", "rivals", "reason", "kinds"),
)
"""Fields of an entry of verdicts.json."""

VERDICT_COLUMNS = (*JSON_FIELDS, "unit", "statement", "evidence")
CRITERIA_COLUMNS = (
    *("claim", "task", "criterion", "words", "unit", "predicted", "threshold", "estimate", "ci_low", "ci_high"),
    *("p_above", "p_below", "state", "seeds_above", "seeds_below", "detectable", "n", "seeds", "note"),
)


def shown(value: float, unit: str) -> str:
    """A number in its unit, as sentences have it: `12.3 points`, `0.45`, `1.20 nats`."""
    if not np.isfinite(value):
        return "undefined"
    text = f"{100 * value:.1f}" if unit == "points" else f"{value:.2f}"
    text = text.replace("-", "\N{MINUS SIGN}") if float(text) else text.lstrip("-")
    return f"{text} {unit}".rstrip()


@dataclass(frozen=True)
class MeasuredCriterion:
    """One criterion, measured.

    Attributes:
        words: What the number is.
        predicted: Side of the threshold that the claim predicts; empty where only rivals speak of it.
        estimate, low, high: The number and its 95% interval over seeds and problems.
        p_above, p_below: One-sided p-values, not corrected, of its lying on the other side.
        state: `holds` or `fails` as the claim predicts, after correction over criteria, claims and tasks; `above` or
            `below` where it predicts nothing; `mixed` where models differ: at some seeds it is shown to fail, and over
            all of them it is not; `open` where neither side is shown.
        kinds: What it was made of (`studies.evidence.Kind`).
        unconverged: Seeds of which a run that it was made of had not learned or was ended by its budget, where they are
            more than half: it is open then, whatever its number.
        above, below: The seeds at which it is shown to lie on either side, each over its own problems.
        n: Problems that it rests on.
        by_seed: The number at each seed.
        detectable: How far from the threshold the truth would have to be for this design to see it, four times in five;
            infinite where it cannot be so far on the predicted side.
        note: Why it was not measured, or which seeds are missing.
        core_hours: What training one more seed of its runs takes; 0 where that is not known.
    """

    name: str
    words: str
    unit: str
    threshold: float
    predicted: Side | Literal[""]
    estimate: float
    low: float
    high: float
    p_above: float
    p_below: float
    state: State
    n: int
    by_seed: Mapping[int, float]
    detectable: float
    note: str = ""
    above: tuple[int, ...] = ()
    below: tuple[int, ...] = ()
    kinds: tuple[Kind, ...] = ()
    unconverged: tuple[int, ...] = ()
    core_hours: float = 0.0

    @property
    def agreeing(self) -> frozenset[int]:
        """The seeds at which it lies on the predicted side, shown or not; those without a number of their own too."""
        up = self.predicted == "above"
        return frozenset(
            seed for seed, one in self.by_seed.items() if not (one <= self.threshold if up else one >= self.threshold)
        )

    @property
    def seeds(self) -> int:
        """Trained models of each kind that it rests on."""
        return len(self.by_seed)

    @property
    def sentence(self) -> str:
        """`slope -0.4 points [-1.0, 0.2], not above 2.0 points`, without a verdict."""
        low, high = (shown(end, self.unit).removesuffix(f" {self.unit}") for end in (self.low, self.high))
        return f"{self.name} {shown(self.estimate, self.unit)} [{low}, {high}]"


class JudgedRival(NamedTuple):
    """A rival of a claim: it stands, is contradicted, or is open."""

    name: str
    state: RivalState


def rivals_text(rivals: Sequence[JudgedRival]) -> str:
    """As tables and verdicts.json have them: `no gap: stands; constant gap: open`."""
    return "; ".join(f"{rival.name}: {rival.state}" for rival in rivals)


def parse_rivals(text: str) -> tuple[JudgedRival, ...]:
    """The rivals of a stored text of `rivals_text`. ValueError where one has no state."""
    found = []
    for part in filter(None, text.split("; ")):
        name, _, state = part.rpartition(": ")
        if state not in get_args(RivalState):
            raise ValueError(f"{part!r} is no rival: name: state is expected, a state of {get_args(RivalState)}")
        found.append(JudgedRival(name, cast(RivalState, state)))
    return tuple(found)


@dataclass(frozen=True)
class Verdict:
    """One claim on one task.

    Attributes:
        effect, ci_low, ci_high, threshold, unit, n, seeds: Those of the first criterion that was measured.
        p: Adjusted over claims and tasks (Holm): of support where it is supported, else of the criterion that is shown
            most clearly, on whichever side.
        controls: Every control with its number, and whether it passes.
        rivals: Every rival, and whether it stands.
        reason: Why, in one sentence.
        evidence: Sections of the report that show what the numbers are made of.
    """

    claim: str
    task: str
    verdict: Word
    statement: str
    effect: float
    ci_low: float
    ci_high: float
    unit: str
    n: int
    seeds: int
    threshold: float
    p: float
    controls: str
    rivals: tuple[JudgedRival, ...]
    reason: str
    evidence: tuple[str, ...]
    criteria: tuple[MeasuredCriterion, ...]

    def __repr__(self) -> str:
        return short_repr(self)

    def _repr_html_(self) -> str:
        """The verdict, for a notebook."""
        ends = (shown(end, self.unit).removesuffix(f" {self.unit}") for end in (self.ci_low, self.ci_high))
        number = f"{shown(self.effect, self.unit)} [{', '.join(ends)}]"
        facts = {
            "claim": f"{self.claim}: {self.statement}",
            "task": self.task,
            "verdict": self.verdict,
            "why": self.reason,
            "effect": f"{number}, threshold {shown(self.threshold, self.unit)}, {self.seeds} seeds, p {self.p:.3g}",
            "rests on": self.rests_on,
            "rivals": rivals_text(self.rivals),
            "controls": self.controls,
        }
        return facts_html(self, facts)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """What the predictions rest on. Without an intervention a verdict says that something is so, and not how."""
        found = {kind for part in self.criteria if part.predicted for kind in part.kinds}
        return tuple(kind for kind in get_args(Kind) if kind in found)

    @property
    def rests_on(self) -> str:
        """The same in words."""
        kinds = ", ".join(self.kinds) or "nothing that was measured"
        return kinds if "intervention" in self.kinds else f"{kinds} (no intervention: not how it comes about)"


@dataclass(frozen=True, eq=False)
class Verdicts(Result):
    """Claims by tasks, judged together: the correction is over all of them.

    Attributes:
        runs: Runs that failed or did not converge, of those that were asked for.
    """

    verdicts: tuple[Verdict, ...]
    runs: pd.DataFrame

    def of(self, claim: str, task: str) -> Verdict:
        """One verdict. KeyError, with those there are."""
        found = {(one.claim, one.task): one for one in self.verdicts}
        if (claim, task) not in found:
            raise KeyError(f"no verdict on {claim!r} for task {task!r}; there are {sorted(found)}")
        return found[claim, task]

    def frame(self) -> pd.DataFrame:
        """One row for each claim and task: VERDICT_COLUMNS."""
        rows = [[_stored(one, name) for name in VERDICT_COLUMNS] for one in self.verdicts]
        return pd.DataFrame(rows, columns=list(VERDICT_COLUMNS))

    def criteria_frame(self) -> pd.DataFrame:
        """One row for each criterion of each verdict: CRITERIA_COLUMNS."""
        rows = [
            {
                "claim": one.claim,
                "task": one.task,
                "criterion": part.name,
                "words": part.words,
                "unit": part.unit,
                "predicted": part.predicted,
                "threshold": part.threshold,
                "estimate": part.estimate,
                "ci_low": part.low,
                "ci_high": part.high,
                "p_above": part.p_above,
                "p_below": part.p_below,
                "state": part.state,
                "seeds_above": len(part.above),
                "seeds_below": len(part.below),
                "detectable": part.detectable,
                "n": part.n,
                "seeds": part.seeds,
                "note": part.note,
            }
            for one in self.verdicts
            for part in one.criteria
        ]
        return pd.DataFrame(rows, columns=list(CRITERIA_COLUMNS))

    def by_seed_frame(self) -> pd.DataFrame:
        """One row a criterion and seed: claim, task, criterion, seed, estimate."""
        rows = [
            (one.claim, one.task, part.name, seed, value)
            for one in self.verdicts
            for part in one.criteria
            for seed, value in part.by_seed.items()
        ]
        return pd.DataFrame(rows, columns=["claim", "task", "criterion", "run_seed", "estimate"])

    def runs_frame(self) -> pd.DataFrame:
        """The runs that failed or did not converge; the columns of evidence's runs."""
        return self.runs[list(RUN_COLUMNS)].reset_index(drop=True)

    def json(self) -> str:
        """The text of verdicts.json: a list of objects; numbers that are undefined are null."""
        plain = [{name: _or_null(_stored(one, name)) for name in JSON_FIELDS} for one in self.verdicts]
        return json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def figure(self) -> go.Figure:
        """Every criterion as it stands to its threshold, seeds as points (`figures.claims.forest`)."""
        from cotinterp.figures.claims import forest

        return forest(self.criteria_frame(), self.by_seed_frame())


def _stored(verdict: Verdict, name: str) -> object:
    """A field as tables and verdicts.json have it."""
    value = getattr(verdict, name)
    if name == "rivals":
        return rivals_text(value)
    return " ".join(map(str, value)) if isinstance(value, tuple) else value


def _or_null(value: object) -> object:
    return None if isinstance(value, float) and not np.isfinite(value) else value


OPPOSITE: Mapping[Side, Side] = {"above": "below", "below": "above"}


def word_for(
    claim: Claim, measured: Sequence[MeasuredCriterion], broken: Sequence[str], *, supported: bool
) -> tuple[Word, str]:
    """The verdict's word, and the sentence that says why.

    Args:
        measured: The claim's criteria with their states.
        broken: Controls that do not pass, in words.
        supported: Every prediction holds, after correction.
    """
    states = ("holds", "fails", "mixed", "open")
    by_state = {state: [part for part in measured if part.state == state] for state in states}
    said = {state: ", ".join(part.sentence for part in parts) for state, parts in by_state.items()}
    missing = [
        part for part in measured if part.state == "not measured" and part.predicted and not _optional(claim, part)
    ]
    if all(part.state == "not measured" for part in measured if part.predicted):
        missing = [part for part in measured if part.predicted]
    own = [part for part in measured if part.predicted and part.state != "not measured"]
    # An optional number of few models is open, and takes no seeds from the others.
    needed = [part for part in own if not (_optional(claim, part) and part.seeds < LEAST_SEEDS)]
    fewest = min((part.seeds for part in needed or own), default=0)
    if missing:
        by_note = {part.note: [one.name for one in missing if one.note == part.note] for part in missing}
        why = "; ".join(f"{', '.join(names)} ({note})" for note, names in by_note.items())
        return "inconclusive", f"Not measured: {why}."
    if broken:
        return "inconclusive", f"A control does not pass, so nothing follows: {'; '.join(broken)}."
    if fewest < LEAST_SEEDS:
        everything = ", ".join(part.sentence for part in measured if part.predicted and part.state != "not measured")
        return "inconclusive", f"{fewest} of the {LEAST_SEEDS} seeds that a verdict needs: {everything}."
    if supported:
        return "supported", f"Every prediction holds{_of_models(measured)}: {said['holds']}."
    if by_state["fails"]:
        decisive = [part for part in by_state["fails"] if part.name in claim.decisive]
        against = ", ".join(_against(part) for part in by_state["fails"])
        if not by_state["holds"] or decisive:
            return "not supported", f"Predicted otherwise: {against}." + (
                f" Holds: {said['holds']}." if said["holds"] else ""
            )
        return "partly supported", f"Holds: {said['holds']}. Predicted otherwise: {against}."
    if by_state["mixed"]:
        differ = "; ".join(_differ(part) for part in by_state["mixed"])
        return "mixed", f"Models trained alike differ: {differ}." + (
            f" Holds: {said['holds']}." if said["holds"] else ""
        )
    power = ", ".join(f"{part.sentence} ({_seen(part)})" for part in by_state["open"])
    return "inconclusive", f"Open: {power}." + (f" Holds: {said['holds']}." if said["holds"] else "")


def least_share(agreeing: int, seeds: int) -> float:
    """The share of all models that are so, at least, with 95% confidence, where `agreeing` of `seeds` were.

    Exact binomial (Clopper & Pearson 1934). However alike five models are, they cannot exclude a rare other kind.
    """
    return float(beta.ppf(0.05, agreeing, seeds - agreeing + 1)) if agreeing else 0.0


def _of_models(measured: Sequence[MeasuredCriterion]) -> str:
    own = [part for part in measured if part.predicted and part.state != "not measured"]
    seeds = frozenset.intersection(*(frozenset(part.by_seed) for part in own))
    agreeing = seeds.intersection(*(part.agreeing for part in own))
    share = least_share(len(agreeing), len(seeds))
    return f", at {len(agreeing)} of {len(seeds)} seeds (at least {100 * share:.0f}% of such models)"


def _differ(part: MeasuredCriterion) -> str:
    where = [
        f"{side} {shown(part.threshold, part.unit)} at seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
        for side, seeds in (("above", part.above), ("below", part.below))
        if seeds
    ]
    return f"{part.sentence}, {' and '.join(where)}"


MANY = 1000
"""Seeds beyond which their number is not told: nobody trains so many."""


def _seen(part: MeasuredCriterion) -> str:
    if part.unconverged:
        where = f"at {len(part.unconverged)} of {part.seeds} seeds"
        return f"{where} a run had not learned its training problems or was ended by its budget: train longer"
    if part.detectable == float("inf"):
        return "no value that it can take would have been seen"
    distance, at = shown(part.detectable, part.unit), shown(part.threshold, part.unit)
    side = f" {part.predicted}" if part.predicted else " to either side of"
    away = abs(part.estimate - part.threshold)
    seeds = len(part.by_seed) * (part.detectable / away) ** 2 if away else float("inf")
    wanted = f"about {ceil(seeds)} seeds" if seeds <= MANY else f"more than {MANY} seeds"
    cost = (ceil(min(seeds, MANY)) - len(part.by_seed)) * part.core_hours
    more = f" (training them: {cost:.1f} core-hours)" if cost > 0 and seeds <= MANY else ""
    seen = f"a truth {distance}{side} the threshold of {at} would have been seen"
    return f"{seen}; where it seems to lie it takes {wanted}{more}"


def _against(part: MeasuredCriterion) -> str:
    return f"{part.sentence}, not {part.predicted} {shown(part.threshold, part.unit)}"


def _optional(claim: Claim, part: MeasuredCriterion) -> bool:
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


Position = Side | Literal["mixed"] | None
"""Where a criterion is shown to lie: on a side of its threshold, on both among models, or nowhere yet."""


def judged_rivals(claim: Claim, states: Mapping[str, Position]) -> tuple[JudgedRival, ...]:
    """Every rival as `rival_state` has it; what only a criterion without a number tells from another, or from the claim
    itself, is open."""
    accounts = (*claim.rivals, Rival("", claim.statement, claim.predicts))
    standing = [one for one in accounts if rival_state(one, states) == "stands"]
    untold = {
        account.name
        for one, other in combinations(standing, 2)
        if any(other.predicts.get(name, side) != side for name, side in one.predicts.items())
        for account in (one, other)
    }
    return tuple(
        JudgedRival(one.name, "open" if one.name in untold else rival_state(one, states)) for one in claim.rivals
    )


def rival_state(rival: Rival, states: Mapping[str, Position]) -> RivalState:
    """`stands`, `contradicted` or `open`: whether the criteria lie where the rival has them."""
    known = {name: None if states[name] == "mixed" else states[name] for name in rival.predicts if name in states}
    if any(side == OPPOSITE[rival.predicts[name]] for name, side in known.items()):
        return "contradicted"
    return "stands" if known and all(side is not None for side in known.values()) else "open"
