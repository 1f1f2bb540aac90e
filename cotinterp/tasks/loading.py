"""What a user wrote, by reference: `path/to/file.py:Name`, or `package.module:Name` of what can be imported.

Whatever is wrong with it is one `UserCodeError` that names file, line and the user's own error. Nothing here knows what
is looked for: tasks and claims are loaded alike.
"""

import hashlib
import importlib
import importlib.util
import io
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from cotinterp.tasks.guard import UserCodeError, last_line, one_line


def is_reference(ref: str) -> bool:
    """Whether a text names something in a file or module, rather than something registered."""
    return ":" in ref


def load(ref: str, kind: str, usage: str) -> tuple[ModuleType, str, str]:
    """The module that `ref` names, run; the name in it; and the place in words. `kind` is `task` or `claim`.

    Args:
        usage: What the name is, such as `ClassName`.

    Raises:
        FileNotFoundError: No such file or module.
        UserCodeError: No name after the colon, no Python file, or a module that fails when it is run.
    """
    place, _, name = ref.rpartition(":")
    given_as = f"a {kind} is given as path/to/file.py:{usage} or package.module:{usage}"
    if not place:
        raise UserCodeError(f"{ref!r} names no file before the colon; {given_as}")
    if not name.isidentifier():
        fault = f"{name!r}, which is no name in Python," if name else "nothing"
        raise UserCodeError(f"{ref!r} has {fault} after the colon; {given_as}")
    if _is_module(place):
        return _imported(place, kind, given_as), name, f"module {place!r}"
    return module_from_file(Path(place), kind, usage), name, repr(place)


def module_from_file(path: Path, kind: str, usage: str) -> ModuleType:
    """The module in a file, run anew. The errors of `load`."""
    given_as = f"a {kind} is given as path/to/file.py:{usage} or package.module:{usage}"
    try:
        found, folder = path.is_file(), path.is_dir()
    except OSError as error:
        raise UserCodeError(f"{kind} file {str(path)!r:.200} cannot be read: {one_line(error)}") from error
    if folder:
        raise UserCodeError(f"{str(path)!r} is a folder, not a file; {given_as}")
    if not found:
        raise FileNotFoundError(f"no {kind} file {str(path)!r:.200}; {given_as}")
    # Two files of one name are two modules: what is registered twice is told apart by its module.
    number = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
    name = f"cotinterp_user_{kind}_{path.stem}_{number}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserCodeError(f"{str(path)!r} is not a Python file; {given_as}")
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(name)
    sys.modules[name] = module  # dataclasses and pickle look a class's module up there
    try:
        with user_code(f"{kind} file {str(path)!r}", spec.origin):
            # Not by the loader: a file changed within one second, to the same size, would be its cached bytecode.
            exec(compile(path.read_bytes(), str(spec.origin), "exec"), module.__dict__)
    except BaseException:
        sys.modules.pop(name)
        if before is not None:
            sys.modules[name] = before
        raise
    return module


@contextmanager
def user_code(what: str, filename: str | None) -> Iterator[None]:
    """Runs code of a user: whatever it raises becomes one UserCodeError, and it cannot ask at the keyboard."""
    try:
        with no_keyboard():
            yield
    except UserCodeError:
        raise
    except (Exception, SystemExit) as error:
        line = None if filename is None else last_line(error, filename)
        at = "" if line is None else f", line {line}"
        hint = {
            EOFError: " (nothing can be asked at the keyboard here)",
            SystemExit: " (it must not end the program)",
            ModuleNotFoundError: " (install it, or put both into one package and give package.module:Name)",
        }.get(type(error), "")
        raise UserCodeError(f"{what}{at}: {one_line(error)}{hint}") from error


@contextmanager
def no_keyboard() -> Iterator[None]:
    """Code that asks for input finds its end at once, where it would wait for ever."""
    keyboard, sys.stdin = sys.stdin, io.StringIO()
    try:
        yield
    finally:
        sys.stdin = keyboard


def _is_module(place: str) -> bool:
    dotted = re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", place) is not None
    return dotted and not place.endswith(".py") and not Path(place).exists()


def _imported(place: str, kind: str, given_as: str) -> ModuleType:
    """A module by its name, from what is installed or else from the folder that one stands in."""
    here = str(Path.cwd())
    added = "" not in sys.path and here not in sys.path
    if added:
        sys.path.append(here)
    try:
        with user_code(f"{kind} module {place!r}", None):
            try:
                return importlib.import_module(place)
            except ModuleNotFoundError as error:
                if error.name is None or not f"{place}.".startswith(f"{error.name}."):
                    raise
                raise FileNotFoundError(error.name) from error
    except UserCodeError as error:
        cause = error.__cause__
        if isinstance(cause, FileNotFoundError) and isinstance(cause.__cause__, ModuleNotFoundError):
            raise FileNotFoundError(f"no {kind} module {place!r} and no file of that name; {given_as}") from None
        file = getattr(importlib.util.find_spec(place), "origin", None) if cause is not None else None
        line = None if file is None or cause is None else last_line(cause, file)
        at = "" if line is None else f" ({file}, line {line})"
        raise UserCodeError(f"{error}{at}") from cause
    finally:
        if added:
            sys.path.remove(here)
