"""What a handmade model does, said in the directions of its residual stream, and written into weights.

The residual stream is divided into named subspaces with one coordinate a label: `("token", ">")` is 1 where the token
is `>`, `("position", 7)` is 1 at position 7, `("logit", "#")` is the logit of `#`. What a part of the model reads or
writes is a `Vector` over such directions, so that the blueprint of a model can be read aloud, and its weights are
nothing but a transcription of it (`write`).
"""

import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge.sources.native import NativeModel

from cotinterp.models.build import Bridge, as_bridge
from cotinterp.models.handmade.layout import Layout
from cotinterp.transcripts.regimes import Token
from cotinterp.transcripts.vocabulary import Vocabulary

BasisDirection = tuple[str, Hashable]
"""One coordinate of the residual stream: its subspace and its label there."""

Vector = Mapping[BasisDirection, float]
"""A direction of the residual stream, or what a part of the model reads from it."""

ALWAYS: BasisDirection = ("always", 1)
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
    def index(self) -> dict[BasisDirection, int]:
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


GAP = 32.0
"""Difference in attention score between what a head wants, `<` where it rests, and all else: e^-32 = 1e-14 leaks. It is
finite, so that a pattern from which the wanted token is cut can still be renormalized."""

LOGIT = 20.0
"""Logit of the symbol to be written; the others have 0."""

REST: tuple[Vector, Vector] = ({ALWAYS: GAP}, unit("token", "<"))
"""Attention paid to `<`, where a head rests that wants nothing: what it wants, it wants with 2 * GAP."""


PROMPT_END: tuple[Vector, Vector] = ({ALWAYS: 2 * GAP}, unit("token", ">"))
"""Attention paid from everywhere to `>`, once it is there: more than to `<`."""


def copies(source: str, target: str, labels: Sequence[Hashable]) -> tuple[tuple[Vector, Vector], ...]:
    """What a head moves that copies coordinates of one subspace into those of the same label in another."""
    return tuple((unit(source, label), unit(target, label)) for label in labels)


def wanted_head(name: str, wanted: str, places: Sequence[int], moved: tuple[tuple[Vector, Vector], ...]) -> Head:
    """A head that attends to the position that is named in the subspace `wanted`."""
    found = tuple((unit(wanted, place, 2 * GAP), unit("position", place)) for place in places)
    return Head(name, (REST, *found), moved)


def prompt_end_head(k_at: Mapping[int, int]) -> Head:
    """The head that finds `>` from everywhere and writes what its position says: the number of operands, into "k".

    Before there is a `>` it rests on `<`, whose position says nothing.
    """
    ends = tuple((unit("position", position), unit("k", k)) for k, position in k_at.items())
    return Head("prompt end", (REST, PROMPT_END), ends)


def all_of(directions: Sequence[BasisDirection], then: Vector) -> Neuron:
    """A neuron that is 1 where all of these 0/1 coordinates are 1, and silent where one of them is 0."""
    return Neuron({**dict.fromkeys(directions, 2.0), ALWAYS: 1.0 - 2.0 * len(directions)}, then)


def next_token_neurons(places: Sequence[Layout], says: Callable[[Layout, int, Token], Vector]) -> tuple[Neuron, ...]:
    """Neurons that know which token comes next, by position and number of operands (in "k"), and write `says` of it."""
    return tuple(
        all_of([("position", at), ("k", place.k)], says(place, at, token))
        for place in places
        for at, token in place.predictions()
    )


def bumps(scalar: Vector, gate: Sequence[BasisDirection], values: Sequence[Vector]) -> tuple[Neuron, ...]:
    """Neurons that write `values[n]` where the scalar is the integer n, and nothing unless all of the gate is 1.

    relu(s - n + 1) - 2 relu(s - n) + relu(s - n - 1) is 1 at n and 0 at every other integer, so that one neuron for
    each knot m suffices, which writes the second difference of the values there. A closed gate lies below every knot.
    """

    def value(n: int, direction: BasisDirection) -> float:
        return values[n].get(direction, 0.0) if 0 <= n < len(values) else 0.0

    neurons = []
    closed = len(values) + 1.0
    for m in range(-1, len(values)):
        near = [direction for n in (m - 1, m, m + 1) if 0 <= n < len(values) for direction in values[n]]
        then = {d: value(m + 1, d) - 2 * value(m, d) + value(m - 1, d) for d in near}
        when = {**scalar, **dict.fromkeys(gate, closed), ALWAYS: -m - closed * len(gate)}
        neurons.append(Neuron(when, then))
    return tuple(neurons)


def write(blueprint: Blueprint, *, device: str | torch.device = "cpu") -> Bridge:
    """The model of a blueprint: a native bridge without normalization, ReLU neurons, in eval mode.

    Layers have the heads and neurons of the fullest one; those without a purpose have zero weights.
    """
    heads = [head for layer in blueprint.layers for head in layer.heads]
    config = TransformerBridgeConfig(
        n_layers=len(blueprint.layers),
        d_model=len(blueprint.index),
        n_heads=max(len(layer.heads) for layer in blueprint.layers),
        d_head=max(max(len(head.attend), len(head.move)) for head in heads),
        d_mlp=max(len(layer.neurons) for layer in blueprint.layers),
        n_ctx=blueprint.n_ctx,
        d_vocab=len(blueprint.vocabulary),
        act_fn="relu",
        normalization_type=None,
        positional_embedding_type="standard",
    )
    with torch.random.fork_rng(devices=[]):
        module = NativeModel(config)
    weights = dict(module.named_parameters())
    with torch.no_grad():
        for weight in weights.values():
            weight.zero_()
        _write_ends(weights, blueprint)
        for i, layer in enumerate(blueprint.layers):
            for h, head in enumerate(layer.heads):
                _write_head(weights, f"layers.{i}.attn", h * config.d_head, config.d_head, head, blueprint.index)
            for n, neuron in enumerate(layer.neurons):
                _write_neuron(weights, f"layers.{i}.mlp", n, neuron, blueprint.index)
    return as_bridge(module.to(device))


def _write_ends(weights: Mapping[str, Tensor], blueprint: Blueprint) -> None:
    """Embeddings and unembedding: one-hot."""
    for token, symbol in enumerate(blueprint.vocabulary.symbols):
        weights["tok_embed.weight"][token, blueprint.index["token", symbol]] = 1
        weights["head.weight"][token, blueprint.index["logit", symbol]] = 1
    for position in range(blueprint.n_ctx):
        weights["pos.weight"][position, blueprint.index["position", position]] = 1


def _write_head(
    weights: Mapping[str, Tensor], name: str, first: int, d_head: int, head: Head, index: Mapping[BasisDirection, int]
) -> None:
    """One dimension of the head for each pair. Scores are divided by sqrt(d_head), which the queries undo."""
    q, k, v, o = (weights[f"{name}.{part}.weight"] for part in "qkvo")
    q_bias, k_bias, v_bias = (weights[f"{name}.{part}.bias"] for part in "qkv")
    for dimension, (query, key) in enumerate(head.attend, start=first):
        _read(q[dimension], q_bias[dimension], query, index, scale=math.sqrt(d_head))
        _read(k[dimension], k_bias[dimension], key, index)
    for dimension, (read, written) in enumerate(head.move, start=first):
        _read(v[dimension], v_bias[dimension], read, index)
        _say(o[:, dimension], written, index)


def _write_neuron(
    weights: Mapping[str, Tensor], name: str, n: int, neuron: Neuron, index: Mapping[BasisDirection, int]
) -> None:
    _read(weights[f"{name}.fc_in.weight"][n], weights[f"{name}.fc_in.bias"][n], neuron.when, index)
    _say(weights[f"{name}.fc_out.weight"][:, n], neuron.then, index)


def _read(
    row: Tensor, bias: Tensor, vector: Vector, index: Mapping[BasisDirection, int], *, scale: float = 1.0
) -> None:
    for direction, amount in vector.items():
        if direction == ALWAYS:
            bias.fill_(scale * amount)
        else:
            row[index[direction]] = scale * amount


def _say(column: Tensor, vector: Vector, index: Mapping[BasisDirection, int]) -> None:
    for direction, amount in vector.items():
        column[index[direction]] = amount
