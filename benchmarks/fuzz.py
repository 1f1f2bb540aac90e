"""Outputs and task files that nobody would write on purpose, by the thousand, and what must hold for each of them.

The same numbers come for the same seed, so that what fails can be had again. The tests ask a few hundred, the drill
thousands.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cotinterp.behavior.errors import CORRECT_ANSWER, Category, categories, diagnose
from cotinterp.tasks import Task, get_task
from cotinterp.transcripts.parsing import final_answer
from cotinterp.transcripts.problems import Problem, solve
from cotinterp.transcripts.regimes import get_regime, regime_names
from cotinterp.transcripts.render import render
from cotinterp.transcripts.vocabulary import Vocabulary

TASKS = ("digit-sum", "s3", "affine-mod10", "a5", "pointers", "expressions-mod11")
STRANGE = "\n\t\0 é漢🙂\u202e\ud800<b>&\"'%/\\"
"""Characters that stand in no vocabulary: a text may come from anywhere."""


class FuzzedOutput(NamedTuple):
    """A text that may stand where the response to a problem belongs."""

    task: Task
    problem: Problem
    regime: str
    text: str


def fuzzed_outputs(n: int, *, seed: int = 0) -> Iterator[FuzzedOutput]:
    """`n` outputs of all regimes and several tasks: right responses cut, spliced, changed, or nothing like them."""
    rng = np.random.default_rng(seed)
    for _ in range(n):
        task = get_task(str(rng.choice(TASKS)))
        able = [name for name in regime_names() if get_regime(name).refusal(task) is None]
        regime = str(rng.choice(able))
        problem = solve(task, rng.integers(task.n_operands, size=(1, int(rng.integers(2, 7)))))[0]
        symbols = [*Vocabulary.of(task).symbols, *(STRANGE if rng.random() < 0.1 else "")]
        right = render(task, problem, regime).response
        cut, other = sorted(rng.integers(len(right) + 1, size=2).tolist())
        noise = "".join(rng.choice(symbols, size=int(rng.integers(12))))
        texts = (
            right,
            right + noise,
            right[:cut],
            right[:cut] + noise,
            right[:cut] + noise + right[cut + 1 :],
            right[:cut] + right[other:],
            right[:other] + right[cut:],
            noise,
            noise + "#",
            right.replace("}", "", 1),
        )
        yield FuzzedOutput(task, problem, regime, texts[int(rng.integers(len(texts)))])


def fault_of_output(output: FuzzedOutput) -> str | None:
    """What is wrong with the category of an output: it has none, another each time, or one that excludes what it is."""
    task, problem, regime, text = output
    try:
        category = diagnose(task, problem, regime, text).category
    except Exception as error:
        return f"{regime} {text!r}: {type(error).__name__}: {error}"
    before, end, _ = text.partition("#")
    right = final_answer(task, text) == problem.answer
    truths = {
        "asked again": diagnose(task, problem, regime, text).category is category,
        "of its regime": category in categories(regime),
        "correct": (category is Category.CORRECT) == (before + end == render(task, problem, regime).response),
        "never ended": (category is Category.NEVER_ENDED) == (not end),
        "right answer": (category in CORRECT_ANSWER) == right,
    }
    wrong = [name for name, holds in truths.items() if not holds]
    return f"{regime} {text!r} is {category.value}: {', '.join(wrong)}" if wrong else None


SOURCE = '''"""A task."""

import numpy as np

from cotinterp.tasks import FoldTask


class Mine(FoldTask):
    """s -> 2 s + x (mod 7)."""

    name = "mine"
    operands = "0123456"
    states = tuple("0123456")
    operator = ","
    commutative = False
    max_k = 8

    def initial(self, operand):
        return operand % 7

    def step(self, total, operand):
        return (2 * total + operand) % 7
'''

LINES = (
    "total[operand > 2] = 0",
    "operand.sort()",
    "total *= -1",
    "total = total + len(total)",
    "total = np.sort(total)",
    "total = total + np.random.randint(2, size=len(total))",
    "raise SystemExit",
    "raise KeyError('a\\nb')",
    "return self.step(total, operand)",
    "return 1 / 0",
    "return input()",
    "return None",
    "return total",
    "return total + operand",
    "return total / 2",
    "return [1]",
    "return operand[:1]",
    "assert False",
    "import nowhere_to_be_found",
    "1 / 0",
    "def f():",
    "exit()",
    "del FoldTask",
    "pass",
    "name = ''",
    "name = 3",
    "name = 'digit-sum'",
    "operands = None",
    "operands = [0, 1]",
    "operands = 'aa'",
    "operands = '<>&'",
    "states = ()",
    "states = property(lambda self: 1 / 0)",
    "max_k = 1",
    "max_k = 2.5",
    "max_k = 10 ** 9",
    "commutative = 'no'",
    "in_order = False",
    "brackets = '('",
    "def prompt(self, operands): return 'text'",
    "def canonical(self, operands): return operands * 0",
    "def every(self, k): return []",
    "def reachable(self, k): return ()",
    "def replacements(self, operands, index): raise OSError",
    "def __init__(self, a): pass",
    "def __init__(self): raise ValueError",
)


def fuzzed_task_files(n: int, *, seed: int = 0) -> Iterator[bytes]:
    """`n` files that should hold a task `Mine` and mostly do not: lines put in or lost, characters changed, cut off."""
    rng = np.random.default_rng(seed)
    for _ in range(n):
        lines = SOURCE.splitlines()
        for _ in range(int(rng.integers(1, 3))):
            at, kind = int(rng.integers(len(lines))), int(rng.integers(6))
            if kind <= 2:
                indent = " " * (len(lines[at]) - len(lines[at].lstrip()))
                lines.insert(at, indent + str(rng.choice(LINES)))
            elif kind == 3:
                del lines[at]
            elif kind == 4 and lines[at]:
                column = int(rng.integers(len(lines[at])))
                lines[at] = lines[at][:column] + str(rng.choice(list("()=:'\"%+-,. aé0"))) + lines[at][column + 1 :]
            else:
                lines = lines[: max(at, 1)]
        content = "\n".join(lines).encode()
        yield content[:-1] + b"\xff" if rng.random() < 0.03 else content


def outcome_of_task_file(content: bytes, folder: Path) -> tuple[bool, str]:
    """Whether such a file is accepted, and what is said of it. AssertionError where it is not one clear error.

    One clear error is a ValueError or FileNotFoundError of one line that names the file, the class or the task.
    """
    path = folder / "mine.py"
    path.write_bytes(content)
    try:
        task = get_task(f"{path}:Mine")
    except (ValueError, FileNotFoundError) as error:
        said = str(error)
        if not said or "\n" in said or not any(name in said for name in ("mine", "Mine")):
            raise AssertionError(f"no clear error: {type(error).__name__} {said!r} for {content!r}") from error
        return False, said
    except BaseException as error:
        raise AssertionError(f"{type(error).__name__} {error!r} for {content!r}") from error
    solve(task, np.zeros((1, task.min_k), dtype=np.int64))
    return True, "accepted"
