"""In which terms a state may be held: its value, a parity, a decimal place, an angle.

A variable that no probe finds in one coordinate may be plain in another: linear probes of a game model read a square as
mine or yours with 99%, as black or white with 75% (Nanda et al. 2023, arXiv 2309.00941); days of the week lie on
circles (Engels et al. 2024, arXiv 2405.14860), and a model of modular addition holds a few Fourier components of its
operands and none of their values as such (Nanda et al. 2023, arXiv 2301.05217). Trying several coordinates and
reporting the best is a search: `ProbeResult.scan` corrects for all that were tried; an uncorrected best is no finding.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import gcd

import numpy as np
from jaxtyping import Float, Int

from cotinterp.mechanism.probing.rows import whole_labels
from cotinterp.tasks.groups import CyclicGroup, Group
from cotinterp.tasks.task import Task


@dataclass(frozen=True, eq=False)
class Coordinate:
    """A function of the state, and where its values lie if they lie on a circle.

    Attributes:
        name: `value`, `parity`, `sign`, `units`, `tens`, `fourier 1`, ...
        table: Class of each state.
        circle: Cosine and sine of each class; probes are then linear regressions onto these, read off by the nearest
            point. None for classes without an order, which are fitted by multinomial logistic regression.
    """

    name: str
    table: Int[np.ndarray, " states"]
    circle: Float[np.ndarray, "classes 2"] | None = None

    def of(self, states: Int[np.ndarray, "*rows"]) -> Int[np.ndarray, "*rows"]:
        """The class of each state. ValueError for numbers that are no state."""
        rows = whole_labels(np.asarray(states).ravel(), f"states of {self.name}")
        if not 0 <= rows.min() <= rows.max() < len(self.table):
            raise ValueError(
                f"states of {self.name}: {rows.min()} to {rows.max()} were given; there are 0 to {len(self.table) - 1}."
            )
        classes: Int[np.ndarray, "*rows"] = self.table[rows].reshape(np.shape(states))
        return classes

    def named(self, target: str) -> str:
        """What this coordinate of a target is called in tables: `s_2`, `parity of s_2`."""
        return target if self.name == "value" else f"{self.name} of {target}"


def coordinates(task: Task, *, order: int | None = None) -> Mapping[str, Coordinate]:
    """The coordinates that the states of a task have, by name; `value` always.

    - Groups: each quotient of order 2, `parity` for cyclic groups and `sign` otherwise (several are numbered; a5 and
      a4xz5 have none).
    - Residues modulo `order` (cyclic groups know theirs; say it for other tasks whose state i is the residue i):
      `fourier f`, the angle 2 pi f v / order, for every frequency below order / 2. It tells v modulo order / gcd(f,
      order) apart. At order / 2 the angle is the parity.
    - States written as decimal numbers: `parity`, and beyond ten states `units` and `tens`.

    A coordinate that tells all states apart without being a circle is `value` once more and left out.
    ValueError for an order that is not the number of states.
    """
    n = task.n_states
    if order is not None and order != n:
        raise ValueError(f"task {task.name!r} has {n} states, which are not the residues modulo {order}")
    found = [Coordinate("value", np.arange(n))]
    if isinstance(task, Group):
        name = "parity" if isinstance(task, CyclicGroup) else "sign"
        quotients = halves(task.table)
        found += [
            Coordinate(name if len(quotients) == 1 else f"{name} {number}", half)
            for number, half in enumerate(quotients, start=1)
        ]
    elif task.states == tuple(str(state) for state in range(n)):
        found.append(Coordinate("parity", np.arange(n) % 2))
        if n > 10:
            found += [Coordinate("units", np.arange(n) % 10), Coordinate("tens", np.arange(n) // 10)]
    if order is not None or isinstance(task, CyclicGroup):
        found += [_fourier(n, frequency) for frequency in range(1, (n + 1) // 2)]
    kept = [one for one in found if one.name == "value" or one.circle is not None or len(np.unique(one.table)) < n]
    return {one.name: one for one in kept}


def halves(table: Int[np.ndarray, "order order"]) -> list[Int[np.ndarray, " order"]]:
    """Every homomorphism of a group onto {0, 1}, given its Cayley table with the identity as element 0.

    They are the linear functions on the quotient by the subgroup that the squares generate, a vector space over GF(2).
    """
    kernel = {0}
    squares = np.diagonal(table)
    while len(grown := kernel | set(table[sorted(kernel)][:, squares].ravel().tolist())) > len(kernel):
        kernel = grown
    code, bit = np.where(np.isin(np.arange(len(table)), list(kernel)), 0, -1), 1
    while (left := np.flatnonzero(code < 0)).size:
        known = np.flatnonzero(code >= 0)
        code[table[known, left[0]]] = code[known] | bit
        bit *= 2
    return [np.array([(one & mask).bit_count() % 2 for one in code.tolist()]) for mask in range(1, bit)]


def _fourier(n: int, frequency: int) -> Coordinate:
    """Residues modulo n by the angle 2 pi frequency v / n: n / gcd(frequency, n) points."""
    points = n // gcd(frequency, n)
    angle = 2 * np.pi * frequency * np.arange(points) / n
    return Coordinate(f"fourier {frequency}", np.arange(n) % points, np.stack([np.cos(angle), np.sin(angle)], axis=1))
