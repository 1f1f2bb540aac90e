"""The map over executors: order, attempts, deaths, what waits for what; and processes that leave no orphans."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from cotinterp.sweeps.pool import (
    DIED,
    NOT_STARTED,
    ExecutorLostError,
    JobFailedError,
    RetryPolicy,
    error_text,
    executor_map,
    local_executor,
    parallel_map,
    timed,
)

REPOSITORY = Path(__file__).parents[2]


class Scripted(Executor):
    """Does the work at once; where the script has an exception for an item's next attempt, the future fails with it."""

    def __init__(self, script):
        self.script, self.begun = {item: list(fates) for item, fates in script.items()}, []

    def submit(self, work, function, item):
        self.begun.append(item)
        fates, future = self.script.get(item, []), Future()
        fate = fates.pop(0) if fates else None
        if fate == "dropped":
            future.cancel()
        elif fate is not None:
            future.set_exception(fate)
        else:
            future.set_result(work(function, item))
        return future


def double(number):
    return 2 * number


class Flaky:
    """Fails as often as it is told to, then works."""

    def __init__(self, failures):
        self.left = failures

    def __call__(self, number):
        if self.left:
            self.left -= 1
            raise ValueError(f"{number} failed")
        return number


def test_answers_are_in_the_order_of_the_items_whatever_is_ready_first():
    with ThreadPoolExecutor(3) as threads:
        answers = executor_map(double, range(20), threads)
    assert [answer.value for answer in answers] == [2 * number for number in range(20)]
    assert {answer.attempts for answer in answers} == {1}


@pytest.mark.parametrize(("failures", "retries", "attempts", "error"), [
    (0, 0, 1, ""), (1, 0, 1, "ValueError: 7 failed"), (1, 1, 2, ""), (2, 1, 2, "ValueError: 7 failed"), (2, 5, 3, ""),
])  # fmt: skip
def test_a_failure_is_tried_again_so_many_times(failures, retries, attempts, error):
    (answer,) = executor_map(Flaky(failures), [7], Scripted({}), retry=RetryPolicy(retries=retries))
    assert (answer.attempts, answer.error, answer.value) == (attempts, error, None if error else 7)


@pytest.mark.parametrize(("deaths", "error"), [(2, ""), (3, DIED)])
def test_deaths_do_not_count_as_failures_and_have_their_own_limit(deaths, error):
    executor = Scripted({4: [BrokenExecutor("gone")] * deaths})
    answers = executor_map(double, [4, 5], executor, retry=RetryPolicy(retries=0, deaths=2))
    assert [answer.error for answer in answers] == [error, ""]
    assert answers[0].attempts == min(deaths, 2) + 1


def test_a_death_after_progress_counts_anew():
    executor = Scripted({4: [BrokenExecutor("gone")] * 9})
    saved = iter([10, 10, 20, 20, 30, 30, 40, 40, 50])
    (answer,) = executor_map(double, [4], executor, retry=RetryPolicy(deaths=2), saved=lambda _: next(saved))
    assert (answer.value, answer.attempts) == (8, 10)


def test_what_the_executor_itself_says_is_told():
    class KilledWorker(Exception):
        pass

    never = RetryPolicy(deaths=0)
    assert executor_map(double, [4], Scripted({4: [TypeError("no pickle")]}), retry=never)[0].error.endswith(
        "no pickle"
    )
    assert executor_map(double, [4], Scripted({4: [KilledWorker("tcp://host")]}), retry=never)[0].error == DIED


def test_what_starts_from_another_waits_for_it():
    executor = Scripted({})
    executor_map(double, [10, 11, 12, 13], executor, after={0: {2}, 2: {3}})
    assert executor.begun == [11, 13, 12, 10]


def test_what_starts_from_a_failure_fails_without_being_begun():
    executor, ended = Scripted({}), []
    answers = executor_map(
        Flaky(1), [1, 2, 3], executor, after={1: {0}, 2: {1}}, on_done=lambda index, result: ended.append(index)
    )
    assert [bool(answer.error) for answer in answers] == [True, True, True]
    assert [answer.attempts for answer in answers] == [1, 0, 0]
    assert [answer.error for answer in answers[1:]] == [NOT_STARTED] * 2
    assert (executor.begun, ended) == ([1], [0, 1, 2])


def test_work_that_is_dropped_means_that_the_executor_is_gone():
    with pytest.raises(ExecutorLostError, match="dropped"):
        executor_map(double, [1, 2], Scripted({2: ["dropped"]}))


def test_an_executor_that_takes_no_more_is_gone():
    threads = ThreadPoolExecutor(1)
    threads.shutdown()
    with pytest.raises(ExecutorLostError, match="cannot schedule"):
        executor_map(double, [1], threads)


def test_on_poll_is_called_at_least_once_at_the_end():
    seen = []
    executor_map(double, [1, 2], Scripted({}), on_poll=seen.append)
    assert seen[-1] == {0, 1}
    assert executor_map(double, [], Scripted({})) == ()


def test_an_answer_has_the_time_of_its_work_and_the_text_of_its_error():
    assert timed(double, 2).seconds >= 0
    assert timed(Flaky(1), 3).error == "ValueError: 3 failed"
    assert error_text(KeyError("no such task")) == "KeyError: no such task"


def test_a_result_is_unwrapped_to_its_value_or_raises_with_the_traceback():
    assert timed(double, 2).unwrap() == 4
    with pytest.raises(JobFailedError, match="ValueError: 3 failed") as failed:
        timed(Flaky(1), 3).unwrap()
    assert "raise ValueError" in failed.value.__notes__[0]


def halve(number):
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number // 2


def die_of_13(number):
    if number == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.05)
    return number, os.getpid()


def sleep(seconds):
    time.sleep(seconds)
    return seconds


def sleep_long(written):
    written.write_text("")
    time.sleep(600)


def refuse(key):
    raise KeyError(f"no {key}")


def test_answers_are_in_the_order_of_the_items_and_an_exception_is_one():
    seen = []
    answers = parallel_map(halve, [8, 3, 4, 6], jobs=2, on_poll=seen.append)
    assert [answer.value for answer in answers] == [4, None, 2, 3]
    assert [answer.error for answer in answers] == ["", "ValueError: 3 is odd", "", ""]
    assert all(answer.seconds >= 0 for answer in answers)
    assert seen[-1] == {0, 1, 2, 3}
    assert all(earlier <= later for earlier, later in zip(seen, seen[1:], strict=False))


def test_only_the_work_whose_process_died_fails():
    answers = parallel_map(die_of_13, [1, 13, 2, 3, 13, 4], jobs=2)
    assert [answer.error for answer in answers] == ["", DIED, "", "", DIED, ""]
    assert [answer.value[0] for answer in answers if not answer.error] == [1, 2, 3, 4]
    assert all(answer.value[1] != os.getpid() for answer in answers if not answer.error)


def test_a_death_takes_down_nothing_else_that_is_under_way():
    with local_executor(2) as executor:
        innocent = executor.submit(sleep, 0.5)
        guilty = executor.submit(die_of_13, 13)
        assert isinstance(guilty.exception(), BrokenProcessPool)
        assert executor.submit(die_of_13, 1).result()[0] == 1, "another process has taken its place"
        assert innocent.result() == 0.5


def test_a_block_that_ends_with_an_exception_ends_its_processes(tmp_path):
    work = []

    def leave_in_the_middle():
        with local_executor(1) as executor:
            work.extend(executor.submit(sleep_long, tmp_path / "began") for _ in range(2))
            until((tmp_path / "began").exists)
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        leave_in_the_middle()
    assert isinstance(work[0].exception(), BrokenProcessPool)
    assert work[1].cancelled()


def test_an_item_that_no_other_process_can_load_fails_alone():
    unsendable, fine = parallel_map(str, [lambda: 0, 3], jobs=1)
    assert "pickle" in unsendable.error.lower()
    assert fine.value == "3"


def test_a_key_error_is_told_without_its_quotes():
    (answer,) = parallel_map(refuse, ["such task"], jobs=1)
    assert answer.error == "KeyError: no such task"


def test_no_items_take_no_process():
    assert parallel_map(halve, [], jobs=3) == ()


def test_no_jobs_are_this_process():
    seen = []
    answers = parallel_map(die_of_13, [1, 2], jobs=0, on_poll=seen.append)
    assert [answer.value for answer in answers] == [(1, os.getpid()), (2, os.getpid())]
    assert seen == [{0}, {0, 1}]
    assert parallel_map(halve, [3], jobs=0)[0].error == "ValueError: 3 is odd"


def test_numbers_of_jobs_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="0 .in this process. or more, got -1"):
        parallel_map(halve, [2], jobs=-1)
    with pytest.raises(ValueError, match="1 or more, got 0"), local_executor(0):
        pass


@pytest.mark.parametrize("end", ["killed alone", "interrupted at the keyboard"])
def test_no_process_outlives_the_one_that_began_it(tmp_path, end):
    (tmp_path / "endless.py").write_text(
        "import os, signal, sys, time\n"
        "from pathlib import Path\n"
        "from cotinterp.sweeps.pool import parallel_map\n"
        # A shell that starts a job in the background has it ignore the keyboard, and its children inherit that.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "def sleep(folder):\n"
        "    Path(folder, 'began').write_text(str(os.getpid()))\n"
        "    time.sleep(600)\n"
        "if __name__ == '__main__':\n"
        "    parallel_map(sleep, [sys.argv[1]] * 3, jobs=1)\n"
    )
    paths = {"PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, tmp_path / "endless.py", tmp_path]
    quiet = {"stderr": subprocess.DEVNULL, "start_new_session": True}
    parent = subprocess.Popen(command, env=os.environ | paths, **quiet)
    written = tmp_path / "began"
    try:
        until(lambda: written.exists() and written.read_text() != "")
        if end == "killed alone":
            parent.kill()
        else:
            os.killpg(parent.pid, signal.SIGINT)
        parent.wait(timeout=60)
    finally:
        parent.kill()
    worker = int(written.read_text())
    until(lambda: not alive(worker))


def until(happened):
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def alive(process):
    status = Path(f"/proc/{process}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
