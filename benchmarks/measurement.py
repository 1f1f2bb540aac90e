"""Timing both ways of a work back to back, and the row that comes out of it."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.comparison import Comparison, Rates
from benchmarks.memory import added_memory
from cotinterp.results import write_atomic


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One row of benchmark.json.

    Attributes:
        work: What was done, sizes included.
        peer: What ours is compared with.
        ours, theirs: Median time, in `unit`.
        unit: "ms" or "s".
        ratio: Median over the pairs of theirs / ours: above 1, ours is faster.
        spread: Lower and upper quartile of that ratio over the pairs; both are the ratio where there was one pair.
        floor: Time of the work's matrix products at the machine's own matmul rate, in `unit`; None where unknown.
        equal: Whether both gave the same numbers in this run, by the test that `note` names.
        pairs: How often both were timed, one directly after the other.
        memory_mib: Memory that one call added to the process at its peak, ours and theirs, in MiB (see
            `added_memory`); None where the system does not tell.
        note: How equality was checked, the largest difference, and what else a reader has to know.
    """

    work: str
    peer: str
    ours: float
    theirs: float
    unit: str
    ratio: float
    spread: tuple[float, float]
    floor: float | None
    equal: bool
    pairs: int
    memory_mib: tuple[float, float] | None
    note: str


def measured(
    comparison: Comparison, rates: Rates, *, repeats: int = 7, fewest: int = 3, limit_s: float = 60.0
) -> Measurement:
    """Both ways once to warm up and to compare what they gave, once for their memory, then in pairs: A B A B.

    `repeats` pairs are timed; once `limit_s` seconds have gone by no more than `fewest`. What takes a tenth of that is
    not called for its memory alone: the first call tells it.
    """
    first, other = _watched(comparison.ours), _watched(comparison.theirs)
    agreement = comparison.agree(first[0], other[0])
    memory = first[2], other[2]
    if comparison.once:
        pairs = [(first[1], other[1])]
    else:
        if first[1] + other[1] < limit_s / 10:
            memory = _watched(comparison.ours)[2], _watched(comparison.theirs)[2]
        pairs = _pairs(comparison, repeats, fewest, limit_s)
    seconds = np.array(pairs) / (1.0, comparison.their_share)
    ratios = seconds[:, 1] / seconds[:, 0]
    ours, theirs = np.median(seconds, axis=0)
    low, high = np.quantile(ratios, (0.25, 0.75))
    factor = 1e3 if comparison.unit == "ms" else 1.0
    floor = comparison.floor(rates)
    sampled = f"the peer did {comparison.their_share:.1%} of the work and its time is scaled up"
    agreement = agreement.also("" if comparison.their_share == 1 else sampled)
    return Measurement(
        work=comparison.work,
        peer=comparison.peer,
        ours=float(ours) * factor,
        theirs=float(theirs) * factor,
        unit=comparison.unit,
        ratio=float(np.median(ratios)),
        spread=(float(low), float(high)),
        floor=None if floor is None else floor * factor,
        equal=bool(agreement.equal),
        pairs=len(pairs),
        memory_mib=None if memory[0] is None or memory[1] is None else (memory[0], memory[1]),
        note=agreement.note,
    )


def write_measurements(path: Path, rows: Sequence[Measurement]) -> Path:
    """The rows as a JSON list, whole or not at all."""
    return write_atomic(path, json.dumps([asdict(row) for row in rows], indent=1, allow_nan=False) + "\n")


def read_measurements(path: Path) -> list[Measurement]:
    """What `write_measurements` wrote. ValueError where the file is something else."""
    try:
        return [Measurement(**_with_pairs(row)) for row in json.loads(path.read_text())]
    except (TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is no list of measurements ({error}); `python -m benchmarks` writes one") from error


def _with_pairs(row: dict[str, Any]) -> dict[str, Any]:
    """JSON knows lists alone."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}


def _pairs(comparison: Comparison, repeats: int, fewest: int, limit_s: float) -> list[tuple[float, float]]:
    pairs: list[tuple[float, float]] = []
    began = time.perf_counter()
    while len(pairs) < repeats and (len(pairs) < fewest or time.perf_counter() - began < limit_s):
        pairs.append((_seconds(comparison.ours), _seconds(comparison.theirs)))
    return pairs


def _seconds(call: Callable[[], Any]) -> float:
    _finish_device()
    began = time.perf_counter()
    call()
    _finish_device()
    return time.perf_counter() - began


def _watched(call: Callable[[], Any]) -> tuple[Any, float, float | None]:
    """What a call gives, its seconds, and the memory that it added."""
    with added_memory() as added:
        _finish_device()
        began = time.perf_counter()
        result = call()
        _finish_device()
        seconds = time.perf_counter() - began
    return result, seconds, added()


def _finish_device() -> None:
    """Work handed to a GPU is done when it is done, not when the call returns."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
