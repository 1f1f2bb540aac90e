"""How much memory a call adds to the process at its peak, as the operating system counts it."""

import ctypes
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

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
