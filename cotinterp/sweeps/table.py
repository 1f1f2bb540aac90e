"""The tidy table of a sweep, and its file: all that comes after training and evaluation starts from it."""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cotinterp.results import output_folder, write_atomic
from cotinterp.results.atomic import believed
from cotinterp.results.shipped import optional
from cotinterp.sweeps.grid import Grid
from cotinterp.sweeps.single_run import RunStatus, run_status
from cotinterp.tasks import Task
from cotinterp.tasks.definition import check_one_definition, task_definition
from cotinterp.training.progress import METRICS_FILE, read_metrics
from cotinterp.training.spec import RunSpec
from cotinterp.training.spec_file import task_of
from cotinterp.transcripts.vocabulary import Vocabulary

SWEEP_COLUMNS: Mapping[str, str] = {
    "slug": "str",
    "task": "str",
    "regime": "str",
    "run_seed": "int64",
    "n_layers": "int64",
    "d_model": "int64",
    "n_heads": "int64",
    "d_mlp": "int64",
    "n_ctx": "int64",
    "architecture": "str",
    "n_parameters": "int64",
    "n_trained": "int64",
    "steps": "int64",
    "batch_size": "int64",
    "lr": "float64",
    "n_train": "int64",
    "k_min": "int64",
    "k_max": "int64",
    "start_from": "str",
    "schedule": "str",
    "definition": "str",
    "status": "str",
    "error": "str",
    "ended": "str",
    "step": "int64",
    "loss_mid": "float64",
    "loss_end": "float64",
    "split": "str",
    "reading": "str",
    "k": "int64",
    "n": "int64",
    "correct": "int64",
    "accuracy": "float64",
    "ci_low": "float64",
    "ci_high": "float64",
}
"""The columns in order, with their types: one row for each run, split, reading and k."""

LATER = ("definition", "schedule", "ended", "architecture")
"""Columns of words that older tables lack; `n_trained`, which they lack as well, is there `n_parameters`."""

ORDER = ("slug", "split", "reading", "k")
READINGS = {"answer": "accuracy", "tags": "tags"}
"""The readings by the key of evaluation.json under which their rows stand."""

UNMEASURED = {
    "split": "heldout", "reading": "answer", "k": -1, "n": 0, "correct": 0,
    "accuracy": np.nan, "ci_low": np.nan, "ci_high": np.nan,
}  # fmt: skip
WINDOW = 0.1


def sweep_table(grid: Grid, root: Path | str) -> pd.DataFrame:
    """The table of a grid: for every run what it is, how far it came, and its accuracy by split, reading and k.

    A run that is not finished has one row, with k = -1 and n = 0. Nothing in the table depends on where and when the
    runs were carried out. `accuracy` is the share of `n` distinct problems, with Wilson's interval over problems: it
    says how well this one model was measured, nothing about another seed. `steps` is the most updates of the run, which
    `schedule` may end earlier (`RunSpec.schedule`, `ended`), `step` those that are done; `loss_mid` and `loss_end` are
    the mean logged training loss, in nats per scored token, over the tenth of all updates that ends at one half of the
    run, and over the last tenth; NaN where none of them is logged. `definition` says what the task was
    (`task_definition`): rows of one task name and two definitions are no table of one task. `n_layers` is how many
    layers a token passes, those of later loops included (`ModelSpec.depth`), `architecture` what else of the model is
    not as in the reference model (`ModelSpec.architecture`), `n_trained` how many of its values were trained: all
    `n_parameters`, or those of an adapter.

    Raises:
        FileNotFoundError: There is no folder `root`.
    """
    root = Path(root).resolve()
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {root}: `cotinterp sweep` with this grid and --root makes it")
    tasks: dict[tuple[str, str | None], _TaskFacts] = {}
    known: dict[str, str] = {}
    rows: list[dict[str, Any]] = []
    for spec in grid.specs:
        key = (spec.task, spec.definition)
        if key not in tasks:
            tasks[key] = _TaskFacts.of(task_of(spec))
        rows += _rows(run_status(spec, root, grid.problems_per_k, known), root, tasks[key])
    frame = pd.DataFrame(rows, columns=list(SWEEP_COLUMNS)).astype(dict(SWEEP_COLUMNS))
    return frame.sort_values(list(ORDER), kind="stable", ignore_index=True)


def write_sweep_table(frame: pd.DataFrame, path: Path | str) -> Path:
    """Writes a table as `.csv` (floats with six digits) or `.parquet` (as they are), by the ending of the path.

    Raises:
        ValueError: Another ending. ModuleNotFoundError: Parquet without pyarrow.
    """
    path = Path(path)
    if _is_parquet(path):
        optional("pyarrow", "parquet", f"writing {path.name}")
        buffer = io.BytesIO()
        frame.to_parquet(buffer, engine="pyarrow", index=False)
        content: str | bytes = buffer.getvalue()
    else:
        content = frame.to_csv(index=False, lineterminator="\n", float_format="%.6g")
    output_folder(path.parent)
    return write_atomic(path, content)


def read_sweep_table(path: Path | str) -> pd.DataFrame:
    """A table that `write_sweep_table` wrote; empty texts are empty texts, not missing values.

    Where it is older than the columns LATER these are empty: what its tasks computed is not known. Before there were
    adapters every parameter was trained.

    Raises:
        FileNotFoundError: No such file. ValueError: It lacks a column of a sweep's table, or has another ending.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no table {str(path)!r}; `cotinterp collect` writes one")
    parquet = _is_parquet(path)
    if parquet:
        optional("pyarrow", "parquet", f"reading {path.name}")
    texts = [name for name, kind in SWEEP_COLUMNS.items() if kind == "str"]
    with believed(path, "`cotinterp collect` writes it again"):
        frame = (
            pd.read_parquet(path, engine="pyarrow")
            if parquet
            else pd.read_csv(path, dtype=dict.fromkeys(texts, "str"), keep_default_na=False, na_values=[""])
        )
    if not parquet:
        frame[[name for name in texts if name in frame]] = frame[[name for name in texts if name in frame]].fillna("")
    for name in LATER:
        if name not in frame:
            frame[name] = ""
    if "n_trained" not in frame and "n_parameters" in frame:
        frame["n_trained"] = frame["n_parameters"]
    missing = [name for name in SWEEP_COLUMNS if name not in frame]
    if missing:
        raise ValueError(f"{path} is no table of a sweep: it lacks {missing}. `cotinterp collect` writes one")
    with believed(path, "`cotinterp collect` writes it again"):
        return frame[list(SWEEP_COLUMNS)].astype(dict(SWEEP_COLUMNS))


def require_columns(table: pd.DataFrame, columns: Sequence[str]) -> None:
    """Raises KeyError, with the nearest name, where a sweep's table lacks one of the columns."""
    for column in columns:
        if column not in table.columns:
            near = get_close_matches(column, [str(name) for name in table.columns], n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ";"
            raise KeyError(f"the sweep table has no column {column!r}{hint} `cotinterp collect` writes all of them")


def definitions_in(table: pd.DataFrame, task: str) -> tuple[str, ...]:
    """The definitions that a sweep's table has of a task; none where it is older than they are."""
    known = table.loc[table["task"] == task, "definition"] if "definition" in table else pd.Series([], dtype=str)
    return tuple(str(text) for text in known.unique() if isinstance(text, str) and text)


def require_one_definition(table: pd.DataFrame) -> None:
    """Raises ValueError where a sweep's table has two different tasks under one name."""
    pairs = [(str(name), text) for name in table["task"].unique() for text in definitions_in(table, name)]
    check_one_definition(pairs, "the sweep table")


@dataclass(frozen=True)
class _TaskFacts:
    """What the table says of a task, computed once for all of its runs."""

    name: str
    definition: str
    d_vocab: int

    @classmethod
    def of(cls, task: Task) -> "_TaskFacts":
        return cls(task.name, task_definition(task), len(Vocabulary.of(task)))


def _rows(run: RunStatus, root: Path, task: _TaskFacts) -> Iterator[dict[str, Any]]:
    named = _named(run.spec, task) | {"status": run.status, "error": run.error, "step": run.step}
    named |= {"ended": run.ended} | _losses(run.spec, root, run.step if run.ended else run.spec.most_steps)
    measured = [
        {"reading": reading, **{name: row[name] for name in UNMEASURED if name != "reading"}}
        for reading, key in READINGS.items()
        for row in run.evaluation.get(key, ())
    ]
    for row in measured or [UNMEASURED]:
        yield named | row


def _named(spec: RunSpec, task: _TaskFacts) -> dict[str, Any]:
    model, optimizer = spec.model, spec.optimizer
    shape = {name: getattr(model, name) for name in ("d_model", "n_heads", "d_mlp", "n_ctx", "architecture")}
    return {
        "slug": spec.slug,
        "task": task.name,
        "regime": spec.regime,
        "run_seed": spec.seed,
        "n_layers": model.depth,
        **shape,
        "n_parameters": (n := model.n_parameters(task.d_vocab)),
        "n_trained": n if spec.adapter is None else spec.adapter.n_parameters(model, task.d_vocab),
        "steps": spec.most_steps,
        **{name: getattr(optimizer, name) for name in ("batch_size", "lr")},
        **{name: getattr(spec, name) for name in ("n_train", "k_min", "k_max")},
        "start_from": spec.start_from or "",
        "schedule": spec.schedule,
        "definition": task.definition,
    }


def _losses(spec: RunSpec, root: Path, total: int) -> dict[str, float]:
    try:
        logged = read_metrics(root / spec.slug / METRICS_FILE)
    except (OSError, ValueError):
        logged = []

    def mean(end: float) -> float:
        chosen = [line["loss"] for line in logged if (end - WINDOW) * total < line["step"] <= end * total]
        return float(np.mean(chosen)) if chosen else float("nan")

    return {"loss_mid": mean(0.5), "loss_end": mean(1.0)}


def _is_parquet(path: Path) -> bool:
    if path.suffix not in (".csv", ".parquet"):
        raise ValueError(f"{str(path)!r}: a table is written as .csv or .parquet")
    return path.suffix == ".parquet"
