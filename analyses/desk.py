"""What the scripts share: the runs that they are about, and where their answers go."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from cotinterp.report.page import write_figures
from cotinterp.report.runs import ReportFigure
from cotinterp.results import output_folder, write_atomic
from cotinterp.training.checkpoints import Run, load_run
from cotinterp.training.reference import REFERENCE_REGIMES, REFERENCE_TASKS, reference_specs


def reference_runs(
    root: Path, *, tasks: Sequence[str] = REFERENCE_TASKS, regimes: Sequence[str] = REFERENCE_REGIMES
) -> tuple[Run, ...]:
    """The reference models of those tasks and regimes, on the CPU."""
    specs = [spec for spec in reference_specs() if spec.task in tasks and spec.regime in regimes]
    return tuple(load_run(spec.slug, root=root) for spec in specs)


def publish(
    out: Path, *, tables: Mapping[str, pd.DataFrame], figures: Mapping[str, go.Figure], answer: Sequence[str]
) -> list[str]:
    """Write tables, figures (they share one plotly.js and open offline) and the answer in words; print the last."""
    tables_folder = output_folder(out / "tables")
    for name, table in tables.items():
        write_atomic(tables_folder / f"{name}.csv", table.to_csv(index=False))
    write_figures([ReportFigure(name, name, figure) for name, figure in figures.items()], out)
    write_atomic(out / "answer.txt", "\n".join(answer) + "\n")
    print(*answer, f"tables and figures: {out}", sep="\n")
    return list(answer)
