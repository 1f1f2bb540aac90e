"""Edges of any bridge, through hooks: those that give every head an input of its own and show what each head writes."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from einops import einsum
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cotinterp.mechanism.activations import at_positions
from cotinterp.mechanism.circuits.graph import Edge, Graph
from cotinterp.mechanism.model import HookedModel

FLAGS = {
    "use_split_qkv_input": "set_use_split_qkv_input",
    "use_attn_result": "set_use_attn_result",
    "use_hook_mlp_in": "set_use_hook_mlp_in",
}
"""Settings of a bridge without which its edges cannot be told apart, and what switches them."""


@contextmanager
def split(model: HookedModel) -> Iterator[None]:
    """Inside, each head reads inputs of its own; afterwards the model is set as it was.

    ValueError, with the name of the setting, for a model that cannot.
    """
    before = {name: bool(getattr(model.cfg, name, False)) for name in FLAGS}
    try:
        for name, switch in FLAGS.items():
            _switch(model, name, switch, True)
        yield
    finally:
        for name, switch in FLAGS.items():
            if bool(getattr(model.cfg, name, False)) != before[name]:
                _switch(model, name, switch, before[name])


def _switch(model: HookedModel, name: str, switch: str, on: bool) -> None:
    try:
        getattr(model, switch)(on)
    except (AttributeError, NotImplementedError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"model: edges need {name}, which {type(model).__name__} of architecture "
            f"{getattr(model.cfg, 'architecture', None)!r} does not offer ({error}). Give a native model without "
            "hooks, which is run from its weights, or a bridge such as that of GPT-2."
        ) from None


@dataclass(frozen=True, eq=False)
class HookedEdges:
    """The graph of a bridge over its hooks; what `NativeEdges` computes, a whole pass for every run."""

    model: HookedModel
    graph: Graph

    def row_bytes(self, n: int) -> int:
        """What one sequence of `n` tokens holds in a run of `kept`, about."""
        width = 2 * len(self.graph.sources) + len(self.graph.readers) + 18 * self.graph.n_heads
        return 4 * n * (int(self.model.cfg.d_model) * width + 2 * int(getattr(self.model.cfg, "d_vocab", 0) or 0))

    @torch.no_grad()
    def written(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "source batch pos d_model"]:
        """What every source writes."""
        return self._states(tokens)[0]

    @torch.no_grad()
    def readout(self, tokens: Int[Tensor, "batch pos"], at: Int[Tensor, " batch"]) -> Float[Tensor, "batch d_vocab"]:
        """Logits of an ordinary run where they are read."""
        return at_positions(self.model(tokens), at)

    @torch.no_grad()
    def kept(
        self,
        clean: Int[Tensor, "batch pos"],
        corrupted: Int[Tensor, "batch pos"],
        at: Int[Tensor, " batch"],
        masks: Bool[Tensor, "run reader source"],
    ) -> Float[Tensor, "run batch d_vocab"]:
        """Logits at the readout of runs in which every edge outside of its mask carries its corrupted value."""
        theirs, read = self._states(corrupted)
        runs, (batch, n) = len(masks), corrupted.shape
        differs = theirs.new_zeros(len(self.graph.sources), runs, batch, n, theirs.shape[-1])
        weights = masks.to(theirs)

        def write(columns: slice) -> Callable[[Tensor], None]:
            def note(value: Tensor) -> None:
                differs[columns] = value.unflatten(1, (runs, batch)) - theirs[columns, None]

            return note

        def fill(rows: slice) -> Callable[[Tensor], Tensor]:
            def given(_: Tensor) -> Tensor:
                summed = einsum(
                    weights[:, rows], differs, "run reader source, source run batch pos d -> reader run batch pos d"
                )
                found: Tensor = (read[rows, None] + summed).flatten(1, 2)
                return found

            return given

        readout = at_positions(self._run(clean.repeat(runs, 1), write, fill), at.repeat(runs))
        found: Tensor = readout.unflatten(0, (runs, batch))
        return found

    @torch.no_grad()
    def patched(
        self,
        recipient: Int[Tensor, "batch pos"],
        donor: Int[Tensor, "batch pos"],
        at: Int[Tensor, " batch"],
        edges: Sequence[Edge],
        where: Bool[Tensor, "batch pos"],
        *,
        runs: int,
    ) -> Iterator[tuple[int, Float[Tensor, "batch d_vocab"]]]:
        """Logits at the readout of recipients in which one edge carries the donor's value, by the edge's number."""
        differs = (self.written(donor) - self.written(recipient)) * where[..., None]
        for first in range(0, len(edges), runs):
            some = edges[first : first + runs]
            places = [self.graph.places[edge] for edge in some]

            def fill(rows: slice, places: Sequence[tuple[int, int]] = places) -> Callable[[Tensor], Tensor]:
                def given(value: Tensor) -> Tensor:
                    changed = value.unflatten(1, (len(places), len(recipient))).clone()
                    for run, (row, column) in enumerate(places):
                        if rows.start <= row < rows.stop:
                            changed[row - rows.start, run] += differs[column]
                    filled: Tensor = changed.flatten(1, 2)
                    return filled

                return given

            logits = self._run(recipient.repeat(len(some), 1), None, fill)
            found = at_positions(logits, at.repeat(len(some))).unflatten(0, (len(some), len(recipient)))
            yield from zip(range(first, first + len(some)), found, strict=True)

    def gradients(
        self,
        recipient: Int[Tensor, "batch pos"],
        donor: Int[Tensor, "batch pos"],
        amount: float,
        at: Int[Tensor, " batch"],
        score: Callable[[Float[Tensor, "batch d_vocab"]], Float[Tensor, " batch"]],
        *,
        linear: bool = False,
    ) -> Float[Tensor, "reader batch pos d_model"]:
        """`NativeEdges.gradients`; ValueError for `linear`."""
        if linear:
            raise ValueError("RelP changes the backward pass of norms and MLPs, which only native models allow here.")
        own, other = (self.written(tokens)[0] for tokens in (recipient, donor))
        added: dict[int, Tensor] = {}

        def fill(rows: slice) -> Callable[[Tensor], Tensor]:
            def given(value: Tensor) -> Tensor:
                added[rows.start] = torch.zeros_like(value, requires_grad=True)
                return value + added[rows.start]

            return given

        with torch.enable_grad():
            logits = self._run(recipient, None, fill, resid=own + amount * (other - own))
            order = sorted(added)
            total = score(at_positions(logits, at)).sum()
            found = torch.autograd.grad(total, [added[row] for row in order])
        return torch.cat(found).detach()

    def _states(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """What every source writes and every reader reads in an ordinary run."""
        written: dict[int, Tensor] = {}
        read: dict[int, Tensor] = {}

        def write(columns: slice) -> Callable[[Tensor], None]:
            return lambda value: written.update({columns.start: value.clone()})

        def fill(rows: slice) -> Callable[[Tensor], None]:
            return lambda value: read.update({rows.start: value.clone()})

        self._run(tokens, write, fill)
        both = [torch.cat([found[i] for i in sorted(found)]) for found in (written, read)]
        return both[0], both[1]

    def _run(
        self,
        tokens: Int[Tensor, "rows pos"],
        write: Callable[[slice], Callable[[Tensor], None]] | None,
        fill: Callable[[slice], Callable[[Tensor], Tensor | None]],
        *,
        resid: Tensor | None = None,
    ) -> Float[Tensor, "rows pos d_vocab"]:
        """Logits of a run in which what is read may be replaced. Functions take and give `node rows pos d_model`."""
        heads, hooks = self.graph.n_heads, []

        def at(name: str, function: Callable[[Tensor], Tensor | None], *, by_head: bool = False) -> None:
            def hook(activation: Tensor, **_: Any) -> Tensor | None:
                nodes = activation.movedim(2, 0) if by_head else activation[None]
                found = function(nodes)
                if found is None:
                    return None
                return found.movedim(0, 2) if by_head else found[0]

            hooks.append((name, hook))

        if resid is not None:
            at("blocks.0.hook_resid_pre", lambda _: resid[None])
        if write is not None:
            at("blocks.0.hook_resid_pre", write(slice(0, 1)))
        row, column = 0, 1
        for layer in range(self.graph.n_layers):
            for which in "qkv":
                at(f"blocks.{layer}.hook_{which}_input", fill(slice(row, row + heads)), by_head=True)
                row += heads
            if write is not None:
                at(f"blocks.{layer}.attn.hook_result", write(slice(column, column + heads)), by_head=True)
            column += heads
            if self.graph.mlps:
                at(f"blocks.{layer}.hook_mlp_in", fill(slice(row, row + 1)))
                if write is not None:
                    at(f"blocks.{layer}.hook_mlp_out", write(slice(column, column + 1)))
                row, column = row + 1, column + 1
        at(f"blocks.{self.graph.n_layers - 1}.hook_resid_post", fill(slice(row, row + 1)))
        with split(self.model), self.model.hooks(fwd_hooks=hooks):
            logits: Tensor = self.model(tokens)
        return logits
