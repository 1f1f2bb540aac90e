"""Made-up worlds: for every claim one in which it is so, and one for each of its rivals in which that rival is.

What is true of a world is written down as rates, and the verdict follows from them. Problems and spread are those of an
evaluation of trained models, so that five seeds are enough to see it; how often another draw of the same world gives
another verdict is a question of power, not of truth. The words of the rivals are those of `cotinterp.claims.catalog`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import ceil, log2

from cotinterp.behavior.edit_kinds import NONE, SHUFFLED, SUBSTITUTE
from cotinterp.calibration.circuit_worlds import circuit_worlds
from cotinterp.calibration.inference_worlds import inference_worlds
from cotinterp.calibration.verdict_level import LAYERS, SyntheticCell
from cotinterp.calibration.verdict_level import MadeUpWorld as MadeUpWorld
from cotinterp.claims.verdict import Word
from cotinterp.studies.evidence import (
    BEYOND,
    CONVERGED_VARIANT,
    EARLY_VARIANT,
    ENCODER_VARIANT,
    OTHER_START,
    POSITIONS_VARIANT,
    SAME_START,
    TEACHER_VARIANT,
    WITHOUT,
    Condition,
    EditCondition,
    ProbeCondition,
    ReadCondition,
    TraceCondition,
)

KS = (2, 3, 4, 5, 6)
K = 4
CHANCE = 0.1
TASK = "made-up"
PROBLEMS = 1000
"""Of each number of operands, as in an evaluation."""
SPREAD = 0.02
"""Standard deviation over models, of rates and of effects."""
DEPTHS = {"L1": 1, "L2": 2, "": LAYERS}
SIZES = ("n300", "n1000", "n10000")
FEW, MANY = (f"{CONVERGED_VARIANT}{n}" for n in (1000, 100_000))


def right(regime: str, rates: Mapping[int, float], variant: str = "", train: float = 0.99) -> list[SyntheticCell]:
    """Held-out accuracy by number of operands, the same training accuracy at each, and chance."""
    held = SyntheticCell(
        measure="accuracy", expected=0.0, k=0, regime=regime, variant=variant, condition="heldout", problems=PROBLEMS
    )
    cells = [replace(held, k=k, expected=rate) for k, rate in rates.items()]
    cells += [replace(cell, condition="train", expected=train) for cell in cells]
    chance = replace(held, measure="chance", kind="constant", condition="", expected=CHANCE)
    return cells + [replace(chance, k=k) for k in rates]


def flat(rate: float) -> dict[int, float]:
    """The same rate at every number of operands."""
    return dict.fromkeys(KS, rate)


def gap_worlds() -> list[MadeUpWorld]:
    """Accuracy of cot and direct over K, at equal updates and where both have learned."""
    falling = {2: 0.95, 3: 0.85, 4: 0.65, 5: 0.45, 6: 0.3}

    def world(claim: str, name: str, direct: Mapping[int, float], verdict: Word, *stands: str) -> MadeUpWorld:
        variant = MANY if claim == "gap-remains-when-learned" else ""
        cells = [*right("cot", flat(0.96), variant), *right("direct", direct, variant)]
        return MadeUpWorld(name, claim, tuple(cells), verdict, frozenset(stands))

    return [
        made
        for claim in ("gap-widens", "gap-remains-when-learned")
        for made in (
            world(claim, "it widens", falling, "supported"),
            world(claim, "constant gap", flat(0.6), "partly supported", "constant gap"),
            world(claim, "no gap", flat(0.96), "not supported", "no gap"),
        )
    ]


def size_worlds() -> list[MadeUpWorld]:
    """Direct models that were trained until they had learned, on few problems and on many."""
    any_size, of_few = "direct-is-lookup-at-any-size", "direct-is-lookup-of-few"
    at_once = "an algorithm at any size"

    def world(claim: str, name: str, few: float, many: float, verdict: Word, *stands: str) -> MadeUpWorld:
        cells = (*right("direct", flat(few), FEW), *right("direct", flat(many), MANY), *right("cot", flat(0.97), MANY))
        return MadeUpWorld(name, claim, cells, verdict, frozenset(stands))

    low, high = 0.15, 0.96
    turns = "a table of few, an algorithm for many"
    return [
        world(any_size, "a table, however many", low, low, "supported"),
        world(any_size, turns, low, high, "not supported", turns),
        world(any_size, at_once, high, high, "not supported", at_once),
        world(of_few, "it turns from a table into an algorithm", low, high, "supported"),
        world(of_few, "a table at any size", low, low, "not supported", "a table at any size"),
        world(of_few, at_once, high, high, "not supported", at_once),
    ]


def lookup_worlds() -> list[MadeUpWorld]:
    """Direct models that generalize or not, in any order or not, with more data or not, up to a length or not."""

    def world(
        name: str, held: Mapping[int, float], agree: float | None, sizes: Sequence[float], verdict: Word, *stands: str
    ) -> MadeUpWorld:
        cells = right("direct", held)
        cells += [SyntheticCell(measure="nearest", expected=0.2, k=k, regime="direct") for k in KS]
        for variant, rate in zip(SIZES, sizes, strict=True):
            cells += right("direct", flat(rate), variant)
        if agree is not None:
            both = SyntheticCell(measure="agreement", expected=agree, k=K, regime="direct")
            cells += [both, replace(both, measure="agreement_chance", kind="constant", expected=CHANCE)]
        return MadeUpWorld(name, "direct-is-lookup", tuple(cells), verdict, frozenset(stands))

    parallel, serial = "parallel or algebraic algorithm", "serial simulation"
    # Four layers reach five operands one at a time, and no more.
    to_its_depth = {**flat(0.96), 6: 0.3}
    return [
        world("a table", flat(0.18), 0.15, (0.18, 0.18, 0.18), "supported"),
        world(parallel, flat(0.96), 0.97, (0.4, 0.7, 0.97), "not supported", parallel),
        world(serial, to_its_depth, None, (0.4, 0.6, 0.9), "not supported", serial),
    ]


def reading_worlds() -> list[MadeUpWorld]:
    """Edits, patches and cut reads of models that read their trace, their prompt, or answer without either."""
    recomputes, ignores = "recomputes from the prompt", "ignores the trace"

    def world(
        name: str, follows: float, patch: float, read: float, verdict: Word, *stands: str, by_chance: float = CHANCE
    ) -> MadeUpWorld:
        edit = SyntheticCell(measure="edit", expected=follows, k=K, condition=EditCondition(SUBSTITUTE, "follows"))
        cells = [
            *right("cot", flat(0.97)),
            edit,
            replace(edit, condition=EditCondition(SUBSTITUTE, "ignores"), expected=0.95 - follows),
            replace(edit, condition=EditCondition(NONE, "follows"), expected=0.97),
            replace(edit, condition=EditCondition(SHUFFLED, "follows"), expected=by_chance),
            replace(edit, condition=EditCondition(SHUFFLED, "ignores"), expected=CHANCE),
        ]
        shares: dict[str, dict[Condition, float]] = {
            "family_effect": {"written_total": patch, "prompt_operand": 1 - patch, "unrelated": 0.0},
            "read_lost": {
                "previous_total": read,
                "earlier_operands": 1 - read,
                ReadCondition("previous_total", random=True): 0.02,
            },
        }
        cells += [
            SyntheticCell(measure=measure, expected=share, k=K, condition=condition, kind="mean", within=0.1)
            for measure, of in shares.items()
            for condition, share in of.items()
        ]
        return MadeUpWorld(name, "cot-reads-written-totals", tuple(cells), verdict, frozenset(stands))

    return [
        world("each total from the written one", 0.93, 0.95, 0.9, "supported"),
        world(recomputes, 0.03, 0.04, 0.05, "not supported", recomputes),
        world(ignores, 0.03, 0.95, 0.9, "partly supported", ignores),
        # Two edits in three are followed: the margin is below its threshold, and nothing is ignored.
        world("two in three are followed", 0.64, 0.95, 0.9, "partly supported"),
        world("any edit seems to be followed", 0.93, 0.95, 0.9, "inconclusive", by_chance=0.4),
    ]


def linear_worlds() -> list[MadeUpWorld]:
    """Probes before a total is written, and what becomes of the answer when what they read is exchanged."""
    about_to, unused = "only where it is about to be written", "present but not used"
    low, site = 0.2, f"L{LAYERS - 1}.resid_pre"

    def probed(regime: str, place: str, accuracy: float, use: float) -> list[SyntheticCell]:
        trained = ProbeCondition(model="trained", site=site, place=place)
        probe = SyntheticCell(measure="probe", expected=accuracy, k=K, regime=regime, condition=trained)
        cells: list[SyntheticCell] = []
        for step in range(1, K):
            own = replace(probe, step=step)
            controls = (ProbeCondition(model="input", site="input", place=place), replace(trained, model="untrained"))
            cells += [own, *(replace(own, condition=control, expected=low) for control in controls)]
            cells.append(replace(own, measure="probe_control", expected=low))
        used = SyntheticCell(measure="probe_use", expected=use, k=K, regime=regime, kind="mean", within=0.1, step=K - 1)
        return [*cells, replace(used, condition=ProbeCondition(site=site, place=place))]

    def world(
        name: str, cot: tuple[float, float], direct: tuple[float, float], verdict: Word, *stands: str
    ) -> MadeUpWorld:
        cells = (*right("cot", flat(0.97)), *probed("cot", "equals", *cot), *probed("direct", "operand", *direct))
        return MadeUpWorld(name, "running-totals-are-linear", cells, verdict, frozenset(stands))

    return [
        world("there and used in both", (0.95, 0.8), (0.8, 0.5), "supported"),
        world(about_to, (0.95, 0.8), (low, 0.0), "partly supported", about_to),
        world(unused, (0.95, 0.0), (0.8, 0.0), "partly supported", unused),
    ]


def error_worlds() -> list[MadeUpWorld]:
    """Wrong outputs of cot, by kind."""

    def world(name: str, share: float, wrong: int, verdict: Word, *stands: str, variant: str = "") -> MadeUpWorld:
        kind = SyntheticCell(
            measure="error_kind", expected=share, k=6, condition="bookkeeping", problems=wrong, variant=variant
        )
        cells = (*right("cot", flat(0.95)), kind, replace(kind, condition="arithmetic", expected=1 - share))
        return MadeUpWorld(name, "errors-are-bookkeeping", cells, verdict, frozenset(stands))

    return [
        world("most of a hundred errors a seed", 0.85, 100, "supported"),
        world("wrong steps", 0.15, 100, "not supported", "wrong steps"),
        world("bookkeeping alone, and three errors a seed", 1.0, 3, "inconclusive"),
        world(
            "wrong steps, of models that were stopped early",
            0.15,
            100,
            "not supported",
            "wrong steps",
            variant=EARLY_VARIANT,
        ),
    ]


def token_worlds() -> list[MadeUpWorld]:
    """Filler between direct and cot."""
    suffice, nothing = "extra passes suffice", "nothing to gain"

    def world(name: str, filler: float, direct: float, verdict: Word, *stands: str) -> MadeUpWorld:
        rates = {"cot": 0.96, "filler": filler, "direct": direct}
        cells = tuple(cell for regime, rate in rates.items() for cell in right(regime, flat(rate)))
        return MadeUpWorld(name, "tokens-carry-content", cells, verdict, frozenset(stands))

    return [
        world("dots do not help", 0.45, 0.45, "supported"),
        world("dots help halfway", 0.7, 0.45, "supported"),
        world(suffice, 0.95, 0.45, "not supported", suffice),
        world(nothing, 0.96, 0.96, "not supported", nothing),
    ]


def depth_worlds() -> list[MadeUpWorld]:
    """Which lengths each depth solves."""
    solved, failed = 0.98, 0.3

    def world(name: str, reach: Mapping[str, int], verdict: Word, *stands: str, best: float = solved) -> MadeUpWorld:
        cells = [
            cell
            for variant in DEPTHS
            for cell in right("direct", {k: best if k <= reach[variant] else failed for k in KS}, variant)
        ]
        return MadeUpWorld(name, "depth-limits-direct", tuple(cells), verdict, frozenset(stands))

    chain = {variant: layers + 1 for variant, layers in DEPTHS.items()}
    tree = {variant: max(k for k in KS if ceil(log2(k)) <= layers) for variant, layers in DEPTHS.items()}
    every = dict.fromkeys(DEPTHS, max(KS))
    return [
        world("a layer a step", chain, "supported"),
        world("logarithmic", tree, "partly supported", "logarithmic"),
        world("constant", every, "not supported", "constant"),
        world("not depth", every, "not supported", "not depth", best=0.6),
    ]


def anchor_worlds() -> list[MadeUpWorld]:
    """Probability of answers along the trace: writing on from a wrong total, and once all totals are written."""
    decoration, before, last_alone = "decoration", "known beforehand", "only the last total counts"
    some = "only some totals count"

    def world(
        name: str,
        follows: float,
        start: float,
        verdict: Word,
        *stands: str,
        copies: float | None = None,
        at_any: float | None = None,
    ) -> MadeUpWorld:
        margin = follows if at_any is None else at_any
        edited, closed = TraceCondition("edited", "free"), TraceCondition("true", "forced")
        last = [SyntheticCell(measure="answer_prob", expected=0.95, k=6, step=5, condition=closed)]
        for step, rate in ((1, follows), (5, follows if copies is None else copies)):
            rates = {
                ("answer_prob", TraceCondition("true", "free")): 0.96,
                ("answer_prob", edited): 0.95 - rate,
                ("followed_prob", edited): rate,
            }
            last += [
                SyntheticCell(measure=measure, expected=rate, k=6, step=step, condition=condition)
                for (measure, condition), rate in rates.items()
            ]
        first = SyntheticCell(measure="answer_prob", expected=start, k=6, step=0, condition=closed)
        known = {"own_log_prob": -0.05, "marginal_log_prob": -1.0}
        logs = [SyntheticCell(measure=name, expected=x, k=6, kind="mean", within=0.05) for name, x in known.items()]
        edit = SyntheticCell(measure="edit", expected=margin, k=6, condition=EditCondition(SUBSTITUTE, "follows"))
        edits = [edit, replace(edit, expected=0.95 - margin, condition=EditCondition(SUBSTITUTE, "ignores"))]
        own = SyntheticCell(measure="own_wrong_followed", expected=follows, k=6, problems=40)
        cells = (*right("cot", flat(0.97)), *last, first, own, *edits, *logs)
        return MadeUpWorld(name, "wrong-steps-anchor-wrong-answers", cells, verdict, frozenset(stands))

    return [
        world("the answer hangs on the trace", 0.92, 0.15, "supported"),
        world(decoration, 0.03, 0.15, "not supported", decoration),
        world(before, 0.92, 0.93, "partly supported", before),
        world(last_alone, 0.03, 0.15, "not supported", last_alone, copies=0.92, at_any=0.25),
        world(some, 0.92, 0.15, "partly supported", some, at_any=0.6),
    ]


def teaching_worlds() -> list[MadeUpWorld]:
    """Models that were shown traces, their controls, and what each answers at once and with its trace."""
    site, low = f"L{LAYERS - 1}.resid_pre", 0.2
    mixed, inner = "mixed-50", "internalize"

    def of(variant: str, rates: Mapping[str, float], leaked: float = 0.0) -> list[SyntheticCell]:
        regime = "direct-mode" if variant.startswith(mixed) else "direct"
        cell = SyntheticCell(measure="exact", expected=0.0, k=0, regime=regime, variant=variant, problems=PROBLEMS)
        cells = [replace(cell, k=k, condition=name, expected=rate) for k in KS for name, rate in rates.items()]
        return [*cells, *(replace(cell, measure="leakage", k=k, expected=leaked) for k in KS)]

    def probed(variant: str, accuracy: float, use: float) -> list[SyntheticCell]:
        trained = ProbeCondition(model="trained", site=site, place="operand")
        own = SyntheticCell(
            measure="probe", expected=accuracy, k=K, step=2, regime="direct-mode", variant=variant, condition=trained,
            problems=PROBLEMS,
        )  # fmt: skip
        worth = (ProbeCondition(model="input", site="input", place="operand"), replace(trained, model="untrained"))
        cells = [own, replace(own, measure="probe_control", expected=low)]
        cells += [replace(own, condition=control, expected=low) for control in worth]
        used = replace(own, measure="probe_use", expected=use, kind="mean", within=0.1, problems=200)
        return [*cells, replace(used, condition=ProbeCondition(site=site, place="operand"))]

    def world(claim: str, name: str, cells: Sequence[SyntheticCell], verdict: Word, *stands: str) -> MadeUpWorld:
        return MadeUpWorld(name, claim, tuple(cells), verdict, frozenset(stands))

    def at_once(direct: float, taught: float, control: float, variant: str = mixed) -> list[SyntheticCell]:
        rates = {"": {"asked": direct}, variant: {"asked": taught, "trace": 0.97}}
        rates[f"{variant}-control"] = {"asked": control}
        return [cell for name, asked in rates.items() for cell in of(name, asked)]

    def inside(taught: float, control: float, use: float) -> list[SyntheticCell]:
        both = of(mixed, {"asked": 0.9, "trace": 0.97})
        return [*both, *probed(mixed, taught, use), *probed(f"{mixed}-control", control, 0.0)]

    hurts, helps, phases = "naive-training-hurts", "mixed-training-helps", "curriculum-not-content"
    most, leaves = "trace-helps-most", "rationale-training-leaves-running-totals"
    plain, alike, mute = of("", {"asked": 0.7}), "it does not matter", "it cannot, in any format"
    dots, no_help, none, too, unused = (
        "the phases, not the content",
        "no help",
        "no totals inside",
        "dots leave them, too",
        "there and not used",
    )
    return [
        world(hurts, "it writes the trace instead", [*plain, *of("naive", {"asked": 0.05}, 0.95)], "supported"),
        world(hurts, alike, [*plain, *of("naive", {"asked": 0.7})], "not supported", alike),
        world(hurts, mute, [*plain, *of("naive", {"asked": 0.05}, 0.02)], "partly supported", mute),
        world(helps, "by what the traces say", at_once(0.4, 0.9, 0.45), "supported"),
        world(helps, dots, at_once(0.4, 0.9, 0.88), "not supported", dots),
        world(helps, no_help, at_once(0.7, 0.7, 0.68), "not supported", no_help),
        world(phases, "dots in the same phases do as much", at_once(0.4, 0.9, 0.88, inner), "supported"),
        world(phases, "content", at_once(0.4, 0.9, 0.45, inner), "partly supported", "content"),
        world(phases, "no gain", at_once(0.7, 0.7, 0.68, inner), "partly supported", "no gain"),
        world(most, "it is", at_once(0.4, 0.5, 0.4), "supported"),
        world(most, "at once is as good", at_once(0.4, 0.95, 0.4), "not supported", "at once is as good"),
        world(leaves, "there, used, and for the content", inside(0.8, low, 0.5), "supported"),
        world(leaves, none, inside(low, low, 0.0), "not supported", none),
        world(leaves, too, inside(0.8, 0.8, 0.5), "partly supported", too),
        world(leaves, unused, inside(0.8, low, 0.0), "partly supported", unused),
    ]


def distillation_worlds() -> list[MadeUpWorld]:
    """Students of a teacher's states beside direct, the states of other problems, and the teacher."""
    name, any_states, no_help = "hidden-states", "any states, not their content", "no help"

    def world(title: str, direct: float, student: float, control: float, verdict: Word, *stands: str) -> MadeUpWorld:
        rates = {"": direct, name: student, f"{name}-control": control}
        cells = [cell for variant, rate in rates.items() for cell in asked_at_once(variant, rate)]
        claim = "hidden-state-distillation-helps"
        return MadeUpWorld(
            title, claim, (*cells, *right("cot", flat(0.97), TEACHER_VARIANT)), verdict, frozenset(stands)
        )

    return [
        world("by what the states say", 0.4, 0.9, 0.45, "supported"),
        world(any_states, 0.4, 0.9, 0.88, "not supported", any_states),
        world(no_help, 0.7, 0.7, 0.68, "not supported", no_help),
    ]


def asked_at_once(variant: str, rate: float) -> list[SyntheticCell]:
    """Whole responses that are right, of models that are asked in the regime `direct`."""
    cell = SyntheticCell(
        measure="exact", expected=rate, k=0, regime="direct", variant=variant, condition="asked", problems=PROBLEMS
    )
    return [replace(cell, k=k) for k in KS]


def vertical_worlds() -> list[MadeUpWorld]:
    """Models that answer at once, and at which layer each total can be read where the answer is predicted."""
    low, high, end = 0.2, 0.8, LAYERS
    sites = [*(f"L{layer}.resid_pre" for layer in range(LAYERS)), f"L{LAYERS - 1}.resid_post"]

    def probed(variant: str, place: str, site: str, step: int, rate: float) -> list[SyntheticCell]:
        trained = ProbeCondition(model="trained", site=site, place=place)
        own = SyntheticCell(
            measure="probe", expected=rate, k=K, step=step, regime="direct", variant=variant, condition=trained,
            problems=PROBLEMS,
        )  # fmt: skip
        untrained = replace(own, condition=replace(trained, model="untrained"), expected=low)
        return [own, replace(own, measure="probe_control", expected=low), untrained]

    def world(
        claim: str,
        name: str,
        appears: tuple[int, int],
        use: float,
        verdict: Word,
        *stands: str,
        operands: float = low,
        at_once: float = 0.95,
    ) -> MadeUpWorld:
        variant = "internalize" if claim.startswith("internalized") else "hidden-states"
        cells = asked_at_once(variant, at_once)
        for step, first in enumerate((*appears, end), start=1):
            for layer, site in enumerate(sites):
                cells += probed(variant, "prompt_end", site, step, high if layer >= first else low)
            cells += probed(variant, "operand", sites[LAYERS - 1], step, operands if step < K - 1 else low)
            for place in ("prompt_end", "operand"):
                bare = ProbeCondition(model="input", site="input", place=place)
                cells.append(replace(cells[-1], measure="probe", expected=low, condition=bare))
            used = replace(cells[-1], measure="probe_use", kind="mean", within=0.1, problems=200)
            cells += [
                replace(
                    used,
                    condition=ProbeCondition(site=site, place="prompt_end"),
                    expected=use if step < K - 1 and layer >= first else 0.0,
                )
                for layer, site in enumerate(sites)
                if layer
            ]
        return MadeUpWorld(name, claim, tuple(cells), verdict, frozenset(stands))

    answer_alone, across, together, unused = (
        "only the answer is there",
        "from left to right",
        "all at one layer",
        "there and not used",
    )
    never = (end + 1, end + 1)
    return [
        made
        for claim in ("internalized-computation-is-vertical", "distilled-computation-is-vertical")
        for made in (
            world(claim, "a layer a step, and used", (1, 2), 0.5, "supported"),
            world(claim, answer_alone, never, 0.0, "not supported", answer_alone),
            world(claim, across, never, 0.0, "not supported", across, operands=high),
            world(claim, together, (2, 2), 0.5, "partly supported", together),
            world(claim, unused, (1, 2), 0.0, "partly supported", unused),
            world(claim, "hardly anything is answered at once", (1, 2), 0.5, "inconclusive", at_once=0.3),
        )
    ]


def adapter_worlds() -> list[MadeUpWorld]:
    """All weights and adapters at two rates, from a model of another task and from one of this task."""
    as_good, brings_out = "as good", "brings out, teaches nothing"

    def world(
        name: str, new: float, known: float, verdict: Word, *stands: str, every: float = 0.97, slow: float = 0.3
    ) -> MadeUpWorld:
        cells = []
        for start, regime, best in ((OTHER_START, "cot", new), (SAME_START, "totals", known)):
            for trained, rate in (("all", every), ("rank4-x1", slow), ("rank4-x5", best)):
                cells += right(regime, flat(rate), f"{start}{trained}")
        return MadeUpWorld(name, "lora-helps-less", tuple(cells), verdict, frozenset(stands))

    return [
        world("less from either start", 0.6, 0.7, "supported"),
        world(as_good, 0.95, 0.96, "not supported", as_good),
        world(brings_out, 0.6, 0.96, "partly supported", brings_out),
        world("all weights do not learn it", 0.3, 0.3, "inconclusive", every=0.6),
    ]


def position_worlds() -> list[MadeUpWorld]:
    """How far schemes of positions go beyond the lengths of training, with a trace and at once."""
    none, trace, alike = "none goes furthest", "the trace decides", "no scheme goes further"

    def world(
        name: str, places: float, distances: float, nothing: float, direct: float, verdict: Word, *stands: str
    ) -> MadeUpWorld:
        of = {"standard": places, "sinusoidal": places, "rotary": distances, "alibi": distances, "none": nothing}
        cells: list[SyntheticCell] = []
        for scheme, rate in of.items():
            variant = f"{POSITIONS_VARIANT}{scheme}"
            for regime, far in (("cot", rate), ("direct", direct)):
                shown = right(regime, flat(0.97), variant)
                cells += [*shown, *(replace(shown[0], k=k, condition=BEYOND, expected=far) for k in range(7, 13))]
        return MadeUpWorld(name, "positions-decide-length", tuple(cells), verdict, frozenset(stands))

    return [
        world("distances go further", 0.2, 0.7, 0.5, 0.2, "supported"),
        world(none, 0.2, 0.22, 0.7, 0.2, "not supported", none),
        world(trace, 0.7, 0.72, 0.71, 0.2, "not supported", trace),
        world(alike, 0.2, 0.22, 0.21, 0.2, "not supported", alike),
    ]


def encoder_worlds() -> list[MadeUpWorld]:
    """Encoders with rationales in their data, never read or in the input, asked with them and without."""
    unread, stays, kept = "unread ones help", "what was in the input stays", "they are not missed"

    def world(
        name: str, read_not: float, without: float, verdict: Word, *stands: str, plain: float = 0.5
    ) -> MadeUpWorld:
        rates = {"label": plain, "label-trace-unread": read_not, "label-after-trace": 0.98}
        cells = [cell for regime, rate in rates.items() for cell in right(regime, flat(rate), ENCODER_VARIANT)]
        given = next(cell for cell in cells if cell.regime == "label-after-trace")
        cells += [replace(given, k=k, condition=WITHOUT, expected=without) for k in KS]
        return MadeUpWorld(name, "encoder-gains-nothing", tuple(cells), verdict, frozenset(stands))

    return [
        world("nothing unread, missed in the input", 0.5, 0.15, "supported"),
        world(unread, 0.8, 0.15, "partly supported", unread),
        world(stays, 0.5, 0.8, "partly supported", stays),
        world(kept, 0.97, 0.97, "partly supported", kept, plain=0.97),
    ]


def width_worlds() -> list[MadeUpWorld]:
    """Direct and cot at two widths, and what kind the errors of the narrower cot are."""
    any_width, no_width, garbled = "helps at any width", "helps at no width", "garbled"

    def world(
        name: str, narrow: tuple[float, float], wide: float, fluent: float, verdict: Word, *stands: str
    ) -> MadeUpWorld:
        rates = {("w4", "direct"): narrow[0], ("w4", "cot"): narrow[1], ("w64", "direct"): wide, ("w64", "cot"): 0.97}
        cells = [cell for (variant, regime), rate in rates.items() for cell in right(regime, flat(rate), variant)]
        kind = SyntheticCell(measure="error_kind", expected=1 - fluent, k=6, condition="bookkeeping", variant="w4")
        return MadeUpWorld(name, "small-models-are-hurt", (*cells, kind), verdict, frozenset(stands))

    return [
        world("narrow ones lose by wrong steps", (0.5, 0.3), 0.7, 0.9, "supported"),
        world(any_width, (0.3, 0.5), 0.7, 0.9, "not supported", any_width),
        world(no_width, (0.5, 0.3), 0.97, 0.9, "partly supported", no_width),
        world(garbled, (0.5, 0.3), 0.7, 0.1, "partly supported", garbled),
    ]


def made_up_worlds() -> tuple[MadeUpWorld, ...]:
    """All of them, and two once more: one unsolved, one with too few seeds for a verdict."""
    worlds = [
        *(*gap_worlds(), *size_worlds(), *lookup_worlds(), *reading_worlds(), *linear_worlds()),
        *(*error_worlds(), *token_worlds(), *depth_worlds(), *anchor_worlds(), *teaching_worlds(), *width_worlds()),
        *(*distillation_worlds(), *vertical_worlds(), *adapter_worlds(), *position_worlds(), *encoder_worlds()),
        *(*inference_worlds(), *circuit_worlds()),
    ]
    reads = reading_worlds()[0]
    unsolved = [replace(cell, expected=0.6) if cell.measure == "accuracy" else cell for cell in reads.cells]
    worlds.append(replace(reads, name=f"{reads.name}, unsolved", cells=tuple(unsolved), verdict="inconclusive"))
    widens = worlds[0]
    worlds.append(replace(widens, name=f"{widens.name}, four seeds", verdict="inconclusive", seeds=4))
    return tuple(worlds)
