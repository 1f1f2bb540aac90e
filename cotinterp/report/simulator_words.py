"""What the serial-compute simulator prints for one position of its sliders: the first rendering, without a script."""

from collections.abc import Mapping
from math import floor

from cotinterp.models.spec import ModelSpec
from cotinterp.report.simulator_numbers import REGIMES, Position
from cotinterp.sweeps.laws import LAWS

UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
AMOUNTS = {
    "prompt": "prompt tokens",
    "response": "tokens written, R (END included)",
    "operations": "layer operations, R \N{MULTIPLICATION SIGN} L",
    "slots": "serial layers before the answer",
    "flops": "floating-point operations",
}
"""Rows of the table of what an answer takes."""


def words(numbers: Mapping[str, float | None], at: Position, model: ModelSpec, d_vocab: int) -> dict[str, str]:
    """The text of every cell by its name, from the numbers of `readouts`."""
    told = {
        "at": f"K = {at.k} operands, L = {at.n_layers} layers",
        "model": f"d_model {model.d_model}, d_mlp {model.d_mlp}, {d_vocab} symbols",
        "have.direct": f"{count(_known(numbers, 'slots.direct'))} layers",
        "have.cot": f"{count(_known(numbers, 'slots.cot'))} layers before its answer",
    }
    for law in LAWS:
        need = numbers[f"needed.{law}"]
        told[f"needed.{law}"] = "no number is enough" if need is None else count(need)
        for regime in REGIMES:
            told[f"{regime}.{law}"] = _enough(need, _known(numbers, f"slots.{regime}"), at, stepwise=regime == "cot")
    for row in AMOUNTS:
        both = [_known(numbers, f"{row}.{regime}") for regime in REGIMES]
        shown = amount if row == "flops" else count
        told |= {f"{row}.{regime}": shown(value) for regime, value in zip(REGIMES, both, strict=True)}
        told[f"{row}.ratio"] = f"{rounded(both[1] / both[0], 2)} \N{MULTIPLICATION SIGN}"
    return told


def rounded(value: float, digits: int) -> str:
    """`value` with so many digits, halves upward: what the page's script prints."""
    return f"{floor(value * 10**digits + 0.5) / 10**digits:.{digits}f}"


def count(value: float) -> str:
    """A mean number of things: whole where it is whole."""
    return str(int(value)) if value == int(value) else rounded(value, 1)


def amount(value: float) -> str:
    """Floating-point operations with their unit, a power of a thousand."""
    size, unit = next(((size, unit) for size, unit in UNITS if value >= size), (1.0, ""))
    return f"{rounded(value / size, 2)} {unit}FLOP"


def _enough(need: float | None, have: float, at: Position, *, stepwise: bool) -> str:
    """Whether so many layers are enough; a trace may fold two operands at a time wherever k0 allows two."""
    if need is None:
        return "enough, a step at a time" if stepwise and at.floor >= 2 else "never enough"
    return "enough" if need <= have else f"{count(need - have)} short"


def _known(numbers: Mapping[str, float | None], name: str) -> float:
    value = numbers[name]
    assert value is not None, "only what a law needs may be without a number"
    return value
