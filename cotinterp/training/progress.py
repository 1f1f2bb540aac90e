"""How training goes: the progress bar, and the numbers that are logged beside the weights."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from cotinterp.results import write_atomic


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
    """A live line on the terminal: step, loss, learning rate, tokens per second, time left. Yields the callback."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[state]}"),
    )
    with Progress(*columns, console=console or Console(stderr=True)) as bar:
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
