"""The numbers that the claims are about, each a function of the cells of one seed.

`cot`, `direct` and `filler` are the regimes. Accuracies are shares of free-running answers to held-out problems unless
said. In a mean over K every number of operands counts alike, however many problems there are of it. A statistic gives
one value on what was measured, and one for each redrawn sample of problems.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from math import ceil, log2
from typing import Any

import numpy as np

from cotinterp.behavior.edit_kinds import NONE, SHUFFLED, SUBSTITUTE
from cotinterp.claims.cells import Cells, MissingEvidence, Values
from cotinterp.studies.evidence import (
    CONVERGED_VARIANT,
    EARLY_VARIANT,
    MEMORY_TASK,
    EditCondition,
    ProbeCondition,
    ReadCondition,
    TraceCondition,
)

HEADROOM = 0.2
"""Least that memory must leave open: where its best guess is worth nearly everything, nothing can go beyond it."""

SHORTEST = 3
"""Lengths below this have few held-out problems (22 for two digits) and few training problems to learn from."""


def heldout(cells: Cells, regime: str, k: int, variant: str = "") -> Values:
    """Accuracy on held-out problems of `k` operands."""
    return cells.mean("accuracy", regime=regime, k=k, condition="heldout", variant=variant)


def lengths(
    cells: Cells, regime: str, *, shortest: int = 0, variant: str = "", task: str | None = None
) -> tuple[int, ...]:
    """Numbers of operands that a regime was measured at; those below `shortest` only where there are no others."""
    ks = cells.ks("accuracy", regime=regime, condition="heldout", variant=variant, task=task)
    return tuple(k for k in ks if k >= shortest) or ks


def over_lengths(cells: Cells, measure: str, **where: Any) -> Values:
    """Mean over K from SHORTEST on, each alike; over what was measured where there is none as long."""
    ks = cells.ks(measure, **where)
    return average([cells.mean(measure, k=k, **where) for k in [k for k in ks if k >= SHORTEST] or ks])


def accuracy(cells: Cells, regime: str, variant: str = "") -> Values:
    """Held-out accuracy, `over_lengths`."""
    return over_lengths(cells, "accuracy", regime=regime, condition="heldout", variant=variant)


def average(values: Sequence[Values]) -> Values:
    """The mean of several numbers, draw by draw."""
    mean: Values = np.mean(np.stack(values), axis=0)
    return mean


def difference(one: Values, other: Values) -> Values:
    """The first minus the second, draw by draw."""
    gap: Values = one - other
    return gap


def slope_over(places: Sequence[int], values: Sequence[Values]) -> Values:
    """Least-squares slope of the values over their places, draw by draw. MissingEvidence for fewer than two."""
    if len(places) < 2:
        raise MissingEvidence(f"a slope needs two numbers; measured: {tuple(places)}")
    centered = np.array(places) - np.mean(places)
    slope: Values = centered @ np.stack(np.broadcast_arrays(*values)) / (centered @ centered)
    return slope


def advantage(cells: Cells, variant: str = "") -> Values:
    """Accuracy of cot minus that of direct at the largest K."""
    k = lengths(cells, "cot", variant=variant)[-1]
    return difference(heldout(cells, "cot", k, variant), heldout(cells, "direct", k, variant))


def advantage_slope(cells: Cells, variant: str = "") -> Values:
    """Least-squares slope of that difference over K: what an operand more adds to it."""
    ks = lengths(cells, "cot", variant=variant)
    return slope_over(ks, [heldout(cells, "cot", k, variant) - heldout(cells, "direct", k, variant) for k in ks])


def on_many(cells: Cells) -> str:
    """The variant in which direct and cot were trained until they had learned, on many problems."""
    return f"{CONVERGED_VARIANT}{max(_sizes(cells, ('direct', 'cot'), 'on many problems'))}"


def on_few(cells: Cells) -> str:
    """The variant in which direct alone was, on few."""
    return f"{CONVERGED_VARIANT}{min(_sizes(cells, ('direct',), 'on few problems', ('cot',)))}"


def _sizes(cells: Cells, regimes: Sequence[str], where: str, without: Sequence[str] = ()) -> set[int]:
    names = set.intersection(*(set(cells.variants(regime)) for regime in regimes))
    names -= {name for regime in without for name in cells.variants(regime)}
    if found := {int(name.removeprefix(CONVERGED_VARIANT)) for name in names if name.startswith(CONVERGED_VARIANT)}:
        return found
    raise MissingEvidence(
        f"{' and '.join(regimes)} until learned, {where}; measured variants: {cells.variants('direct')}"
    )


def advantage_when_learned(cells: Cells) -> Values:
    """`advantage` of models that were trained until they had learned, on the most problems."""
    return advantage(cells, on_many(cells))


def advantage_slope_when_learned(cells: Cells) -> Values:
    """`advantage_slope` of the same models."""
    return advantage_slope(cells, on_many(cells))


def cot_accuracy_when_learned(cells: Cells) -> Values:
    """Accuracy of cot among them, mean over K."""
    return cot_accuracy(cells, on_many(cells))


def ratio_of(cells: Cells, regime: str = "direct", task: str | None = None, variant: str = "") -> Values:
    """(held-out - chance) / (train - chance): 1 for an algorithm, 0 for a table, NaN where nothing was learned."""
    ks = lengths(cells, regime, task=task, variant=variant)
    of = partial(cells.mean, regime=regime, task=task, variant=variant)
    chance = [of("chance", k=k) for k in ks]
    sides = [
        average([of("accuracy", k=k, condition=side) - c for k, c in zip(ks, chance, strict=True)])
        for side in ("heldout", "train")
    ]
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio: Values = np.where(sides[1] > 0, sides[0] / sides[1], np.nan)
    return ratio


def ratio_of_few(cells: Cells) -> Values:
    """The generalization ratio of direct, trained on the fewest problems until it had learned."""
    return ratio_of(cells, variant=on_few(cells))


def ratio_of_many(cells: Cells) -> Values:
    """The same on the most problems."""
    return ratio_of(cells, variant=on_many(cells))


def generalization_ratio(cells: Cells) -> Values:
    """The generalization ratio of direct."""
    return ratio_of(cells)


def memory_ratio(cells: Cells) -> Values:
    """The generalization ratio of the model that was trained on random labels."""
    return ratio_of(cells, task=MEMORY_TASK)


def learned(cells: Cells, variant: str = "") -> Values:
    """Accuracy of direct on its own training problems, above guessing."""
    of = partial(cells.mean, regime="direct", variant=variant)
    return average(
        [of("accuracy", k=k, condition="train") - of("chance", k=k) for k in lengths(cells, "direct", variant=variant)]
    )


def learned_many(cells: Cells) -> Values:
    """`learned` of the models that were trained until they had learned on the most problems."""
    return learned(cells, on_many(cells))


def beyond_memory(cells: Cells) -> Values:
    """Accuracy of direct minus the best of what memory is worth there.

    Memory: the most frequent answer, the nearest training problem, and, where order cannot matter, the nearest in any
    order. Mean over the K at which it leaves room (HEADROOM).
    """
    gains = []
    for k in lengths(cells, "direct", shortest=SHORTEST):
        worth = [cells.mean(name, regime="direct", k=k) for name in ("chance", "nearest")]
        with suppress(MissingEvidence):
            worth.append(cells.mean("reordered", regime="direct", k=k))
        best = np.max(np.broadcast_arrays(*worth), axis=0)
        if best.mean() <= 1 - HEADROOM:
            gains.append(heldout(cells, "direct", k) - best)
    if not gains:
        raise MissingEvidence(f"memory is worth more than {1 - HEADROOM:.0%} at every length")
    return average(gains)


def net_agreement(cells: Cells) -> Values:
    """How often a trained problem gets the same answer in an order never trained on: 0 by chance, 1 always."""
    found = []
    for k in cells.ks("agreement", regime="direct"):
        chance = cells.mean("agreement_chance", regime="direct", k=k)
        if (chance < 1).all():
            found.append((cells.mean("agreement", regime="direct", k=k) - chance) / (1 - chance))
    if not found:
        raise MissingEvidence("every problem gets the same answer: agreement says nothing")
    return average(found)


def _is_size(variant: str) -> bool:
    return variant.startswith("n") and variant[1:].isdigit()


def size_gain(cells: Cells) -> Values:
    """Least-squares slope of direct's accuracy over the decimal logarithm of the number of training problems."""
    sizes = sorted((int(name[1:]), name) for name in cells.variants("direct") if _is_size(name))
    if len(sizes) < 2:
        raise MissingEvidence(f"a training-size curve needs two sizes; measured variants: {cells.variants('direct')}")
    logs = np.log10([size for size, _ in sizes])
    centered = logs - logs.mean()
    accuracies = np.stack(
        [
            average(
                [heldout(cells, "direct", k, name) for k in lengths(cells, "direct", shortest=SHORTEST, variant=name)]
            )
            for _, name in sizes
        ]
    )
    slope: Values = centered @ accuracies / (centered @ centered)
    return slope


def cliff(cells: Cells) -> Values:
    """Accuracy of direct at K = L + 1, which L serial steps still reach, minus that at K = L + 2."""
    layers = cells.n_layers("direct")
    return difference(heldout(cells, "direct", layers + 1), heldout(cells, "direct", layers + 2))


def cot_accuracy(cells: Cells, variant: str = "") -> Values:
    """Accuracy of cot, mean over K."""
    return average([heldout(cells, "cot", k, variant) for k in lengths(cells, "cot", variant=variant)])


def content(cells: Cells) -> Values:
    """Accuracy of cot minus that of filler, mean over K."""
    ks = lengths(cells, "cot", shortest=SHORTEST)
    return average([heldout(cells, "cot", k) - heldout(cells, "filler", k) for k in ks])


def passes(cells: Cells) -> Values:
    """Accuracy of filler minus that of direct, mean over K."""
    ks = lengths(cells, "filler", shortest=SHORTEST)
    return average([heldout(cells, "filler", k) - heldout(cells, "direct", k) for k in ks])


def _over_budget(cells: Cells, chosen: Sequence[tuple[str, int]], words: str) -> Values:
    if not chosen:
        raise MissingEvidence(f"no length of three operands or more lies {words}")
    return average([heldout(cells, "direct", k, variant) for variant, k in chosen])


def _grid(cells: Cells) -> list[tuple[str, int, int]]:
    """Variant, layers and K of every direct model that differs from the standard one in depth alone, and that one."""
    depths = [name for name in cells.variants("direct") if name == "" or name.startswith("L")]
    if len(depths) < 2:
        raise MissingEvidence(f"depth needs models of several depths; measured variants: {cells.variants('direct')}")
    return [
        (name, cells.n_layers("direct", name), k)
        for name in depths
        for k in lengths(cells, "direct", shortest=SHORTEST, variant=name)
    ]


def within_budget(cells: Cells) -> Values:
    """Accuracy of direct where K - 1 <= L, mean over depths and lengths."""
    return _over_budget(cells, [(v, k) for v, n, k in _grid(cells) if k - 1 <= n], "within K - 1 <= L")


def beyond_budget(cells: Cells) -> Values:
    """Accuracy of direct where K - 1 > L, mean over depths and lengths."""
    return _over_budget(cells, [(v, k) for v, n, k in _grid(cells) if k - 1 > n], "beyond K - 1 <= L")


def tree_budget(cells: Cells) -> Values:
    """Accuracy of direct where a tree is deep enough and a chain is not: K - 1 > L and ceil(log2 K) <= L."""
    chosen = [(v, k) for v, n, k in _grid(cells) if k - 1 > n and ceil(log2(k)) <= n]
    return _over_budget(cells, chosen, "between the logarithmic and the linear budget")


def depth_gain(cells: Cells) -> Values:
    """Accuracy of direct with the most layers minus that with the fewest, at the longest chain that fits the former.

    That is K = L + 1 of the deepest, or the largest K below it: beyond, a serial account predicts failure at any depth.
    """
    by_depth = sorted((layers, name) for name, layers, _ in _grid(cells))
    ks = lengths(cells, "direct", shortest=SHORTEST)
    k = max((k for k in ks if k - 1 <= by_depth[-1][0]), default=ks[0])
    deepest, shallowest = (heldout(cells, "direct", k, by_depth[end][1]) for end in (-1, 0))
    return difference(deepest, shallowest)


def patch_margin(cells: Cells) -> Values:
    """Effect of the written total minus that of the operand that it came from, as shares of the effect of both."""
    effects = [cells.mean("family_effect", regime="cot", condition=x) for x in ("written_total", "prompt_operand")]
    return difference(*effects)


def unrelated_effect(cells: Cells) -> Values:
    """Size of the effect of an operand that cannot matter, in the same unit."""
    size: Values = np.abs(cells.mean("family_effect", regime="cot", condition="unrelated"))
    return size


def read_margin(cells: Cells) -> Values:
    """Logit difference lost without the read of the written total minus that without the reads of earlier operands."""
    lost = [cells.mean("read_lost", regime="cot", condition=x) for x in ("previous_total", "earlier_operands")]
    return difference(*lost)


def random_cut(cells: Cells) -> Values:
    """Logit difference lost without the reads of as many random tokens as the written total has."""
    return cells.mean("read_lost", regime="cot", condition=ReadCondition("previous_total", random=True))


def _last_input(cells: Cells, regime: str, variant: str = "") -> str:
    """The site that enters the last layer."""
    return f"L{cells.n_layers(regime, variant) - 1}.resid_pre"


def net_at(cells: Cells, regime: str, place: str, site: str, step: int, variant: str = "") -> Values:
    """Probe accuracy for the total of one step at one site and place, minus the best of its controls.

    Controls: the same probe on random labels, on the untrained model, and on the bare token and position.
    """
    trained = ProbeCondition(model="trained", site=site, place=place)
    of = partial(cells.mean, regime=regime, variant=variant, step=step)
    untrained = replace(trained, model="untrained")
    token = ProbeCondition(model="input", site="input", place=place)
    controls = (("probe_control", trained), ("probe", untrained), ("probe", token))
    worth = [of(name, condition=where) for name, where in controls]
    return difference(of("probe", condition=trained), np.max(np.broadcast_arrays(*worth), axis=0))


def net_decodable(cells: Cells, regime: str, place: str, variant: str = "", site: str = "") -> Values:
    """`net_at` for s_j at a place before it is written, mean over steps j.

    By default at the input of the last layer: what leaves the last layer is what is about to be written, and the
    unembedding is linear.
    """
    site = site or _last_input(cells, regime, variant)
    trained = ProbeCondition(model="trained", site=site, place=place)
    steps = cells.steps("probe", regime=regime, condition=trained, variant=variant)
    return average([net_at(cells, regime, place, site, step, variant) for step in steps])


def decodable_in_cot(cells: Cells) -> Values:
    """`net_decodable` at the equals sign of step j in cot."""
    return net_decodable(cells, "cot", "equals")


def decodable_in_direct(cells: Cells) -> Values:
    """`net_decodable` at operand j in direct, where a serial computation would have the total."""
    return net_decodable(cells, "direct", "operand")


def used_in(cells: Cells, regime: str, place: str, variant: str = "") -> Values:
    """Share of the gap that exchanging the probed directions closes, beyond random directions; largest step's total."""
    condition = ProbeCondition(site=_last_input(cells, regime, variant), place=place)
    step = cells.steps("probe_use", regime=regime, condition=condition, variant=variant)[-1]
    return cells.mean("probe_use", regime=regime, condition=condition, step=step, variant=variant)


def used_in_cot(cells: Cells) -> Values:
    """`used_in` at the equals sign of the last step of cot, for the total that comes next."""
    return used_in(cells, "cot", "equals")


def used_in_direct(cells: Cells) -> Values:
    """`used_in` at the middle operand of direct."""
    return used_in(cells, "direct", "operand")


def ignore_margin(cells: Cells) -> Values:
    """Share of edited totals that the answer ignores, minus the share that it follows."""
    return -follow_margin(cells)


def follow_margin(cells: Cells) -> Values:
    """Share of edited totals that the answer follows, minus the share that it ignores."""
    follows = cells.mean("edit", regime="cot", condition=EditCondition(SUBSTITUTE, "follows"))
    return difference(follows, cells.mean("edit", regime="cot", condition=EditCondition(SUBSTITUTE, "ignores")))


def clean_trace(cells: Cells) -> Values:
    """Share of right answers after the true total was written in the place of an edit."""
    return cells.mean("edit", regime="cot", condition=EditCondition(NONE, "follows"))


def margin_by_chance(cells: Cells) -> Values:
    """`follow_margin` of answers that are judged by another problem's edit. With two answers half of them follow it."""
    of = {outcome: EditCondition(SHUFFLED, outcome) for outcome in ("follows", "ignores")}
    return difference(*(cells.mean("edit", regime="cot", condition=of[name]) for name in of))


def bookkeeping_share(cells: Cells, variant: str = "") -> Values:
    """Share of bookkeeping among the wrong held-out outputs of cot."""
    try:
        return cells.mean("error_kind", regime="cot", condition="bookkeeping", variant=variant)
    except MissingEvidence as missing:
        raise MissingEvidence(f"no wrong output of cot{f' ({variant})' * bool(variant)} was measured") from missing


def early_bookkeeping_share(cells: Cells) -> Values:
    """The same of cot models that were stopped early."""
    return bookkeeping_share(cells, EARLY_VARIANT)


def _at_last_total(cells: Cells, measure: str, condition: TraceCondition) -> Values:
    step = cells.steps(measure, regime="cot", condition=condition)[-1]
    return cells.mean(measure, regime="cot", condition=condition, step=step)


EDITED_STEP = 1
"""Whose total is another in the edited trace of the readiness curve (`behavior.readiness.shown_traces`)."""


def _behind_the_edit(cells: Cells, measure: str, trace: str) -> Values:
    """Once the total of the edited step stands there and no later one: the model writes on by itself."""
    return cells.mean(measure, regime="cot", condition=TraceCondition(trace, "free"), step=EDITED_STEP)


def lost_to_the_edit(cells: Cells) -> Values:
    """P(true answer) when the model writes on from a true total, minus that when it writes on from a wrong one."""
    return difference(*(_behind_the_edit(cells, "answer_prob", trace) for trace in ("true", "edited")))


def anchored(cells: Cells) -> Values:
    """P(the answer that follows from the wrong total) when the model writes on from it."""
    return _behind_the_edit(cells, "followed_prob", "edited")


def copied(cells: Cells) -> Values:
    """P(the answer that follows from the wrong total) after all totals of the edited trace: it is the last of them."""
    return _at_last_total(cells, "followed_prob", TraceCondition("edited", "free"))


def readiness(cells: Cells) -> Values:
    """P(true answer) when the trace is closed after its last total, minus that when it is closed before its first."""
    closed = TraceCondition("true", "forced")
    before = cells.mean("answer_prob", regime="cot", condition=closed, step=0)
    return difference(_at_last_total(cells, "answer_prob", closed), before)


def own_wrong_followed(cells: Cells) -> Values:
    """Share of the model's own wrong traces, sampled, whose answer is the last total written."""
    return cells.mean("own_wrong_followed", regime="cot")


def carried(cells: Cells) -> Values:
    """log P(true answer | own greedy trace) minus log P(true answer | problem), in nats."""
    return difference(cells.mean("own_log_prob", regime="cot"), cells.mean("marginal_log_prob", regime="cot"))
