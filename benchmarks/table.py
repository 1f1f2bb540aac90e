"""The measurements as a Markdown table, and a page that holds it."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.measurement import Measurement
from cotinterp.results import write_atomic

COLUMNS = ("work", "peer", "ours", "theirs", "ratio", "quartiles", "floor", "ours / floor", "memory, MiB", "equal")
BEGIN, END = "<!-- benchmark table -->", "<!-- end of benchmark table -->"


def table(rows: Sequence[Measurement]) -> str:
    """One line a measurement. `memory, MiB` is what one call adds at its peak: ours / theirs."""
    cells = [COLUMNS, *(_cells(row) for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(COLUMNS))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(x, widths, strict=True)) + " |" for x in cells]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]]) + "\n"


def put_table(page: Path, rows: Sequence[Measurement]) -> Path:
    """Writes the table between the two marks of a page. ValueError where the page lacks them."""
    return put_between(page, (BEGIN, END), table(rows))


def put_between(page: Path, marks: tuple[str, str], content: str) -> Path:
    """Writes `content` between two marks of a page. ValueError where the page lacks them."""
    text, (begin, end) = page.read_text(), marks
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"{page} has no place for the table: put the lines {begin!r} and {end!r} into it, once each")
    before, after = text.split(begin)[0], text.split(end)[1]
    return write_atomic(page, f"{before}{begin}\n\n{content}\n{end}{after}")


def _cells(row: Measurement) -> tuple[str, ...]:
    low, high = row.spread
    return (
        row.work,
        row.peer,
        _time(row.ours, row.unit),
        _time(row.theirs, row.unit),
        f"{row.ratio:.1f}",
        f"{low:.1f} to {high:.1f}",
        "" if row.floor is None else _time(row.floor, row.unit),
        "" if not row.floor else f"{row.ours / row.floor:.1f}",
        "" if row.memory_mib is None else " / ".join(f"{mib:.0f}" for mib in row.memory_mib),
        "yes" if row.equal else "NO",
    )


def _time(value: float, unit: str) -> str:
    """Three digits, and seconds where milliseconds would be many."""
    if unit == "ms" and value >= 10_000:
        return f"{value / 1000:.3g} s"
    return f"{value:.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"
