"""Attention patterns of one transcript a trained model, drawn by CircuitsVis without touching the network."""

import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from uuid import uuid4

import numpy as np
import pandas as pd
from jaxtyping import Float
from markupsafe import Markup

from cotinterp.figures.labels import RunKey, Symbols, percent, place_words, symbols_of
from cotinterp.results.atomic import write_atomic
from cotinterp.results.notebook import LARGEST_FIGURE, inline, scripted

FILE = "attention.json"
DECIMALS = 3

DRAW = """
function drawAttention(view, payload) {
  const plot = view.querySelector(".attention-plot"), list = view.querySelector("select");
  const heads = () => [...plot.querySelectorAll("h4")];
  CircuitsVis.render(plot.id, CircuitsVis.AttentionHeads, payload);
  list.addEventListener("change", () => heads()[list.selectedIndex].click());
  plot.addEventListener("click", (event) => {
    const chosen = heads().findIndex((head) => head.parentElement.contains(event.target));
    if (chosen >= 0) list.selectedIndex = chosen;
  });
}
"""
"""Fills the element that `attention_view` made, and keeps its list of heads and the picture of one mind."""


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

    @property
    def words(self) -> tuple[str, ...]:
        """Each token with the place where it stands: `7 total 1`."""
        places = zip(self.tokens, self.roles, self.steps, strict=True)
        return tuple(f"{token} {place_words((role, step))}" for token, role, step in places)

    def looks(self) -> pd.DataFrame:
        """Where each head looks most from one place: the one that predicts the answer, the last where none is known."""
        dest = self.roles.index("answer") - 1 if "answer" in self.roles[1:] else len(self.roles) - 1
        src = self.patterns[:, :, dest].argmax(axis=-1)
        return pd.DataFrame(
            {
                "head": head_names(self.patterns),
                "from": self.words[dest],
                "looks most at": [self.words[place] for place in src.ravel()],
                "attention": [percent(float(share)) for share in self.patterns[:, :, dest].max(axis=-1).ravel()],
            }
        )

    def __repr__(self) -> str:
        layers, heads, places, _ = self.patterns.shape
        text = "".join(self.tokens)[:80]
        return f"AttentionView({self.run.words!r}, {text!r}, {layers} x {heads} heads, {places} places)"

    def _repr_html_(self) -> str:
        """All heads as CircuitsVis draws them, and where each looks most, for a notebook: without a network."""
        data, names = view_data(self.words, self.patterns), head_names(self.patterns)
        if len(data) > LARGEST_FIGURE:
            drawn = f"<p>Not drawn: {len(data) / 1e6:.1f} MB of data; give a shorter example.</p>"
        else:
            element = inline(json.dumps(view_element(names, name=f"attention-{uuid4().hex}")))
            draw = f"{DRAW} place.innerHTML = {element}; drawAttention(place.firstChild, {data});"
            drawn = scripted("CircuitsVis", circuitsvis_script, draw, style="max-width:900px")
        title = f"<p><b>Attention</b> {escape(self.run.words)}: <code>{escape(''.join(self.tokens))}</code></p>"
        table = self.looks().to_html(index=False, border=0)
        return f"{title}{drawn}<details><summary>Where each head looks most</summary>{table}</details>"


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


def head_names(patterns: Float[np.ndarray, "layer head dest src"]) -> list[str]:
    """L0H0, ..., layer by layer."""
    layers, heads, _, _ = patterns.shape
    return [f"L{layer}H{head}" for layer in range(layers) for head in range(heads)]


def view_data(tokens: Sequence[str], patterns: Float[np.ndarray, "layer head dest src"]) -> str:
    """What CircuitsVis draws, as JSON for an inline script. Raises ValueError where tokens and patterns differ."""
    *_, dest, src = patterns.shape
    if not len(tokens) == dest == src:
        raise ValueError(f"{len(tokens)} tokens do not fit a pattern of {dest} by {src} positions")
    flat = patterns.reshape(-1, dest, src).astype(float).round(DECIMALS)
    # CircuitsVis cuts spaces out of tokens.
    shown = [token.replace(" ", "\N{MIDDLE DOT}") for token in tokens]
    heads_view = {"tokens": shown, "attentionHeadNames": head_names(patterns), "attention": flat.tolist()}
    return inline(json.dumps(heads_view | {"minValue": -1, "maxValue": 1}, separators=(",", ":")))


def view_element(names: Sequence[str], *, name: str, data: str = "") -> Markup:
    """The list of heads, which needs no mouse, and the place of the picture that DRAW fills; `name` is its id."""
    options = "".join(f'<option value="{index}">{head}</option>' for index, head in enumerate(names))
    return Markup(
        f'<div class="attention" id="{escape(name)}"><label>Head <select>{options}</select></label>'
        f'<div class="attention-plot" id="{escape(name)}-plot"></div>{data}</div>'
    )


def attention_view(
    tokens: Sequence[str], patterns: Float[np.ndarray, "layer head dest src"], *, name: str = "attention"
) -> Markup:
    """An HTML fragment that the report's script turns into a CircuitsVis view of all heads.

    Heads are named L0H0, ...; hover or click one to enlarge it, or choose it from the list, which needs no mouse.
    `name` is the element's id. Raises ValueError where tokens and patterns differ in length.
    """
    data = f'<script type="application/json">{view_data(tokens, patterns)}</script>'
    return view_element(head_names(patterns), name=name, data=data)


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
