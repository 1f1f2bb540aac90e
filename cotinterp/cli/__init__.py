"""The command line: every instrument as a verb. Nothing heavy is imported until a command needs it.

`main` is the gate that every command passes: it ends with 0; with 2 and one line for what its user can mend; with 130
after Ctrl-C; with 1 where something failed, a bug of this package included. No traceback is shown unless the
environment variable COTINTERP_TRACEBACK is set.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

TRACEBACK = "COTINTERP_TRACEBACK"
FAILED, MENDABLE, INTERRUPTED, BROKEN_PIPE = 1, 2, 130, 141
"""Exit codes; 141 is what a shell reports of any program whose reader (`| head`) went away."""
RESUMED = ("train", "sweep", "claims", "reproduce", "depth")
"""Commands that save as they go; the others begin again, and leave no half file behind."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `cotinterp`; raises SystemExit wherever the command does not simply end."""
    words = list(sys.argv[1:] if arguments is None else arguments)

    def work() -> None:
        from cotinterp.cli.parsing import run

        run(words)

    guarded(work, "cotinterp", resumed=words[0] in RESUMED if words else False)


def guarded(work: Callable[[], object], program: str, *, resumed: bool) -> None:
    """Do `work`, and end the program with one line and a status instead of a traceback where it fails.

    Args:
        resumed: Whether the same command, given again after Ctrl-C, goes on from there.
    """
    with _interrupts(f"{program}: {_after_interrupt(resumed)}") as interrupted:
        try:
            try:
                work()
            finally:
                sys.stdout.flush()
        except BaseException as error:
            if interrupted or isinstance(error, KeyboardInterrupt):
                code, line = INTERRUPTED, _after_interrupt(resumed)
            elif isinstance(error, SystemExit):
                raise
            elif isinstance(error, BrokenPipeError):
                code, line = BROKEN_PIPE, ""
            else:
                from cotinterp.cli.errors import explain

                code, line = explain(error)
            if os.environ.get(TRACEBACK):
                from traceback import print_exception

                print_exception(error)
            if line:
                print(f"{program}: {line}", file=sys.stderr)
            _drop_unwritable_output()
            raise SystemExit(code) from error


def _after_interrupt(resumed: bool) -> str:
    if resumed:
        return "interrupted. The same command goes on from there: what is finished or saved is not done again"
    return "interrupted. The same command does it again; whatever files it has written are whole"


@contextmanager
def _interrupts(line: str) -> Iterator[list[int]]:
    """Notes each Ctrl-C besides raising KeyboardInterrupt, which C code that imports or calls back may replace.

    While torch is being imported there is C++ that knows no exception of Python, and would abort: nothing is begun yet,
    so the process ends there and then, with `line`.
    """
    seen: list[int] = []
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        yield seen
        return

    def note(number: int, _: object) -> None:
        seen.append(number)
        if getattr(getattr(sys.modules.get("torch"), "__spec__", None), "_initializing", False):
            # A progress bar may have hidden the cursor, and is not asked to give it back.
            shown = "\x1b[?25h\n" if os.isatty(2) else ""
            os.write(2, f"{shown}{line}\n".encode())
            os._exit(INTERRUPTED)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, note)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, before)


def _drop_unwritable_output() -> None:
    """What standard output takes no more goes nowhere, so that Python does not complain of it at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
