"""Pieces of HTML that pages share: the templates, and tables of specs."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from html import escape
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


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


def flat(spec: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The entries of nested mappings with dotted names: `model.n_layers`."""
    for name, value in spec.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def specs_table(specs: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """One row a setting, one column a run; settings in the order of the first spec that has them."""
    columns = {slug: dict(flat(spec)) for slug, spec in specs.items()}
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    return pd.DataFrame({"setting": names} | {slug: [c.get(name, "") for name in names] for slug, c in columns.items()})


def table_html(frame: pd.DataFrame, *, caption: str = "") -> Markup:
    """A frame as an HTML table with row headings in the first column; every text is escaped."""
    head = "".join(f'<th scope="col">{escape(str(column))}</th>' for column in frame.columns)
    body = "".join(
        f'<tr><th scope="row">{escape(_text(first))}</th>{_cells(rest)}</tr>'
        for first, *rest in frame.astype(object).itertuples(index=False, name=None)
    )
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return Markup(
        f'<div class="scroll"><table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _cells(values: Sequence[object]) -> str:
    return "".join(f"<td>{escape(_text(value))}</td>" for value in values)


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(_text(entry) for entry in value)
    return str(value)
