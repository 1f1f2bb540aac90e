"""What a report is made from: tables, attention views, verdicts, and the manifest of what they were made with.

The manifest has specs, seeds, versions, revision, platform, threads, hashes and time. No names of people.
"""

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd

from cotinterp.figures.attention import AttentionView, read_attention_views
from cotinterp.figures.labels import RunKey, Symbols
from cotinterp.report.schema import check_table, read_tables
from cotinterp.results.atomic import write_atomic

FILE = "manifest.json"
PACKAGES = ("cotinterp", "torch", "transformer-lens", "numpy", "pandas", "plotly", "circuitsvis")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything needed to say where a report's numbers come from.

    `specs`, `weight_hashes` and `data_hashes` are by slug of the run. `git_revision` is None outside a checkout;
    `git_dirty` says whether the checkout differed from that revision. `wall_time_seconds` is the whole command's.
    """

    command: str
    specs: Mapping[str, Mapping[str, Any]]
    seeds: Sequence[int]
    weight_hashes: Mapping[str, str]
    data_hashes: Mapping[str, str]
    versions: Mapping[str, str | None]
    git_revision: str | None
    git_dirty: bool | None
    platform: str
    cpu_count: int | None
    threads: int
    wall_time_seconds: float


def collect_manifest(
    *,
    command: str,
    specs: Mapping[str, Mapping[str, Any]],
    weight_hashes: Mapping[str, str],
    data_hashes: Mapping[str, str],
    threads: int,
    wall_time_seconds: float,
) -> Manifest:
    """The manifest of a run on this machine, with this installation."""
    revision, dirty = git_state(Path(__file__).parent)
    return Manifest(
        command=command,
        specs=specs,
        seeds=sorted({int(spec["seed"]) for spec in specs.values() if "seed" in spec}),
        weight_hashes=weight_hashes,
        data_hashes=data_hashes,
        versions={"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
        git_revision=revision,
        git_dirty=dirty,
        platform=platform.platform(),
        cpu_count=os.cpu_count(),
        threads=threads,
        wall_time_seconds=round(wall_time_seconds, 3),
    )


def git_state(folder: Path) -> tuple[str | None, bool | None]:
    """The revision of the checkout that tracks `folder`, and whether tracked files differ from it.

    (None, None) where there is none: no git, no commit yet, or a folder that merely lies inside somebody else's
    checkout, as an installed package does in a virtual environment.
    """
    tracked = _git(folder, "ls-files", ".")
    revision = _git(folder, "rev-parse", "HEAD") if tracked else None
    if not revision:
        return None, None
    return revision, bool(_git(folder, "status", "--porcelain", "--untracked-files=no", ":/"))


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def write_manifest(manifest: Manifest, directory: Path) -> Path:
    """Write `directory`/manifest.json, whole or not at all."""
    path = directory / FILE
    write_atomic(path, json.dumps(asdict(manifest), indent=2) + "\n")
    return path


def read_manifest(directory: Path) -> Manifest | None:
    """The manifest stored in `directory`; None where there is none. Raises ValueError for a file that is not one."""
    path = directory / FILE
    if not path.is_file():
        return None
    try:
        return Manifest(**json.loads(path.read_text(encoding="utf-8")))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is not a manifest of this version ({error}); `cotinterp reproduce` writes it again"
        ) from error


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
