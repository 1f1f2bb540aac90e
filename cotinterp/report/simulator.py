"""The serial-compute simulator: what depth and tokens offer, what each law of depth asks, what runs have solved.

One fragment of HTML with its script and its data inside; it stands in the report and on a page of its own
(`build_simulator`). Its numbers are those of `cotinterp.depth.simulator`: capacities and laws, not measurements, but
for the runs that are laid over the charts.
"""

import json
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import asdict, dataclass
from math import floor
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from cotinterp.depth.frontier import CONVERGED, MEASURED, depth_frontier
from cotinterp.depth.laws import LAWS
from cotinterp.depth.simulator import (
    MOST_LAYERS,
    MOST_OPERANDS,
    NO_TASK,
    PLAIN_MODEL,
    REGIMES,
    Simulator,
    Sliders,
    length_table,
)
from cotinterp.models.spec import ModelSpec
from cotinterp.report.html import environment
from cotinterp.report.texts import TEXTS
from cotinterp.results.atomic import write_atomic
from cotinterp.sweeps.table import definitions_in
from cotinterp.tasks import Task, get_task
from cotinterp.tasks.definition import check_definition

UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
AMOUNTS = {
    "prompt": "prompt tokens",
    "response": "tokens written, R (END included)",
    "operations": "layer operations, R \N{MULTIPLICATION SIGN} L",
    "slots": "serial layers before the answer",
    "flops": "floating-point operations",
}
"""Rows of the table of what an answer takes."""


def words(numbers: Mapping[str, float | None], at: Sliders, model: ModelSpec, d_vocab: int) -> dict[str, str]:
    """The text of every cell by its name, from the numbers of `readouts`."""
    texts = {
        "at": f"K = {at.k} operands, L = {at.n_layers} layers",
        "model": f"d_model {model.d_model}, d_mlp {model.d_mlp}, {d_vocab} symbols",
        "have.direct": f"{count(_known(numbers, 'slots.direct'))} layers",
        "have.cot": f"{count(_known(numbers, 'slots.cot'))} layers before its answer",
    }
    for law in LAWS:
        need = numbers[f"needed.{law}"]
        texts[f"needed.{law}"] = "no number is enough" if need is None else count(need)
        for regime in REGIMES:
            texts[f"{regime}.{law}"] = _enough(need, _known(numbers, f"slots.{regime}"), at, stepwise=regime == "cot")
    for row in AMOUNTS:
        both = [_known(numbers, f"{row}.{regime}") for regime in REGIMES]
        shown = amount if row == "flops" else count
        texts |= {f"{row}.{regime}": shown(value) for regime, value in zip(REGIMES, both, strict=True)}
        texts[f"{row}.ratio"] = f"{rounded(both[1] / both[0], 2)} \N{MULTIPLICATION SIGN}"
    return texts


def rounded(value: float, digits: int) -> str:
    """`value` with so many digits, halves upward: what the page's script prints."""
    return f"{floor(value * 10**digits + 0.5) / 10**digits:.{digits}f}"


def count(value: float) -> str:
    """A mean number of things: whole where it is whole."""
    return str(int(value)) if value == int(value) else rounded(value, 1)


def amount(value: float) -> str:
    """Floating-point operations with their unit, a power of a thousand."""
    size, unit = next(((size, unit) for size, unit in UNITS if value >= size), (1.0, ""))
    return f"{rounded(value / size, 2)} {unit}FLOP"


def _enough(need: float | None, have: float, at: Sliders, *, stepwise: bool) -> str:
    """Whether so many layers are enough; a trace may fold two operands at a time wherever k0 allows two."""
    if need is None:
        return "enough, a step at a time" if stepwise and at.floor >= 2 else "never enough"
    return "enough" if need <= have else f"{count(need - have)} short"


def _known(numbers: Mapping[str, float | None], name: str) -> float:
    value = numbers[name]
    assert value is not None, "only what a law needs may be without a number"
    return value


RULES = {
    "linear": "K \N{MINUS SIGN} 1 \N{LESS-THAN OR EQUAL TO} b L",
    "logarithmic": "log2 K \N{LESS-THAN OR EQUAL TO} b L",
    "constant": "c layers solve every K, fewer solve k0",
    "none": "depth buys nothing beyond k0",
}
COLUMNS = ("task", "regime", "layers", "d_model", "updates", "seed", "solves K up to", "first unsolved", "convergence")


@dataclass(frozen=True)
class Slider:
    """One range input; `name` is that of the field of Sliders that it sets."""

    name: str
    words: str
    low: int | float
    high: int | float
    step: int | float
    unit: str


def simulator_html(
    measured: pd.DataFrame | None = None,
    lengths: pd.DataFrame | None = None,
    *,
    tasks: Mapping[str, Task] | None = None,
) -> Markup:
    """The simulator as a fragment: controls, charts, readouts and the measured runs.

    Its tables hold the numbers of the first position of the sliders, so that it says something without a script.

    Args:
        measured: Rows of `FrontierResult.frame()`, or a sweep's tidy table, whose frontier is then taken; the
            free-running runs of direct and cot that were measured are laid over the charts. None: no measured points.
        lengths: `length_table` of the tasks. None: made anew for those of `measured`.
        tasks: Tasks by the name that `measured` gives them; for those that the registry does not know.

    Raises:
        KeyError: A task of `measured` is not known. ValueError: `lengths` has none of it, or it is not the task that
            `measured` is of.
    """
    runs = _measured(measured)
    names = list(dict.fromkeys(runs["task"]))
    if lengths is None:
        known = {name: (tasks or {}).get(name) or get_task(name) for name in names}
        for name, task in known.items():
            check_definition(task, definitions_in(measured, name) if measured is not None else (), "the sweep table")
        lengths = length_table(known)
    simulators = {name: _simulator(runs[runs["task"] == name], lengths[lengths["task"] == name]) for name in names}
    chosen = next(iter(simulators), "")
    first = simulators.get(chosen, NO_TASK)
    at = Sliders(k=min(Sliders.k, first.longest))
    deepest = max([MOST_LAYERS, *runs["n_layers"].tolist()])
    data = {
        "most": {"n_layers": deepest, "k": MOST_OPERANDS},
        "plain": _sizes(NO_TASK),
        "tasks": {name: _of_task(simulator, runs[runs["task"] == name]) for name, simulator in simulators.items()},
    }
    template = environment().get_template("simulator.html.j2")
    return Markup(
        template.render(
            tasks=names,
            chosen=chosen,
            budgets=[("", "all"), *((steps, f"{steps} updates") for steps in sorted(set(runs["steps"].tolist())))],
            sliders=[asdict(slider) | {"value": getattr(at, slider.name)} for slider in _sliders(deepest)],
            laws=[{"name": law, "rule": rule} for law, rule in RULES.items()],
            texts=words(first.readouts(at), at, first.model, first.d_vocab),
            amounts=list(AMOUNTS.items()),
            rows=list(_rows(runs)),
            row_columns=COLUMNS,
            data=Markup(json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")),
        )
    )


def build_simulator(
    measured: pd.DataFrame | None,
    out: Path,
    *,
    lengths: pd.DataFrame | None = None,
    tasks: Mapping[str, Task] | None = None,
) -> Path:
    """Write the simulator as one self-contained page that opens offline, at `out`. Arguments as in `simulator_html`."""
    page = environment().get_template("simulator_page.html.j2")
    text = page.render(simulator=simulator_html(measured, lengths, tasks=tasks), text=TEXTS["frontier"])
    return write_atomic(out, text)


def _sliders(deepest: int) -> tuple[Slider, ...]:
    """The sliders; the depth goes as far as the deepest model that was measured."""
    return (
        Slider("n_layers", "Depth L", 1, deepest, 1, "layers"),
        Slider("k", "Length K", 2, MOST_OPERANDS, 1, "operands"),
        Slider("b", "b of linear and logarithmic", 0.25, 4, 0.25, "per layer"),
        Slider("enough", "c of constant", 1, deepest, 1, "layers"),
        Slider("floor", "k0 of constant and none", 1, MOST_OPERANDS, 1, "operands"),
        Slider("step_tokens", "Tokens of a written step", 1, 12, 1, "tokens"),
    )


def _measured(given: pd.DataFrame | None) -> pd.DataFrame:
    """The runs that are drawn: measured, free-running, direct or cot, in a fixed order."""
    shape = ["n_layers", "d_model", "d_mlp", "steps"]
    columns = ["task", "regime", "reading", *shape, "run_seed", "frontier", "next_k", "convergence"]
    if given is None:
        return pd.DataFrame(columns=columns)
    runs = given if "frontier" in given.columns else depth_frontier(given).frame()
    kept = runs["convergence"].isin(MEASURED) & (runs["reading"] == "answer") & runs["regime"].isin(REGIMES)
    order = ["task", "regime", "n_layers", "d_model", "steps", "run_seed", "frontier"]
    return runs.loc[kept, columns].sort_values(order, ignore_index=True)


def _simulator(runs: pd.DataFrame, lengths: pd.DataFrame) -> Simulator:
    """One task, with the width that most of its models have."""
    d_model, d_mlp = runs[["d_model", "d_mlp"]].value_counts().index[0]
    model = PLAIN_MODEL.model_copy(update={"d_model": int(d_model), "d_mlp": int(d_mlp), "n_heads": 1})
    return Simulator.of(model, lengths)


def _sizes(simulator: Simulator) -> dict[str, int]:
    return {"d_model": simulator.model.d_model, "d_mlp": simulator.model.d_mlp, "d_vocab": simulator.d_vocab}


def _of_task(simulator: Simulator, runs: pd.DataFrame) -> dict[str, object]:
    """What the page's script knows of one task."""
    lengths = {
        regime: {k: list(asdict(found).values()) for k, found in by_k.items()}
        for regime, by_k in simulator.by_regime.items()
    }
    return {**_sizes(simulator), "lengths": lengths, "runs": [_run(row) for row in runs.to_dict("records")]}


def _run(row: dict[Hashable, Any]) -> dict[str, object]:
    reached = f"solves K up to {row['frontier']}" if row["frontier"] else "solves no length"
    unsolved = row["next_k"] if row["next_k"] > 0 else "none"
    shape = f"L = {row['n_layers']}, d_model {row['d_model']}"
    return {
        "regime": row["regime"],
        "layers": row["n_layers"],
        "steps": row["steps"],
        "solved": row["frontier"],
        "next": row["next_k"],
        "open": row["convergence"] not in CONVERGED,
        "words": f"{row['regime']}, {shape}, {row['steps']} updates, seed {row['run_seed']}: {reached}; "
        f"first unsolved: {unsolved} ({row['convergence']})",
    }


def _rows(runs: pd.DataFrame) -> Iterator[tuple[str, ...]]:
    for row in runs.to_dict("records"):
        reached, unsolved = (row[name] if row[name] > 0 else "none" for name in ("frontier", "next_k"))
        cells = (
            *(row[name] for name in ("task", "regime", "n_layers", "d_model", "steps", "run_seed")),
            reached,
            unsolved,
        )
        yield (*map(str, cells), str(row["convergence"]))
