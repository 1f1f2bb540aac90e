"""Telling somebody how a run is going."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn


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
