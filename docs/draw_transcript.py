"""Roles, sites and axes on one transcript: `python docs/draw_transcript.py` writes docs/images/transcript.svg.

Symbols, roles, steps, values and the loss mask are those of the batch, hook names those of `Site`, shapes those of the
activations of the reference model; nothing but the layout is written here.
"""

import sys
from html import escape
from pathlib import Path

import numpy as np

from cotinterp import Role, Site, activations, collate, load_run, render
from cotinterp.mechanism.sites import HEAD_AXIS
from cotinterp.transcripts.problems import solve
from cotinterp.transcripts.roles import ROLE_CODE

PICTURE = Path(__file__).parent / "images" / "transcript.svg"
OPERANDS = (3, 4, 5, 6)
LEFT, CELL, ROW, MARGIN = 264, 28, 31, 12
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, Arial, sans-serif"
MONO = "ui-monospace, SFMono-Regular, Menlo, Consolas, monospace"
# Okabe and Ito, as in all figures; each fill is a tint, so that black text can be read on it.
PROMPT, TOTAL, ANSWER, OTHER = (
    ("#cfe5f3", "#0072B2"),
    ("#fbe0c8", "#D55E00"),
    ("#c9ebe0", "#009E73"),
    ("#f2f2f2", "#777"),
)
FILLS = {"operand": PROMPT, "step_operand": PROMPT, "previous_total": TOTAL, "total": TOTAL, "answer": ANSWER}
ROLES = {code: str(role) for role, code in ROLE_CODE.items()}


def text(x: float, y: float, words: str, size: float = 11, anchor: str = "middle", **style: str) -> str:
    """One line of text; names of attributes are written with an underscore."""
    given = "".join(f' {name.replace("_", "-")}="{escape(value)}"' for name, value in style.items())
    return f'<text x="{x:g}" y="{y:g}" font-size="{size:g}" text-anchor="{anchor}"{given}>{escape(words)}</text>'


def rect(x: float, y: float, w: float, h: float, fill: str, stroke: str = "none", more: str = "") -> str:
    """One rectangle."""
    return f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" fill="{fill}" stroke="{stroke}"{more}/>'


def tokens(batch, positions: range, top: float) -> list[str]:
    """A line of the transcript: position, symbol, step, value, role, and whether it carries loss."""
    heights = {"position": 12, "symbol": 32, "step": 53, "value": 68, "role": 82, "loss": 174}
    parts = [text(LEFT - 8, top + y, name, anchor="end", fill="#333") for name, y in heights.items()]
    for column, i in enumerate(positions):
        x, role = LEFT + column * CELL, ROLES[int(batch.role[0, i])]
        fill, stroke = FILLS.get(role, OTHER)
        numbers = {name: int(getattr(batch, name)[0, i]) for name in ("step", "value")}
        parts += [
            text(x + CELL / 2, top + 12, str(i), 10, fill="#555"),
            rect(x + 1, top + 16, CELL - 2, 23, fill, stroke, ' rx="3"'),
            text(x + CELL / 2, top + 33, batch.symbols(0)[i], 15, font_family=MONO),
            *(text(x + CELL / 2, top + heights[name], str(n)) for name, n in numbers.items() if n >= 0),
            text(0, 0, role, anchor="start", transform=f"translate({x + CELL / 2 - 4:g} {top + 76:g}) rotate(90)"),
        ]
        if bool(batch.loss_mask[0, i]):
            parts.append(rect(x, top + 167, CELL + 0.5, 7, "#333"))
    return parts


def sites(shapes: dict[Site, tuple[int, ...]], positions: range, bottom: float, marked: set[int]) -> list[str]:
    """The sites of a layer, the first that a pass reaches at the bottom; `marked` positions are one place."""
    parts = []
    for step, (site, shape) in enumerate(shapes.items()):
        y = bottom - (step + 1) * ROW
        axes = ("batch", "pos", "head", "d_head") if site.kind in HEAD_AXIS else ("batch", "pos", "d_model")
        sizes = " \N{MULTIPLICATION SIGN} ".join(f"{name} {size}" for name, size in zip(axes, shape, strict=True))
        parts += [
            text(MARGIN, y + 12, site.label, 12, "start", font_weight="600"),
            text(LEFT - 8, y + 12, site.hook, 9.5, "end", font_family=MONO, fill="#333"),
            text(LEFT - 8, y + 24, sizes, 10, "end", fill="#333"),
        ]
        heads = shape[2] if site.kind in HEAD_AXIS else 1
        for column, i in enumerate(positions):
            fill, stroke = TOTAL if i in marked else OTHER
            for head in range(heads):
                x, width = LEFT + column * CELL + 2 + head * (CELL - 4) / heads, (CELL - 4) / heads
                parts.append(rect(x, y + 5, width, ROW - 10, fill, stroke))
    return parts


def draw() -> str:
    """The picture as SVG."""
    run = load_run("digit-sum-cot-L4-s0-3be51c67")
    (problem,) = solve(run.task, np.array([OPERANDS]))
    batch = collate([render(run.task, problem, "cot")], run.vocabulary)
    first = int(batch.where(Role.STEP_END, 1)) + 1
    lines = range(first), range(first, int(batch.length))
    last = int(run.model.cfg.n_layers) - 1
    kinds = ("resid_pre", "z", "mlp_out", "resid_post")
    held = activations(run.model, batch.tokens, [Site(kind, n) for n in (0, last) for kind in kinds])
    shapes = {site: tuple(values.shape) for site, values in held.items()}
    marked = set(batch.mask(Role.TOTAL, len(OPERANDS) - 1)[0].nonzero()[:, 0].tolist())
    width, grid = LEFT + CELL * max(map(len, lines)) + MARGIN, 400.0
    height = grid + (2 * len(kinds) + 1) * ROW + 64
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" font-family="{escape(FONT)}" '
        f'role="img" aria-label="Roles, steps, values, loss and sites of {escape(batch.transcripts[0].text)}">',
        rect(0, 0, width, height, "white"),
        *(part for n, line in enumerate(lines) for part in tokens(batch, line, MARGIN + n * 190)),
    ]
    for n, number in enumerate((last, 0)):
        of_layer = {site: shape for site, shape in shapes.items() if site.layer == number}
        parts += sites(of_layer, lines[1], grid + (n + 1) * len(kinds) * ROW + n * ROW, marked)
    between = grid + (len(kinds) + 0.6) * ROW
    likewise = f"layers 1 to {last - 1} likewise; resid_post of a layer is resid_pre of the next"
    column = LEFT + CELL * (min(marked) - first + len(marked) / 2)
    parts += [
        text(MARGIN, between, likewise, 11, "start"),
        text(width - MARGIN, between, "a pass goes upward", 11, "end"),
        text(column, height - 44, f"place: total {len(OPERANDS) - 1}", 11, font_weight="600", fill="#a34700"),
        text(LEFT, height - 26, "One box is one position of one site; z has a box for each head.", 11, "start"),
        text(LEFT, height - 10, "A place is every symbol of one role and step: here both digits.", 11, "start"),
    ]
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(draw())
    sys.stdout.write(f"{PICTURE}\n")
