"""Work dealt to an executor until every piece is settled: what waits for what, what is begun again, what a death costs.

The executor is any `concurrent.futures.Executor`: processes of this machine, a Dask cluster, Slurm. Where work runs is
its business; this module only counts.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future
from dataclasses import dataclass, field, replace
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

Item = TypeVar("Item")
Value = TypeVar("Value")

POLL_SECONDS = 0.5
WATCH_SHARE = 0.05
"""Most of this process's time that watching may take: what watches many files slowly is called less often."""
DIED = "its process died: killed, out of memory, or a crash in compiled code"

NOT_BEGUN = "it was not begun: what it is to start from failed"


class ExecutorLostError(ConnectionError):
    """Whoever hands out the work is gone, and with it every answer that was still to come."""


@dataclass(frozen=True)
class Answer(Generic[Value]):
    """What became of one piece of work.

    Attributes:
        value: What it returned; None where it failed.
        error: Type and text of the exception; empty where there was none.
        seconds: Wall time of the work itself, without the start of its process.
        attempts: How often it was begun.
    """

    value: Value | None
    error: str
    seconds: float
    attempts: int = 1


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How often one piece of work is begun again.

    Attributes:
        retries: After an exception of its own.
        deaths: After its process or machine died, in a row without anything saved between them: a machine that fails is
            no fault of the work, work that kills every machine is.
    """

    retries: int = 0
    deaths: int = 3


def carry_out(
    work: Callable[[Item], Value],
    items: Sequence[Item],
    executor: Executor,
    *,
    patience: Patience = Patience(),
    after: Mapping[int, int] | None = None,
    saved: Callable[[int], int] = lambda _: 0,
    settled: Callable[[int, Answer[Value]], None] = lambda _, __: None,
    watch: Callable[[frozenset[int]], None] = lambda _: None,
) -> tuple[Answer[Value], ...]:
    """`work` of every item; the answers in the order of `items`. An exception is an answer and stops nothing else.

    Args:
        work: A function of a module, and items, that another process can load.
        executor: Is handed the items in their order, all at once; it is not shut down.
        patience: How often work is begun again.
        after: For the place of an item, the place of one that must be answered without an error before it is begun.
        saved: How much of an item's work has outlived its processes; a death after more of it was saved counts anew.
        settled: Called in this process as soon as an item has its last answer.
        watch: Called in this process with the places that are answered: twice a second, less often where that is slow.

    Raises:
        ExecutorLostError: The executor gave up work that nobody cancelled, or takes no more.
    """
    course = _Course(work, items, executor, patience, saved)
    answers: dict[int, Answer[Value]] = {}
    held = defaultdict(list)
    for place, earlier in (after or {}).items():
        held[earlier].append(place)
    for place in range(len(items)):
        if place not in (after or {}):
            course.begin(place)
    due = time.monotonic() + POLL_SECONDS
    while len(answers) < len(items):
        news = course.next_answer(max(0.0, due - time.monotonic()))
        over = [news] if news is not None else []
        while over:
            place, answer = over.pop()
            answers[place] = answer
            settled(place, answer)
            for waiting in held.pop(place, ()):
                if answer.error:
                    over.append((waiting, Answer(None, NOT_BEGUN, 0.0, 0)))
                else:
                    course.begin(waiting)
        if (began := time.monotonic()) >= due:
            watch(frozenset(answers))
            now = time.monotonic()
            due = now + max(POLL_SECONDS, (now - began) / WATCH_SHARE)
    watch(frozenset(answers))
    return tuple(answers[place] for place in range(len(items)))


def timed(work: Callable[[Item], Value], item: Item) -> Answer[Value]:
    """The answer of one piece of work, in the process that does it. Exceptions become text, which any process reads."""
    began = time.perf_counter()
    try:
        value = work(item)
    except Exception as error:
        return Answer(None, error_text(error), time.perf_counter() - began)
    return Answer(value, "", time.perf_counter() - began)


def error_text(error: BaseException) -> str:
    """Type and text of an exception, a KeyError's without its quotes."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return f"{type(error).__name__}: {text}"


@dataclass
class _Course(Generic[Item, Value]):
    """What is under way, and how often each piece failed."""

    work: Callable[[Item], Value]
    items: Sequence[Item]
    executor: Executor
    patience: Patience
    saved: Callable[[int], int]
    arrived: SimpleQueue[tuple[int, Future[Answer[Value]]]] = field(default_factory=SimpleQueue)
    attempts: Counter[int] = field(default_factory=Counter)
    errors: Counter[int] = field(default_factory=Counter)
    deaths: Counter[int] = field(default_factory=Counter)
    marks: Counter[int] = field(default_factory=Counter)

    def begin(self, place: int) -> None:
        self.attempts[place] += 1
        try:
            future = self.executor.submit(timed, self.work, self.items[place])
        except (RuntimeError, OSError) as error:
            raise ExecutorLostError(f"the executor takes no more work ({error_text(error)})") from error
        future.add_done_callback(lambda done: self.arrived.put((place, done)))

    def next_answer(self, seconds: float) -> tuple[int, Answer[Value]] | None:
        """The last answer of some piece; None where none came in time, or one that is not the last."""
        try:
            place, future = self.arrived.get(timeout=seconds)
        except Empty:
            return None
        answer, again = self._judged(place, future)
        if again:
            self.begin(place)
            return None
        return place, replace(answer, attempts=self.attempts[place])

    def _judged(self, place: int, future: Future[Answer[Value]]) -> tuple[Answer[Value], bool]:
        if future.cancelled():
            raise ExecutorLostError("the executor dropped work that it had taken")
        error = future.exception()
        if error is None:
            answer = future.result()
            self.errors[place] += bool(answer.error)
            return answer, bool(answer.error) and self.errors[place] <= self.patience.retries
        if (there := self.saved(place)) > self.marks[place]:
            self.marks[place], self.deaths[place] = there, 0
        self.deaths[place] += 1
        return Answer(None, _of_death(error), 0.0), self.deaths[place] <= self.patience.deaths


def _of_death(error: BaseException) -> str:
    # Dask's own word for it is told by its name: distributed need not be installed here.
    died = isinstance(error, BrokenExecutor) or type(error).__name__ == "KilledWorker"
    return DIED if died else error_text(error)
