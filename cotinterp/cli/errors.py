"""What an exception becomes on the command line: one line, and whose fault it is."""

import dis
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from cotinterp.cli import FAILED, MENDABLE

PACKAGE = str(Path(__file__).parents[1])
OURS = ("cotinterp", "analyses", "benchmarks", "__main__")
RAISE = dis.opmap["RAISE_VARARGS"]


def explain(error: BaseException) -> tuple[int, str]:
    """Exit status and the line that says what was wrong.

    What this package raised on purpose says what to do next, and so do the errors of the system (`OSError`) and of a
    spec. An exception in a file of the user's is told with its place. Anything else is a bug of ours, and called one.
    """
    where = "; COTINTERP_TRACEBACK=1 shows where" if getattr(error, "__notes__", None) else ""
    if isinstance(error, OSError) or _is_validation(error) or _raised_on_purpose(error):
        return MENDABLE, f"error: {_text(error)}{where}"
    if isinstance(error, MemoryError) or _is_out_of_memory(error):
        return MENDABLE, f"error: out of memory ({_text(error)}); --quick, a smaller run or another --device needs less"
    if (place := _users_place(error)) is not None:
        return MENDABLE, f"error: {place}: {type(error).__name__}: {_text(error)}"
    return FAILED, (
        f"a bug in cotinterp, not in what you typed: {type(error).__name__}: {_text(error)}. Please report it with the "
        "traceback, which COTINTERP_TRACEBACK=1 before the same command shows"
    )


def _text(error: BaseException) -> str:
    """What an error says in one line, without the quotes of a KeyError and the frame of pydantic's messages."""
    if _is_validation(error):
        text = _faults(error)
    elif isinstance(error, KeyError) and error.args:
        text = str(error.args[0])
    else:
        text = str(error) or type(error).__name__
    return re.sub(r"\s*\n\s*", " ", text.strip())


def _is_validation(error: BaseException) -> bool:
    return type(error).__name__ == "ValidationError" and type(error).__module__.startswith("pydantic")


def _faults(error: BaseException) -> str:
    from cotinterp.training.spec_file import explained

    return explained(error)  # type: ignore[arg-type]


def _is_out_of_memory(error: BaseException) -> bool:
    return type(error).__name__ == "OutOfMemoryError" or "allocate memory" in str(error)


def _raised_on_purpose(error: BaseException) -> bool:
    """Whether a `raise` of this package is where it came from, and no operation on something unexpected."""
    *_, last = _tracebacks(error)
    code = last.tb_frame.f_code
    return (
        not isinstance(error, AssertionError)
        and _module(last).split(".")[0] in OURS
        and code.co_code[last.tb_lasti] == RAISE
    )


def _users_place(error: BaseException) -> str | None:
    """The innermost line of a file that belongs neither to this package nor to an installed one; None without one."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}"
    paths = sysconfig.get_paths()
    foreign = (PACKAGE, paths["stdlib"], paths["platstdlib"], paths["purelib"], paths["platlib"], "<")
    for traceback in reversed(list(_tracebacks(error))):
        code = traceback.tb_frame.f_code
        installed = code.co_filename.startswith(foreign) or "site-packages" in code.co_filename
        if not installed and _module(traceback).split(".")[0] not in OURS:
            return f"{code.co_filename}, line {traceback.tb_lineno}, in {code.co_name}"
    return None


def _module(traceback: TracebackType) -> str:
    return str(traceback.tb_frame.f_globals.get("__name__", ""))


def _tracebacks(error: BaseException) -> Iterator[TracebackType]:
    traceback = error.__traceback__
    while traceback is not None:
        yield traceback
        traceback = traceback.tb_next
