"""Runs docs/notebooks/*.py and writes each with its outputs as a page beside it; `make docs` does, nothing is kept."""

import re
from pathlib import Path
from typing import Any

import jupytext
import plotly.graph_objects as go
from nbclient import NotebookClient
from plotly.offline import get_plotlyjs

from cotinterp.results.result import PLOTLY, write_page

FOLDER = Path(__file__).parent / "notebooks"
FIGURE = "application/vnd.plotly.v1+json"


def main() -> None:
    """Runs all of them, a minute a cell at most."""
    for path in sorted(FOLDER.glob("*.py")):
        notebook = jupytext.read(path)
        place = {"metadata": {"path": str(FOLDER.parents[1])}}
        NotebookClient(notebook, timeout=60, kernel_name="python3", resources=place).execute()
        page = "\n\n".join(text for cell in notebook.cells for text in shown(cell, path.stem))
        path.with_suffix(".md").write_text(f"{page}\n", encoding="utf-8")
        print(path.with_suffix(".md"))


def shown(cell: Any, name: str) -> list[str]:
    """A cell as Markdown: its text, or its code and what came of it."""
    if cell.cell_type == "markdown":
        return [cell.source]
    parts = [f"```python\n{cell.source}\n```"]
    for output in cell.outputs:
        data = output.get("data", {})
        if FIGURE in data:
            figure = f"{name}-{cell.id}"
            write_page(go.Figure(data[FIGURE]), figure, FOLDER / "figures")
            parts.append(f'<iframe src="figures/{figure}.html" title="{figure}" width="100%" height="520"></iframe>')
        elif "<script" in data.get("text/html", ""):
            parts.append(framed(data["text/html"], f"{name}-{cell.id}"))
        elif "text/html" in data:
            parts.append(data["text/html"].replace("\n\n", "\n"))
        else:
            text = data.get("text/plain", output.get("text", ""))
            parts.append(f"```text\n{text.rstrip()}\n```")
    return parts


def framed(html: str, name: str) -> str:
    """A result, whose figure a script draws, on a page of its own, with the script beside it."""
    folder = FOLDER / "figures"
    folder.mkdir(exist_ok=True)
    (folder / PLOTLY).write_text(get_plotlyjs(), encoding="utf-8")
    own = re.sub(r'<script data-carried="Plotly">.*?</script>', "", html, flags=re.DOTALL)
    head = f'<meta charset="utf-8"><title>{name}</title><script src="{PLOTLY}"></script>'
    page = f'<!DOCTYPE html><html lang="en"><head>{head}</head><body style="font:14px sans-serif">{own}</body></html>'
    (folder / f"{name}.html").write_text(page, encoding="utf-8")
    return f'<iframe src="figures/{name}.html" title="{name}" width="100%" height="760"></iframe>'


if __name__ == "__main__":
    main()
