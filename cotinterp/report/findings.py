"""Plain sentences about what a run found, each built from the numbers of one table and from nothing else.

Every sentence says what was counted, of how many, and with what interval. None says why: a difference between two
trained models is reported as a difference between two trained models. About the inside of a model that is mostly wrong
none names a place.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pandas as pd

from cotinterp.report.accuracy import mostly_wrong
from cotinterp.report.behavior_findings import accuracy_findings, edit_findings, error_findings
from cotinterp.report.edit_kind_findings import edit_kind_findings
from cotinterp.report.families import family_findings
from cotinterp.report.mechanism_findings import Weak, head_findings, patching_findings, probe_findings

BEHAVIOR: Mapping[str, Callable[[pd.DataFrame], list[str]]] = {
    "accuracy": accuracy_findings,
    "errors": error_findings,
    "trace_edits": edit_findings,
    "trace_edit_kinds": edit_kind_findings,
    "pair_families": family_findings,
}
MECHANISM: Mapping[str, Callable[[pd.DataFrame, Weak], list[str]]] = {
    "probes": probe_findings,
    "patching": patching_findings,
    "heads": head_findings,
}


@dataclass(frozen=True)
class Finding:
    """One sentence and the table that it was computed from."""

    text: str
    table: str


def findings(tables: Mapping[str, pd.DataFrame]) -> tuple[Finding, ...]:
    """Every sentence that the tables at hand support, in the order of the report; none for a table that is missing.

    What is said about the inside of a model also looks at its accuracy, where that table is there.
    """
    weak = mostly_wrong(tables["accuracy"]) if "accuracy" in tables else {}
    behavior = [(name, maker(tables[name])) for name, maker in BEHAVIOR.items() if name in tables]
    mechanism = [(name, maker(tables[name], weak)) for name, maker in MECHANISM.items() if name in tables]
    return tuple(Finding(text, name) for name, texts in (*behavior, *mechanism) for text in texts)
