"""Flags and symbols are tested, not believed."""

import pytest

from cotinterp.tasks import FoldTask, check_task, get_task, measure_commutative, task_names


def toy(**attributes):
    base = {
        "name": "toy",
        "operands": "012",
        "commutative": True,
        "step": lambda self, total, operand: (total + operand) % 3,
    }
    return type("Toy", (FoldTask,), {**base, **attributes})()


@pytest.mark.parametrize("name", task_names())
def test_every_task_of_ours_passes(name):
    check_task(get_task(name))


@pytest.mark.parametrize("name", task_names())
def test_the_commutative_flag_is_what_is_measured(name):
    task = get_task(name)
    assert (measure_commutative(task) is None) == task.commutative


def test_the_counterexample_is_one():
    task = get_task("s3")
    found = measure_commutative(task, k=2)
    assert task.table[found] != task.table[found[::-1]]


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"commutative": False}, "says commutative = False"),
        ({"step": lambda self, total, operand: operand}, "says commutative = True"),
        ({"operands": "01;"}, "which the transcript needs"),
        ({"operands": "01*"}, "which the transcript needs"),
        ({"operator": ">"}, "which the transcript needs"),
        ({"operator": "**"}, "written as one symbol"),
        ({"operands": ("0", "10")}, "written as one symbol"),
        ({"operands": "00"}, "distinct"),
        ({"operands": "0"}, "distinct"),
        ({"name": "My Task"}, "kebab-case"),
        ({"min_k": 1}, "2 <= min_k"),
        ({"step": lambda self, total, operand: total + operand}, "leaves its 3 states"),
    ],
)
def test_broken_tasks_are_refused(attributes, message):
    check_task(toy())
    with pytest.raises(ValueError, match=message):
        check_task(toy(**attributes))


def test_a_forgotten_attribute_is_named():
    bare = type("Bare", (FoldTask,), {"operands": "01", "commutative": True, "step": lambda self, t, x: t ^ x})()
    with pytest.raises(ValueError, match="sets no `name`"):
        check_task(bare)
