"""Finding a task by name or in a user's file."""

import difflib
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from cotinterp.tasks.check import check_task
from cotinterp.tasks.task import Task

TaskClass = TypeVar("TaskClass", bound=type[Task])

_REGISTRY: dict[str, Task] = {}


def register(cls: TaskClass) -> TaskClass:
    """Class decorator that makes a task known by its name. Registering the same class again replaces it."""
    task = cls()
    known = _REGISTRY.get(task.name)
    if known is not None and _origin(type(known)) != _origin(cls):
        raise ValueError(f"task name {task.name!r} is taken by {_origin(type(known))}; choose another")
    _REGISTRY[task.name] = task
    return cls


def task_names() -> tuple[str, ...]:
    """Names of the registered tasks, in the order of registration."""
    return tuple(_REGISTRY)


def get_task(ref: str | Task) -> Task:
    """The task that `ref` denotes: a registered name, `path/to/file.py:ClassName`, or a task already.

    A task from a file is checked (`check_task`) before it is handed out.

    Raises:
        KeyError: No such name; the nearest names are given.
        FileNotFoundError: No such file.
        ValueError: The file has no such class, or the class breaks the contract of a task.
    """
    if isinstance(ref, Task):
        return ref
    path, colon, class_name = ref.rpartition(":")
    if colon:
        return _from_file(Path(path), class_name)
    if ref in _REGISTRY:
        return _REGISTRY[ref]
    near = difflib.get_close_matches(ref, _REGISTRY, n=3)
    raise KeyError(
        f"unknown task {ref!r}. {f'Nearest: {near}. ' if near else ''}Registered: {', '.join(_REGISTRY)}. "
        "For a task of your own give path/to/file.py:ClassName, or import the module that registers it"
    )


def module_from_file(path: Path, kind: str, name: str) -> ModuleType:
    """The module in a file that a user named as `path:name`, run. `kind` is what it should hold: `task`, `claim`.

    Raises:
        FileNotFoundError: No such file.
        ValueError: It is not a Python file.
    """
    usage = f"a {kind} is given as path/to/file.py:{name}"
    if not path.is_file():
        raise FileNotFoundError(f"no {kind} file {str(path)!r}; {usage}")
    spec = importlib.util.spec_from_file_location(f"cotinterp_user_{kind}_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{str(path)!r} is not a Python file; {usage}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _from_file(path: Path, class_name: str) -> Task:
    module = module_from_file(path, "task", "ClassName")
    cls = getattr(module, class_name, None)
    if not (isinstance(cls, type) and issubclass(cls, Task)):
        found = [name for name, value in vars(module).items() if _is_own_task(value, module.__name__)]
        raise ValueError(f"{str(path)!r} has no task class {class_name!r}; task classes in it: {found or 'none'}")
    task = cls()
    check_task(task)
    return task


def _origin(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _is_own_task(value: object, module_name: str) -> bool:
    return isinstance(value, type) and issubclass(value, Task) and value.__module__ == module_name
