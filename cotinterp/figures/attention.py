"""Attention patterns of one transcript a trained model, drawn by CircuitsVis without touching the network."""

import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from jaxtyping import Float
from markupsafe import Markup

from cotinterp.figures.labels import RunKey, Symbols, symbols_of
from cotinterp.results.atomic import write_atomic

FILE = "attention.json"
DECIMALS = 3


@dataclass(frozen=True)
class AttentionView:
    """Attention of every head on one transcript: row `dest` sums to 1 over the places that it can see.

    One example, chosen before looking: it shows what a pattern is like, not how often it is so.
    """

    run: RunKey
    tokens: tuple[str, ...]
    roles: tuple[str, ...]
    steps: tuple[int, ...]
    patterns: Float[np.ndarray, "layer head dest src"]

    def __post_init__(self) -> None:
        """Refuse a view whose tokens, roles, steps and patterns are not about the same positions."""
        _, _, dest, src = self.patterns.shape
        lengths = {len(self.tokens), len(self.roles), len(self.steps), dest, src}
        if len(lengths) != 1:
            raise ValueError(
                f"{len(self.tokens)} tokens, {len(self.roles)} roles and {len(self.steps)} steps do not fit "
                f"a pattern of {dest} by {src} positions"
            )

    @property
    def symbols(self) -> Symbols:
        """What stands at each place of the example."""
        return symbols_of(self.tokens, self.roles, self.steps)


def circuitsvis_script() -> Markup:
    """The script of the installed CircuitsVis (React and Chart.js included), for one inline script element.

    The same bytes that `RenderedHTML.local_src` carries in every view, but for two things: `</script` is escaped rather
    than cut out, and the link to a source map, which a browser's tools would request, is dropped.
    """
    spec = importlib.util.find_spec("circuitsvis")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            "the attention views need circuitsvis, which is not installed: `pip install circuitsvis`"
        )
    source = (Path(spec.origin).parent / "dist" / "cdn" / "iife.js").read_text(encoding="utf-8")
    return Markup(source.split("//# sourceMappingURL=")[0].replace("</script", "<\\/script"))


def attention_view(
    tokens: Sequence[str], patterns: Float[np.ndarray, "layer head dest src"], *, name: str = "attention"
) -> Markup:
    """An HTML fragment that the report's script turns into a CircuitsVis view of all heads.

    Heads are named L0H0, ...; hover or click one to enlarge it, or choose it from the list, which needs no mouse.
    `name` is the element's id. Raises ValueError where tokens and patterns differ in length.
    """
    layers, heads, dest, src = patterns.shape
    if not len(tokens) == dest == src:
        raise ValueError(f"{len(tokens)} tokens do not fit a pattern of {dest} by {src} positions")
    names = [f"L{layer}H{head}" for layer in range(layers) for head in range(heads)]
    flat = patterns.reshape(layers * heads, dest, src).astype(float).round(DECIMALS)
    heads_view = {"tokens": list(tokens), "attentionHeadNames": names, "attention": flat.tolist()}
    scale = {"minValue": -1, "maxValue": 1}
    payload = json.dumps(heads_view | scale, separators=(",", ":")).replace("<", "\\u003c")
    options = "".join(f'<option value="{index}">{head}</option>' for index, head in enumerate(names))
    return Markup(
        f'<div class="attention" id="{escape(name)}"><label>Head <select>{options}</select></label>'
        f'<div class="attention-plot" id="{escape(name)}-plot"></div>'
        f'<script type="application/json">{payload}</script></div>'
    )


def save_attention_views(views: Sequence[AttentionView], directory: Path) -> Path:
    """Write the views to `directory`/attention.json (rounded to three decimals), from which the report is rebuilt."""
    payload = [
        {
            "task": view.run.task,
            "regime": view.run.regime,
            "run_seed": view.run.run_seed,
            "tokens": view.tokens,
            "roles": view.roles,
            "steps": view.steps,
            "patterns": view.patterns.astype(float).round(DECIMALS).tolist(),
        }
        for view in views
    ]
    path = directory / FILE
    write_atomic(path, json.dumps(payload, separators=(",", ":")))
    return path


def read_attention_views(directory: Path) -> tuple[AttentionView, ...]:
    """The views stored in `directory`; none where there is no such file. Raises ValueError for a damaged file."""
    path = directory / FILE
    if not path.is_file():
        return ()
    try:
        return tuple(
            AttentionView(
                RunKey(entry["task"], entry["regime"], entry["run_seed"]),
                tuple(entry["tokens"]),
                tuple(entry["roles"]),
                tuple(entry["steps"]),
                np.asarray(entry["patterns"], dtype=float),
            )
            for entry in json.loads(path.read_text(encoding="utf-8"))
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} does not hold attention views ({error}); `cotinterp reproduce` writes it again"
        ) from error
