"""What was measured on one run, kept under a name that only the same measurement has.

To gather all evidence takes long; a process that is killed on the way loses the run that it was at.
"""

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path

import pandas as pd
import torch

from cotinterp.claims.evidence import COLUMNS
from cotinterp.claims.measuring import Measure
from cotinterp.claims.subject import Effort
from cotinterp.results import output_folder, write_atomic
from cotinterp.training.checkpoints import Run
from cotinterp.training.spec import json_hash

PACKAGE = Path(__file__).parents[1]
MEASURING = (
    *(PACKAGE / name for name in ("tasks", "transcripts", "models", "training", "behavior", "mechanism", "results")),
    *(PACKAGE / "claims" / name for name in ("measures", "evidence.py", "measuring.py", "subject.py")),
)
"""Folders and files that decide what is measured; a claim or a threshold may change and the rows stay."""

NUMBERS = {"n_layers": int, "seed": int, "k": int, "step": int, "value": float, "trials": float, "problems": int}


@dataclass(frozen=True)
class RowStore:
    """A folder of rows, one file for each run and way to measure it.

    The name of a file holds a hash of the weights, of the training set and the task, of the effort, the variant and the
    device, and of the source of the package and of the measures: rows are found again only where they would come out
    the same. What a measure of one's own imports from elsewhere is not part of the hash.
    """

    folder: Path

    def path(self, run: Run, variant: str, effort: Effort, device: str, measures: Sequence[Measure]) -> Path:
        """Where the rows of this measurement belong."""
        names = [f"{each.__module__}.{each.__qualname__}" for each in measures]
        sources = {Path(str(sys.modules[each.__module__].__file__)) for each in measures}
        key = json_hash(
            {
                "weights": run.weight_hash,
                "task": run.metadata["task"],
                "data": run.metadata["data"],
                "variant": variant,
                "effort": asdict(effort),
                "device": device,
                "torch": torch.__version__,
                "measures": names,
                "source": source_hash((*MEASURING, *sorted(sources))),
            }
        )
        return self.folder / f"{run.spec.slug}-rows-{key[:16]}.csv"

    def read(self, path: Path) -> pd.DataFrame | None:
        """The rows stored there; None where there are none."""
        return read_rows(path.read_text(encoding="utf-8")) if path.is_file() else None

    def write(self, path: Path, rows: pd.DataFrame) -> None:
        """Store rows, whole or not at all."""
        output_folder(self.folder)
        write_atomic(path, text_of(rows))


def text_of(rows: pd.DataFrame) -> str:
    """Rows as text, from which `read_rows` makes the same rows: every digit is kept."""
    return rows[list(COLUMNS)].to_csv(index=False, lineterminator="\n")


def read_rows(text: str) -> pd.DataFrame:
    """The rows of a text."""
    return pd.read_csv(StringIO(text), dtype=str, keep_default_na=False).astype(NUMBERS)


def source_hash(places: Sequence[Path]) -> str:
    """SHA-256 of the Python files in these places, folders with all that is in them; their order does not matter."""
    files = {path for place in places for path in (place.rglob("*.py") if place.is_dir() else (place,))}
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
