"""The tables that a report is made from: their columns, and the command that writes each of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cotinterp.claims.verdict import CRITERIA_COLUMNS, VERDICT_COLUMNS
from cotinterp.depth.compute import COMPUTE_COLUMNS
from cotinterp.depth.cost import BUDGET_COLUMNS
from cotinterp.depth.simulator import LENGTH_COLUMNS
from cotinterp.results.atomic import believed
from cotinterp.studies.evidence import RUN_COLUMNS

INTEGERS = frozenset(
    {
        "run_seed",
        "k",
        "n",
        "correct",
        "count",
        "layer",
        "head",
        "step",
        "n_train",
        "n_test",
        "n_layers",
        "seeds",
        "missing",
        "tried",
    }
    | {"n_heads", "d_model", "d_mlp", "n_ctx", "d_vocab", "n_parameters", "steps", "batch_size", "k_min", "k_max"}
    | {"frontier", "next_k", "k_low", "k_top"}
    | {"src_layer", "src_head", "dest_layer", "dest_head", "rank", "size", "connected", "known"}
)
TEXT = frozenset(
    {"task", "regime", "split", "category", "edit", "outcome", "model", "site", "role", "target", "pair"}
    | {"direction", "metric", "label", "rule", "dest", "src", "family", "readout", "prediction", "source"}
    | {"claim", "verdict", "controls", "rivals", "reason", "criterion", "predicted", "state", "note", "kinds"}
    | {"variant", "slug", "status", "statement", "unit", "evidence", "words", "threshold_reason"}
    | {"reading", "convergence", "start_from", "schedule", "architecture", "definition"}
    | {"edge", "edges", "input", "method", "place", "ranking", "src_kind", "dest_kind", "missed"}
    | {"measure", "condition", "reader", "first", "then", "parameter"}
    | {"would_decide", "study", "pairs", "why", "hypothesis"}
)


JUDGE = "cotinterp claims --from checkpoints --train"
"""Trains what is missing of the replication, measures it, and stores the evidence that verdicts are reached by."""

SWEEP = "cotinterp collect analyses/grids/depth_frontier.toml --root RUNS --out analyses/out/depth_frontier.csv"
"""Collects the sweep over depth and length, from which a report takes its frontier and the price of its answers."""


@dataclass(frozen=True)
class TableSchema:
    """One table: the columns that it must have (it may have more), and the command that writes it."""

    name: str
    columns: tuple[str, ...]
    command: str

    @property
    def path(self) -> str:
        """Where the table lies, relative to the report."""
        return f"tables/{self.name}.csv"


def _schema(name: str, command: str, columns: str) -> TableSchema:
    return TableSchema(name, tuple(columns.split()), command)


SCHEMAS: Mapping[str, TableSchema] = {
    schema.name: schema
    for schema in (
        _schema("accuracy", "cotinterp evaluate RUN", "task regime run_seed split k n correct accuracy ci_low ci_high"),
        _schema("errors", "cotinterp evaluate RUN", "task regime run_seed k category count share"),
        _schema("trace_edits", "cotinterp edit RUN", "task regime run_seed edit step outcome n rate ci_low ci_high"),
        _schema(
            "trace_edit_kinds",
            "cotinterp edit RUN",
            "task regime run_seed edit closed outcome n rate ci_low ci_high by_chance",
        ),
        _schema(
            "probes",
            "cotinterp probe RUN",
            "task regime run_seed model site kind layer head role step target left_out n_train n_test accuracy "
            "control_accuracy selectivity chance ci_low ci_high",
        ),
        _schema(
            "patching",
            "cotinterp patch RUN",
            "task regime run_seed pair direction site kind layer head role step metric effect ci_low ci_high n reason",
        ),
        _schema(
            "patching_scan",
            "cotinterp patch RUN",
            "task regime run_seed pair direction site kind layer head role step metric family effect ci_low ci_high "
            "p_adjusted flagged reason n dropped distinguished",
        ),
        _schema(
            "pair_families",
            "cotinterp patch RUN",
            "task regime run_seed family readout prediction count n share ci_low ci_high source would_decide",
        ),
        _schema(
            "heads",
            "cotinterp attribute RUN",
            "task regime run_seed site kind layer head attribution ablation_effect attention_to_previous_total "
            "attention_to_next_operand label readout n dropped note",
        ),
        _schema(
            "budget",
            "cotinterp reproduce",
            BUDGET_COLUMNS,
        ),
        _schema(
            "attention_by_role",
            "cotinterp attribute RUN",
            "task regime run_seed site kind layer head dest src attention ci_low ci_high chance n",
        ),
        _schema(
            "faithfulness",
            "cotinterp circuit RUN",
            "task regime run_seed pair size connected faithfulness ci_low ci_high n accuracy",
        ),
        _schema("edges", "cotinterp circuit RUN", "task regime run_seed pair edge effect ci_low ci_high n rank"),
        _schema("edge_agreement", "cotinterp circuit RUN", "task regime run_seed pair method edges n pearson"),
        _schema("skipped", "cotinterp patch RUN", "task regime run_seed study k pairs tried why"),
        _schema("label_rules", "cotinterp attribute RUN", "label rule"),
        _schema(
            "frontier",
            SWEEP,
            "task regime reading n_layers d_model d_mlp steps run_seed frontier next_k k_top convergence",
        ),
        TableSchema("answer_lengths", LENGTH_COLUMNS, SWEEP),
        TableSchema("compute", COMPUTE_COLUMNS, SWEEP),
        TableSchema("verdicts", VERDICT_COLUMNS, JUDGE),
        TableSchema("claim_criteria", CRITERIA_COLUMNS, JUDGE),
        _schema("claim_seeds", JUDGE, "claim task criterion run_seed estimate"),
        TableSchema("claim_runs", RUN_COLUMNS, JUDGE),
    )
}


def check_table(name: str, frame: pd.DataFrame, *, where: str = "") -> pd.DataFrame:
    """`frame` as it came, if it has every column of the table `name`.

    Raises KeyError for a table that no schema knows, ValueError naming the columns that are missing.
    """
    if name not in SCHEMAS:
        raise KeyError(f"no table {name!r}; the report knows {sorted(SCHEMAS)}")
    missing = [column for column in SCHEMAS[name].columns if column not in frame.columns]
    if missing:
        raise ValueError(
            f"table {name!r}{f' at {where}' if where else ''} lacks the columns {missing}; it has {list(frame)}."
            f" Write it again with `{SCHEMAS[name].command}`."
        )
    return frame


def read_tables(directory: Path) -> dict[str, pd.DataFrame]:
    """Every table of a finished run that lies in `directory`/tables, by name; a table that is not there is left out.

    Text stays text: a symbol "3" is not turned into a number, nor the label "None" into a missing value.
    Raises FileNotFoundError without a folder of tables, ValueError where a file lacks a column.
    """
    folder = directory / "tables"
    if not folder.is_dir():
        raise FileNotFoundError(
            f"no tables in {directory}: {folder} is not a folder. `cotinterp reproduce --out {directory}` writes them."
        )
    tables = {}
    for name, schema in SCHEMAS.items():
        path = directory / schema.path
        if path.is_file():
            with believed(path, "`cotinterp reproduce` writes it again"):
                frame = pd.read_csv(path, dtype=dict.fromkeys(TEXT, str), keep_default_na=False, na_values=[""])
            tables[name] = _with_types(check_table(name, frame, where=str(path)))
    return tables


def _with_types(frame: pd.DataFrame) -> pd.DataFrame:
    """Whole numbers as integers unless some are missing (the head of a site without heads); texts are never missing."""
    typed = frame.copy()
    for column in typed.columns:
        if column in TEXT:
            typed[column] = typed[column].fillna("")
        elif column in INTEGERS and typed[column].notna().all():
            typed[column] = typed[column].astype("int64")
    return typed
