"""A map over processes, a Dask cluster or Slurm: retries, deaths of workers, and what waits for what.

`parallel_map` starts processes of this machine; `executor_map` works on any `concurrent.futures.Executor`. What comes
out does not depend on where the work ran or on how many workers there were.
"""

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from queue import Empty, SimpleQueue
from threading import Thread
from traceback import format_exc
from typing import Any, Generic, TypeVar, cast

Item = TypeVar("Item")
Value = TypeVar("Value")

POLL_SECONDS = 0.5
POLL_SHARE = 0.05
"""Most of this process's time that `on_poll` may take: one that looks at many files slowly is called less often."""
DIED = "its process died: killed, out of memory, or a crash in compiled code"
NOT_STARTED = "it was not started: the run that it starts from failed"


class JobFailedError(ChildProcessError):
    """An item failed in the process that worked on it."""


class ExecutorLostError(ConnectionError):
    """The executor is gone, and with it every result that was still to come."""


@dataclass(frozen=True)
class JobResult(Generic[Value]):
    """What became of one item.

    Attributes:
        value: What the function returned; None where it failed.
        error: Type and text of the exception; empty where there was none.
        seconds: Wall time of the call itself, without the start of its process.
        attempts: How often it was started.
        traceback: Of the exception, as text.
    """

    value: Value | None
    error: str
    seconds: float
    attempts: int = 1
    traceback: str = ""

    def unwrap(self) -> Value:
        """The value. Raises JobFailedError, with the traceback as a note, where there is none."""
        if self.error:
            failed = JobFailedError(self.error)
            failed.add_note(self.traceback)
            raise failed
        return cast(Value, self.value)


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How often one item is started again.

    Attributes:
        retries: After an exception of its own.
        deaths: After its process or machine died, in a row without anything saved between them: a machine that fails is
            not the item's fault, an item that kills every machine is.
    """

    retries: int = 0
    deaths: int = 1


def parallel_map(
    function: Callable[[Item], Value],
    items: Sequence[Item],
    *,
    jobs: int,
    after: Mapping[int, Collection[int]] | None = None,
    on_poll: Callable[[frozenset[int]], None] = lambda _: None,
) -> tuple[JobResult[Value], ...]:
    """`function` of every item in `jobs` new processes, started in the order of `items`; results in that order too.

    An exception is a result and stops nothing else. An item whose process dies is started once more, and then given up.

    Args:
        function: Of a module, like the items something that another process can load.
        jobs: Processes. 0: none, everything runs in this one, one item after the other; a crash in compiled code ends
            it.
        after: As for `executor_map`.
        on_poll: Called in this process twice a second with the indices of the items that are done.

    Raises:
        ValueError: Fewer jobs than 0.
    """
    if jobs < 0:
        raise ValueError(f"jobs must be 0 (in this process) or more, got {jobs}")
    if not items:
        return ()
    if jobs == 0:
        results: dict[int, JobResult[Value]] = {}
        while len(results) < len(items):
            left = (index for index in range(len(items)) if index not in results)
            index = next(one for one in left if results.keys() >= set((after or {}).get(one, ())))
            failed = any(results[earlier].error for earlier in (after or {}).get(index, ()))
            results[index] = JobResult(None, NOT_STARTED, 0.0, 0) if failed else timed(function, items[index])
            on_poll(frozenset(results))
        return tuple(results[index] for index in range(len(items)))
    with local_executor(min(jobs, len(items))) as executor:
        return executor_map(function, items, executor, after=after, on_poll=on_poll)


def executor_map(
    function: Callable[[Item], Value],
    items: Sequence[Item],
    executor: Executor,
    *,
    retry: RetryPolicy = RetryPolicy(),
    after: Mapping[int, Collection[int]] | None = None,
    saved: Callable[[int], int] = lambda _: 0,
    on_done: Callable[[int, JobResult[Value]], None] = lambda _, __: None,
    on_poll: Callable[[frozenset[int]], None] = lambda _: None,
) -> tuple[JobResult[Value], ...]:
    """`function` of every item on an executor; results in the order of `items`. An exception stops nothing else.

    Args:
        function: Of a module, like the items something that another process can load.
        executor: Gets the items in their order, all at once; it is not shut down.
        retry: How often an item is started again.
        after: For the index of an item, those of others that must end without an error before it is started.
        saved: How much of an item's work has outlived its processes; a death after more of it was saved counts anew.
        on_done: Called in this process with index and result as soon as an item has its last result.
        on_poll: Called in this process with the indices that are done: twice a second, less often where that is slow.

    Raises:
        ExecutorLostError: The executor dropped work that nobody canceled, or takes no more.
    """
    attempts = _Attempts(function, items, executor, retry, saved)
    results: dict[int, JobResult[Value]] = {}
    waiting = {index: set(earlier) for index, earlier in (after or {}).items() if earlier}
    for index in range(len(items)):
        if index not in waiting:
            attempts.submit(index)
    due = time.monotonic() + POLL_SECONDS
    while len(results) < len(items):
        news = attempts.next_result(max(0.0, due - time.monotonic()))
        ended = [news] if news is not None else []
        while ended:
            index, result = ended.pop()
            results[index] = result
            on_done(index, result)
            for later in [one for one, earlier in waiting.items() if index in earlier]:
                waiting[later].discard(index)
                if result.error:
                    del waiting[later]
                    ended.append((later, JobResult(None, NOT_STARTED, 0.0, 0)))
                elif not waiting[later]:
                    del waiting[later]
                    attempts.submit(later)
        if (began := time.monotonic()) >= due:
            on_poll(frozenset(results))
            now = time.monotonic()
            due = now + max(POLL_SECONDS, (now - began) / POLL_SHARE)
    on_poll(frozenset(results))
    return tuple(results[index] for index in range(len(items)))


def timed(function: Callable[[Item], Value], item: Item) -> JobResult[Value]:
    """The result of one item, in the process that computes it. Exceptions become text, which any process reads."""
    began = time.perf_counter()
    try:
        value = function(item)
    except Exception as error:
        return JobResult(None, error_text(error), time.perf_counter() - began, traceback=format_exc())
    return JobResult(value, "", time.perf_counter() - began)


def error_text(error: BaseException) -> str:
    """Type and text of an exception, a KeyError's without its quotes."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return f"{type(error).__name__}: {text}"


@dataclass
class _Attempts(Generic[Item, Value]):
    """What is submitted, and how often each item failed."""

    function: Callable[[Item], Value]
    items: Sequence[Item]
    executor: Executor
    retry: RetryPolicy
    saved: Callable[[int], int]
    arrived: SimpleQueue[tuple[int, Future[JobResult[Value]]]] = field(default_factory=SimpleQueue)
    attempts: Counter[int] = field(default_factory=Counter)
    errors: Counter[int] = field(default_factory=Counter)
    deaths: Counter[int] = field(default_factory=Counter)
    saved_before: Counter[int] = field(default_factory=Counter)

    def submit(self, index: int) -> None:
        self.attempts[index] += 1
        try:
            future = self.executor.submit(timed, self.function, self.items[index])
        except (RuntimeError, OSError) as error:
            raise ExecutorLostError(f"the executor takes no more work ({error_text(error)})") from error
        future.add_done_callback(lambda done: self.arrived.put((index, done)))

    def next_result(self, seconds: float) -> tuple[int, JobResult[Value]] | None:
        """The last result of some item; None where none came in time, or one that is followed by another attempt."""
        try:
            index, future = self.arrived.get(timeout=seconds)
        except Empty:
            return None
        result, again = self._judged(index, future)
        if again:
            self.submit(index)
            return None
        return index, replace(result, attempts=self.attempts[index])

    def _judged(self, index: int, future: Future[JobResult[Value]]) -> tuple[JobResult[Value], bool]:
        if future.cancelled():
            raise ExecutorLostError("the executor dropped work that it had taken")
        error = future.exception()
        if error is None:
            result = future.result()
            self.errors[index] += bool(result.error)
            return result, bool(result.error) and self.errors[index] <= self.retry.retries
        if (saved := self.saved(index)) > self.saved_before[index]:
            self.saved_before[index], self.deaths[index] = saved, 0
        self.deaths[index] += 1
        return JobResult(None, _of_death(error), 0.0), self.deaths[index] <= self.retry.deaths


def _of_death(error: BaseException) -> str:
    # Dask's own exception is recognized by its name: distributed need not be installed here.
    died = isinstance(error, BrokenExecutor) or type(error).__name__ == "KilledWorker"
    return DIED if died else error_text(error)


class LocalExecutor(Executor):
    """So many new processes, each a pool of its own: one that dies takes down only the call that it was running.

    The processes share nothing with this one and end when it does, however it ends. Calls are started in the order in
    which they were submitted.
    """

    def __init__(self, jobs: int) -> None:
        if jobs < 1:
            raise ValueError(f"jobs must be 1 or more, got {jobs}")
        self._alive, self._end = get_context("spawn").Pipe(duplex=False)
        # A process inherits what the thread that starts it blocks: Ctrl-C waits until `_end_with_parent` is there, and
        # no import that it would have met is left half done with a traceback.
        blocked = partial(signal.pthread_sigmask, signal.SIG_BLOCK, {signal.SIGINT})
        self._threads = ThreadPoolExecutor(jobs, thread_name_prefix="cotinterp-local", initializer=blocked)
        self._idle: SimpleQueue[ProcessPoolExecutor] = SimpleQueue()
        for _ in range(jobs):
            self._idle.put(self._new_process())

    def submit(self, function: Callable[..., Value], /, *args: Any, **kwargs: Any) -> Future[Value]:
        """The future of a call; it fails with BrokenProcessPool where its process dies."""
        return self._threads.submit(self._call, function, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Lets what is running end, and with `cancel_futures` drops what has not started."""
        self._threads.shutdown(wait=False, cancel_futures=cancel_futures)
        if not wait:
            Thread(target=self.shutdown).start()
            return
        self._threads.shutdown()
        while not self._idle.empty():
            self._idle.get().shutdown()
        for end in (self._alive, self._end):
            end.close()

    def terminate(self) -> None:
        """Drops what has not started, and ends the processes at once, whatever they are running."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._end.close()

    def _call(self, function: Callable[..., Value], *args: Any, **kwargs: Any) -> Value:
        process = self._idle.get()
        try:
            return process.submit(function, *args, **kwargs).result()
        except BrokenProcessPool:
            process = self._new_process()
            raise
        finally:
            self._idle.put(process)

    def _new_process(self) -> ProcessPoolExecutor:
        spawn = get_context("spawn")
        return ProcessPoolExecutor(1, mp_context=spawn, initializer=_end_with_parent, initargs=(self._alive,))


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
        executor.terminate()
        raise
    finally:
        executor.shutdown(cancel_futures=True)


def _end_with_parent(alive: Connection) -> None:
    # An interrupted call would be answered with KeyboardInterrupt, and the process go on to the next one in the queue.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    parent = parent_process()
    if parent is not None:
        Thread(target=_exit_after, args=([parent.sentinel, alive],), daemon=True).start()


def _exit_after(signs: list[Any]) -> None:
    """Ends this process as soon as one of the signs of its parent's life is gone."""
    wait_for(signs)
    os._exit(1)
