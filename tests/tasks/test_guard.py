"""A user's functions: read-only arguments, copied results, and what `check_task` finds that cannot be prevented."""

import random
import re

import numpy as np
import pytest

from cotinterp.tasks import FoldTask, Task, TreeTask, check_task, get_task, register, task_names
from cotinterp.tasks.guard import UserCodeError
from cotinterp.transcripts.problems import sample_problems, solve


def toy(**attributes):
    base = {
        "name": "toy",
        "operands": "0123456789",
        "commutative": True,
        "step": lambda self, total, operand: (total + operand) % 10,
    }
    return type("Toy", (FoldTask,), {**base, **attributes})()


def sets_totals(self, total, operand):
    total[operand == 9] = 0
    return (total + operand) % 10


def sets_operands(self, total, operand):
    operand[operand > 5] = 5
    return (total + operand) % 10


def multiplies(self, total, operand):
    total *= -1
    return (operand - total) % 10


def sorts(self, total, operand):
    total.sort()
    return (total + operand) % 10


def writes_out(self, total, operand):
    return np.remainder(np.add(total, operand, out=operand), 10)


@pytest.mark.parametrize("step", [sets_totals, sets_operands, multiplies, sorts, writes_out])
def test_a_step_that_changes_its_arguments_is_refused_with_its_line(step):
    line = step.__code__.co_firstlineno
    wanted = (
        rf"step\(\) of class Toy \(.*test_guard.py, line {line}\) changes its arguments in place at line {line + 1}, `"
    )
    with pytest.raises(UserCodeError, match=wanted):
        check_task(toy(step=step))
    operands = np.array([[9, 9, 1], [1, 2, 3]])
    with pytest.raises(UserCodeError, match=wanted):  # also without the check
        toy(step=step).steps(operands)
    assert operands.tolist() == [[9, 9, 1], [1, 2, 3]]


def test_other_functions_of_a_task_get_read_only_arguments_too():
    def put(self, operands, *rest):
        operands[0] = 0

    tree = {"name": "toy", "operands": "01", "operators": ("&",), "commutative": True}
    with pytest.raises(UserCodeError, match=r"initial\(\) of class Toy .* changes its arguments in place"):
        check_task(toy(initial=put))
    with pytest.raises(UserCodeError, match=r"canonical\(\) of class Toy .* changes its arguments in place"):
        check_task(toy(canonical=put))
    with pytest.raises(UserCodeError, match=r"combine\(\) of class Tree .* changes its arguments in place"):
        check_task(type("Tree", (TreeTask,), {**tree, "combine": put})())
    with pytest.raises(UserCodeError, match=r"replacements\(\) of class Toy .* fails .*TypeError: 'tuple' object"):
        check_task(toy(replacements=put))


def test_what_is_handed_out_is_the_same_whatever_came_in():
    seen = []

    def step(self, total, operand):
        seen.append((total.dtype, operand.flags.c_contiguous, operand.flags.writeable, operand.base is None))
        return (total + operand) % 10

    toy(step=step).steps(np.array([[1, 2, 3], [4, 5, 6]], dtype=np.int8)[::-1])
    assert set(seen) == {(np.dtype(np.int64), True, False, True)}


def test_a_buffer_that_is_returned_again_and_again_is_copied():
    buffer = np.zeros(2, dtype=np.int64)

    def step(self, total, operand):
        np.remainder(total + operand, 10, out=buffer)
        return buffer

    assert toy(step=step).steps(np.array([[1, 2, 3], [4, 5, 6]])).total.tolist() == [[3, 6], [9, 5]]


CALLS = []
GENERATOR = np.random.default_rng(0)


def memory(self, total, operand):
    CALLS.append(0)
    return (total + operand + len(CALLS) % 2) % 10


IMPURE = {
    "chance": lambda self, t, x: (t + x + (np.random.random(len(t)) < 0.05)) % 10,
    "chance of another kind": lambda self, t, x: (t + x + random.randrange(2)) % 10,
    "a generator that goes on": lambda self, t, x: (t + x + GENERATOR.integers(2)) % 10,
    "memory": memory,
    "len": lambda self, t, x: (t + x + len(t)) % 10,
    "sort": lambda self, t, x: (np.sort(t) + x) % 10,
    "cumulative sum": lambda self, t, x: (np.cumsum(t) + x) % 10,
    "the greatest of all": lambda self, t, x: (t + x) % (x.max() + 1),
    "its neighbor": lambda self, t, x: (np.roll(t, 1) + x) % 10,
    "a large batch": lambda self, t, x: (t + x + (len(t) > 1000)) % 10,
}


@pytest.mark.parametrize("fault", IMPURE)
def test_a_step_whose_rows_are_not_on_their_own_is_refused(fault):
    state = np.random.get_state()[1].tolist()
    with pytest.raises(ValueError, match=r"step\(\) of class Toy \(.*\) gives another result .* that row alone"):
        check_task(toy(step=IMPURE[fault]))
    assert np.random.get_state()[1].tolist() == state  # the check leaves the caller's random numbers alone


@pytest.mark.parametrize("name", ["canonical", "steps", "every", "n_problems", "replacements", "prompt", "reachable"])
def test_functions_that_change_from_call_to_call_are_refused(name):
    known = get_task("s3")

    def changing(self, *args):
        CALLS.append(0)
        right = getattr(known, name)(*args)
        if name == "n_problems":
            return right + len(CALLS)
        if name == "steps":
            return type(right)(right.previous, right.operand, (right.total + len(CALLS)) % 6)
        if name == "reachable":
            return right if len(CALLS) % 2 else (frozenset({0}),) * len(right)
        return right[:: (-1) ** len(CALLS)] if name != "prompt" else list(right)[:: (-1) ** len(CALLS)]

    broken = type("Changing", (type(known),), {"name": "changing", name: changing})
    with pytest.raises(ValueError, match=rf"{name}\(\)( of class Changing|.*another way)"):
        check_task(broken())


def test_the_gate_is_passed_once_whichever_way_a_task_comes():
    task = toy(step=IMPURE["len"])
    for use in (
        lambda: get_task(task),
        lambda: solve(task, np.array([[1, 2]])),
        lambda: sample_problems(task, 2, 5, split="train", rng=np.random.default_rng(0)),
        lambda: register(type(task)),
    ):
        with pytest.raises(ValueError, match="gives another result"):
            use()
    assert "toy" not in task_names()
    calls = []

    def step(self, total, operand):
        calls.append(0)
        return (total + operand) % 10

    fine = toy(step=step)
    get_task(fine)
    checked = len(calls)
    solve(get_task(fine), np.array([[1, 2]]))
    assert len(calls) == checked + 1


def test_states_are_read_once():
    class Growing(FoldTask):
        name, operands, commutative = "growing", ["0", "1"], True

        @property
        def states(self):
            CALLS.append("0")
            return [str(i) for i in range(2 + len(CALLS))]

        def step(self, total, operand):
            return total ^ operand

    task = Growing()
    assert task.operands == ("0", "1")
    assert task.states == task.states
    assert isinstance(task.states, tuple)


def test_a_function_on_the_object_is_refused():
    task = toy()
    task.step = lambda total, operand: total
    with pytest.raises(ValueError, match="step is set on the object; define it in the class Toy"):
        check_task(task)


def test_an_error_in_a_step_names_function_class_file_and_line():
    def step(self, total, operand):
        return {}[3]

    line = step.__code__.co_firstlineno
    wanted = f"task 'toy': step() of class Toy ({__file__}, line {line}) fails at line {line + 1}, `return {{}}[3]`: "
    with pytest.raises(UserCodeError, match=re.escape(f"{wanted}KeyError: 3")):
        check_task(toy(step=step))


@pytest.mark.parametrize("operands", [[[-1, 2]], [[10, 2]], [[1.0, 2.0]], [[True, False]], [1, 2], [[1]], [[1] * 65]])
def test_codes_of_no_operand_do_not_wrap_around(operands):
    task = toy()
    with pytest.raises(ValueError, match="operand codes 0 to 9|integer codes|2 to 64 operands"):
        Task.check_operands(task, np.array(operands))
