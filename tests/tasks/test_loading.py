"""Tasks from files, modules and other packages: accepted, or one clear error."""

import subprocess
import sys
from importlib.metadata import EntryPoint

import numpy as np
import pytest

from cotinterp.tasks import get_task, registry, task_names
from cotinterp.tasks.guard import UserCodeError

GOOD = """
from cotinterp.tasks import FoldTask

class Mine(FoldTask):
    name = "mine"
    operands = "012"
    commutative = True

    def step(self, total, operand):
        return (total + operand) % 3
"""


def after(line, more):
    return GOOD.replace(line, f"{line}\n{more}")


FILES = {
    "def x(:": r"task file .*mine.py', line 1: SyntaxError: invalid syntax",
    "\nimport nowhere_to_be_found": r"line 2: ModuleNotFoundError: No module named 'nowhere_to_be_found' \(install",
    "import sys\nsys.exit()": r"line 2: SystemExit \(it must not end the program\)",
    "answer = input()": r"line 1: EOFError: .*nothing can be asked at the keyboard",
    "def f(): f()\nf()": r"line 1: RecursionError",
    "Mine = 3": r"has no task class 'Mine'; task classes in it: none. Mine is an object of the class int",
    "class Mine: pass": r"Mine is the class Mine, which does not derive from FoldTask or Task",
    GOOD.replace("Mine", "Other"): r"has no task class 'Mine'; task classes in it: \['Other'\]",
    GOOD.replace(
        "def step", "def stepp"
    ): r"class 'Mine' in .*mine.py' is abstract, line 4: it does not define step\(\)",
    after(
        '    name = "mine"', "    def __init__(self, m): pass"
    ): r"cannot be made without arguments: TypeError: .*'m'",
    after('    name = "mine"', "    def __init__(self): 1 / 0"): r"without arguments, line 6: ZeroDivisionError",
    GOOD.replace(
        "% 3", "% 3 + 1 / 0"
    ): r"step\(\) of class Mine \(.*mine.py, line 9\) fails at line 10, `.*ZeroDivision",
    GOOD.replace("return", "import sys; sys.exit(2); return"): r"fails at line 10, .*SystemExit: 2",
    GOOD.replace("return", "input(); return"): r"fails at line 10, .*EOFError",
    GOOD.replace('"mine"', '"My Task"'): r"not kebab-case .*\(task class 'Mine' in .*mine.py', line 4\)",
    GOOD.replace('"mine"', f'"{"a" * 101}"'): r"has 101 characters; 100 at most",
    GOOD.replace('"012"', "[0, 1, 2]"): r"`operands` are texts",
    GOOD.replace('"012"', r'"01\ud800"'): r"half characters",
    GOOD.replace("= True", "= 'yes'"): r"`commutative` is a bool, got 'yes' \(str\)",
    after('    name = "mine"', "    max_k = 10**9"): r"max_k is 1000000000; 1024 operands are the most",
    after(
        '    name = "mine"', "    states = property(lambda self: 1 / 0)"
    ): r"states\(\) of class Mine .*ZeroDivisionError",
}


@pytest.mark.parametrize("content", FILES)
def test_a_file_that_cannot_be_used_says_why_in_one_line(content, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(content)
    with pytest.raises(ValueError, match=FILES[content]) as caught:
        get_task(f"{path}:Mine")
    assert "\n" not in str(caught.value)


def test_a_class_that_is_another_each_time_is_refused(tmp_path):
    (tmp_path / "mine.py").write_text(
        after('    name = "mine"', "    def __init__(self): self.c = np.random.default_rng().permutation(3)")
        .replace("\nfrom", "import numpy as np\nfrom")
        .replace("commutative = True", "commutative = False")
        .replace("(total + operand) % 3", "self.c[operand] * 0 + self.c[(total + 2 * operand) % 3]")
    )
    with pytest.raises(ValueError, match="is another task each time that it is made|says commutative"):
        get_task(f"{tmp_path / 'mine.py'}:Mine")


def test_files_that_are_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(GOOD)
    (tmp_path / "latin.py").write_bytes(b"x = '\xe9'\n")
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "text.txt").write_text("")
    refused = {
        "latin.py:Mine": "latin.py', line 1: SyntaxError: .*utf-8",
        "folder.py:Mine": "'folder.py' is a folder",
        "text.txt:Mine": "'text.txt' is not a Python file",
        "mine.py:": "'mine.py:' has nothing after the colon",
        ":Mine": "names no file before the colon",
        "mine.py:Mine.step": "no name in Python",
        f"{'x' * 5000}.py:Mine": "cannot be read: OSError: .*File name too long",
    }
    for ref, message in refused.items():
        with pytest.raises(UserCodeError, match=message):
            get_task(ref)
    for ref in ("nowhere.py:Mine", "nowhere:Mine", "a:b:Mine"):
        with pytest.raises(FileNotFoundError, match="no task (file|module) .* given as path/to/file.py:ClassName or"):
            get_task(ref)


def test_a_module_path_is_as_good_as_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    package = tmp_path / "some_package_of_mine"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "tasks.py").write_text(GOOD)
    (package / "broken.py").write_text("\nimport nowhere_to_be_found\n")
    assert get_task("some_package_of_mine.tasks:Mine").steps(np.array([[2, 2]])).total.tolist() == [[1]]
    assert str(tmp_path) not in sys.path
    with pytest.raises(ValueError, match=r"module 'some_package_of_mine.tasks' has no task class 'Yours'"):
        get_task("some_package_of_mine.tasks:Yours")
    with pytest.raises(UserCodeError, match=r"module 'some_package_of_mine.broken': ModuleNotFound.*broken.py, line 2"):
        get_task("some_package_of_mine.broken:Mine")


def test_two_files_of_one_name_are_two_modules(tmp_path):
    classes = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(GOOD)
        classes.append(type(get_task(f"{tmp_path / folder / 'mine.py'}:Mine")))
    assert classes[0].__module__ != classes[1].__module__


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Another package with tasks, as if it had been installed."""

    def install(**entries):
        found = [EntryPoint(name.replace("_", "-"), value, registry.ENTRY_POINTS) for name, value in entries.items()]
        monkeypatch.setattr(registry, "entry_points", lambda group: found)

    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "their_tasks.py").write_text(
        GOOD + GOOD.replace("Mine", "Impure").replace("% 3", "% 3 + len(total) * 0 + 1 // 0")
    )
    yield install
    sys.modules.pop("their_tasks", None)


def test_another_package_brings_a_task(installed):
    installed(mine="their_tasks:Mine")
    assert "their_tasks" not in sys.modules
    assert get_task("mine") is get_task("mine")
    assert get_task("mine").name == "mine"
    assert task_names()[-1] == "mine"


def test_a_broken_entry_point_is_named_and_does_not_break_the_others(installed):
    installed(
        mine="their_tasks:Mine", lost="nowhere_to_be_found:Mine", impure="their_tasks:Impure", s3="their_tasks:Mine"
    )
    with pytest.raises(
        UserCodeError, match=r"task 'lost' of .*nowhere_to_be_found:Mine\) cannot be used: ModuleNotFound"
    ):
        get_task("lost")
    with pytest.raises(UserCodeError, match=r"task 'impure' of .* cannot be used: .*step\(\) of class Impure"):
        get_task("impure")
    assert type(get_task("s3")).__module__ == "cotinterp.tasks.groups"
    with pytest.warns(UserWarning, match="cannot be used") as warned:
        names = task_names()
    said = "\n".join(str(one.message) for one in warned)
    assert "mine" in names
    assert not {"lost", "impure"} & set(names)
    assert all(part in said for part in ("task 'lost'", "task 'impure'", "task 's3' of", "name is taken by cotinterp"))
    with pytest.raises(KeyError, match=r"unknown task 'minee'. Nearest: \['mine'"):
        get_task("minee")


def test_two_packages_with_one_name_are_both_named(installed, monkeypatch):
    both = [EntryPoint("mine", value, registry.ENTRY_POINTS) for value in ("their_tasks:Mine", "other:Mine")]
    monkeypatch.setattr(registry, "entry_points", lambda group: both)
    with pytest.raises(UserCodeError, match=r"several packages: .*other:Mine\); .*their_tasks:Mine\)"):
        get_task("mine")


def test_a_wrong_file_is_answered_without_torch(tmp_path):
    (tmp_path / "mine.py").write_text(GOOD)
    code = (
        "import sys\nfrom cotinterp.tasks import get_task\n"
        "for ref in ('mine.py:Yours', 'nowhere.py:Mine'):\n"
        "    try:\n        get_task(ref)\n    except (ValueError, FileNotFoundError):\n        pass\n"
        "assert 'torch' not in sys.modules and 'pandas' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
