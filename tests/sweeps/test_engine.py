"""The counting: attempts, deaths, what waits for what, and an executor that is gone. Executors here are threads."""

from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor

import pytest

from cotinterp.sweeps.engine import DIED, NOT_BEGUN, ExecutorLostError, Patience, carry_out, error_text, timed


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
        answers = carry_out(double, range(20), threads)
    assert [answer.value for answer in answers] == [2 * number for number in range(20)]
    assert {answer.attempts for answer in answers} == {1}


@pytest.mark.parametrize(("failures", "retries", "attempts", "error"), [
    (0, 0, 1, ""), (1, 0, 1, "ValueError: 7 failed"), (1, 1, 2, ""), (2, 1, 2, "ValueError: 7 failed"), (2, 5, 3, ""),
])  # fmt: skip
def test_a_failure_is_tried_again_so_many_times(failures, retries, attempts, error):
    (answer,) = carry_out(Flaky(failures), [7], Scripted({}), patience=Patience(retries=retries))
    assert (answer.attempts, answer.error, answer.value) == (attempts, error, None if error else 7)


@pytest.mark.parametrize(("deaths", "error"), [(2, ""), (3, DIED)])
def test_deaths_do_not_count_as_failures_and_have_their_own_patience(deaths, error):
    executor = Scripted({4: [BrokenExecutor("gone")] * deaths})
    answers = carry_out(double, [4, 5], executor, patience=Patience(retries=0, deaths=2))
    assert [answer.error for answer in answers] == [error, ""]
    assert answers[0].attempts == min(deaths, 2) + 1


def test_a_death_after_progress_counts_anew():
    executor = Scripted({4: [BrokenExecutor("gone")] * 9})
    saved = iter([10, 10, 20, 20, 30, 30, 40, 40, 50])
    (answer,) = carry_out(double, [4], executor, patience=Patience(deaths=2), saved=lambda _: next(saved))
    assert (answer.value, answer.attempts) == (8, 10)


def test_what_the_executor_itself_says_is_told():
    class KilledWorker(Exception):
        pass

    never = Patience(deaths=0)
    assert carry_out(double, [4], Scripted({4: [TypeError("no pickle")]}), patience=never)[0].error.endswith(
        "no pickle"
    )
    assert carry_out(double, [4], Scripted({4: [KilledWorker("tcp://host")]}), patience=never)[0].error == DIED


def test_what_starts_from_another_waits_for_it():
    executor = Scripted({})
    carry_out(double, [10, 11, 12, 13], executor, after={0: 2, 2: 3})
    assert executor.begun == [11, 13, 12, 10]


def test_what_starts_from_a_failure_fails_without_being_begun():
    executor, told = Scripted({}), []
    answers = carry_out(
        Flaky(1), [1, 2, 3], executor, after={1: 0, 2: 1}, settled=lambda place, answer: told.append(place)
    )
    assert [bool(answer.error) for answer in answers] == [True, True, True]
    assert [answer.attempts for answer in answers] == [1, 0, 0]
    assert [answer.error for answer in answers[1:]] == [NOT_BEGUN] * 2
    assert (executor.begun, told) == ([1], [0, 1, 2])


def test_work_that_is_dropped_means_that_the_executor_is_gone():
    with pytest.raises(ExecutorLostError, match="dropped"):
        carry_out(double, [1, 2], Scripted({2: ["dropped"]}))


def test_an_executor_that_takes_no_more_is_gone():
    threads = ThreadPoolExecutor(1)
    threads.shutdown()
    with pytest.raises(ExecutorLostError, match="cannot schedule"):
        carry_out(double, [1], threads)


def test_everything_is_watched_at_least_once_at_the_end():
    seen = []
    carry_out(double, [1, 2], Scripted({}), watch=seen.append)
    assert seen[-1] == {0, 1}
    assert carry_out(double, [], Scripted({})) == ()


def test_an_answer_has_the_time_of_its_work_and_the_text_of_its_error():
    assert timed(double, 2).seconds >= 0
    assert timed(Flaky(1), 3).error == "ValueError: 3 failed"
    assert error_text(KeyError("no such task")) == "KeyError: no such task"
