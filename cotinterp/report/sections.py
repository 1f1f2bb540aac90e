"""The sections of the report: a question, how to read the answer, the answer, and what it does not establish.

Where the table of a section is missing, a note in its place says how to make it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import pandas as pd
import plotly.graph_objects as go
from markupsafe import Markup

from cotinterp.depth.compute import ComputeResult
from cotinterp.figures.attention import attention_view
from cotinterp.figures.behavior import CITATION, ILLUSTRATIVE, accuracy_figure, errors_figure
from cotinterp.figures.circuit_tests import circuits_figure
from cotinterp.figures.claims import forest
from cotinterp.figures.edits import SUBSTITUTE, edit_kinds_figure, trace_edits_figure
from cotinterp.figures.labels import tasks_of
from cotinterp.figures.patching import families_figure, is_cell, patching_figures
from cotinterp.figures.probing import probe_figures
from cotinterp.figures.sheet import NamedFigure
from cotinterp.report.behavior_findings import mostly_wrong
from cotinterp.report.html import heads_table_html, table_html
from cotinterp.report.inputs import VERDICTS_FILE, ReportInputs
from cotinterp.report.schema import SCHEMAS
from cotinterp.report.simulator import amount, count, simulator_html
from cotinterp.report.texts import TEXTS
from cotinterp.report.verdicts import CRITERIA, RUNS, SEEDS, VERDICTS, details_html, matrix_html, verdicts_html

_SWEPT = (
    "Not here yet: no <code>tables/{}.csv</code>. <code>cotinterp sweep analyses/grids/depth_frontier.toml --root "
    "RUNS</code> trains the sweep, <code>cotinterp collect</code> with the same grid and root writes "
    "analyses/out/depth_frontier.csv, and <code>cotinterp reproduce</code> draws it."
)

NOTES: dict[str, str] = {
    "verdicts": (
        "Not judged: no <code>tables/verdicts.csv</code>. Verdicts need evidence from several seeds: "
        "<code>cotinterp claims --from checkpoints --train</code> trains what is missing, measures it, and stores the "
        "evidence; <code>cotinterp reproduce</code> then judges it."
    ),
    "frontier": _SWEPT.format("frontier"),
    "compute": _SWEPT.format("compute"),
}
"""By the name of the section; HTML."""


SHOWN = (4, 8, 12, 24)
"""Lengths that stand in the open; the others can be unfolded."""
GOOD = 0.9


def cheapest_html(result: ComputeResult) -> Markup:
    """`ComputeResult.cheapest` as HTML: some lengths in the open, all of them folded away."""
    cheapest = result.cheapest(GOOD)
    caption = f"The least that bought {GOOD:.0%} of held-out problems of K operands, among the measured configurations"
    few = cheapest[cheapest["k"].isin(SHOWN)]
    opened = table_html(_cheapest_table(few), caption=caption) if len(few) else Markup()
    return opened + Markup("<details><summary>Every measured length ({} rows)</summary>{}</details>").format(
        len(cheapest), table_html(_cheapest_table(cheapest), caption=caption)
    )


def _cheapest_table(cheapest: pd.DataFrame) -> pd.DataFrame:
    def shown(column: str, flops: bool = False) -> list[str]:
        values = cheapest[column].tolist()
        return ["none" if math.isnan(value) else amount(value) if flops else count(value) for value in values]

    reached = zip(cheapest["good_enough"], cheapest["configurations"], strict=True)
    return pd.DataFrame(
        {
            "task": cheapest["task"],
            "K": cheapest["k"],
            "regime": cheapest["regime"],
            "configurations that got there": [f"{good} of {all_}" for good, all_ in reached],
            "best accuracy": [f"{value:.1%}" for value in cheapest["best_accuracy"]],
            "parameters": shown("n_parameters"),
            "tokens an answer": shown("response_tokens"),
            "operations an answer": shown("flops", flops=True),
            "operations of training": shown("training_flops", flops=True),
            "fewest operations an answer": cheapest["configuration"].where(cheapest["configuration"] != "", "none"),
        }
    )


@dataclass(frozen=True)
class Section:
    """One section, ready for the template: its first figure is in the open, or `opened` in its place; the rest folds.

    `note` stands in place of an answer where the table is missing.
    """

    name: str
    title: str
    question: str
    reading: str
    limits: str
    before: Markup = Markup()
    figures: tuple[NamedFigure, ...] = ()
    after: Markup = Markup()
    downloads: tuple[str, ...] = ()
    note: Markup = Markup()
    opened: Markup = Markup()


BESIDE = {
    "patching": ("patching_scan", "skipped"),
    "heads": ("skipped",),
    "faithfulness": ("edges", "edge_agreement", "skipped"),
    VERDICTS: (CRITERIA, SEEDS, RUNS),
    "frontier": ("answer_lengths",),
}
"""Tables without a section of their own, by the section that offers them."""


def sections(inputs: ReportInputs) -> tuple[Section, ...]:
    """Every section in the order of the report; one whose table is missing says which command makes it."""
    fillers: dict[str, Callable[[ReportInputs, Section], Section]] = {
        VERDICTS: _verdicts,
        "accuracy": _accuracy,
        "budget": _budget,
        "frontier": _frontier,
        "compute": _compute,
        "errors": _errors,
        "trace_edits": _trace_edits,
        "trace_edit_kinds": _trace_edit_kinds,
        "probes": _probes,
        "pair_families": _pair_families,
        "patching": _patching,
        "heads": _heads,
        "faithfulness": _circuits,
    }
    filled = [_table_section(name, inputs, filler) for name, filler in fillers.items()]
    return (*(_with_skipped(section, inputs.tables.get("skipped")) for section in filled), _attention(inputs))


SKIPPED = {
    "accuracy": "evaluate",
    "trace_edits": "edit",
    "probes": "probe",
    "patching": "patch",
    "heads": "attribute",
    "faithfulness": "circuit",
}
"""The study whose skipped parts a section speaks of."""


def _with_skipped(section: Section, skipped: pd.DataFrame | None) -> Section:
    """The section with what its study could not measure in front, and why."""
    study = SKIPPED.get(section.name)
    rows = None if skipped is None else skipped[skipped["study"] == study]
    if rows is None or rows.empty:
        return section
    lines = [
        Markup("<li>{} {}, seed {}: {} (k = {}, {} problems tried): {}</li>").format(
            *(row[name] for name in ("task", "regime", "run_seed", "pairs", "k", "tried", "why"))
        )
        for row in rows.to_dict("records")
    ]
    said = Markup('<div class="aside">Not measured:<ul>{}</ul></div>').format(Markup().join(lines))
    return replace(section, before=said + section.before)


def _table_section(name: str, inputs: ReportInputs, fill: Callable[[ReportInputs, Section], Section]) -> Section:
    section = Section(name, **TEXTS[name])
    schema = SCHEMAS[name]
    if name not in inputs.tables or inputs.tables[name].empty:
        missing = Markup(NOTES[name]) if name in NOTES else _missing(schema.path, schema.command)
        return replace(section, note=missing)
    beside = [SCHEMAS[table].path for table in BESIDE.get(name, ()) if table in inputs.tables]
    if name == VERDICTS and inputs.verdicts_json is not None:
        beside.append(VERDICTS_FILE)
    return replace(fill(inputs, section), downloads=(schema.path, *beside))


def _verdicts(inputs: ReportInputs, section: Section) -> Section:
    tables = inputs.tables
    figures: tuple[NamedFigure, ...] = ()
    if CRITERIA in tables and SEEDS in tables and len(tables[CRITERIA]):
        figures = (NamedFigure("verdicts", forest(tables[CRITERIA], tables[SEEDS])),)
    opened, before = matrix_html(tables), verdicts_html(tables)
    return replace(section, opened=opened, before=before, figures=figures, after=details_html(tables))


def _missing(path: str, command: str) -> Markup:
    return Markup("Not here yet: no <code>{}</code>. <code>{} --out DIR</code> writes it.").format(path, command)


def _per_task(frame: pd.DataFrame, name: str, figure: Callable[[pd.DataFrame], go.Figure]) -> tuple[NamedFigure, ...]:
    return tuple(NamedFigure(f"{name}-{task}", figure(rows)) for task, rows in tasks_of(frame))


def _accuracy(inputs: ReportInputs, section: Section) -> Section:
    frame = inputs.tables["accuracy"]
    figures = _per_task(frame, "accuracy", accuracy_figure)
    cited = set(frame["task"]) & set(ILLUSTRATIVE)
    after = Markup('<p class="aside">Hollow gray markers: {}</p>').format(CITATION) if cited else Markup()
    return replace(section, figures=figures, after=after)


def _budget(inputs: ReportInputs, section: Section) -> Section:
    frame = inputs.tables["budget"]
    accuracy = inputs.tables.get("accuracy")
    tables = [
        table_html(budget_by_k(rows, accuracy), caption=f"{task}, L = {int(rows['n_layers'].iloc[0])} layers")
        for task, rows in tasks_of(frame)
    ]
    return replace(section, opened=tables[0], before=Markup().join(tables[1:]))


def budget_by_k(budget: pd.DataFrame, accuracy: pd.DataFrame | None) -> pd.DataFrame:
    """The budget of one task, a row for each K and regime, with measured held-out accuracy where there is any."""
    rows = budget.sort_values("k", kind="stable")
    table = pd.DataFrame(
        {
            "K": rows["k"],
            "serial additions, K \N{MINUS SIGN} 1": rows["additions"],
            "levels of a tree": rows["tree_levels"],
            "regime": rows["regime"],
            "response tokens R (mean)": rows["response_tokens"].map("{:.1f}".format),
            "layer operations, R \N{MULTIPLICATION SIGN} L": rows["layer_operations"].map("{:.0f}".format),
            "serial slots before the answer": rows["slots_before_answer"].map("{:.0f}".format),
        }
    )
    if accuracy is not None:
        held = accuracy[accuracy["split"] == "heldout"].groupby(["task", "regime", "k"])["accuracy"].mean()
        keys = zip(rows["task"], rows["regime"], rows["k"], strict=True)
        table["held-out accuracy"] = [f"{held[key]:.1%}" if key in held.index else "" for key in keys]
    return table


def _frontier(inputs: ReportInputs, section: Section) -> Section:
    return replace(section, before=simulator_html(inputs.tables["frontier"], inputs.tables.get("answer_lengths")))


def _compute(inputs: ReportInputs, section: Section) -> Section:
    result = ComputeResult(inputs.tables["compute"])
    return replace(section, figures=(NamedFigure("compute", result.figure()),), after=cheapest_html(result))


def _errors(inputs: ReportInputs, section: Section) -> Section:
    return replace(section, figures=_per_task(inputs.tables["errors"], "errors", errors_figure))


def _trace_edits(inputs: ReportInputs, section: Section) -> Section:
    frame = inputs.tables["trace_edits"]
    edited = frame[frame["task"].isin(frame.loc[frame["edit"] == SUBSTITUTE, "task"])]
    return replace(section, figures=_per_task(edited, "trace-edits", trace_edits_figure))


def _trace_edit_kinds(inputs: ReportInputs, section: Section) -> Section:
    figures = _per_task(inputs.tables["trace_edit_kinds"], "trace-edit-kinds", edit_kinds_figure)
    return replace(section, figures=figures)


def _probes(inputs: ReportInputs, section: Section) -> Section:
    return replace(section, figures=tuple(probe_figures(inputs.tables["probes"], symbols=inputs.symbols)))


def _pair_families(inputs: ReportInputs, section: Section) -> Section:
    return replace(section, figures=_per_task(inputs.tables["pair_families"], "pair-families", families_figure))


def _patching(inputs: ReportInputs, section: Section) -> Section:
    frame = inputs.tables["patching"]
    baselines = frame[~is_cell(frame)]
    columns = ["task", "regime", "run_seed", "pair", "direction", "site", "metric", "effect", "ci_low", "ci_high", "n"]
    after = Markup()
    if len(baselines):
        caption = "Baselines: what the same measurement gives where the answer is known"
        after = Markup("<details><summary>Baselines ({} rows)</summary>{}</details>").format(
            len(baselines), table_html(baselines[columns], caption=caption)
        )
    return replace(section, figures=tuple(patching_figures(frame, symbols=inputs.symbols)), after=after)


def _heads(inputs: ReportInputs, section: Section) -> Section:
    accuracy = inputs.tables.get("accuracy")
    weak = {} if accuracy is None else mostly_wrong(accuracy)
    caveats = {key: f"undetermined ({right}): the numbers are about what moves a guess" for key, right in weak.items()}
    return replace(section, before=heads_table_html(inputs.tables["heads"], inputs.rules, caveats=caveats))


LARGEST = 8
"""Edges of each run and pair that stand in the report."""


def _circuits(inputs: ReportInputs, section: Section) -> Section:
    figures = _per_task(inputs.tables["faithfulness"], "faithfulness", circuits_figure)
    after, edges = Markup(), inputs.tables.get("edges")
    if edges is not None:
        first = edges[edges["rank"] <= LARGEST].sort_values(["task", "regime", "pair", "rank"], kind="stable")
        columns = ["task", "regime", "pair", "rank", "edge", "effect", "ci_low", "ci_high", "n"]
        caption = f"The {LARGEST} edges of the largest effect, of each model and pair"
        after = Markup("<details><summary>Largest edges ({} rows)</summary>{}</details>").format(
            len(first), table_html(first[columns], caption=caption)
        )
    return replace(section, figures=figures, after=after)


def _attention(inputs: ReportInputs) -> Section:
    section = Section("attention", **TEXTS["attention"])
    if not inputs.attention:
        return replace(section, note=_missing("attention.json", "cotinterp reproduce"))
    views = [
        Markup("<h3>{}</h3><p class='transcript'><code>{}</code></p>{}{}").format(
            view.run.words,
            "".join(view.tokens),
            attention_view(view.words, view.patterns, name=f"attention-{index}"),
            table_html(view.looks(), caption=f"In words, {view.run.words}: where each head looks most, from one place"),
        )
        for index, view in enumerate(inputs.attention)
    ]
    by_role = (SCHEMAS["attention_by_role"].path,) if "attention_by_role" in inputs.tables else ()
    return replace(section, before=Markup().join(views), downloads=("attention.json", *by_role))
