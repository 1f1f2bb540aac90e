"""Where a running total can be read off linearly: layer by place, trained beside untrained."""

import re

import pandas as pd

from cotinterp.figures.runs import ReportFigure, RunKey, runs_of
from cotinterp.report.panels import Panel, Scale, heatmap_grid
from cotinterp.report.places import Place, Symbols, reading_order
from cotinterp.transcripts.roles import PROMPT_ROLES, Role

MEASURES = {
    "selectivity": Scale(-1.0, 1.0, "RdBu", "selectivity"),
    "accuracy": Scale(0.0, 1.0, "Cividis", "probe accuracy"),
}
BEFORE_STEPS = PROMPT_ROLES | {Role.TRACE_START}
BEFORE_TOTAL = frozenset({Role.PREVIOUS_TOTAL, Role.STEP_OPERATOR, Role.STEP_OPERAND, Role.EQUALS})
AFTER_TOTAL = frozenset({Role.TOTAL, Role.STEP_END})


def target_step(target: str) -> int | None:
    """The step that a probe's target is the total of, from its name (`s_2`, `total 2`); None without a number."""
    digits = re.search(r"(\d+)$", target)
    return int(digits.group()) if digits else None


def is_before(role: str, step: int, target: int) -> bool:
    """Whether a place comes before total `target` has been written in any regime that writes it.

    The prompt does, and the parts of step `target` up to its equals sign. Its total, and all that follows, do not:
    reading the total there may be reading a symbol. The answer and what ends a response never count as before.
    """
    if role in BEFORE_STEPS:
        return True
    return step <= target if role in BEFORE_TOTAL else role in AFTER_TOTAL and step < target


def written_from(places: tuple[Place, ...], target: str) -> int | None:
    """The number of the first place at which a total may have been written already; None where there is none."""
    step = target_step(target)
    if step is None:
        return None
    return next((index for index, place in enumerate(places) if not is_before(place.role, place.step, step)), None)


def probe_figures(frame: pd.DataFrame, *, symbols: dict[RunKey, Symbols] | None = None) -> list[ReportFigure]:
    """Selectivity and accuracy of linear probes, one figure a trained model and measure; one row of panels a target.

    Trained beside untrained: what an untrained model shows too was in the tokens and their positions, not learned.
    Selectivity is accuracy minus that of a control on random labels (Hewitt and Liang 2019, arXiv 1909.03368).
    Decodable is not used: a high cell does not show that the model reads what the probe reads.
    """
    return [
        _figure(key, run, measure, scale, (symbols or {}).get(key))
        for key, run in runs_of(frame)
        for measure, scale in MEASURES.items()
    ]


def site_label(layer: int, site: str) -> str:
    """`L2.resid_pre`; the site alone where it belongs to no layer, as the baseline `input` does."""
    return site if layer < 0 else f"L{layer}.{site}"


def target_words(target: str) -> str:
    """What a probe's target is, in words: `s_2` is total 2."""
    return f"total {target[2:]}" if target.startswith("s_") else target.replace("_", " ")


def _figure(key: RunKey, run: pd.DataFrame, measure: str, scale: Scale, symbols: Symbols | None) -> ReportFigure:
    row = [site_label(int(layer), str(site)) for layer, site in zip(run["layer"], run["site"], strict=True)]
    cells = run.assign(row=row, n=run["n_test"])
    if measure != "accuracy":
        # The stored interval is the accuracy's. That of a selectivity would need the examples.
        cells = cells.assign(ci_low=float("nan"), ci_high=float("nan"))
    rows = (
        cells[["layer", "row"]].drop_duplicates().iloc[::-1].sort_values("layer", ascending=False, kind="stable")["row"]
    )
    models = [model for model in ("trained", "untrained") if model in set(cells["model"])]
    models += [str(model) for model in cells["model"].unique() if model not in models]
    places = reading_order(run)
    grid = [
        [
            Panel(
                f"<b>{target_words(str(target))}</b>, {model}",
                tuple(rows),
                cells[(cells["target"] == target) & (cells["model"] == model)],
                written_from(places, str(target)),
            )
            for model in models
        ]
        for target in sorted(cells["target"].unique(), key=lambda name: (target_step(str(name)) or 0, str(name)))
    ]
    caption = (
        f"{key.words}: {measure} of linear probes (fitted on {int(run['n_train'].max())} problems, "
        f"tested on {int(run['n_test'].max())})"
    )
    figure = heatmap_grid(grid, places=places, value=measure, scale=scale, row_axis="", symbols=symbols)
    return ReportFigure(f"probes-{key.slug}-{measure}", caption, figure)
