"""Tasks by name and by file."""

import numpy as np
import pytest

from cotinterp.tasks import FoldTask, get_task, register, task_names

USER_FILE = '''
from cotinterp.tasks import FoldTask

class Doubling(FoldTask):
    """s -> 2 s + x (mod 7)."""
    name = "doubling"
    operands = "0123456"
    commutative = {commutative}
    def step(self, total, operand):
        return (2 * total + operand) % 7
'''


def test_names_are_those_of_the_design():
    assert set(task_names()) >= {"digit-sum", "parity", "affine-mod10", "z6", "z60", "s3", "s5", "a5", "a4xz5"}
    assert set(task_names()) >= {"s5-words", "binary-copy", "polynomial-mod11", "pointers", "expressions-mod11"}


def test_a_task_is_its_own_reference():
    assert get_task(get_task("s3")) is get_task("s3")


def test_unknown_name_gets_the_nearest():
    with pytest.raises(KeyError, match=r"unknown task 'digit_sum'.*Nearest: \['digit-sum'\]"):
        get_task("digit_sum")


def test_a_user_file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(USER_FILE.format(commutative=False))
    task = get_task(f"{path}:Doubling")
    assert task.steps(np.array([[1, 2, 3]])).total.tolist() == [[4, 4]]
    assert "doubling" not in task_names()


def test_a_user_file_with_a_false_flag(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(USER_FILE.format(commutative=True))
    with pytest.raises(ValueError, match="says commutative = True"):
        get_task(f"{path}:Doubling")


def test_a_missing_class_names_those_there(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(USER_FILE.format(commutative=False))
    with pytest.raises(ValueError, match=r"no task class 'Tripling'; task classes in it: \['Doubling'\]"):
        get_task(f"{path}:Tripling")


def test_a_missing_file():
    with pytest.raises(FileNotFoundError, match="no task file 'nowhere.py'"):
        get_task("nowhere.py:Thing")


def test_a_taken_name_is_refused():
    with pytest.raises(ValueError, match="'parity' is taken by cotinterp.tasks.folds.Parity"):

        @register
        class Other(FoldTask):
            name = "parity"
            operands = "01"
            commutative = True

            def step(self, total, operand):
                return total ^ operand


def test_a_class_of_the_same_name_elsewhere_does_not_replace_ours():
    ours = get_task("parity")
    theirs = type("Parity", (FoldTask,), {"name": "parity", "operands": "01", "commutative": True, "step": max})
    with pytest.raises(ValueError, match="'parity' is taken by cotinterp.tasks.folds.Parity"):
        register(theirs)
    assert get_task("parity") is ours


def test_the_same_class_may_be_registered_again():
    cls = type(get_task("parity"))
    assert register(cls) is cls
