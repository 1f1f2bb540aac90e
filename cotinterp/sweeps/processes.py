"""Work dealt to processes that share nothing: what comes out does not depend on how many there are."""

import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait as wait_for
from threading import Thread
from typing import Generic, TypeVar

Item = TypeVar("Item")
Value = TypeVar("Value")

POLL_SECONDS = 0.5
DIED = "its process died: killed, out of memory, or a crash in compiled code"


@dataclass(frozen=True)
class Answer(Generic[Value]):
    """What became of one piece of work.

    Attributes:
        value: What it returned; None where it failed.
        error: Type and text of the exception; empty where there was none.
        seconds: Wall time of the work itself, without the start of its process.
    """

    value: Value | None
    error: str
    seconds: float


def deal(
    work: Callable[[Item], Value],
    items: Sequence[Item],
    *,
    jobs: int,
    watch: Callable[[frozenset[int]], None] = lambda _: None,
) -> tuple[Answer[Value], ...]:
    """`work` of every item, `jobs` at a time, begun in the order of `items`; the answers are in that order too.

    An exception is an answer and stops nothing else. A process that dies takes the pool with it, and the pool cannot
    say whose work it was: what was under way is then done again, each alone, so that only the guilty one fails.

    Args:
        work: A function of a module, and items, that another process can load.
        jobs: Processes. 0: none, all is done in this one, one after the other; a crash in compiled code ends it.
        watch: Called in this process twice a second with the places of the items that are answered.

    Raises:
        ValueError: Fewer jobs than 0.
    """
    if jobs < 0:
        raise ValueError(f"jobs must be 0 (in this process) or more, got {jobs}")
    answers: dict[int, Answer[Value]] = {}
    left = list(range(len(items)))
    if jobs == 0:
        for place in left:
            answers[place] = _timed(work, items[place])
            watch(frozenset(answers))
        left = []
    while left:
        left = _dealt(work, items, left, jobs, answers, watch)
        # Items are begun in order, so those under way when a pool broke are the first that it left.
        suspects, left = left[:jobs], left[jobs:]
        for suspect in suspects:
            if _dealt(work, items, [suspect], 1, answers, watch):
                answers[suspect] = Answer(None, DIED, 0.0)
                watch(frozenset(answers))
    return tuple(answers[place] for place in range(len(items)))


@contextmanager
def worker_pool(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """So many new processes, without anything of this one in them. What has not begun is dropped at the end.

    They end when this process does, however it ends, and at once on Ctrl-C: a run that is begun again finds nobody at
    work on it.

    Raises:
        ValueError: Fewer than one job.
    """
    if jobs < 1:
        raise ValueError(f"jobs must be 1 or more, got {jobs}")
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_depend_on_parent)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def finished(work: Iterable[Future[Value]], every: float = POLL_SECONDS) -> Iterator[frozenset[Future[Value]]]:
    """Those that are done, failed ones among them: at once, every so many seconds, and once more when all are."""
    everything = frozenset(work)
    pending = set(everything)
    while pending:
        pending = wait(pending, timeout=every).not_done
        yield everything - pending


def _dealt(
    work: Callable[[Item], Value],
    items: Sequence[Item],
    places: Sequence[int],
    jobs: int,
    answers: dict[int, Answer[Value]],
    watch: Callable[[frozenset[int]], None],
) -> list[int]:
    """Fills in `answers`; returns the places that the pool broke before answering."""
    with worker_pool(min(jobs, len(places))) as pool:
        futures = {pool.submit(_timed, work, items[place]): place for place in places}
        for done in finished(futures):
            for future in done:
                if future.exception() is None:
                    answers[futures[future]] = future.result()
            watch(frozenset(answers))
    broken = []
    for future, place in futures.items():
        if isinstance(future.exception(), BrokenProcessPool):
            broken.append(place)
        elif (error := future.exception()) is not None:  # an item that cannot be sent to a process
            answers[place] = Answer(None, _text(error), 0.0)
    return broken


def _timed(work: Callable[[Item], Value], item: Item) -> Answer[Value]:
    began = time.perf_counter()
    try:
        value = work(item)
    except Exception as error:
        return Answer(None, _text(error), time.perf_counter() - began)
    return Answer(value, "", time.perf_counter() - began)


def _text(error: BaseException) -> str:
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return f"{type(error).__name__}: {text}"


def _depend_on_parent() -> None:
    # An interrupted item would be answered with KeyboardInterrupt, and the process go on to the next one in the queue.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = parent_process()
    if parent is not None:
        Thread(target=_outlive, args=(parent.sentinel,), daemon=True).start()


def _outlive(sentinel: int) -> None:
    wait_for([sentinel])
    os._exit(1)
