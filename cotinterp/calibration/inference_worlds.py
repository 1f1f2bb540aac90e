"""Made-up worlds of the claims about tokens at inference and about reward: each claim's own, and its rivals'."""

from dataclasses import replace

from cotinterp.calibration.verdict_level import MadeUpWorld, SyntheticCell
from cotinterp.claims.inference import EARLY, GREEDY, NEVER, SHARED, TRACED
from cotinterp.claims.verdict import Word
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

LONGEST, READ_AT, LENGTH = 10, 4, 12
"""Operands of the problems that are searched, of those in whose traces a total is changed, and of those rewarded."""
SEARCHED = 300
HEADS = ("L0H0", "L0H1", "L0H2", "L0H3", "L1H0", "L1H1", "L1H2", "L1H3")


def thinking_worlds() -> list[MadeUpWorld]:
    """A small model that writes its steps, and one many times larger whose answer costs as much as nine of its own."""

    def world(
        name: str, voted: float, once: float, at_once: float, verdict: Word, *stands: str, larger: float = 25.0
    ) -> MadeUpWorld:
        right = SyntheticCell(measure="chosen_right", expected=once, k=LONGEST, problems=SEARCHED, condition=GREEDY)
        own = replace(right, variant=SMALL_VARIANT)
        flops = replace(own, measure="flops", kind="constant")
        gain = replace(own, measure="beyond_greedy", kind="mean", within=0.3)
        cells: list[SyntheticCell] = []
        for n in SEARCH_DRAWS:
            at = SearchCondition("vote", n)
            # What lies beyond nine responses must not be looked at.
            rate = voted if n <= CHOSEN_FROM else 0.99
            cells += [replace(own, condition=at, expected=rate), replace(flops, condition=at, expected=4e6 * n)]
            cells.append(replace(gain, condition=at, expected=rate - once))
        large = replace(right, regime="direct", variant=LARGE_VARIANT, expected=at_once)
        cells += [large, replace(large, measure="flops", kind="constant", expected=3.6e7)]
        size = replace(flops, measure="parameters", condition="", problems=1, expected=30_000.0)
        cells += [size, replace(size, regime="direct", variant=LARGE_VARIANT, expected=larger * 30_000)]
        return MadeUpWorld(name, "longer-thinking-beats-larger-model", tuple(cells), verdict, frozenset(stands))

    wins, once = "size wins", "writing once is all it takes"
    return [
        world("several traces beat size", 0.85, 0.6, 0.3, "supported"),
        world(wins, 0.85, 0.6, 0.95, "not supported", wins),
        world(once, 0.77, 0.8, 0.3, "partly supported", once),
        world("not so much larger", 0.85, 0.6, 0.3, "inconclusive", larger=8.0),
    ]


def verifier_worlds() -> list[MadeUpWorld]:
    """What a vote, the likelihood, a reward model, a probe and the oracle choose out of the same responses."""

    def world(name: str, rates: tuple[float, float, float, float], verdict: Word, *stands: str) -> MadeUpWorld:
        chosen = SyntheticCell(
            measure="beyond_vote",
            expected=0.0,
            k=LONGEST,
            problems=SEARCHED,
            variant=SMALL_VARIANT,
            kind="mean",
            within=0.3,
        )
        cells: list[SyntheticCell] = []
        for scorer, rate in zip(("likelihood", "process reward", "probe", "oracle"), rates, strict=True):
            gained = replace(chosen, condition=SearchCondition("best-of-n", CHOSEN_FROM, scorer), expected=rate - 0.6)
            beyond = replace(gained, measure="beyond_likelihood", expected=rate - rates[0])
            cells += [gained, beyond]
        return MadeUpWorld(name, "verifiers-beat-votes", tuple(cells), verdict, frozenset(stands))

    suffice, likely, second = "votes suffice", "likelihood is verifier enough", "a second reader is needed"
    return [
        world("any verifier", (0.6, 0.85, 0.85, 0.97), "supported"),
        world(suffice, (0.46, 0.56, 0.56, 0.97), "not supported", suffice),
        world(likely, (0.88, 0.85, 0.85, 0.97), "partly supported", likely),
        world(second, (0.6, 0.85, 0.56, 0.97), "partly supported", second),
        world("nothing to choose", (0.6, 0.75, 0.75, 0.6), "inconclusive"),
    ]


def knowing_worlds() -> list[MadeUpWorld]:
    """AUROC of probes and of the text, and what becomes of the next step when what the probe reads is exchanged."""

    def world(
        name: str,
        probe: float,
        text: float,
        change: float,
        verdict: Word,
        *stands: str,
        shuffled: float = 0.5,
        untrained: float | None = None,
    ) -> MadeUpWorld:
        own = SyntheticCell(
            measure="auroc", expected=probe, k=LONGEST, problems=200, kind="mean", within=0.1, variant=SMALL_VARIANT
        )
        of = {
            VerifierCondition("probe"): probe,
            VerifierCondition("surface"): text,
            VerifierCondition("probe", "shuffled"): shuffled,
            VerifierCondition("probe", "untrained"): text if untrained is None else untrained,
        }
        cells = [replace(own, condition=at, expected=value) for at, value in of.items()]
        cells.append(replace(own, measure="verifier_use", condition="wrong:changed", expected=change))
        return MadeUpWorld(name, "probes-know-wrong-steps", tuple(cells), verdict, frozenset(stands))

    text, unused = "the text is enough", "known and not used"
    return [
        world("known, and used", 0.95, 0.6, 0.5, "supported"),
        world(text, 0.9, 0.9, 0.5, "not supported", text),
        world(unused, 0.95, 0.6, 0.0, "partly supported", unused),
        world("anything is found", 0.95, 0.6, 0.5, "inconclusive", shuffled=0.8),
        world("untrained states tell it", 0.95, 0.6, 0.5, "inconclusive", untrained=0.95),
    ]


def head_worlds() -> list[MadeUpWorld]:
    """Which heads carry a written total to the next one: in a base, rewarded, and in its twin."""
    first, other, spread = ((0.9, 0.0), (0.0, 0.9), (0.2, 0.2))

    def of(begun: str, effects: tuple[float, float], rate: float) -> list[SyntheticCell]:
        variant = f"{begun}{EARLY}"
        right = SyntheticCell(
            measure="accuracy", expected=rate, k=6, problems=1000, condition="heldout", variant=variant, regime=TRACED
        )
        carried = replace(right, measure="head_effect", kind="constant", expected=0.0, problems=100, k=READ_AT)
        cells = {head: replace(carried, condition=head) for head in HEADS}
        for head, value in zip(("L0H1", "L0H2"), effects, strict=True):
            cells[head] = replace(cells[head], kind="mean" if value else "constant", within=0.1, expected=value)
        return [right, *cells.values()]

    def world(
        name: str,
        base: tuple[float, float],
        reward: tuple[float, float],
        verdict: Word,
        *stands: str,
        twin: tuple[float, float] = first,
        rate: float = 0.97,
    ) -> MadeUpWorld:
        cells = [
            *of(BASE_VARIANT, base, 0.5),
            *of(REWARD_VARIANT, reward, rate),
            *of(TWIN_VARIANT, twin, 0.97),
        ]
        return MadeUpWorld(name, "reward-finds-the-same-heads", tuple(cells), verdict, frozenset(stands))

    kept, others, none = "the base had them", "other heads", "no head at all"
    return [
        world("the same, new ones", spread, first, "supported"),
        world(kept, first, first, "partly supported", kept),
        world(others, spread, other, "partly supported", others),
        world(none, spread, (0.0, 0.0), "not supported", none),
        world("reward does not teach it", spread, first, "inconclusive", rate=0.5),
        world("the twin has no reader", spread, first, "inconclusive", twin=(0.0, 0.0)),
    ]


def reward_worlds() -> list[MadeUpWorld]:
    """Bases that were shown traces in a tenth of their examples or in none, and what is begun from them."""

    def world(
        name: str,
        rewarded: float,
        twin: float,
        nothing: float,
        verdict: Word,
        *stands: str,
        dealt: float = 0.55,
        traces: float = 0.97,
        base: float = 0.55,
    ) -> MadeUpWorld:
        rates = {
            f"{BASE_VARIANT}{NEVER}": 0.5,
            f"{REWARD_VARIANT}{NEVER}": nothing,
            f"{BASE_VARIANT}{SHARED}": base,
            f"{REWARD_VARIANT}{SHARED}": rewarded,
            f"{TWIN_VARIANT}{SHARED}": twin,
            f"{DEALT_VARIANT}{SHARED}": dealt,
        }
        right = SyntheticCell(
            measure="accuracy", expected=0.0, k=LENGTH, problems=1000, condition="heldout", regime=TRACED
        )
        cells = [replace(right, variant=variant, expected=rate) for variant, rate in rates.items()]
        begun = replace(cells[2], measure="trace_right", condition="sample", expected=traces, problems=60)
        return MadeUpWorld(name, "reward-needs-some-demonstrations", (*cells, begun), verdict, frozenset(stands))

    none, suffice, never = "reward needs none", "demonstrations suffice", "reward never helps"
    return [
        world("some, and reward", 0.96, 0.6, 0.5, "supported"),
        world(none, 0.96, 0.6, 0.96, "not supported", none),
        world(suffice, 0.96, 0.97, 0.5, "partly supported", suffice),
        world(never, 0.56, 0.55, 0.5, "not supported", never),
        world("any updates do it", 0.96, 0.6, 0.5, "inconclusive", dealt=0.96),
        world("its traces are wrong", 0.96, 0.6, 0.5, "inconclusive", traces=0.2),
        world("nothing left to gain", 0.97, 0.97, 0.5, "inconclusive", base=0.97),
    ]


def inference_worlds() -> list[MadeUpWorld]:
    """All of them."""
    return [*thinking_worlds(), *verifier_worlds(), *knowing_worlds(), *head_worlds(), *reward_worlds()]
