"""What a handmade model does, said in the directions of its residual stream: heads, neurons, layers, blueprint.

The residual stream is divided into named subspaces with one coordinate a label: `("token", ">")` is 1 where the
token is `>`, `("position", 7)` is 1 at position 7, `("logit", "#")` is the logit of `#`. What a part of the model reads
or writes is a `Vector` over such directions, so that the blueprint of a model can be read aloud, and its weights are
nothing but a transcription.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from cotinterp.transcripts.vocabulary import Vocabulary

Direction = tuple[str, Hashable]
"""One coordinate of the residual stream: its subspace and its label there."""

Vector = Mapping[Direction, float]
"""A direction of the residual stream, or what a part of the model reads from it."""

ALWAYS: Direction = ("always", 1)
"""Not a coordinate: in what is read, the constant 1 (a bias)."""


def unit(subspace: str, label: Hashable, amount: float = 1.0) -> Vector:
    """`amount` of one direction."""
    return {(subspace, label): amount}


@dataclass(frozen=True)
class Head:
    """An attention head.

    Attributes:
        name: What it is for.
        attend: Pairs (query, key): the score of a source is the sum over the pairs of query times key, before softmax.
        move: Pairs (read, write): what is read at the source, times the attention, is written along a vector here.
    """

    name: str
    attend: tuple[tuple[Vector, Vector], ...]
    move: tuple[tuple[Vector, Vector], ...]


@dataclass(frozen=True)
class Neuron:
    """A ReLU neuron: writes `then`, times what it reads along `when` where that is positive."""

    when: Vector
    then: Vector


@dataclass(frozen=True)
class Layer:
    """Heads, numbered in this order, and then neurons."""

    heads: tuple[Head, ...]
    neurons: tuple[Neuron, ...]


@dataclass(frozen=True)
class Blueprint:
    """All that a handmade model does, before it is written into weights: the truth that instruments are held to.

    Attributes:
        vocabulary: Its symbols. Subspace "token" has the symbol read, "logit" the logits; nothing else is unembedded.
        n_ctx: Longest sequence. Subspace "position" has the position.
        scratch: The other subspaces, empty until a head or a neuron writes there: name and labels.
        layers: What is computed.
    """

    vocabulary: Vocabulary
    n_ctx: int
    scratch: Mapping[str, Sequence[Hashable]]
    layers: tuple[Layer, ...]

    @property
    def heads(self) -> dict[str, tuple[int, int]]:
        """Layer and index of every head, by name. Heads that no layer names are idle: zero weights, no effect."""
        return {head.name: (i, h) for i, layer in enumerate(self.layers) for h, head in enumerate(layer.heads)}

    @cached_property
    def index(self) -> dict[Direction, int]:
        """The residual coordinate of every direction."""
        ends = {"token": self.vocabulary.symbols, "position": range(self.n_ctx)}
        subspaces = {**ends, **self.scratch, "logit": self.vocabulary.symbols}
        directions = ((name, label) for name, labels in subspaces.items() for label in labels)
        return {direction: i for i, direction in enumerate(directions)}

    def basis(self, subspace: str) -> Float[Tensor, "size d_model"]:
        """Unit vectors of one subspace, in the order of its labels: the true directions of what is stored there.

        Raises:
            KeyError: No such subspace; those there are named.
        """
        rows = [i for (name, _), i in self.index.items() if name == subspace]
        if not rows:
            raise KeyError(f"no residual subspace {subspace!r}; this model has {', '.join(self._subspaces)}")
        return torch.eye(len(self.index))[rows]

    @property
    def unread(self) -> tuple[str, ...]:
        """Subspaces that no head, no neuron and no logit reads: what stands there can be decoded and is not used."""
        read = {name for vector in self._reads() for name, _ in vector} | {"logit"}
        return tuple(name for name in self._subspaces if name not in read)

    @property
    def _subspaces(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for name, _ in self.index))

    def _reads(self) -> Iterator[Vector]:
        for layer in self.layers:
            yield from (neuron.when for neuron in layer.neurons)
            for head in layer.heads:
                yield from (vector for pair in head.attend for vector in pair)
                yield from (read for read, _ in head.move)
