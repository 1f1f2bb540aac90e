"""Numbers from inside: patching, cut reads, probes."""

import numpy as np

from cotinterp.claims.cells import Cells, Values
from cotinterp.claims.statistics.answers import average, difference


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
    return cells.mean("read_lost", regime="cot", condition="random:previous_total")


def net_decodable(cells: Cells, regime: str, place: str) -> Values:
    """Probe accuracy for s_j at a place before it is written, minus the best of its controls, mean over steps j.

    At the input of the last layer: what leaves the last layer is what is about to be written, and the unembedding is
    linear. Controls: the same probe on random labels, on the untrained model, and on the bare token and position.
    """
    site = f"L{cells.n_layers(regime) - 1}.resid_pre"
    trained = f"trained|{site}|{place}"
    rivals = (("probe_control", trained), ("probe", f"untrained|{site}|{place}"), ("probe", f"input|input|{place}"))
    found = []
    for step in cells.steps("probe", regime=regime, condition=trained):
        accuracy = cells.mean("probe", regime=regime, condition=trained, step=step)
        worth = [cells.mean(name, regime=regime, condition=where, step=step) for name, where in rivals]
        found.append(accuracy - np.max(np.broadcast_arrays(*worth), axis=0))
    return average(found)


def decodable_in_cot(cells: Cells) -> Values:
    """`net_decodable` at the equals sign of step j in cot."""
    return net_decodable(cells, "cot", "equals")


def decodable_in_direct(cells: Cells) -> Values:
    """`net_decodable` at operand j in direct, where a serial computation would have the total."""
    return net_decodable(cells, "direct", "operand")


def used_in(cells: Cells, regime: str, place: str) -> Values:
    """Share of the gap that exchanging the probed directions closes, beyond random directions; largest step's total."""
    condition = f"L{cells.n_layers(regime) - 1}.resid_pre|{place}"
    step = cells.steps("probe_use", regime=regime, condition=condition)[-1]
    return cells.mean("probe_use", regime=regime, condition=condition, step=step)


def used_in_cot(cells: Cells) -> Values:
    """`used_in` at the equals sign of the last step of cot, for the total that comes next."""
    return used_in(cells, "cot", "equals")


def used_in_direct(cells: Cells) -> Values:
    """`used_in` at the middle operand of direct."""
    return used_in(cells, "direct", "operand")
