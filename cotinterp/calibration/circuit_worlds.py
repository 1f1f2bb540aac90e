"""Made-up worlds of the claims about circuits, their forming and other seeds: each claim's own, and its rivals'."""

from collections.abc import Mapping
from itertools import product

from cotinterp.calibration.verdict_level import MadeUpWorld, SyntheticCell
from cotinterp.claims.circuits import SITES, VARIABLES
from cotinterp.claims.verdict import Word
from cotinterp.studies.evidence import CIRCUITS_VARIANT

K = 6


def world(
    claim: str,
    name: str,
    measures: Mapping[str, Mapping[str, float]],
    verdict: Word,
    *stands: str,
    within: float = 0.2,
    problems: int = 100,
    right: float = 0.97,
) -> MadeUpWorld:
    """Numbers by measure and condition, of models that write their trace."""
    cells = [
        SyntheticCell(
            measure="accuracy",
            expected=right,
            k=K,
            condition="heldout",
            variant=CIRCUITS_VARIANT,
            problems=1000,
        )
    ]
    for measure, of in measures.items():
        cells += [
            SyntheticCell(
                measure=measure,
                expected=value,
                k=K,
                condition=condition,
                variant=CIRCUITS_VARIANT,
                kind="mean",
                within=within,
                problems=problems,
            )
            for condition, value in of.items()
        ]
    return MadeUpWorld(name, claim, tuple(cells), verdict, frozenset(stands))


def step_worlds() -> list[MadeUpWorld]:
    """What circuits keep at their own step and at others."""

    def of(
        name: str, own: float, other: float, verdict: Word, *stands: str, random: float = 0.05, untrained: float = 0.1
    ) -> MadeUpWorld:
        kept = {"own": own, "other": other, "random": random, "untrained": untrained}
        return world("one-circuit-reads-every-step", name, {"circuit_kept": kept}, verdict, *stands)

    each, core = "a circuit for each step", "a core and additions"
    return [
        of("one reads all", 0.92, 0.9, "supported"),
        of(each, 0.92, 0.3, "not supported", each),
        of(core, 0.95, 0.7, "partly supported", core),
        of("circuits keep nothing", 0.4, 0.38, "inconclusive"),
        of("any edges do", 0.92, 0.9, "inconclusive", random=0.85),
        of("an untrained model has them", 0.92, 0.9, "inconclusive", untrained=0.9),
    ]


def forming_worlds() -> list[MadeUpWorld]:
    """By how many doublings attention, its effect and the step's table come before steps are right."""

    def of(name: str, attention: float, effect: float, table: float, verdict: Word, *stands: str) -> MadeUpWorld:
        ahead = {"next_total": 0.0, "attention": attention, "read_effect": effect, "step_table": table}
        at = {"event": {measure: 8 - doublings for measure, doublings in ahead.items()}}
        return world("reader-appears-before-accuracy", name, at, verdict, *stands, within=0.0, problems=1)

    table, once, idle = "the table first", "all at once", "looked at, and not used yet"
    return [
        of("the reader first", 0.8, 0.6, 0.0, "supported"),
        of(table, -0.1, -0.1, 0.6, "not supported", table),
        of(once, 0.0, 0.0, 0.0, "not supported", once),
        of(idle, 0.8, 0.0, 0.0, "partly supported", idle),
    ]


def seed_worlds() -> list[MadeUpWorld]:
    """What another seed's stream explains, what its states decide, and how alike its heads look."""

    def of(
        name: str,
        stream: float,
        states: float,
        heads: float,
        verdict: Word,
        *stands: str,
        shuffled: float = 0.0,
        own: float = 0.9,
    ) -> MadeUpWorld:
        measures = {
            "stream_shared": {"attn_out:seed": stream, "attn_out:untrained": 0.3, "attn_out:shuffled": shuffled},
            "states_carry": {"attn_out:seed": states, "attn_out:untrained": 0.15, "attn_out:own": own},
            "heads_shared": {"seed": heads, "untrained": 0.4},
        }
        # Where the model's own states decide nothing, nothing of others is looked at.
        measures["stream_shared"] |= {f"resid_pre:{name}": 0.9 for name in ("seed", "untrained", "shuffled")}
        measures["states_carry"] |= {f"resid_pre:{name}": 0.1 for name in ("seed", "untrained", "own")}
        return world("seeds-share-one-mechanism", name, measures, verdict, *stands)

    own, divided, look = "each its own", "the same states by other heads", "alike to look at"
    return [
        of("one model", 0.8, 0.85, 0.8, "supported"),
        of(own, 0.3, 0.15, 0.4, "not supported", own),
        of(divided, 0.8, 0.85, 0.4, "partly supported", divided),
        of(look, 0.8, 0.15, 0.4, "partly supported", look),
        of("any rotation fits", 0.8, 0.85, 0.8, "inconclusive", shuffled=0.6),
        of("states decide nothing", 0.8, 0.15, 0.8, "inconclusive", own=0.15),
    ]


def variable_worlds() -> list[MadeUpWorld]:
    """Interchanges of a total and of what nothing needs, by fitted, shuffled and random subspaces."""

    def of(
        name: str,
        total: float,
        whole: float,
        verdict: Word,
        *stands: str,
        unmapped: float = 0.15,
        shuffled: float = 0.2,
        untrained: float = 0.15,
    ) -> MadeUpWorld:
        exchanged = {"total": total, "whole": whole, "shuffled": shuffled, "random": 0.1, "untrained": untrained}
        # One of two totals, at one of two sites, is where it is; the others hold nothing.
        moved = {
            ":".join((variable, site, what)): rate if (variable, site) == ("next", "attn_out") else min(rate, 0.1)
            for variable, site in product(VARIABLES, SITES)
            for what, rate in exchanged.items()
        }
        moved |= {f"unmapped:{site}:total": unmapped for site in SITES}
        return world("totals-are-causal-variables", name, {"interchange": moved}, verdict, *stands)

    absent, spread, fits = "not there", "not in one subspace", "anything can be fitted"
    return [
        of("a variable", 0.95, 0.95, "supported"),
        of(absent, 0.2, 0.2, "not supported", absent),
        of(spread, 0.3, 0.95, "not supported", spread),
        of(fits, 0.95, 0.95, "partly supported", fits, unmapped=0.9),
        of("fitted to shuffled outcomes", 0.95, 0.95, "inconclusive", shuffled=0.9),
        of("found in the untrained model", 0.95, 0.95, "inconclusive", untrained=0.9),
    ]


def circuit_worlds() -> list[MadeUpWorld]:
    """All of them."""
    return [*step_worlds(), *forming_worlds(), *seed_worlds(), *variable_worlds()]
