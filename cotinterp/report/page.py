"""The report as one HTML page that opens offline, and the folder of files beside it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.offline
from markupsafe import Markup

from cotinterp.figures.attention import DRAW, circuitsvis_script, save_attention_views
from cotinterp.figures.sheet import NamedFigure, untitled, write_figures
from cotinterp.report.findings import findings
from cotinterp.report.html import environment, table_html, text_of
from cotinterp.report.inputs import VERDICTS_FILE, Manifest, ReportInputs, read_inputs, write_manifest
from cotinterp.report.sections import sections
from cotinterp.report.settings import settings, settings_line, without_the_seed
from cotinterp.report.texts import QUESTION
from cotinterp.report.verdicts import VERDICTS
from cotinterp.results.atomic import output_folder, write_atomic
from cotinterp.results.notebook import inline
from cotinterp.results.result import OFFLINE

FILE = "report.html"


def build_report(inputs: ReportInputs) -> str:
    """The whole report as one self-contained page: every script, style and figure inside, and nothing is requested.

    Equal inputs give equal pages. Figures need JavaScript; the sentences and tables do not.
    """
    parts = sections(inputs)
    template = environment().get_template("report.html.j2")
    return template.render(
        question=QUESTION,
        settings_line=settings_line(inputs.specs, inputs.tables),
        settings=_settings_tables(inputs.specs),
        findings=findings(without_the_seed(inputs.tables)),
        sections=parts,
        opening=VERDICTS,
        manifest=_manifest_tables(inputs.manifest),
        figure_html=_figure_html,
        figure_config=Markup(json.dumps(OFFLINE)),
        plotly_script=Markup(plotly.offline.get_plotlyjs()) if any(part.figures for part in parts) else None,
        circuitsvis_script=circuitsvis_script() + Markup(DRAW) if inputs.attention else None,
    )


def write_report(inputs: ReportInputs, directory: Path) -> list[Path]:
    """Write report.html and, beside it, what it shows and was made from.

    These are figures/*.html, tables/*.csv, attention.json, verdicts.json and manifest.json, each whole or absent.
    Returns their paths, the report first.
    """
    folder = output_folder(directory)
    output_folder(folder / "tables")
    written = [write_atomic(folder / FILE, build_report(inputs))]
    written += write_figures([figure for part in sections(inputs) for figure in part.figures], folder)
    for name, frame in inputs.tables.items():
        written.append(write_atomic(folder / "tables" / f"{name}.csv", frame.to_csv(index=False)))
    if inputs.attention:
        written.append(save_attention_views(inputs.attention, folder))
    if inputs.verdicts_json is not None:
        written.append(write_atomic(folder / VERDICTS_FILE, inputs.verdicts_json))
    if inputs.manifest:
        written.append(write_manifest(inputs.manifest, folder))
    return written


def rebuild_report(directory: Path) -> Path:
    """Write `directory`/report.html anew from the tables stored there; nothing else is touched and no model is loaded.

    Raises FileNotFoundError without a folder of tables.
    """
    return write_atomic(directory / FILE, build_report(read_inputs(directory)))


def _figure_html(figure: NamedFigure, name: str) -> Markup:
    """The figure without its title, which stands above it as a caption that can wrap; report.js draws it when seen."""
    shown = untitled(figure.figure)
    data = inline(str(shown.to_json()))
    return Markup(
        '<div id="{}" class="plotly-graph-div" style="height: {}px"></div><script type="application/json">{}</script>'
    ).format(name, shown.layout.height or 450, Markup(data))


def _settings_tables(specs: Mapping[str, Mapping[str, Any]]) -> list[Markup]:
    """What is equal in all runs once, then what is not, a column a run."""
    equal, apart = settings(specs)
    tables = [_pairs({name: text_of(value) for name, value in equal.items()}, "Equal in all runs")] if equal else []
    return tables + ([table_html(apart, caption="Different")] if len(apart) else [])


def _manifest_tables(manifest: Manifest | None) -> list[Markup]:
    if manifest is None:
        return []
    made = {
        "command": manifest.command,
        "wall time": f"{manifest.wall_time_seconds:.0f} s",
        "git revision": _revision(manifest),
        "platform": manifest.platform,
        "CPUs": manifest.cpu_count,
        "threads": manifest.threads,
        "seeds": ", ".join(map(str, manifest.seeds)),
    }
    versions = {name: version or "not installed" for name, version in manifest.versions.items()}
    hashes = pd.DataFrame(
        [
            (slug, manifest.weight_hashes.get(slug, ""), manifest.data_hashes.get(slug, ""))
            for slug in {**manifest.specs, **manifest.weight_hashes, **manifest.data_hashes}
        ],
        columns=["run", "weights (sha256)", "data (sha256)"],
    )
    return [_pairs(made, "The command"), _pairs(versions, "Versions"), table_html(hashes, caption="Hashes")]


def _pairs(entries: Mapping[str, object], caption: str) -> Markup:
    frame = pd.DataFrame({"what": list(entries), "value": [str(value) for value in entries.values()]})
    return table_html(frame, caption=caption)


def _revision(manifest: Manifest) -> str:
    if manifest.git_revision is None:
        return "not from a checkout"
    return manifest.git_revision + (" (with uncommitted changes)" if manifest.git_dirty else "")
