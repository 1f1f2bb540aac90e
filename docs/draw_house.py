"""The map of the house, drawn from the imports: `python docs/draw_house.py` writes docs/images/house.svg.

A box is a folder of cotinterp, with the first sentence of its `__init__`, its files and its lines of code (blank lines,
comments and docstrings left out). An arrow means that something in the upper folder imports something in the lower one;
arrows that follow from others are left out. Every import counts, one inside a function or for types as well.
"""

import ast
import sys
from html import escape
from pathlib import Path
from textwrap import wrap

import grimp

ROOT = Path(__file__).parents[1] / "cotinterp"
PICTURE = Path(__file__).parent / "images" / "house.svg"
WIDTH, BOX, FLOOR, GAP, MARGIN = 900, 200, 86, 40, 20
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, Arial, sans-serif"


def rooms() -> dict[str, set[str]]:
    """The folders of the package, and the folders that each of them imports."""
    graph = grimp.build_graph("cotinterp", exclude_type_checking_imports=False)
    names = sorted(child.split(".")[1] for child in graph.find_children("cotinterp") if (ROOT / child[10:]).is_dir())
    imports: dict[str, set[str]] = {name: set() for name in names}
    for module in graph.modules:
        for imported in graph.find_modules_directly_imported_by(module):
            importer, other = (*module.split("."), "")[1], (*imported.split("."), "")[1]
            if importer in imports and other in imports and importer != other:
                imports[importer].add(other)
    return imports


def floors(imports: dict[str, set[str]]) -> list[list[str]]:
    """The rooms from the top floor down, each one floor below the lowest room that imports it.

    On a floor a room stands under those that import it. Raises ValueError where rooms import one another in a circle,
    naming them.
    """
    importers = {name: {other for other in imports if name in imports[other]} for name in imports}
    found: list[list[str]] = []
    left = dict(importers)
    while left:
        done = imports.keys() - left.keys()
        ready = sorted(name for name, above in left.items() if above <= done)
        if not ready:
            raise ValueError(f"these folders import one another in a circle: {sorted(left)}")
        where = {name: (n + 1) / (len(floor) + 1) for floor in found for n, name in enumerate(floor)}
        middle = {name: sum(where[one] for one in importers[name]) / max(1, len(importers[name])) for name in ready}
        found.append(sorted(ready, key=lambda name: (middle[name], name)))
        left = {name: above for name, above in left.items() if name not in ready}
    return found


def arrows(imports: dict[str, set[str]]) -> list[tuple[str, str]]:
    """The imports between rooms that do not follow from others."""

    def below(name: str) -> set[str]:
        return imports[name].union(*(below(other) for other in imports[name]))

    return [
        (name, other)
        for name in imports
        for other in sorted(imports[name])
        if not any(other in below(between) for between in imports[name] - {other})
    ]


def code_lines(path: Path) -> int:
    """Lines of a file that are neither blank nor a comment nor part of a docstring."""
    text = path.read_text()
    documentation = {
        line
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    numbered = enumerate(text.splitlines(), start=1)
    return sum(
        bool(line.strip()) and not line.strip().startswith("#") for n, line in numbered if n not in documentation
    )


def caption(name: str) -> tuple[list[str], str]:
    """What a room is for, in at most three lines, and its size."""
    files = sorted((ROOT / name).rglob("*.py"))
    sentence = (ast.get_docstring(ast.parse((ROOT / name / "__init__.py").read_text())) or "").split("\n\n")[0]
    first = " ".join(sentence.split()).split(". ")[0].rstrip(".")
    lines = wrap(first, 30, max_lines=3, placeholder=" ...")
    inside = sum(path.name != "__init__.py" for path in files)
    return lines, f"{inside} files, {sum(map(code_lines, files)):,} lines of code"


def draw(imports: dict[str, set[str]]) -> str:
    """The picture as SVG."""
    rows = floors(imports)
    place = {
        name: ((number + 1) * WIDTH / (len(row) + 1), MARGIN + floor * (FLOOR + GAP))
        for floor, row in enumerate(rows)
        for number, name in enumerate(row)
    }
    height = 2 * MARGIN + len(rows) * (FLOOR + GAP) - GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="{escape(FONT)}" '
        'font-size="11" role="img" aria-label="The folders of cotinterp and what they import">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 8 4 0 8z" fill="#5a5a5a"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
    ]
    for upper, lower in arrows(imports):
        (x, y), (to_x, to_y) = place[upper], place[lower]
        start, turn = y + FLOOR, y + FLOOR + GAP - 10  # into the column of the lower room at once, then straight down
        parts.append(
            f'<path d="M{x:.0f} {start} C{x:.0f} {turn} {to_x:.0f} {start} {to_x:.0f} {turn} V{to_y}" fill="none" '
            'stroke="#5a5a5a" stroke-width="1.2" marker-end="url(#tip)"/>'
        )
    for name, (x, y) in place.items():
        lines, size = caption(name)
        parts.append(
            f'<rect x="{x - BOX / 2:.0f}" y="{y}" width="{BOX}" height="{FLOOR}" rx="5" fill="#eef4f9" '
            'stroke="#0072B2"/>'
            f'<text x="{x:.0f}" y="{y + 18}" text-anchor="middle" font-size="14" font-weight="600">{name}/</text>'
        )
        for number, line in enumerate(lines):
            parts.append(f'<text x="{x:.0f}" y="{y + 34 + 13 * number}" text-anchor="middle">{escape(line)}</text>')
        parts.append(f'<text x="{x:.0f}" y="{y + FLOOR - 6}" text-anchor="middle" fill="#555">{size}</text>')
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(draw(rooms()))
    sys.stdout.write(f"{PICTURE}\n")
