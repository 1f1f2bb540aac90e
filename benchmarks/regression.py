"""Whether a change of the code changed a number: the tables of the four big commands, stored before and compared after.

    python -m benchmarks.regression store before           # in the old tree; some ten minutes, --quick two
    python -m benchmarks.regression store after            # in the new one
    python -m benchmarks.regression compare before after --renamed seed=run_seed probes.csv:site=kind

Cells are compared as text, so that not even the last digit may differ. A column that only one side has is named.
"""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import pandas as pd
import tyro

COMMANDS = {
    "reproduce": ("cotinterp.cli", "reproduce"),
    "calibrate": ("cotinterp.cli", "calibrate"),
    "claims": ("cotinterp.cli", "claims"),
    "depth_frontier": ("analyses.depth_frontier",),
}
CALIBRATED = ("--mutations", "--untrained", "50", "--nulls", "20", "--peers")


@dataclass(frozen=True)
class Store:
    """Run the commands on the committed checkpoints and tables, and keep what they write.

    Attributes:
        out: Where each command gets a folder.
        quick: The quick form of `reproduce` and `calibrate`.
        only: Which commands; all four by default.
    """

    out: Annotated[Path, tyro.conf.Positional]
    quick: bool = False
    only: tuple[str, ...] = tuple(COMMANDS)


@dataclass(frozen=True)
class Compare:
    """Compare two folders cell by cell; status 1 where anything differs.

    Attributes:
        renamed: OLD=NEW for a column of every table, FILE:OLD=NEW for one table's.
    """

    before: Annotated[Path, tyro.conf.Positional]
    after: Annotated[Path, tyro.conf.Positional]
    renamed: list[str] = field(default_factory=list)


def store(options: Store) -> None:
    """Run each command with its own folder for output; `CalledProcessError` where one fails."""
    for name in options.only:
        module, *verb = COMMANDS[name]
        more = ["--quick"] if options.quick and name in ("reproduce", "calibrate") else []
        more = [*CALIBRATED] if name == "calibrate" and not options.quick else more
        folder = options.out / name
        folder.mkdir(parents=True, exist_ok=True)
        said = subprocess.run(
            [sys.executable, "-m", module, *verb, *more, "--out", str(folder)],
            check=True,
            capture_output=True,
            text=True,
        )
        (folder / "printed.txt").write_text(said.stdout)


def renaming(renamed: Sequence[str], file: str) -> dict[str, str]:
    """Old names of a file's columns with their new ones; `ValueError` for what is no OLD=NEW."""
    found = {}
    for each in renamed:
        where, _, rule = each.rpartition(":")
        old, equals, new = rule.partition("=")
        if not (old and equals and new):
            raise ValueError(f"{each!r} is no OLD=NEW or FILE:OLD=NEW")
        if where in ("", file):
            found[old] = new
    return found


def differences(before: Path, after: Path, renamed: Sequence[str] = ()) -> Iterator[str]:
    """Every table of `before` that `after` lacks, and every column in which they differ, in words.

    Rows are compared in order. Columns that only one side has are named, and they count.
    """
    for path in sorted(before.rglob("*.csv")):
        name = path.relative_to(before)
        if not (after / name).exists():
            yield f"{name}: missing"
            continue
        old, new = (pd.read_csv(file, dtype=str, keep_default_na=False) for file in (path, after / name))
        old = old.rename(columns=renaming(renamed, path.name))
        if only := [column for column in old if column not in new]:
            yield f"{name}: columns {only} are gone"
        if only := [column for column in new if column not in old]:
            yield f"{name}: columns {only} are new"
        if len(old) != len(new):
            yield f"{name}: {len(old)} rows became {len(new)}"
            continue
        for column in old.columns.intersection(new.columns):
            changed = old[column] != new[column]
            if changed.any():
                example = f"{old[column][changed].iloc[0]!r} became {new[column][changed].iloc[0]!r}"
                yield f"{name}: {column} differs in {int(changed.sum())} of {len(old)} rows, such as {example}"


def main(options: Store | Compare) -> None:
    """Store or compare; where tables differ, the process ends with status 1."""
    if isinstance(options, Store):
        store(options)
    else:
        found = list(differences(options.before, options.after, options.renamed))
        print("\n".join([*found, f"{len(found)} differences"]))
        sys.exit(bool(found))


if __name__ == "__main__":
    Options = Annotated[Store, tyro.conf.subcommand("store")] | Annotated[Compare, tyro.conf.subcommand("compare")]
    main(tyro.cli(Options, description=__doc__))
