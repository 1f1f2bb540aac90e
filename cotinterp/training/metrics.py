"""metrics.jsonl: one line of JSON per logged step."""

import json
from collections.abc import Mapping
from io import TextIOWrapper
from pathlib import Path
from types import TracebackType

from cotinterp.results import write_atomic

METRICS_FILE = "metrics.jsonl"
TAIL_BYTES = 4096


def read_metrics(path: Path) -> list[dict[str, int | float]]:
    """The logged steps in order. A last line that a killed process left unfinished is dropped."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]


def last_metrics(path: Path) -> dict[str, int | float]:
    """The last whole line, from the end of the file alone; empty where there is none yet."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL_BYTES))
            lines = file.read().split(b"\n")
    except FileNotFoundError:
        return {}
    line: dict[str, int | float] = json.loads(lines[-2]) if len(lines) > 1 else {}
    return line


class MetricsLog:
    """Appends lines to metrics.jsonl, each flushed; opened at a step, it first drops the lines of later steps."""

    _file: TextIOWrapper

    def __init__(self, path: Path, *, after: int) -> None:
        kept = [line for line in read_metrics(path) if line["step"] <= after]
        write_atomic(path, "".join(json.dumps(line) + "\n" for line in kept))
        self._file = path.open("a", encoding="utf-8")

    def write(self, line: Mapping[str, int | float]) -> None:
        """Appends one line and hands it to the operating system."""
        self._file.write(json.dumps(dict(line)) + "\n")
        self._file.flush()

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
