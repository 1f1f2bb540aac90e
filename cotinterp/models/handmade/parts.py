"""The vocabulary of handmade models: heads that look where they are told, AND neurons, bumps on an integer."""

from collections.abc import Hashable, Mapping, Sequence

from cotinterp.models.handmade.blueprint import ALWAYS, Direction, Head, Neuron, Vector, unit

GAP = 32.0
"""Difference in attention score between what a head wants, `<` where it rests, and all else: e^-32 = 1e-14 leaks. It is
finite, so that a pattern from which the wanted token is cut can still be renormalized."""

LOGIT = 20.0
"""Logit of the symbol to be written; the others have 0."""

REST: tuple[Vector, Vector] = ({ALWAYS: GAP}, unit("token", "<"))
"""Attention paid to `<`, where a head rests that wants nothing: what it wants, it wants with 2 * GAP."""


def copies(source: str, target: str, labels: Sequence[Hashable]) -> tuple[tuple[Vector, Vector], ...]:
    """What a head moves that copies coordinates of one subspace into those of the same label in another."""
    return tuple((unit(source, label), unit(target, label)) for label in labels)


def wanted_head(name: str, wanted: str, places: Sequence[int], moved: tuple[tuple[Vector, Vector], ...]) -> Head:
    """A head that attends to the position that is named in the subspace `wanted`."""
    found = tuple((unit(wanted, place, 2 * GAP), unit("position", place)) for place in places)
    return Head(name, (REST, *found), moved)


def prompt_end_head(k_at: Mapping[int, int]) -> Head:
    """The head that finds `>` from everywhere and writes what its position says: the number of operands, into "k".

    Before there is a `>` it rests on `<`, whose position says nothing.
    """
    ends = tuple((unit("position", position), unit("k", k)) for k, position in k_at.items())
    return Head("prompt end", (REST, ({ALWAYS: 2 * GAP}, unit("token", ">"))), ends)


def all_of(directions: Sequence[Direction], then: Vector) -> Neuron:
    """A neuron that is 1 where all of these 0/1 coordinates are 1, and silent where one of them is 0."""
    return Neuron({**dict.fromkeys(directions, 2.0), ALWAYS: 1.0 - 2.0 * len(directions)}, then)


def bumps(scalar: Vector, gate: Sequence[Direction], values: Sequence[Vector]) -> tuple[Neuron, ...]:
    """Neurons that write `values[n]` where the scalar is the integer n, and nothing unless all of the gate is 1.

    relu(s - n + 1) - 2 relu(s - n) + relu(s - n - 1) is 1 at n and 0 at every other integer, so that one neuron for
    each knot m suffices, which writes the second difference of the values there. A closed gate lies below every knot.
    """

    def value(n: int, direction: Direction) -> float:
        return values[n].get(direction, 0.0) if 0 <= n < len(values) else 0.0

    neurons = []
    closed = len(values) + 1.0
    for m in range(-1, len(values)):
        near = [direction for n in (m - 1, m, m + 1) if 0 <= n < len(values) for direction in values[n]]
        then = {d: value(m + 1, d) - 2 * value(m, d) + value(m - 1, d) for d in near}
        when = {**scalar, **dict.fromkeys(gate, closed), ALWAYS: -m - closed * len(gate)}
        neurons.append(Neuron(when, then))
    return tuple(neurons)
