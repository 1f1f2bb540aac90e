"""What a head writes when a symbol is read: a matrix from the symbol that is read to the logits of symbols.

Keys and queries say where a head looks; what it moves from there is a matter of its values and its output weights
(Elhage et al. 2021, transformer-circuits.pub/2021/framework). A head that copies raises the logit of the symbol that it
reads; one that shifts raises that of another one, always by the same step of the task (in a group: multiplied by the
same element).

Norms: the head reads through its own norm on each input; what it writes directly to the logits goes through the final
norm with the scale frozen at its mean over the destinations. The attention is taken to be 1, biases and whatever is
written whichever symbol is read are subtracted. What it does not establish: that the head looks there
(`attention_routes`), or what MLPs behind it make of what it wrote: a head that writes nothing directly may be the one
that they all need.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, get_args

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from einops import einsum, rearrange
from jaxtyping import Float, Int
from torch import Tensor

from cotinterp.figures import heatmap
from cotinterp.mechanism.activations import activations
from cotinterp.mechanism.heads.attribution import NORM_FAMILIES, norm_parameters
from cotinterp.mechanism.model import HookedModel, require_causal, require_model, weight
from cotinterp.mechanism.sites import Site, residual_sites, site_columns
from cotinterp.results import Result, exchange_test, with_labels
from cotinterp.tasks import Task
from cotinterp.transcripts.batch import Batch
from cotinterp.transcripts.roles import Place, place_words

Reading = Literal["stream", "embedding"]
"""What stands for a symbol: all that the residual stream holds at its place, or its token embedding alone."""

COPY = "copy"
NOTHING = "nothing"
HITS = 0.5
"""A relation holds for a head if it names the symbol raised most for more than half of the symbols that are read."""
FAMILY_ERROR = 0.05
"""The chance that any head without a relation is given one, over all heads and relations of a kind."""
DRAWS = 2000
"""Random choices of the symbol raised most that observed hits are held against."""


@dataclass(frozen=True, eq=False)
class OVResult(Result):
    """What each head would write, in logits, were its attention all on the symbol at `src`.

    Attributes:
        src: The place that is read, in words.
        symbols: Those that are read there, which are also those whose logits are looked at.
        read: Which of them each row is about.
        logits: Of each symbol, by row: one row for each example, or for each symbol where its embedding is read.
        relations: By name the symbol that each symbol read would raise: `copy`, and the steps of the task.
    """

    src: str
    symbols: tuple[str, ...]
    read: Int[np.ndarray, " row"]
    logits: Float[Tensor, "layer head row symbol"]
    relations: Mapping[str, Int[np.ndarray, " symbol"]]
    seed: int = 0
    labels: Mapping[str, str | int] = field(default_factory=dict)

    @cached_property
    def matrices(self) -> Float[np.ndarray, "layer head read symbol"]:
        """Mean logits by symbol read, less the mean over symbols read and the mean over symbols written."""
        rows = self.logits.double().numpy()
        means = np.stack([rows[:, :, self.read == one].mean(axis=2) for one in range(len(self.symbols))], axis=2)
        means = means - means.mean(axis=2, keepdims=True)
        return np.asarray(means - means.mean(axis=3, keepdims=True))

    @cached_property
    def hits(self) -> Float[np.ndarray, "relation layer head"]:
        """Share of the symbols read for which the relation names the symbol raised most."""
        silent = np.ptp(self.matrices, axis=3) <= 1e-6 * max(1e-12, float(np.abs(self.matrices).max()))
        raised = np.where(silent, -1, self.matrices.argmax(axis=3))
        return np.stack([(raised == image).mean(axis=2) for image in self.relations.values()])

    @cached_property
    def p(self) -> Float[np.ndarray, "relation layer head"]:
        """Adjusted p-values: how often symbols raised at random agree as well with any relation of the kind anywhere.

        Each symbol read raises one drawn anew. Copying is one kind, with all heads as its family; the steps of the task
        are the other, with all heads and steps.
        """
        rng, n = np.random.default_rng(self.seed), len(self.symbols)
        raised = rng.integers(n, size=(DRAWS, self.matrices.shape[0] * self.matrices.shape[1], n))
        found = np.ones(self.hits.shape)
        names = list(self.relations)
        for kind in ([COPY], [name for name in names if name != COPY]):
            index = [names.index(name) for name in kind]
            if index:
                images = [self.relations[name] for name in kind]
                null = np.stack([(raised == image).mean(axis=2) for image in images], axis=1).reshape(DRAWS, -1)
                found[index] = exchange_test(self.hits[index].reshape(-1), null).reshape(self.hits[index].shape)
        return found

    def classify(self, head: Site) -> str:
        """`copy`, the name of the step that holds for most symbols, or `nothing`. KeyError for a head not there.

        A relation holds with more than `HITS` of the symbols and an adjusted p-value of at most `FAMILY_ERROR`.
        """
        if head.head is None or not (head.layer < self.hits.shape[1] and head.head < self.hits.shape[2]):
            raise KeyError(f"no head {head.block}; there are {self.hits.shape[1]} layers of {self.hits.shape[2]} heads")
        hits, p = self.hits[:, head.layer, head.head], self.p[:, head.layer, head.head]
        holds = (hits > HITS) & (p <= FAMILY_ERROR)
        return list(self.relations)[int(np.where(holds, hits, -1).argmax())] if holds.any() else NOTHING

    def sentence(self, head: Site) -> str:
        """In words what the head writes to the logits when it reads a symbol there."""
        label = self.classify(head)
        if label == NOTHING:
            return f"{head.block}, reading {self.src}, writes no declared relation of the symbol to the logits"
        share = self.hits[list(self.relations).index(label), head.layer, head.head]
        does = "the symbol itself" if label == COPY else f"the symbol {label}"
        return f"{head.block}, reading {self.src}, raises most {does} for {share:.0%} of {len(self.symbols)} symbols"

    def frame(self) -> pd.DataFrame:
        """One row per head: its label, and hits, p and mean logit of copying and of the best step of the task.

        `spread`: mean range of the logits over symbols, by symbol read; 0 where nothing depends on it.
        """
        names = list(self.relations)
        steps = [index for index, name in enumerate(names) if name != COPY]
        rows = []
        for layer, head in np.ndindex(*self.hits.shape[1:]):
            site, matrix = Site("z", layer, head), self.matrices[layer, head]
            best = max(steps, key=lambda index: self.hits[index, layer, head], default=None)
            rows.append(
                {
                    **site_columns(site),
                    "src": self.src,
                    "label": self.classify(site),
                    "copy_hits": float(self.hits[names.index(COPY), layer, head]),
                    "copy_p": float(self.p[names.index(COPY), layer, head]),
                    "copy_logit": float(np.diag(matrix).mean()),
                    "step": "" if best is None else names[best],
                    "step_hits": np.nan if best is None else float(self.hits[best, layer, head]),
                    "step_p": np.nan if best is None else float(self.p[best, layer, head]),
                    "spread": float(np.ptp(matrix, axis=1).mean()),
                    "chance": 1 / len(self.symbols),
                    "n": len(self.read),
                }
            )
        return with_labels(pd.DataFrame(rows), self.labels)

    def figure(self) -> go.Figure:
        """The matrix of every head: symbol read (rows) by symbol written (columns)."""
        table = pd.DataFrame(
            [
                {
                    "head": f"L{layer}H{head}: {self.classify(Site('z', layer, head))}",
                    "read": self.symbols[a],
                    "written": self.symbols[b],
                    "logit": float(self.matrices[layer, head, a, b]),
                }
                for layer, head, a, b in np.ndindex(*self.matrices.shape)
            ]
        )
        return heatmap(
            table,
            x="written",
            y="read",
            value="logit",
            facet="head",
            midpoint=0.0,
            title=f"What each head writes to the logits when a symbol is read at {self.src}",
            x_title="symbol written",
            y_title="symbol read",
            hover=(),
        )


def ov_circuits(
    model: HookedModel,
    batch: Batch,
    task: Task,
    src: Place,
    dest: Place,
    *,
    reading: Reading = "stream",
    batch_size: int | None = None,
    seed: int = 0,
    labels: Mapping[str, str | int] | None = None,
) -> OVResult:
    """The matrix of every head from the symbol that stands at `src` to what it writes directly to the logits.

    Args:
        batch: Transcripts of `task` that all have both places; of a value of several characters the last counts.
        src: Role and step of what is read.
        dest: Role and step of what reads it: where the scale of the final norm is taken.
        reading: `stream`, with all that earlier layers have put at the place; `embedding`, the token embedding alone
            through the norm of the head's layer, its scale frozen at its mean over the places that are read.
        seed: Of the draws that hits are held against.

    Raises:
        KeyError: Some transcript lacks a place.
        ValueError: A single symbol is read, another task's batch, a model that looks ahead, an unknown reading.
    """
    if reading not in get_args(Reading):
        raise ValueError(f"reading={reading!r}: there are {list(get_args(Reading))}.")
    require_model(model)
    require_causal(model, "what stands at a place would depend on what comes after it, padding too")
    batch.require(task)
    rows = torch.arange(len(batch), device=batch.tokens.device)
    at_src, at_dest = (batch.where(role, None if step < 0 else step, part=-1) for role, step in (src, dest))
    tokens = batch.tokens[rows, at_src]
    present, codes = torch.unique(tokens, return_inverse=True)
    if len(present) < 2:
        raise ValueError(f"{place_words(*src)} holds one symbol in all examples: reading it cannot tell anything.")
    symbols = tuple(batch.vocabulary.symbols[token] for token in present.tolist())
    last = int(model.cfg.n_layers) - 1
    found = activations(
        model,
        batch.tokens,
        [*residual_sites(model, "v"), *residual_sites(model)],
        positions=at_src,
        batch_size=batch_size,
    )
    final = Site("resid_post", last)
    stream = activations(model, batch.tokens, [final], positions=at_dest, batch_size=batch_size)[final].double()
    values = _values(model, present, found) if reading == "embedding" else None
    written = []
    for layer in range(last + 1):
        v = found[Site("v", layer)].double() if values is None else values[layer]
        output = weight(model, "W_O")[layer].double()
        v = v.repeat_interleave(output.shape[0] // v.shape[1], dim=1)
        written.append(einsum(v, output, "row head d, head d d_model -> head row d_model"))
    norm = getattr(model, "ln_final", None)
    family = "rms norm" if getattr(model.cfg, "final_rms", False) else NORM_FAMILIES[model.cfg.normalization_type]
    read_out = _through(norm, model, weight(model, "W_U").double()[:, present], family)
    scale = _scale(stream, family, model.cfg.eps).mean()
    logits = einsum(torch.stack(written), read_out, "layer head row d_model, d_model symbol -> layer head row symbol")
    return OVResult(
        place_words(*src),
        symbols,
        (codes if values is None else torch.arange(len(present))).cpu().numpy(),
        (logits / scale).float().cpu(),
        _relations(task, symbols),
        seed,
        dict(labels or {}),
    )


def _values(
    model: HookedModel, present: Int[Tensor, " symbol"], found: Mapping[Site, Tensor]
) -> list[Float[Tensor, "symbol head d_head"]]:
    """Of each layer, made of the token embeddings alone."""
    with torch.no_grad():
        _, cache = model.run_with_cache(present[:, None], names_filter=["hook_embed"])
    embedding, family = cache["hook_embed"][:, 0].double(), NORM_FAMILIES[model.cfg.normalization_type]
    values = []
    for layer in range(int(model.cfg.n_layers)):
        own = weight(model, "W_V")[layer].double()
        joined = rearrange(own, "head d_model d -> d_model (head d)")
        matrix = _through(getattr(model.blocks[layer], "ln1", None), model, joined, family)  # type: ignore[attr-defined]
        scale = _scale(found[Site("resid_pre", layer)].double(), family, model.cfg.eps).mean()
        values.append(rearrange((embedding / scale) @ matrix, "symbol (head d) -> symbol head d", head=own.shape[0]))
    return values


def _through(
    norm: object, model: HookedModel, matrix: Float[Tensor, "d_model out"], family: str
) -> Float[Tensor, "d_model out"]:
    """A matrix behind a norm, with the norm's gain and centering in it; its scale and shift are left out."""
    gain, _ = norm_parameters(norm, model.cfg, len(matrix), matrix.device)
    folded = gain[:, None] * matrix
    return folded - folded.mean(dim=0, keepdim=True) if family == "layer norm" else folded


def _scale(stream: Float[Tensor, "row d_model"], family: str, eps: float) -> Float[Tensor, " row"]:
    if family == "no norm":
        return torch.ones_like(stream[:, 0])
    centered = stream - stream.mean(dim=-1, keepdim=True) if family == "layer norm" else stream
    return (centered.square().mean(dim=-1) + eps).sqrt()


def _relations(task: Task, symbols: tuple[str, ...]) -> dict[str, Int[np.ndarray, " symbol"]]:
    """Copying, and each step of a fold that takes these symbols to one another, by its operand: `* 3`.

    Of a state of several symbols the last one is written. A step that moves no symbol is copying.
    """
    found = {COPY: np.arange(len(symbols))}
    states = [task.parse_state(symbol) for symbol in symbols]
    step = getattr(task, "step", None)
    if step is None or None in states:
        return found
    for operand, text in enumerate(task.operands):
        moved = step(np.array(states), np.full(len(states), operand))
        written = [task.state_text(int(state))[-1] for state in moved]
        if set(written) == set(symbols) and tuple(written) != symbols:
            found[f"{task.operator} {text}"] = np.array([symbols.index(one) for one in written])
    return found
