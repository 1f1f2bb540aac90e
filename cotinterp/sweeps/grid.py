"""A grid of runs: which specs a sweep trains, from a TOML file or as a value."""

import difflib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cotinterp.models.spec import ModelSpec, Spec
from cotinterp.tasks import Task, get_task
from cotinterp.tasks.definition import check_one_definition
from cotinterp.training.curriculum import taught, with_controls
from cotinterp.training.spec import Distill, OptimizerSpec, Rewards, RunSpec
from cotinterp.training.spec_file import explained
from cotinterp.transcripts.problems import MAX_PER_K, EmptySplitError, count_problems

TOP_KEYS = ("name", "problems_per_k", "defaults", "runs")
NESTED: Mapping[str, type[Spec]] = {
    "model": ModelSpec,
    "optimizer": OptimizerSpec,
    "distill": Distill,
    "rewards": Rewards,
}
MOST_PROBLEMS = 100_000
"""An accuracy of so many problems is known to 0.3 points; more would take memory and say nothing."""
MOST_RUNS = 20_000
"""Runs of one block: more are a mistyped axis. Validating so many takes a minute."""
CURRICULUM = "curriculum"
"""Of a block, in place of what follows: each run is taught so, and its control is trained beside it."""
SET_BY_CURRICULUM = ("regime", "stages", "mix", "distill")
THEN = "then"
"""Of a block: blocks of runs that start from each run of this one, and have its fields but for those that they name."""
LISTS = ("optimizer.betas", "stages", "mix", "snapshots", "distill.layers")
"""Fields whose one value is a list: there only a list of lists makes an axis."""


@dataclass(frozen=True)
class Grid:
    """The runs of one sweep and how each is evaluated.

    Attributes:
        name: Letters, digits, `-`, `_` and `.`; it can name a folder.
        specs: In order; equal ones count once.
        problems_per_k: Most problems of each number of operands and side of the split that a run is evaluated on.

    Raises:
        ValueError: No specs, a name that is none, fewer than one problem or more than MOST_PROBLEMS, two specs with
            the same slug, two different tasks of one name, or lengths that have no problem to train on or none that is
            held out, so that a run could not be trained or evaluated.
    """

    name: str
    specs: tuple[RunSpec, ...]
    problems_per_k: int = MAX_PER_K

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", self.name):
            raise ValueError(f"name {self.name!r:.80} cannot name a folder: use letters, digits, '-', '_' and '.'")
        if not 1 <= self.problems_per_k <= MOST_PROBLEMS:
            raise ValueError(
                f"problems_per_k must be 1 or more and at most {MOST_PROBLEMS:,}, got {self.problems_per_k}"
            )
        specs = tuple(dict.fromkeys(self.specs))
        if not specs:
            raise ValueError(f"grid {self.name!r} has no runs: give it specs, or [[runs]] in its file")
        object.__setattr__(self, "specs", specs)
        _check_sides(specs)
        check_one_definition(((spec.task_name, spec.definition or "") for spec in specs), f"grid {self.name!r}")
        by_slug: dict[str, RunSpec] = {}
        for spec in specs:
            if by_slug.setdefault(spec.slug, spec) is not spec:
                raise ValueError(f"two different runs have the slug {spec.slug}; change a field of one of them")


def _check_sides(specs: Sequence[RunSpec]) -> None:
    """Raises EmptySplitError for a run that could not be trained, or not be evaluated once it is."""
    tasks: dict[tuple[str, str | None], Task] = {}
    for name, definition, low, high in dict.fromkeys((s.task, s.definition, s.k_min, s.k_max) for s in specs):
        if (name, definition) not in tasks:
            tasks[name, definition] = get_task(name)
        task = tasks[name, definition]
        for k in range(low, high + 1):
            if not count_problems(task, k, "train", at_most=1):
                raise EmptySplitError(
                    f"task {task.name!r} has no problem with {k} operands to train on ({task.n_problems(k)} in all): "
                    f"raise k_min above {k}"
                )
        if not any(count_problems(task, k, "heldout", at_most=1) for k in range(high, low - 1, -1)):
            raise EmptySplitError(
                f"task {task.name!r} has no held-out problem with {low} to {high} operands, so its runs could not be "
                "evaluated: raise k_max"
            )


def read_grid(path: Path | str) -> Grid:
    """The grid in a TOML file.

    `name` (by default that of the file) and `problems_per_k` stand on top; `[defaults]` holds fields of `RunSpec`, and
    each `[[runs]]` more of them, in which a list makes an axis: the runs are the product of the axes of the block, the
    last one moving fastest. `model`, `optimizer`, `distill` and `rewards` are tables (`model.n_layers = [1, 2]`), and
    those of a block add to those of the defaults. `[[runs.then]]` behind a block are runs that start from each of its
    own: they have that one's fields but for what they name themselves. `curriculum` names ways of teaching
    (`training.curriculum`), each run with its control, and its teacher if it has one, beside it. A task in a file is
    given relative to the working directory.

    Raises:
        FileNotFoundError: No such file, or one that cannot be read.
        ValueError: No TOML, an unknown key (the nearest one is named), an axis without values, more runs than
            MOST_RUNS, or a combination that is no valid spec (it is named).
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        why = "it is a folder" if isinstance(error, IsADirectoryError) else error.strerror
        raise FileNotFoundError(
            f"no grid file {str(path)!r} ({why}); docs/scaling.md says what stands in one"
        ) from error
    except ValueError as error:
        raise ValueError(f"{path} is no TOML: {error}") from error
    try:
        fields = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: also a number of more digits than Python reads
        raise ValueError(f"{path} is no TOML: {error}") from error
    try:
        return parse_grid({"name": path.stem} | fields)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from error


def parse_grid(fields: Mapping[str, Any]) -> Grid:
    """The grid that a file with these fields would describe: `{"name": ..., "defaults": {...}, "runs": [{...}]}`.

    Raises:
        ValueError: As `read_grid`.
    """
    _known(fields, TOP_KEYS, "the grid")
    name, problems = fields.get("name"), fields.get("problems_per_k", MAX_PER_K)
    if not isinstance(name, str):
        raise ValueError(f'name must be a text, such as name = "depth-frontier", not {name!r}')
    if not isinstance(problems, int) or isinstance(problems, bool):
        raise ValueError(f"problems_per_k must be a whole number, not {problems!r:.80}")
    defaults, blocks = fields.get("defaults", {}), fields.get("runs", [])
    if not isinstance(defaults, Mapping):
        raise ValueError(f"defaults must be a table, [defaults], not {defaults!r:.80}")
    if not (isinstance(blocks, Sequence) and blocks and all(isinstance(block, Mapping) for block in blocks)):
        raise ValueError("there are no runs: each block of them begins with [[runs]], in two pairs of brackets")
    flat = dict(_flat(defaults, "defaults"))
    listed = [key for key, value in flat.items() if _is_axis(key, value)]
    if listed:
        raise ValueError(f"defaults: {listed[0]} is a list. Axes stand in the blocks, [[runs]]")
    specs: list[RunSpec] = []
    tasks: dict[str, Task] = {}
    for number, block in enumerate(blocks, start=1):
        specs += _block(flat, block, f"runs {number}", tasks)
    return Grid(name, tuple(specs), problems)


def _block(above: Mapping[str, Any], block: Mapping[str, Any], where: str, tasks: dict[str, Task]) -> Iterator[RunSpec]:
    """The runs of one block with the fields that stand above it, and behind each those that start from it."""
    fields = {**above, **dict(_flat({key: value for key, value in block.items() if key != THEN}, where))}
    further = block.get(THEN, [])
    if not (isinstance(further, Sequence) and all(isinstance(one, Mapping) for one in further)):
        raise ValueError(f"{where}: then must be blocks, each of which begins with [[runs.then]], not {further!r:.80}")
    if given := [key for key in (CURRICULUM, "start_from") for one in further if key in one]:
        raise ValueError(f"{where}: runs that start from those of a block cannot name {given[0]}; leave it out")
    if further and CURRICULUM in fields:
        raise ValueError(f"{where}: a curriculum makes several runs, and then starts from one: write its phases as mix")
    for spec, own in _specs(fields, where, tasks):
        yield spec
        for number, one in enumerate(further, start=1):
            yield from _block({**own, "start_from": spec.slug}, one, f"{where}: then {number}", tasks)


def _specs(
    fields: Mapping[str, Any], where: str, tasks: dict[str, Task]
) -> Iterator[tuple[RunSpec, Mapping[str, Any]]]:
    """The runs of one block and the fields of each, the last axis moving fastest."""
    axes = {key: value for key, value in fields.items() if _is_axis(key, value)}
    empty = [key for key, values in axes.items() if not values]
    if empty:
        raise ValueError(f"{where}: the axis {empty[0]} has no values; give it some, or leave the key out")
    if (n_runs := prod(map(len, axes.values()))) > MOST_RUNS:
        sizes = ", ".join(f"{key} {len(values)}" for key, values in axes.items())
        raise ValueError(f"{where}: the axes ({sizes}) make {n_runs:,} runs; a grid has at most {MOST_RUNS:,}")
    for values in product(*axes.values()):
        chosen = dict(zip(axes, values, strict=True))
        of_run = {**fields, **chosen}
        name = of_run.pop(CURRICULUM, None)
        given = [key for key in of_run if name is not None and key.partition(".")[0] in SET_BY_CURRICULUM]
        if given:
            raise ValueError(f"{where}: curriculum sets {', '.join(SET_BY_CURRICULUM)}; leave out {', '.join(given)}")
        try:
            # JSON, because a strict spec takes an array for a tuple, and a whole number for a float, from there alone.
            spec = RunSpec.model_validate_json(
                json.dumps(_nested(({} if name is None else {"regime": "direct"}) | of_run)), context={"tasks": tasks}
            )
            yield from ((one, of_run) for one in ([spec] if name is None else with_controls([taught(name, spec)])))
        except ValidationError as error:
            combination = ", ".join(f"{key} = {value!r:.80}" for key, value in chosen.items()) or "its one combination"
            raise ValueError(f"{where}: {combination} is no run: {explained(error)}") from error
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        except TypeError as error:
            raise ValueError(f"{where}: {error}; dates and times are no fields of a run") from error


def _flat(fields: Mapping[str, Any], where: str) -> Iterator[tuple[str, Any]]:
    _known(fields, (*RunSpec.model_fields, CURRICULUM), where)
    for key, value in fields.items():
        if key not in NESTED:
            yield key, value
        elif not isinstance(value, Mapping):
            raise ValueError(f"{where}: {key} must be a table, such as {key} = {{ ... }}, not {value!r:.80}")
        else:
            _known(value, tuple(NESTED[key].model_fields), f"{where}: {key}")
            yield from ((f"{key}.{field}", inner) for field, inner in value.items())


def _nested(fields: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in fields.items():
        outer, dot, field = key.partition(".")
        if dot:
            nested.setdefault(outer, {})[field] = value
        else:
            nested[key] = value
    return nested


def _is_axis(key: str, value: object) -> bool:
    if key in LISTS:
        return isinstance(value, list) and bool(value) and isinstance(value[0], list)
    return isinstance(value, list)


def _known(fields: Mapping[str, Any], keys: Sequence[str], where: str) -> None:
    for key in fields:
        if key not in keys:
            near = difflib.get_close_matches(key, keys, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(keys)}"
            raise ValueError(f"{where}: unknown key {key!r:.80}; {hint}")
