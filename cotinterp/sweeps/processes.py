"""Processes of this machine that share nothing: what comes out does not depend on how many there are."""

import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

from cotinterp.sweeps.engine import POLL_SECONDS, Answer, Patience, carry_out, timed

Item = TypeVar("Item")
Value = TypeVar("Value")


def deal(
    work: Callable[[Item], Value],
    items: Sequence[Item],
    *,
    jobs: int,
    watch: Callable[[frozenset[int]], None] = lambda _: None,
) -> tuple[Answer[Value], ...]:
    """`work` of every item, `jobs` at a time, begun in the order of `items`; the answers are in that order too.

    An exception is an answer and stops nothing else. Work whose process dies is begun once more, and then given up.

    Args:
        work: A function of a module, and items, that another process can load.
        jobs: Processes. 0: none, all is done in this one, one after the other; a crash in compiled code ends it.
        watch: Called in this process twice a second with the places of the items that are answered.

    Raises:
        ValueError: Fewer jobs than 0.
    """
    if jobs < 0:
        raise ValueError(f"jobs must be 0 (in this process) or more, got {jobs}")
    if not items:
        return ()
    if jobs == 0:
        answers = []
        for item in items:
            answers.append(timed(work, item))
            watch(frozenset(range(len(answers))))
        return tuple(answers)
    with local_executor(min(jobs, len(items))) as executor:
        return carry_out(work, items, executor, patience=Patience(deaths=1), watch=watch)


class LocalExecutor(Executor):
    """So many new processes, each a pool of its own: one that dies takes down nothing but the work that it was at.

    The processes share nothing with this one and end when it does, however it ends. Work is begun in the order in
    which it was submitted.
    """

    def __init__(self, jobs: int) -> None:
        if jobs < 1:
            raise ValueError(f"jobs must be 1 or more, got {jobs}")
        self._life, self._end = get_context("spawn").Pipe(duplex=False)
        self._threads = ThreadPoolExecutor(jobs, thread_name_prefix="cotinterp-local")
        self._idle: SimpleQueue[ProcessPoolExecutor] = SimpleQueue()
        for _ in range(jobs):
            self._idle.put(_new_pool(1, self._life))

    def submit(self, work: Callable[..., Value], /, *args: Any, **kwargs: Any) -> Future[Value]:
        """The future of `work`; it fails with BrokenProcessPool where its process dies."""
        return self._threads.submit(self._alone, work, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Lets what is under way end, and with `cancel_futures` drops what has not begun."""
        self._threads.shutdown(wait=False, cancel_futures=cancel_futures)
        if not wait:
            Thread(target=self.shutdown).start()
            return
        self._threads.shutdown()
        while not self._idle.empty():
            self._idle.get().shutdown()
        for end in (self._life, self._end):
            end.close()

    def end(self) -> None:
        """Drops what has not begun, and ends the processes at once, with whatever they are at."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._end.close()

    def _alone(self, work: Callable[..., Value], *args: Any, **kwargs: Any) -> Value:
        pool = self._idle.get()
        try:
            return pool.submit(work, *args, **kwargs).result()
        except BrokenProcessPool:
            pool = _new_pool(1, self._life)
            raise
        finally:
            self._idle.put(pool)


@contextmanager
def local_executor(jobs: int) -> Iterator[LocalExecutor]:
    """A `LocalExecutor` that is shut down at the end; at once where the block ends with an exception, Ctrl-C too.

    Raises:
        ValueError: Fewer than one job.
    """
    executor = LocalExecutor(jobs)
    try:
        yield executor
    except BaseException:
        executor.end()
        raise
    finally:
        executor.shutdown(cancel_futures=True)


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
    pool = _new_pool(jobs)
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


def _new_pool(jobs: int, life: Connection | None = None) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_depend_on_parent, initargs=(life,))


def _depend_on_parent(life: Connection | None) -> None:
    # An interrupted item would be answered with KeyboardInterrupt, and the process go on to the next one in the queue.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = parent_process()
    if parent is not None:
        signs = [parent.sentinel] if life is None else [parent.sentinel, life]
        Thread(target=_outlive, args=(signs,), daemon=True).start()


def _outlive(signs: list[Any]) -> None:
    """Ends this process as soon as one of the signs of its parent's life is gone."""
    wait_for(signs)
    os._exit(1)
