"""What holds for all runs of a report, said once: in one line above the sections, and in one table at their end."""

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from cotinterp.report.html import text_of

Spec = Mapping[str, Any]


def flat(spec: Spec, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The entries of nested mappings with dotted names: `model.n_layers`."""
    for name, value in spec.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def settings(specs: Mapping[str, Spec]) -> tuple[dict[str, Any], pd.DataFrame]:
    """What is equal in all specs, by dotted name; and a table of the rest, one row a setting, one column a run.

    Settings stand in the order of the first spec that has them; a run without one has an empty cell.
    """
    columns = {slug: dict(flat(spec)) for slug, spec in specs.items()}
    names = dict.fromkeys(name for column in columns.values() for name in column)
    rows = {name: [column.get(name, "") for column in columns.values()] for name in names}
    equal = {name: values[0] for name, values in rows.items() if all(value == values[0] for value in values)}
    apart = [(name, *map(text_of, values)) for name, values in rows.items() if name not in equal]
    return equal, pd.DataFrame(apart, columns=["setting", *columns])


def the_seed(tables: Mapping[str, pd.DataFrame]) -> int | None:
    """The seed of every run that the sections are about; None where there are several, or none is named."""
    named = [tables[name]["run_seed"] for name in OF_RUNS if name in tables and "run_seed" in tables[name]]
    seeds = {int(seed) for column in named for seed in column.unique()}
    return seeds.pop() if len(seeds) == 1 else None


OF_RUNS = (
    *("accuracy", "errors", "trace_edits", "trace_edit_kinds", "probes", "pair_families", "patching", "heads"),
    *("faithfulness", "edges", "edge_agreement"),
)
"""Tables of single runs. Sweeps and verdicts are about many seeds, and name them."""


def without_the_seed(tables: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The tables without the column `run_seed` where `the_seed` says it for all of them."""
    known = the_seed(tables) is not None
    return {
        name: frame.drop(columns="run_seed", errors="ignore") if known and name in OF_RUNS else frame
        for name, frame in tables.items()
    }


def settings_line(specs: Mapping[str, Spec], tables: Mapping[str, pd.DataFrame]) -> str:
    """What is equal in all runs, in a sentence above their sections; empty where there are none."""
    if not any(name in tables and len(tables[name]) for name in OF_RUNS):
        return ""
    equal, _ = settings(specs)
    seed = the_seed(tables)
    words = [f"training seed {seed}"] if seed is not None else []
    for name, phrase in PHRASES.items():
        if name in equal:
            words.append(phrase.format(equal[name]))
    if "k_min" in equal and "k_max" in equal:
        words.append(f"{equal['k_min']} to {equal['k_max']} operands")
    said = f"All models below, unless said otherwise: {', '.join(words)}. " if words else ""
    return f"{said}Ranges in brackets are 95% intervals."


PHRASES = {
    "model.n_layers": "{} layers",
    "model.d_model": "width {}",
    "model.n_heads": "{} heads a layer",
    "n_train": "{:,} training problems",
    "optimizer.steps": "{:,} updates",
}
