"""Pieces of HTML that pages share: the templates, tables, and the heads of a model as a table that sorts."""

from collections.abc import Hashable, Mapping, Sequence
from functools import cache
from html import escape
from math import isnan

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from cotinterp.figures.labels import RunKey, runs_of


@cache
def environment() -> Environment:
    """The templates of the report."""
    return Environment(
        loader=PackageLoader("cotinterp.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def table_html(frame: pd.DataFrame, *, caption: str = "") -> Markup:
    """A frame as an HTML table with row headings in the first column; every text is escaped."""
    head = "".join(f'<th scope="col">{escape(str(column))}</th>' for column in frame.columns)
    body = "".join(
        f'<tr><th scope="row">{escape(text_of(first))}</th>{_cells(rest)}</tr>'
        for first, *rest in frame.astype(object).itertuples(index=False, name=None)
    )
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return Markup(
        f'<div class="scroll"><table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _cells(values: Sequence[object]) -> str:
    return "".join(f"<td>{escape(text_of(value))}</td>" for value in values)


def text_of(value: object) -> str:
    """A value as a cell of a table says it."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(text_of(entry) for entry in value)
    return str(value)


HEAD_COLUMNS = {
    "name": "head",
    "attribution": "direct attribution (logits)",
    "ablation_effect": "ablation effect",
    "attention_to_previous_total": "attention to previous total",
    "attention_to_next_operand": "attention to next operand",
    "label": "label",
}
_HEAD_NUMBERS = tuple(HEAD_COLUMNS)[1:-1]


def heads_table_html(
    frame: pd.DataFrame,
    label_rules: Mapping[str, str] | None = None,
    *,
    caveats: Mapping[RunKey, str] | None = None,
) -> Markup:
    """One sortable HTML table a trained model, and below them every label's rule in the order of the rules.

    A label says which rule of thumb a head's numbers meet; it is not a verdict on the head's function. Every text is
    escaped. `caveats` are printed in the captions of the runs that they are about. Columns that the table has beside
    the fixed ones are left to the CSV file.
    """
    rules = label_rules or {}
    tables = [_head_table(_head_caption(key, caveats or {}, rows), rows, rules) for key, rows in runs_of(frame)]
    unexplained = [str(label) for label in frame["label"].unique() if label and label not in rules]
    explained = {**rules, **dict.fromkeys(unexplained, "No rule was stored with this label.")}
    definitions = "".join(
        f"<dt>{escape(label)}</dt><dd>{escape(rule.removeprefix(f'{label}: '))}</dd>"
        for label, rule in explained.items()
    )
    return Markup("".join(tables) + f'<dl class="rules">{definitions}</dl>')


def _head_caption(key: RunKey, caveats: Mapping[RunKey, str], rows: pd.DataFrame) -> str:
    """The run, the place that the whole table is about, on how many examples, and what speaks against it."""
    first = {column: str(rows[column].iloc[0]) for column in ("readout", "n", "note") if column in rows}
    words = f"{key.words}, read at {first['readout']}, n = {first['n']}" if first.get("readout") else key.words
    why = [text for text in (caveats.get(key, ""), first.get("note", "")) if text and text != "nan"]
    return f"{words}: {'; '.join(why)}" if why else words


def _head_table(caption: str, rows: pd.DataFrame, rules: Mapping[str, str]) -> str:
    named = rows.assign(name=[f"L{layer}H{head}" for layer, head in zip(rows["layer"], rows["head"], strict=True)])
    named = named.assign(order=range(len(named)))
    head = "".join(
        f'<th scope="col" aria-sort="none"><button type="button">{escape(words)}</button></th>'
        for words in HEAD_COLUMNS.values()
    )
    limits = {column: float(named[column].abs().max()) for column in _HEAD_NUMBERS}
    body = "".join(f"<tr>{_head_cells(row, limits, rules)}</tr>" for row in named.to_dict("records"))
    return (
        f'<div class="scroll"><table class="sortable"><caption>{escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _head_cells(row: Mapping[Hashable, object], limits: Mapping[str, float], rules: Mapping[str, str]) -> str:
    label = str(row["label"])
    numbers = "".join(_number(float(str(row[column])), limit) for column, limit in limits.items())
    return (
        f'<th scope="row" data-value="{row["order"]}">{row["name"]}</th>{numbers}'
        f'<td data-value="{escape(label)}" title="{escape(rules.get(label, ""))}">{escape(label)}</td>'
    )


def _number(value: float, limit: float) -> str:
    """A number with a bar behind it, as long as its share of the column's largest: blue above 0, else orange."""
    share = abs(value) / limit if limit > 0 and not isnan(value) else 0.0
    sign = "minus" if value < 0 else "plus"
    shown = "\N{EN DASH}" if isnan(value) else f"{value:.3f}".replace("-", "\N{MINUS SIGN}")
    return f'<td class="number {sign}" data-value="{value}" style="--share:{share:.0%}">{shown}</td>'
