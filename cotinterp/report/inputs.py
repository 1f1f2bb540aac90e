"""Everything that a report is made from, as one value that can be read back from a finished run's folder."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from cotinterp.report.attention import AttentionView, read_attention_views
from cotinterp.report.manifest import Manifest, read_manifest
from cotinterp.report.places import Symbols
from cotinterp.report.runs import RunKey
from cotinterp.report.schema import check_table, read_tables

VERDICTS_FILE = "verdicts.json"


@dataclass(frozen=True)
class ReportInputs:
    """Tables by name, attention views and the manifest: no model, so that a report can be rebuilt from what was stored.

    `verdicts_json` is the text of verdicts.json, which says what the table `verdicts` says to other programs.

    A table that is missing makes a note in the report instead of a section. Raises KeyError for a table that the report
    does not know, ValueError for one that lacks a column.
    """

    tables: Mapping[str, pd.DataFrame]
    attention: tuple[AttentionView, ...] = ()
    manifest: Manifest | None = None
    label_rules: Mapping[str, str] = field(default_factory=dict)
    verdicts_json: str | None = None

    def __post_init__(self) -> None:
        """Check every table against its schema."""
        for name, frame in self.tables.items():
            check_table(name, frame)

    @property
    def rules(self) -> Mapping[str, str]:
        """Rule text by label: of the table label_rules, where a label may have several, else as given."""
        if "label_rules" not in self.tables:
            return self.label_rules
        by_label = self.tables["label_rules"].groupby("label", sort=False)["rule"]
        return {str(label): "; or ".join(rules) for label, rules in by_label}

    @property
    def specs(self) -> Mapping[str, Mapping[str, Any]]:
        """The specs of the runs by slug, as the manifest stores them; none without a manifest."""
        return self.manifest.specs if self.manifest else {}

    @property
    def symbols(self) -> dict[RunKey, Symbols]:
        """For each run with an attention view, what stands at each place of its example."""
        return {view.run: view.symbols for view in self.attention}


def read_inputs(directory: Path) -> ReportInputs:
    """The inputs stored in the folder of a finished run: tables/*.csv, attention.json, manifest.json, verdicts.json.

    Raises FileNotFoundError without a folder of tables, ValueError for a damaged file.
    """
    tables = read_tables(directory)
    verdicts = directory / VERDICTS_FILE
    return ReportInputs(
        tables=tables,
        attention=read_attention_views(directory),
        manifest=read_manifest(directory),
        verdicts_json=verdicts.read_text(encoding="utf-8") if verdicts.is_file() else None,
    )
