"""Models that are a function of which edges are kept, for statistics that need no other."""

import numpy as np

from cotinterp.mechanism.circuits.graph import Graph

GRAPH = Graph(2, 2)
CHAIN = GRAPH.parse(["embed->L1H0.v", "L1H0->L1.mlp", "L1.mlp->logits"])
HALF = GRAPH.parse(["L1H0->L1.mlp", "L1.mlp->logits"])
IDLE = GRAPH.parse(["embed->L0H0.q", "L0H0->L0.mlp"])
N = 20


def worth(value, n=N, gap=2.0, seed=0):
    """Every example has a gap of its own, 2 on average, times what `value` says of the edges kept."""
    own = np.random.default_rng(seed).normal(size=n)
    own = gap + 0.2 * (own - own.mean())

    def kept(circuits):
        return np.array([own * value(circuit) - gap / 2 for circuit in circuits])

    return kept


def chain(circuit):
    """1 where all of CHAIN is kept."""
    return float(circuit >= CHAIN)


def additive(seed=0):
    """A random weight for every edge: everything matters a little, and nothing is a circuit."""
    weight = dict(zip(GRAPH.edges, np.random.default_rng(seed).normal(size=len(GRAPH.edges)), strict=True))
    return lambda circuit: sum(weight[edge] for edge in circuit)
