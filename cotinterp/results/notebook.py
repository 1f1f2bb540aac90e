"""Figures in a notebook's HTML: drawn by a script that the notebook carries once, so that an export needs no network.

plotly's own ways do not do that. What a kernel shows by default (`application/vnd.plotly.v1+json`) is drawn by the
program that shows the notebook, and is missing from an exported page; the renderers that export ask a CDN for MathJax,
and lose plotly.js when the cell that carries it is run again. A picture for each output would need a browser.
"""

import json
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from uuid import uuid4

if TYPE_CHECKING:
    import plotly.graph_objects

LARGEST_FIGURE = 1_500_000
"""Characters of a figure's data; a larger one would make notebooks that are slow to open."""

WAITING = "drawn once its script is there: run this cell again, or all cells from the first"
TRIES = 150
"""Fifths of a second to wait for the script: of a long notebook that is opened, outputs come in any order."""


def figure_html(figure: "plotly.graph_objects.Figure", config: Mapping[str, Any]) -> str:
    """`figure` as HTML, with plotly.js where this notebook has none yet. ValueError where it is too large."""
    import plotly.offline

    data = inline(str(figure.to_json()))
    if len(data) > LARGEST_FIGURE:
        raise ValueError(f"its figure has {len(data) / 1e6:.1f} MB of data: figure() draws it, save() writes it")
    draw = f"const {{data, layout}} = {data}; Plotly.newPlot(place, data, layout, {json.dumps(config)});"
    height = figure.layout.height or 450
    return scripted("Plotly", plotly.offline.get_plotlyjs, draw, style=f"height:{height}px")


def scripted(library: str, source: Callable[[], str], draw: str, *, style: str) -> str:
    """An element of HTML, and the statements `draw` that fill it (as `place`) when the global `library` is there.

    `source` gives the library's script. It goes with the first such element of a notebook, and again when that cell is
    run again; which cell that is, is noted in the notebook's own session. Outside of one, each piece is complete.
    """
    name = f"cotinterp-{uuid4().hex}"
    carried = f'<script data-carried="{library}">{source()}</script>' if _carries(library) else ""
    return f"""{carried}<div id="{name}" style="{style};background:#fff;color:#1a1a1a"><i>{WAITING}</i></div><script>
(() => {{
  let tries = 0;
  const draw = () => {{
    const place = document.getElementById("{name}");
    if (!place || !window.{library}) {{ if (tries++ < {TRIES}) setTimeout(draw, 200); return; }}
    place.replaceChildren();
    {draw}
  }};
  draw();
}})();
</script>"""


def inline(payload: str) -> str:
    """JSON as it may stand inside a script: nothing but `</` and `<!--` is read as markup there."""
    return payload.replace("<", "\\u003c")


def _carries(library: str) -> bool:
    """Whether the output that is being made is the one to bring the script of `library`."""
    ipython = sys.modules.get("IPython")
    session: Any = ipython.get_ipython() if ipython else None
    if session is None or not hasattr(session, "get_parent"):
        return True
    cell, run = session.get_parent().get("metadata", {}).get("cellId"), session.execution_count
    carriers: dict[str, tuple[str | None, int]] = session.__dict__.setdefault("cotinterp_scripts", {})
    carrier = carriers.get(library)
    if carrier is not None and (cell is None or carrier[0] != cell or carrier[1] == run):
        return False
    carriers[library] = cell, run
    return True
