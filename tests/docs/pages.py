"""What the documentation shows, taken out of its pages: code, commands, tables."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = sorted((REPOSITORY / "docs").glob("*.md"))
WITH_README = [path for path in (*PAGES, REPOSITORY / "README.md") if path.exists()]

_FENCE = re.compile(
    r"^(?P<indent> *)(?P<ticks>`{3,})(?P<info>[^`\n]*)\n(?P<body>.*?)^(?P=indent)(?P=ticks) *$", re.M | re.S
)
_TITLE = re.compile(r'title="([^"]+)"')


@dataclass(frozen=True)
class Block:
    """One fenced block: its info string taken apart, its text, and the line of the page where the text begins."""

    page: Path
    line: int
    words: tuple[str, ...]
    title: str
    text: str

    @property
    def language(self) -> str:
        return self.words[0] if self.words else ""

    @property
    def is_run(self) -> bool:
        return self.language in ("python", "py") and "no-run" not in self.words

    @property
    def where(self) -> str:
        return f"{self.page.name}:{self.line}"


@dataclass(frozen=True)
class Row:
    """One row of a table, by the names of its columns, without the marks of code."""

    heading: str
    cells: dict[str, str] = field(hash=False)


def blocks(page: Path) -> tuple[Block, ...]:
    """Every fenced block of a page, in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        info = match["info"].strip()
        title = _TITLE.search(info)
        words = _TITLE.sub("", info).strip("{} ").replace(".", " ").split()
        line = text.count("\n", 0, match.start("body")) + 1
        found.append(Block(page, line, tuple(words), title[1] if title else "", match["body"]))
    return tuple(found)


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def commands(page: Path) -> Iterator[tuple[Block, list[str]]]:
    """Every line of a console block that begins with `$`, as words; lines that end in a backslash are joined."""
    for block in blocks(page):
        if block.language in ("console", "shell", "bash", "sh"):
            for line in block.text.replace("\\\n", " ").splitlines():
                if line.strip().startswith("$ "):
                    yield block, shlex.split(line.strip()[2:], comments=True)


def rows(page: Path) -> Iterator[Row]:
    """Every row of every table, with the heading that it stands under."""
    heading, columns = "", []
    for line in prose(page).splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ").replace("`", "")
        if not line.startswith("|"):
            columns = []
            continue
        cells = [cell.strip().strip("`") for cell in line.strip().strip("|").split(" | ")]
        cells = [cell.strip("| `") if cell.strip("| ") else "" for cell in cells]
        if not columns:
            columns = cells
        elif not set("".join(cells)) <= set("-: |"):
            yield Row(heading, dict(zip(columns, cells, strict=False)))
