"""Finding a task by name, in a user's file or module, or in another package that brings it along."""

import difflib
import inspect
import warnings
from importlib.metadata import EntryPoint, entry_points
from typing import TypeVar

import numpy as np

from cotinterp.tasks.check import check_task, require_checked
from cotinterp.tasks.definition import task_definition
from cotinterp.tasks.guard import UserCodeError, is_ours
from cotinterp.tasks.loading import is_reference, load, no_keyboard, user_code
from cotinterp.tasks.task import Task

TaskClass = TypeVar("TaskClass", bound=type[Task])

ENTRY_POINTS = "cotinterp.tasks"
"""Group in which another package says `name = "package.module:ClassName"` of a task that it brings."""

_REGISTRY: dict[str, Task] = {}


def register(cls: TaskClass) -> TaskClass:
    """Class decorator that makes a task known by its name. Registering the same class again replaces it.

    Raises:
        ValueError: The name is taken, or the class breaks the contract of a task (`check_task`).
    """
    if is_ours(cls):
        _REGISTRY[cls.name] = cls()
        return cls
    known = _REGISTRY.get(getattr(cls, "name", ""))
    if known is not None and _origin(type(known)) != _origin(cls):
        raise ValueError(f"task name {cls.name!r} is taken by {_origin(type(known))}; choose another")
    task = _made(cls, f"task class {_origin(cls)}")
    _REGISTRY[task.name] = task
    return cls


def task_names() -> tuple[str, ...]:
    """Names of the registered tasks, in the order of registration, then of those that other packages bring.

    One of these that cannot be used is left out, with a warning that names it.
    """
    for name in dict.fromkeys(entry.name for entry in _entries()):
        if name not in _REGISTRY:
            try:
                _from_entry(name)
            except ValueError as error:
                warnings.warn(str(error), stacklevel=2)
    for entry in _entries():
        if (taken := _taken(entry)) is not None:
            warnings.warn(taken, stacklevel=2)
    return tuple(_REGISTRY)


def get_task(ref: str | Task) -> Task:
    """The task that `ref` denotes.

    Args:
        ref: A name, registered or brought by another package (`ENTRY_POINTS`); `path/to/file.py:ClassName` or
            `package.module:ClassName`; or a task already. What is not of this package is checked (`check_task`) before
            it is handed out, an object once.

    Raises:
        KeyError: No such name; the nearest names are given.
        FileNotFoundError: No such file or module.
        ValueError: The file has no such class, or the class breaks the contract of a task or has the name of another.
            Where the code itself fails, a UserCodeError that names file, line and its own error.
    """
    if isinstance(ref, Task):
        require_checked(ref)
        return ref
    if is_reference(ref):
        return _from_reference(ref)
    if ref in _REGISTRY:
        return _REGISTRY[ref]
    if (task := _from_entry(ref)) is not None:
        return task
    known = list(dict.fromkeys([*_REGISTRY, *(entry.name for entry in _entries())]))
    near = difflib.get_close_matches(ref, known, n=3)
    raise KeyError(
        f"unknown task {ref!r}. {f'Nearest: {near}. ' if near else ''}Registered: {', '.join(known)}. "
        "For a task of your own give path/to/file.py:ClassName, or import the module that registers it"
    )


def _from_reference(ref: str) -> Task:
    module, class_name, place = load(ref, "task", "ClassName")
    found = [name for name, value in vars(module).items() if _is_own_task(value, module.__name__)]
    cls = vars(module).get(class_name)
    if not (isinstance(cls, type) and issubclass(cls, Task)):
        what = "" if cls is None else f". {class_name} is {_kind(cls)}, which does not derive from FoldTask or Task"
        raise ValueError(f"{place} has no task class {class_name!r}; task classes in it: {found or 'none'}{what}")
    task = _made(cls, f"task class {class_name!r} in {place}", getattr(module, "__file__", None))
    _check_name(task, ref)
    return task


def _check_name(task: Task, ref: str) -> None:
    """Raises ValueError where a registered task of this name is another one: their runs would be pooled."""
    known = _REGISTRY.get(task.name)
    if known is not None and type(known) is not type(task) and task_definition(known) != task_definition(task):
        raise ValueError(
            f"{ref} has the name {task.name!r}, which is taken by {_origin(type(known))}, another task; give it a "
            "`name` of its own"
        )


def _made(cls: type[Task], what: str, file: str | None = None) -> Task:
    """An object of a user's class, once it has passed the gate: it is complete, can be made, and is always the same."""
    missing = sorted(getattr(cls, "__abstractmethods__", ()))
    if missing:
        raise UserCodeError(
            f"{what} is abstract{_line(cls)}: it does not define {', '.join(f'{x}()' for x in missing)}"
        )
    with user_code(f"{what} cannot be made without arguments", file):
        task, *twins = (cls() for _ in range(4))
    with no_keyboard():
        try:
            check_task(task)
        except UserCodeError:
            raise
        except ValueError as error:
            raise UserCodeError(f"{error} ({what}{_line(cls)})") from error
    operands = np.random.default_rng(0).integers(task.n_operands, size=(64, task.min_k))
    for twin in twins:
        if (
            any(getattr(task, name) != getattr(twin, name) for name in ("name", "operands", "operators", "states"))
            or (task.steps(operands).total != twin.steps(operands).total).any()
        ):
            raise UserCodeError(
                f"{what} is another task each time that it is made: what it draws needs a fixed seed, such as "
                "np.random.default_rng(0)"
            )
    return task


def _entries() -> list[EntryPoint]:
    return sorted(entry_points(group=ENTRY_POINTS), key=lambda entry: (entry.name, entry.value))


def _of(entry: EntryPoint) -> str:
    package = "a package" if entry.dist is None else f"package {entry.dist.name!r}"
    return f"task {entry.name!r} of {package} (entry point {entry.value})"


def _taken(entry: EntryPoint) -> str | None:
    """Why an entry point is left out: its name is that of a task that does not come from it."""
    known = _REGISTRY.get(entry.name)
    if known is None or _origin(type(known)) == entry.value.replace(":", "."):
        return None
    return f"{_of(entry)} cannot be used: the name is taken by {_origin(type(known))}"


def _from_entry(name: str) -> Task | None:
    """The task of that name that another package brings, registered from now on; None where none does."""
    entries = [entry for entry in _entries() if entry.name == name]
    if not entries:
        return None
    if len({entry.value for entry in entries}) > 1:
        raise UserCodeError(f"task {name!r} is brought by several packages: {'; '.join(map(_of, entries))}")
    (entry, *_), what = entries, f"{_of(entries[0])} cannot be used"
    with user_code(what, None):
        cls = entry.load()
    if not (isinstance(cls, type) and issubclass(cls, Task)):
        raise UserCodeError(f"{what}: it is {_kind(cls)}, which does not derive from FoldTask or Task")
    try:
        task = _made(cls, f"class {_origin(cls)}")
    except ValueError as error:
        raise UserCodeError(f"{what}: {error}") from error
    if task.name != name:
        raise UserCodeError(f"{what}: the class names its task {task.name!r}")
    return _REGISTRY.setdefault(name, task)


def _line(cls: type) -> str:
    try:
        return f", line {inspect.getsourcelines(cls)[1]}"
    except (OSError, TypeError):
        return ""


def _kind(value: object) -> str:
    if isinstance(value, type):
        return f"the class {value.__qualname__}"
    return f"an object of the class {type(value).__qualname__}"


def _origin(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _is_own_task(value: object, module_name: str) -> bool:
    return isinstance(value, type) and issubclass(value, Task) and value.__module__ == module_name
