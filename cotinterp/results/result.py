"""What every result can do: give its table and its picture, save both, and show itself in a notebook or a terminal."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import fields, is_dataclass
from html import escape, unescape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cotinterp.results.atomic import output_folder, single_name, write_atomic
from cotinterp.results.notebook import figure_html
from cotinterp.results.static import require_static, static_images

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects


OFFLINE = {
    "displaylogo": False,
    "showSendToCloud": False,
    "plotlyServerURL": "",
    "responsive": True,
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"],
    "toImageButtonOptions": {"format": "svg", "filename": "figure"},
}
"""plotly.js offers to send a chart to its makers unless told not to. Hand over a copy: plotly takes entries out."""


ROWS_SHOWN = 10
"""Rows of a result's table that a notebook shows."""

LONGEST_VALUE = 80
"""Characters of one field in a `repr`; longer values are said by their type and size."""


def caption(figure: "plotly.graph_objects.Figure", name: str) -> str:
    """The title of a figure as plain text, in one line; `name` where it has none."""
    return unescape(str(figure.layout.title.text or name).replace("<br>", " "))


PLOTLY = "plotly.min.js"
"""The script that the pages of one folder share; it lies beside them."""


def write_page(figure: "plotly.graph_objects.Figure", name: str, folder: Path) -> Path:
    """Write `figure` to `folder`/<name>.html, titled, and beside it the plotly.js that all pages of the folder load.

    The page opens from file:// without a network, and may be moved together with the script. The script is written only
    where it is missing or another one.

    Raises:
        ValueError: `name` is no file name: it would leave the folder.
    """
    import plotly.offline

    name, script = single_name(name), plotly.offline.get_plotlyjs().encode()
    element = re.sub(r"[^\w.-]", "-", name)
    page: str = figure.to_html(include_plotlyjs="directory", div_id=element, config=dict(OFFLINE))
    page = page.replace("<head>", f"<head><title>{escape(caption(figure, name))}</title>", 1)
    beside = output_folder(folder) / PLOTLY
    if not (beside.is_file() and beside.read_bytes() == script):
        write_atomic(beside, script)
    return write_atomic(folder / f"{name}.html", page)


def write_pictures(
    figure: "plotly.graph_objects.Figure", name: str, folder: Path, formats: Sequence[str] = ()
) -> list[Path]:
    """`write_page`, and beside the page the figure in each of `formats`; all are drawn before a byte is written."""
    images = static_images(figure, formats)
    page = write_page(figure, name, folder)
    return [page, *(write_atomic(page.with_name(f"{name}.{ending}"), image) for ending, image in images.items())]


class Result(ABC):
    """What an instrument found: numbers, never a model.

    Instruments return frozen dataclasses of this kind. They keep their numbers per example for as long as they can, and
    `labels` (task, regime, run_seed, ...) that `frame` puts in front, so that tables of several runs can be stacked.
    A notebook shows the head of the table and the figure; `repr` names the fields and their sizes and computes nothing.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        """Keeps `dataclass` from writing a `repr` that lists every example."""
        super().__init_subclass__(**options)
        if "__repr__" not in vars(cls):
            cls.__repr__ = Result.__repr__  # type: ignore[method-assign]

    @abstractmethod
    def frame(self) -> "pandas.DataFrame":
        """The tidy table: one row per thing measured, the interval and n of an aggregate beside it."""

    @abstractmethod
    def figure(self) -> "plotly.graph_objects.Figure":
        """The picture of that table."""

    def __repr__(self) -> str:
        return short_repr(self)

    def _repr_html_(self) -> str:
        """The head of the table and the figure, for a notebook: without a network, and in its exported page too.

        The first output with a figure brings plotly.js (4.7 MB), the others their data alone (`results.notebook`).
        Where there is no figure, the reason stands in its place.
        """
        table, name = self.frame(), type(self).__name__
        shape = f"{len(table):,} rows \N{MULTIPLICATION SIGN} {len(table.columns)} columns"
        head = table.head(ROWS_SHOWN)
        shown = f", the first {len(head)}" if len(head) < len(table) else ""
        try:
            drawn = figure_html(self.figure(), OFFLINE)
        except ValueError as error:
            drawn = f"<p>No figure: {escape(str(error))}</p>"
        return f"<p><b>{escape(name)}</b>: {shape}{shown}</p>{head.to_html(index=False, border=0)}{drawn}"

    def save(self, directory: Path | str, name: str, *, formats: Sequence[str] = ()) -> list[Path]:
        """Write `tables/<name>.csv` and `figures/<name>.html` under `directory` and return all paths.

        The pages of a folder share one plotly.min.js beside them and open without a network. `formats` ("svg", "pdf",
        "png") also asks for files beside the page, drawn alike, which takes the extra `static` and a Chromium on PATH.
        All of it is complete before the first byte is written, and each file is whole or absent; missing values are
        empty cells.

        Raises:
            ValueError: An unknown format, or a name that is no file name.
            ModuleNotFoundError, FileNotFoundError: What draws static files is missing; each says what to install.
            OSError: A place cannot be written; it is named.
        """
        name = single_name(name)
        table, figure = self.frame().to_csv(index=False, lineterminator="\n"), self.figure()
        require_static(formats)
        tables = output_folder(Path(directory) / "tables")
        pictures = write_pictures(figure, name, Path(directory) / "figures", formats)
        return [write_atomic(tables / f"{name}.csv", table), *pictures]


def with_labels(frame: "pandas.DataFrame", labels: Mapping[str, str | int]) -> "pandas.DataFrame":
    """A copy of `frame` with one constant column per label in front, in the labels' order.

    `ValueError` where the frame has such a column already: two meanings of one name in one table.
    """
    taken = [label for label in labels if label in frame.columns]
    if taken:
        raise ValueError(f"the table has columns {taken} already; its columns are {list(map(str, frame.columns))}")
    return frame.assign(**labels)[[*labels, *frame.columns]]


def short_repr(value: object) -> str:
    """The `repr` of a dataclass on a few lines, however many examples it holds: large fields by their type and size."""
    shown = (f"{field.name}={_short(getattr(value, field.name))}" for field in fields(value) if field.repr)  # type: ignore[arg-type]
    return f"{type(value).__name__}({', '.join(shown)})"


def facts_html(value: object, facts: Mapping[str, object]) -> str:
    """What something is, for a notebook: its type and a name and a value a line. Plain HTML, no script, no network."""
    lines = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(str(shown) if isinstance(shown, str) else _short(shown))}</td></tr>"
        for name, shown in facts.items()
    )
    return f"<p><b>{escape(type(value).__name__)}</b></p><table>{lines}</table>"


def rows_html(value: object, columns: Sequence[str], rows: Iterable[Sequence[object]], *, n: int) -> str:
    """The first ROWS_SHOWN of `n` rows, for a notebook; `rows` may end there."""
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    shown = [row for row, _ in zip(rows, range(ROWS_SHOWN), strict=False)]
    cells = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in shown)
    of = f", the first {len(shown)}" if len(shown) < n else ""
    title = f"<p><b>{escape(type(value).__name__)}</b>: {n:,} rows{of}</p>"
    return f"{title}<table><thead><tr>{head}</tr></thead><tbody>{cells}</tbody></table>"


def _short(value: object) -> str:
    shape = getattr(value, "shape", None)
    if shape is not None and len(shape):
        return f"<{type(value).__name__} {' x '.join(map(str, shape))}>"
    if isinstance(value, (Mapping, tuple, list, set, frozenset)):
        text = repr(value) if len(value) <= LONGEST_VALUE // 10 and not any(map(is_dataclass, value)) else ""
        if text and len(text) <= LONGEST_VALUE:
            return text
        kinds = {type(item).__name__ for item in value}
        of = f" of {kinds.pop()}" if len(kinds) == 1 and not isinstance(value, Mapping) else ""
        return f"<{type(value).__name__} with {len(value):,} entries{of}>"
    text = repr(value)
    if len(text) <= LONGEST_VALUE:
        return text
    return (
        f"<{type(value).__name__} with {len(value):,} entries>"
        if isinstance(value, Sized)
        else f"<{type(value).__name__}>"
    )
