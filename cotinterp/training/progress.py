"""How training goes: the progress bar, and the numbers that are logged beside the weights."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from errno import ENOSPC
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from cotinterp.models.spec import DIGEST, CheckpointError
from cotinterp.results import write_atomic
from cotinterp.results.atomic import explained
from cotinterp.training.spec_file import with_digest, without_digest


@dataclass(frozen=True)
class StepEvent:
    """One finished update.

    Attributes:
        step: Updates done, from 1.
        total: Updates of the whole run.
        loss: Mean cross-entropy per response token of this step's batch, in nats.
        lr: Learning rate of this step.
        tokens_per_second: Tokens (padding not counted) per second since the process began to train.
        seconds_left: Time to the end at the pace so far.
    """

    step: int
    total: int
    loss: float
    lr: float
    tokens_per_second: float
    seconds_left: float


Callback = Callable[[StepEvent], None]


@contextmanager
def rich_progress(description: str = "training", console: Console | None = None) -> Iterator[Callback]:
    """A live line on the terminal: step, loss, learning rate, tokens per second, time left. Yields the callback.

    Nothing is shown where standard error is neither a terminal nor a notebook.
    """
    console = console or Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[state]}"),
    )
    with Progress(*columns, console=console, disable=not (console.is_terminal or console.is_jupyter)) as bar:
        row = bar.add_task(description, total=None, state="")

        def report(event: StepEvent) -> None:
            minutes, seconds = divmod(round(event.seconds_left), 60)
            state = (
                f"loss {event.loss:.4f}  lr {event.lr:.2e}  {event.tokens_per_second:,.0f} tokens/s  "
                f"{minutes}:{seconds:02d} left"
            )
            bar.update(row, completed=event.step, total=event.total, state=state)

        yield report


METRICS_FILE = "metrics.jsonl"
TAIL_BYTES = 4096
START_LOG = "Only the log is concerned: delete the file, and a training that is not finished goes on with a new one"


def read_metrics(path: Path) -> list[dict[str, int | float]]:
    """The logged steps in order. A last line that a killed process left unfinished is dropped.

    Raises:
        CheckpointError: A line is not what was logged; it is named.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    return [_parsed(line, f"{path}, line {number}") for number, line in enumerate(lines[:-1], start=1)]


def last_metrics(path: Path) -> dict[str, int | float]:
    """The last whole line, from the end of the file alone; empty where there is none yet. Errors as `read_metrics`."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL_BYTES))
            lines = file.read().split(b"\n")
    except FileNotFoundError:
        return {}
    return _parsed(lines[-2], f"{path}, last line") if len(lines) > 1 else {}


def metrics_line(line: Mapping[str, int | float]) -> str:
    """One line of the log, with a digest of it."""
    return json.dumps(with_digest(line)) + "\n"


def sealed_metrics(path: Path) -> str:
    """The log as text in which every line has its digest: those of version 0.1 have none."""
    lines = path.read_bytes().split(b"\n")[:-1]
    return "".join(_sealed(line, f"{path}, line {number}") for number, line in enumerate(lines, start=1))


def _sealed(line: bytes, place: str) -> str:
    fields = _object(line, place)
    return metrics_line(without_digest(fields, place, START_LOG) if DIGEST in fields else fields)


def _parsed(line: bytes, place: str) -> dict[str, int | float]:
    return without_digest(_object(line, place), place, START_LOG)


def _object(line: bytes, place: str) -> dict[str, Any]:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{place} is damaged: it is no JSON ({error}). {START_LOG}") from error
    if not isinstance(fields, dict):
        raise CheckpointError(
            f"{place} is damaged: it holds a JSON {type(fields).__name__}, not an object. {START_LOG}"
        )
    return fields


class MetricsLog:
    """Appends lines to metrics.jsonl, each flushed; opened at a step, it first drops the lines of later steps."""

    def __init__(self, path: Path, *, after: int) -> None:
        self._path = path
        kept = [line for line in read_metrics(path) if line["step"] <= after]
        write_atomic(path, "".join(map(metrics_line, kept)))
        self._file = path.open("ab", buffering=0)

    def write(self, line: Mapping[str, int | float]) -> None:
        """Appends one line and hands it to the operating system. `OSError` names the file where there is no room."""
        text = metrics_line(line).encode()
        try:
            if self._file.write(text) < len(text):
                raise OSError(ENOSPC, os.strerror(ENOSPC))
        except OSError as error:
            raise explained(error, "write", self._path) from error

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
