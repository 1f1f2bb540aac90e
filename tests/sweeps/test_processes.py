"""Work in other processes: order, failures that stay their own, deaths, and orphans that there must not be."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from cotinterp.sweeps.engine import DIED
from cotinterp.sweeps.processes import deal, finished, local_executor, worker_pool

REPOSITORY = Path(__file__).parents[2]


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
    answers = deal(halve, [8, 3, 4, 6], jobs=2, watch=seen.append)
    assert [answer.value for answer in answers] == [4, None, 2, 3]
    assert [answer.error for answer in answers] == ["", "ValueError: 3 is odd", "", ""]
    assert all(answer.seconds >= 0 for answer in answers)
    assert seen[-1] == {0, 1, 2, 3}
    assert all(earlier <= later for earlier, later in zip(seen, seen[1:], strict=False))


def test_only_the_work_whose_process_died_fails():
    answers = deal(die_of_13, [1, 13, 2, 3, 13, 4], jobs=2)
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
    unsendable, fine = deal(str, [lambda: 0, 3], jobs=1)
    assert "pickle" in unsendable.error.lower()
    assert fine.value == "3"


def test_a_key_error_is_told_without_its_quotes():
    (answer,) = deal(refuse, ["such task"], jobs=1)
    assert answer.error == "KeyError: no such task"


def test_no_items_take_no_process():
    assert deal(halve, [], jobs=3) == ()


def test_no_jobs_are_this_process():
    seen = []
    answers = deal(die_of_13, [1, 2], jobs=0, watch=seen.append)
    assert [answer.value for answer in answers] == [(1, os.getpid()), (2, os.getpid())]
    assert seen == [{0}, {0, 1}]
    assert deal(halve, [3], jobs=0)[0].error == "ValueError: 3 is odd"


def test_numbers_of_jobs_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="0 .in this process. or more, got -1"):
        deal(halve, [2], jobs=-1)
    with pytest.raises(ValueError, match="1 or more, got 0"), worker_pool(0):
        pass
    with pytest.raises(ValueError, match="1 or more, got 0"), local_executor(0):
        pass


def test_finished_grows_until_all_are_done_failed_ones_among_them():
    with worker_pool(1) as pool:
        work = [pool.submit(halve, number) for number in (2, 3)]
        steps = list(finished(work, every=0.05))
    assert steps[-1] == set(work)
    assert isinstance(work[1].exception(), ValueError)


@pytest.mark.parametrize("end", ["killed alone", "interrupted at the keyboard"])
def test_no_process_outlives_the_one_that_began_it(tmp_path, end):
    (tmp_path / "endless.py").write_text(
        "import os, signal, sys, time\n"
        "from pathlib import Path\n"
        "from cotinterp.sweeps.processes import deal\n"
        # A shell that starts a job in the background has it ignore the keyboard, and its children inherit that.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "def sleep(folder):\n"
        "    Path(folder, 'began').write_text(str(os.getpid()))\n"
        "    time.sleep(600)\n"
        "if __name__ == '__main__':\n"
        "    deal(sleep, [sys.argv[1]] * 3, jobs=1)\n"
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
