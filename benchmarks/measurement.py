"""Timing a comparison, the memory that a call adds at its peak, and the measurements as a Markdown table."""

import ctypes
import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.comparison import Comparison, Rates
from cotinterp.results import write_atomic

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@contextmanager
def added_memory() -> Iterator[Callable[[], float | None]]:
    """Yields a function that says, after the block, how many MiB the process grew by at the block's peak.

    Counted is resident memory of the host, whoever allocated it (torch, numpy, BLAS, Python): the highest value inside
    the block minus the value before it. Freed memory is given back to the system first, so that it cannot be used
    again uncounted. Memory of a GPU is not counted. None where the system does not tell (it is Linux that does).
    """
    peak: list[float | None] = [None]
    before = _fresh_peak()
    try:
        yield lambda: peak[0]
    finally:
        if before is not None:
            peak[0] = max(0.0, _status("VmHWM") - before)


def _fresh_peak() -> float | None:
    """Resident MiB now, after the recorded peak was set back to it."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
        _CLEAR.write_text("5")
        return _status("VmRSS")
    except (OSError, AttributeError, TypeError):
        return None


def _status(name: str) -> float:
    found = re.search(rf"^{name}:\s+(\d+) kB", _STATUS.read_text(), re.M)
    assert found is not None, f"{_STATUS} has no {name}"
    return int(found[1]) / 1024


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


COLUMNS = ("work", "peer", "ours", "theirs", "ratio", "quartiles", "floor", "ours / floor", "memory, MiB", "equal")
BEGIN, END = "<!-- benchmark table -->", "<!-- end of benchmark table -->"


def table(rows: Sequence[Measurement]) -> str:
    """One line a measurement. `memory, MiB` is what one call adds at its peak: ours / theirs."""
    cells = [COLUMNS, *(_cells(row) for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(COLUMNS))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(x, widths, strict=True)) + " |" for x in cells]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]]) + "\n"


def put_table(page: Path, rows: Sequence[Measurement]) -> Path:
    """Writes the table between the two marks of a page. ValueError where the page lacks them."""
    return put_between(page, (BEGIN, END), table(rows))


def put_between(page: Path, marks: tuple[str, str], content: str) -> Path:
    """Writes `content` between two marks of a page. ValueError where the page lacks them."""
    text, (begin, end) = page.read_text(), marks
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"{page} has no place for the table: put the lines {begin!r} and {end!r} into it, once each")
    before, after = text.split(begin)[0], text.split(end)[1]
    return write_atomic(page, f"{before}{begin}\n\n{content}\n{end}{after}")


def _cells(row: Measurement) -> tuple[str, ...]:
    low, high = row.spread
    return (
        row.work,
        row.peer,
        _time(row.ours, row.unit),
        _time(row.theirs, row.unit),
        f"{row.ratio:.1f}",
        f"{low:.1f} to {high:.1f}",
        "" if row.floor is None else _time(row.floor, row.unit),
        "" if not row.floor else f"{row.ours / row.floor:.1f}",
        "" if row.memory_mib is None else " / ".join(f"{mib:.0f}" for mib in row.memory_mib),
        "yes" if row.equal else "NO",
    )


def _time(value: float, unit: str) -> str:
    """Three digits, and seconds where milliseconds would be many."""
    if unit == "ms" and value >= 10_000:
        return f"{value / 1000:.3g} s"
    return f"{value:.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"
