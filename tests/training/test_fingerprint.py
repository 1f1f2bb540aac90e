"""A changed task is noticed."""

from typing import ClassVar

import numpy as np
import pytest

from cotinterp.tasks import FoldTask, get_task, task_names
from cotinterp.training.spec_file import task_fingerprint

TREE = type(get_task("expressions-mod11"))


class Shift(FoldTask):
    """s -> s + x + 1 mod 7."""

    name: ClassVar[str] = "shift"
    operands = "0123456"
    commutative = True
    max_k = 9

    def step(self, total: np.ndarray, operand: np.ndarray) -> np.ndarray:
        return (total + operand + 1) % 7


class Twin(Shift):
    """The same, in another class."""


class Renamed(Shift):
    name = "shifted"


class Relabeled(Shift):
    operands = "0123465"


class OtherOperator(Shift):
    operator = "+"


class OneEntryDiffers(Shift):
    def step(self, total: np.ndarray, operand: np.ndarray) -> np.ndarray:
        return np.where((total == 6) & (operand == 6), 0, super().step(total, operand))


class OtherStart(Shift):
    def initial(self, operand: np.ndarray) -> np.ndarray:
        return 6 - operand


class Longer(Shift):
    max_k = 20


class OtherBrackets(TREE):
    brackets = "[]"


class OtherLevels(TREE):
    """Reads every level from the other end: other trees for the same codes, whose totals differ too."""

    def canonical(self, operands: np.ndarray) -> np.ndarray:
        return super().canonical(operands)[:, ::-1]


class OtherPrompt(Shift):
    def prompt(self, operands):
        return iter([*super().prompt(operands)][::-1])


def test_equal_tasks_have_equal_fingerprints():
    assert task_fingerprint(Shift()) == task_fingerprint(Shift()) == task_fingerprint(Twin())


def test_more_room_for_operands_leaves_a_task_the_same():
    assert task_fingerprint(Longer()) == task_fingerprint(Shift())


@pytest.mark.parametrize("changed", [Renamed, Relabeled, OtherOperator, OneEntryDiffers, OtherStart])
def test_a_changed_task_has_another(changed):
    assert task_fingerprint(changed()) != task_fingerprint(Shift())


def test_how_a_tree_is_written_belongs_to_the_task():
    tree = task_fingerprint(TREE())
    assert tree == task_fingerprint(TREE())
    assert tree not in (task_fingerprint(OtherBrackets()), task_fingerprint(OtherLevels()))
    assert task_fingerprint(OtherPrompt()) != task_fingerprint(Shift())


def test_all_built_in_tasks_differ():
    assert len({task_fingerprint(get_task(name)) for name in task_names()}) == len(task_names())


def test_a_fingerprint_is_the_same_everywhere():
    assert task_fingerprint(get_task("s3")) == "7578a8dcf67ef5bedfd31629f404eb2d37f5ee5063724ca3db814d9bfed13547"
