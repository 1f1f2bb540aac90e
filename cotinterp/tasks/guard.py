"""A user's functions, called so that they can neither change what they are given nor keep hold of what they return.

A task is trusted to be pure: its arrays are training data, labels and expectations at once. Every function that a
subclass of `Task` defines is therefore wrapped when the class is made (`guard`): it gets copies of its arguments that
cannot be written to, always contiguous int64; what it returns is copied; an error of its own says where it happened.
What cannot be prevented so (chance, memory of earlier calls, rows that depend on each other) is looked for by
`check_task`.
"""

import linecache
import traceback
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np

GUARDED = (
    "step",
    "initial",
    "combine",
    "steps",
    "resume",
    "resume_from",
    "canonical",
    "every",
    "n_problems",
    "prompt",
    "replacements",
    "reachable",
)
"""The functions of a task that a user may write."""

BY_ROW = frozenset({"step", "initial", "combine"})
"""Of these the ones that map rows to rows: with no rows there is nothing to ask."""

LISTED = ("operands", "states", "operators")
"""What a user may write as a list or a property: read once, and a tuple from then on."""

OURS = Path(__file__).resolve().parents[1]


class UserCodeError(ValueError):
    """A user's file, class or function cannot be used: which, at which line, and its own error in one line."""


def is_ours(cls: type) -> bool:
    """Whether a class is one of this package, which changes with the package alone."""
    return cls.__module__.startswith("cotinterp.")


def guard(cls: type) -> None:
    """Wraps what `cls` itself defines; classes of this package are left as they are."""
    if is_ours(cls):
        return
    for name in GUARDED:
        if name in vars(cls) and not isinstance(vars(cls)[name], property):
            setattr(cls, name, _guarded(cls, name, vars(cls)[name]))
    for name in LISTED:
        written = vars(cls).get(name)
        if isinstance(written, list):
            setattr(cls, name, tuple(written))
        elif isinstance(written, property) and written.fget is not None:
            setattr(cls, name, property(_read_once(cls, name, written.fget)))


def described(cls: type, name: str) -> str:
    """Which function of a task class it is, in which file, at which line."""
    owner = owner_of(cls, name)
    written = vars(owner).get(name)
    code = getattr(getattr(written, "__wrapped__", written), "__code__", None)
    place = "" if code is None else f" ({code.co_filename}, line {code.co_firstlineno})"
    return f"{name}() of class {owner.__qualname__}{place}"


def owner_of(cls: type, name: str) -> type:
    """The class that defines what `cls` calls by this name."""
    return next((base for base in cls.__mro__ if name in vars(base)), cls)


def one_line(error: BaseException) -> str:
    """Type and message of an error, cut to its first line."""
    said = error.msg if isinstance(error, SyntaxError) else str(error)
    text = next(iter(said.strip().splitlines()), "")
    return f"{type(error).__name__}: {text:.200}" if text else type(error).__name__


def last_line(error: BaseException, filename: str) -> int | None:
    """The deepest line of a file in the traceback of an error; of a syntax error the line that it names."""
    if isinstance(error, SyntaxError):
        return error.lineno if error.filename == filename else None
    lines = [number for frame, number in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == filename]
    return lines[-1] if lines else None


def _guarded(cls: type, name: str, written: Any) -> Callable[..., Any]:
    described_as = getattr(written, "__func__", written)

    @wraps(described_as)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        given, named = [_kept(value) for value in args], {key: _kept(value) for key, value in kwargs.items()}
        first = next((value for value in (*given, *named.values()) if isinstance(value, np.ndarray)), None)
        if name in BY_ROW and first is not None and not first.size:
            return np.empty(first.shape, dtype=np.int64)
        bound = written.__get__(self, type(self)) if hasattr(written, "__get__") else written
        try:
            return _released(bound(*given, **named), name)
        except (Exception, SystemExit) as error:
            if isinstance(error, UserCodeError) or _is_ours(error):
                raise
            raise UserCodeError(_failed(self, cls, name, written, error)) from error

    return call


def _kept(value: Any) -> Any:
    """What is handed out: a copy of an array, which cannot be written to; a tuple for a list."""
    if isinstance(value, np.ndarray):
        copy = np.array(value, dtype=np.int64 if value.dtype.kind in "iu" else None, order="C")
        copy.setflags(write=False)
        return copy
    return tuple(value) if isinstance(value, list) else value


def _released(value: Any, name: str) -> Any:
    """What comes back, with nothing of it still in the user's hands."""
    if isinstance(value, np.ndarray):
        return value.copy()
    if is_dataclass(value) and not isinstance(value, type):
        arrays = {field.name: getattr(value, field.name) for field in fields(value)}
        return replace(value, **{key: array.copy() for key, array in arrays.items() if isinstance(array, np.ndarray)})
    if name == "prompt":
        return iter(tuple(value))
    return tuple(value) if name in ("replacements", "reachable") else value


def _is_ours(error: BaseException) -> bool:
    """Whether this package raised it on purpose: a length that the task does not have, a state that it does not."""
    frames = list(traceback.walk_tb(error.__traceback__))
    return isinstance(error, ValueError) and Path(frames[-1][0].f_code.co_filename).is_relative_to(OURS)


def _failed(task: Any, cls: type, name: str, written: Any, error: BaseException) -> str:
    code = getattr(getattr(written, "__func__", written), "__code__", None)
    line = None if code is None else last_line(error, code.co_filename)
    if code is not None:
        linecache.checkcache(code.co_filename)
    source = "" if line is None or code is None else linecache.getline(code.co_filename, line).strip()
    at = ("" if line is None else f" at line {line}") + (f", `{source}`" if source else "")
    who = f"task {getattr(task, 'name', cls.__name__)!r}: {described(cls, name)}"
    if isinstance(error, ValueError) and "read-only" in str(error):
        return (
            f"{who} changes its arguments in place{at}. They are what the problems are made of and cannot be written "
            "to: return a new array instead, such as np.where(condition, new, old), or work on a copy (total.copy())"
        )
    return f"{who} fails{at}: {one_line(error)}"


def _read_once(cls: type, name: str, fget: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A property that is asked once for each task: what it says may not change under what was made of it."""
    key = f"_{name}_of_{cls.__qualname__}"

    @wraps(fget)
    def read(self: Any) -> Any:
        if key not in vars(self):
            try:
                value = fget(self)
            except (Exception, SystemExit) as error:
                if isinstance(error, UserCodeError):
                    raise
                raise UserCodeError(_failed(self, cls, name, fget, error)) from error
            vars(self)[key] = tuple(value) if isinstance(value, list) else value
        return vars(self)[key]

    return read
