"""From words to a call: commands and options by name, the nearest name where there is none, numbers within bounds."""

import io
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import fields, is_dataclass, make_dataclass
from difflib import get_close_matches
from functools import partial, wraps
from inspect import signature
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_type_hints

import tyro

from cotinterp.cli import doctor, experiments, instruments, verdicts
from cotinterp.cli.instruments import AtLeast, app

if TYPE_CHECKING:
    from pydantic import BaseModel

COMMANDS = (instruments, experiments, verdicts, doctor)
"""Modules whose commands are known once they are imported."""

DESCRIPTION = (
    "What written reasoning tokens buy a fixed-depth transformer, and by which mechanism. "
    "`cotinterp COMMAND --help` ends with examples. An error is one line; with COTINTERP_TRACEBACK=1 in the "
    "environment its traceback is shown too."
)
Call = Callable[[], object]


class UsageError(ValueError):
    """Words that no command can be made of."""


def run(words: Sequence[str]) -> None:
    """Carry out the command that `words` ask for.

    Raises:
        UsageError: No such command or option, or a value that makes no sense. SystemExit: Help was asked for.
    """
    if words and words[0] in app:
        try:
            call = parsed(_typed(words[0]), words[1:], f"cotinterp {words[0]}")
        except SystemExit:
            if {"-h", "--help"} & set(words[1:]):
                print("examples:", *(f"  $ {line}" for line in app.examples[words[0]]), sep="\n")
            raise
        call()
    elif words[:1] in (["--version"], ["-V"]):
        from cotinterp import __version__

        print(f"cotinterp {__version__}")
    elif words and (words[0] in ("-h", "--help") or words[0].startswith("--tyro-")):
        commands = {name: _typed(name) if words[0].startswith("--tyro-") else app[name] for name in app}
        tyro.extras.subcommand_cli_from_dict(commands, prog="cotinterp", description=DESCRIPTION, args=words)
    elif not words:
        raise UsageError(f"which command? There are {', '.join(app)}; `cotinterp --help` says what each does")
    elif words[0].startswith("-"):
        raise UsageError(
            f"no option {words[0]!r} here; there are --help and --version, and every command has options of its own, "
            "which `cotinterp COMMAND --help` lists"
        )
    else:
        raise UsageError(
            f"no command {words[0]!r}.{_near(words[0], app)} There are {', '.join(app)}; `cotinterp --help` says more"
        )


@app.command(
    name="completion",
    examples=(
        "cotinterp completion bash > ~/.local/share/bash-completion/completions/cotinterp",
        "cotinterp completion zsh > ~/.zfunc/_cotinterp",
    ),
)
def completion_command(shell: tyro.conf.Positional[Literal["bash", "zsh"]]) -> None:
    """Print the script by which a shell completes commands, options and their values.

    For one session of bash: `source <(cotinterp completion bash)`. zsh looks in the folders of its `fpath`, to which
    `fpath+=~/.zfunc` before `compinit` in ~/.zshrc adds that of the example. It knows the options of the version that
    printed it.

    Args:
        shell: bash or zsh.
    """
    run(["--tyro-print-completion", shell])


def script(function: Callable[..., object], description: str, *, resumed: bool = False) -> None:
    """Run a script's `main` with the options of the command line, behind the gate of all commands (`guarded`)."""
    from cotinterp.cli import guarded

    program = f"python -m {getattr(sys.modules['__main__'].__spec__, 'name', sys.argv[0])}"
    guarded(lambda: parsed(function, sys.argv[1:], program, description)(), program, resumed=resumed)


def parsed(function: Callable[..., object], words: Sequence[str], program: str, description: str = "") -> Call:
    """The call of `function` that `words` ask for.

    Raises:
        UsageError: They do not fit its options. SystemExit: Help was asked for, and shown.
    """

    @wraps(function)
    def record(*given: Any, **named: Any) -> Call:
        return partial(function, *given, **named)

    said = io.StringIO()
    options = {"prog": program, "description": description or None, "args": words, "return_unknown_args": True}
    try:
        with redirect_stderr(said):
            call, unknown = tyro.cli(record, **options)  # type: ignore[call-overload]
    except SystemExit as ended:
        if not ended.code:
            raise
        raise UsageError(f"{_plain(said.getvalue())}. `{program} --help` lists the options") from ended
    if unknown:
        there = _options(function, program)
        kind = "option" if unknown[0].startswith("-") else "argument"
        raise UsageError(
            f"{program} has no {kind} {unknown[0]!r}.{_near(unknown[0], there)} `{program} --help` lists what it has"
        )
    bound = signature(function).bind(*call.args, **call.keywords)
    for option, value, least in _bounded(function, bound.arguments):
        if value < least:
            raise UsageError(f"{option} must be {least} or more, got {value}")
    return call  # type: ignore[no-any-return]


def _typed(name: str) -> Callable[..., object]:
    """The command; that of `train` gets the type of its options, a spec, which every other --help need not load."""
    command = app[name]
    if name == "train":
        from cotinterp.training.spec import Rewards, RunSpec

        # A teacher is named in a grid, or by --curriculum: as an option it would be a command inside the command. So
        # would rewards, whose fields are options of their own.
        command.__annotations__["spec"] = Annotated[RunSpec, tyro.conf.arg(name=""), tyro.conf.AvoidSubcommands]
        command.__annotations__["rewards"] = _not_needed(Rewards)
    return command


def _not_needed(spec: "type[BaseModel]") -> type:
    """The fields of a spec as options of which none has to be given: None where one would be required."""
    hints = get_type_hints(spec, include_extras=True)
    fields: list[tuple[str, Any, Any]] = [
        (name, hints[name] | None, None) if one.is_required() else (name, hints[name], one.default)
        for name, one in spec.model_fields.items()
    ]
    return make_dataclass(spec.__name__, fields, namespace={"__doc__": spec.__doc__}, frozen=True)


def _options(function: Callable[..., object], program: str) -> list[str]:
    """Every option that its help names."""
    shown = io.StringIO()
    try:
        with redirect_stdout(shown):
            tyro.cli(function, prog=program, args=["--help"])
    except SystemExit:
        pass
    return list(dict.fromkeys(re.findall(r"--[a-z][\w.-]*", shown.getvalue())))


def _near(word: str, names: Sequence[str] | Mapping[str, object]) -> str:
    near = get_close_matches(word, list(names), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def _plain(box: str) -> str:
    """What a box of tyro's says, up to the rule that parts it from general advice, in one line."""
    lines = [line.strip("│ ") for line in re.sub(r"\x1b\[[0-9;]*m", "", box).splitlines()]
    inside = [line for line in lines if line and not line.startswith(("╭", "╰"))]
    rules = [number for number, line in enumerate(inside) if set(line) <= set("─-")]
    # Where the terminal has no such characters the title is not in the frame but stands above a rule of its own.
    begin = rules.pop(0) + 1 if rules and "╭" not in box else 0
    inside = inside[begin : rules[0] if rules else len(inside)]
    said = re.sub(r"\d+ validation errors? for \w+ ", "", " ".join(inside)).replace("Value error, ", "")
    return re.sub(PYDANTIC, _given, said).rstrip(".;") or "the options make no sense"


PYDANTIC = r" \[type=.*?, input_value=(.*?), input_type=(\w+)\]( For further information visit \S+)?"
"""What pydantic adds to each thing that is wrong with a spec."""


def _given(added: re.Match[str]) -> str:
    value, kind, _ = added.groups()
    return ";" if kind == "dict" else f", not {value};"


def _bounded(function: Callable[..., object], values: Mapping[str, Any]) -> Iterator[tuple[str, int, int]]:
    """Every number that is given and has a least value: the option, its value, the least."""
    for name, hint in get_type_hints(function, include_extras=True).items():
        value = values.get(name)
        if is_dataclass(value):
            yield from _bounded(type(value), {field.name: getattr(value, field.name) for field in fields(value)})
        for bound in _bounds(hint):
            for number in value if isinstance(value, tuple) else () if value is None else (value,):
                yield f"--{name.replace('_', '-')}", number, bound.least


def _bounds(hint: Any) -> Iterator[AtLeast]:
    """The bounds in a type, in whatever part of it they stand."""
    yield from (bound for bound in getattr(hint, "__metadata__", ()) if isinstance(bound, AtLeast))
    for part in get_args(hint):
        yield from _bounds(part)
