"""Figures of linear probes: what can be read where, and whether it is used."""

import re

import pandas as pd
import plotly.graph_objects as go

from cotinterp.figures.heatmap import Panel, Scale, place_heatmaps
from cotinterp.figures.labels import (
    NO_SYMBOLS,
    Place,
    RunKey,
    Symbols,
    about,
    only_run,
    place_words,
    reading_order,
    runs_of,
)
from cotinterp.figures.lines import lines
from cotinterp.figures.sheet import NamedFigure

MEASURES = {
    "selectivity": Scale(-1.0, 1.0, "RdBu", "selectivity"),
    "accuracy": Scale(0.0, 1.0, "Cividis", "probe accuracy"),
    "control_accuracy": Scale(0.0, 1.0, "Cividis", "accuracy on random labels"),
}

BEFORE_STEPS = frozenset({"example", "prompt_start", "operand", "operator", "bracket", "prompt_end", "trace_start"})
"""Roles that come before every written total; those of the prompt, and where a trace opens."""
BEFORE_TOTAL = frozenset({"previous_total", "step_operator", "step_operand", "equals"})
AFTER_TOTAL = frozenset({"total", "step_end"})


def target_step(target: str) -> int | None:
    """The step that a probe's target is the total of, from its name (`s_2`, `total 2`); None without a number."""
    digits = re.search(r"(\d+)$", target)
    return int(digits.group()) if digits else None


def target_words(target: str) -> str:
    """What a probe's target is, in words: `s_2` is total 2."""
    return f"total {target[2:]}" if target.startswith("s_") else target.replace("_", " ")


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
    return next((index for index, (role, at) in enumerate(places) if not is_before(role, at, step)), None)


def probe_figure(
    frame: pd.DataFrame, measure: str = "selectivity", *, left_out: str = "", symbols: Symbols = NO_SYMBOLS
) -> go.Figure:
    """Selectivity or accuracy of linear probes of one trained model, site by place; one row of panels a target.

    Trained beside untrained: what an untrained model shows too was in the tokens and their positions, not learned.
    Selectivity is accuracy minus that of a control on random labels (Hewitt and Liang 2019, arXiv 1909.03368). A dashed
    line stands where the total may have been written. Decodable is not used: a high cell does not show that the model
    reads what the probe reads.

    Drawn are the rows of one `left_out`: `problems`, or `inputs`; by default that of the table's first row.
    Raises KeyError for an unknown measure or `left_out`, ValueError where the table holds more than one trained model.
    """
    if measure not in MEASURES:
        raise KeyError(f"no measure {measure!r} of a probe; there are {list(MEASURES)}")
    tests = list(frame["left_out"].unique())
    chosen = left_out or tests[0]
    if chosen not in tests:
        raise KeyError(f"no rows where left_out is {chosen!r}; there are {tests}")
    frame = frame.loc[frame["left_out"] == chosen]
    cells = frame.assign(n=frame["n_test"])
    if measure != "accuracy":
        # The stored interval is the accuracy's. That of a selectivity would need the examples.
        cells = cells.assign(ci_low=float("nan"), ci_high=float("nan"))
    said = (
        f"{measure.replace('_', ' ')} of linear probes (fitted on {int(frame['n_train'].max())} problems, "
        f"tested on {int(frame['n_test'].max())}{', on other inputs' if chosen == 'inputs' else ''})"
    )
    return _by_place(cells, measure, MEASURES[measure], said, symbols=symbols)


def probe_scan_figure(frame: pd.DataFrame, *, level: float) -> go.Figure:
    """Accuracy of the cells that a scan flags; the others, and those that were not probed, are gray.

    Raises ValueError where the table holds more than one trained model.
    """
    cells = frame.assign(accuracy=frame["accuracy"].where(frame["flagged"]))
    said = f"linear probes above chance at {level:g}, scan-wide"
    return _by_place(cells, "accuracy", MEASURES["accuracy"], said, hover=("null_mean", "null_max", "p_adjusted"))


def _by_place(
    frame: pd.DataFrame,
    value: str,
    scale: Scale,
    said: str,
    *,
    symbols: Symbols = NO_SYMBOLS,
    hover: tuple[str, ...] = ("ci_low", "ci_high", "n"),
) -> go.Figure:
    """Site by place, a row of panels for each target and a column for each model."""
    key, cells = only_run(frame), frame.assign(row=frame["site"])
    sites = cells[["layer", "row"]].drop_duplicates().iloc[::-1]
    rows = sites.sort_values("layer", ascending=False, kind="stable")["row"]
    models = [model for model in ("trained", "untrained") if model in set(cells["model"])]
    models += [str(model) for model in cells["model"].unique() if model not in models]
    places = reading_order(cells)
    panels = [
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
    title = about(key.words, said)
    return place_heatmaps(panels, places=places, value=value, scale=scale, title=title, symbols=symbols, hover=hover)


def probe_figures(frame: pd.DataFrame, *, symbols: dict[RunKey, Symbols] | None = None) -> list[NamedFigure]:
    """`probe_figure` of every trained model in a table, of selectivity and of accuracy."""
    return [
        NamedFigure(
            f"probes-{key.slug}-{measure}", probe_figure(run, measure, symbols=(symbols or {}).get(key, NO_SYMBOLS))
        )
        for key, run in runs_of(frame)
        for measure in ("selectivity", "accuracy")
    ]


def probe_use_figure(frame: pd.DataFrame) -> go.Figure:
    """Effects of a probe's subspace, the whole activation and random subspaces, a facet for each probe, site and place.

    Whiskers: 95% interval over pairs; of the random subspaces, the middle 95% of their effects.
    """
    cell = ["pair", "target", "site", "role", "step"]
    names = {
        key: f"{key[1] + ' in ' if key[1] else ''}{key[2]} at {place_words((str(key[3]), int(key[4])))}"
        for key in frame[cell].drop_duplicates().itertuples(index=False, name=None)
    }
    if len(set(names.values())) < len(names):
        names = {key: f"{key[0]}: {name}" for key, name in names.items()}
    what = [names[key] for key in frame[cell].itertuples(index=False, name=None)]
    edit = frame["intervention"] + ", " + frame["direction"]
    columns = {
        "probe's subspace": ("effect", "ci_low", "ci_high"),
        "whole activation": ("full_effect", "full_effect", "full_effect"),
        "random subspaces": ("random_effect", "random_low", "random_high"),
    }
    parts = [
        pd.DataFrame(
            {"what": what, "edit": edit, "written": name, "effect": frame[mid], "low": frame[low], "high": frame[high]}
        )
        for name, (mid, low, high) in columns.items()
    ]
    figure = lines(
        pd.concat(parts, ignore_index=True),
        x="edit",
        y="effect",
        low="low",
        high="high",
        color="written",
        facet="what",
        references={"the other run": 1.0, "no edit": 0.0},
        title="Is it used? Share of the gap closed by what the probe reads, against norm-matched random subspaces",
        x_title="intervention and direction",
        y_title="normalized effect",
    )
    return figure.update_traces(mode="markers")


def causal_variables_figure(frame: pd.DataFrame) -> go.Figure:
    """Interchange accuracy by site of learned subspaces and of what they are compared with, a facet for each variable.

    Whiskers: 95% interval over held-out pairs of the learned subspace. `mapped` variables are those of the hypothesis,
    `rival` ones another mechanism's, `unmapped` ones nobody's: what the search finds for these it can find anywhere.
    """
    columns = {
        "learned subspace": ("iia", "ci_low", "ci_high"),
        "learned on shuffled labels": ("shuffled_iia",) * 3,
        "best random subspace": ("random_max",) * 3,
        "whole activation": ("full_iia",) * 3,
        "all but the subspace": ("rest_iia",) * 3,
    }
    what = [
        f"{target} at {place_words((role, step))} ({hypothesis}), {model}"
        for target, role, step, hypothesis, model in frame[
            ["target", "role", "step", "hypothesis", "model"]
        ].itertuples(index=False)
    ]
    parts = [
        pd.DataFrame(
            {
                "what": what,
                "site": frame["site"],
                "written": name,
                "iia": frame[mid],
                "low": frame[low],
                "high": frame[up],
            }
        )
        for name, (mid, low, up) in columns.items()
    ]
    return lines(
        pd.concat(parts, ignore_index=True),
        x="site",
        y="iia",
        low="low",
        high="high",
        color="written",
        facet="what",
        bounds=(0.0, 1.0),
        title="Is it a causal variable? The value that the task names after an exchange",
        x_title="site",
        y_title="interchange accuracy",
    )
