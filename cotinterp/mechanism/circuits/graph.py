"""The residual stream as a graph: who writes, who reads, and every edge between them.

What a component reads is the sum of what all earlier ones wrote, so that "head 1 of layer 0 acts on the keys of head 2
of layer 1" is a statement about one summand of one input. A *circuit* is a set of such edges
(Wang et al. 2022, arXiv:2211.00593; Conmy et al. 2023, arXiv:2304.14997).

Nodes: `embed`, every head, every MLP, `logits`. `embed` is the token and the position vector together: the two runs of
a contrast have the same positions, so that an edge from position vectors alone could carry no difference. Output biases
of attention belong to no head and to no edge, and always stand in the inputs; those of an MLP are part of what it
writes.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, total_ordering
from typing import Literal, get_args

import torch
from jaxtyping import Bool
from torch import Tensor

from cotinterp.mechanism.model import HookedModel, require_hooked

NodeKind = Literal["embed", "head", "mlp", "logits"]
Input = Literal["q", "k", "v", "mlp", "logits"]
INPUTS: tuple[Input, ...] = get_args(Input)
"""What a destination reads an edge into: queries, keys or values of a head, the input of an MLP, the logits."""


@total_ordering
@dataclass(frozen=True)
class Node:
    """A component that reads from the residual stream or writes to it; ordered as the forward pass computes them.

    `layer` and `head` are -1 where a node has none. ValueError for a kind that is none, and for numbers that do not
    belong to it.
    """

    kind: NodeKind
    layer: int = -1
    head: int = -1

    def __post_init__(self) -> None:
        if self.kind not in get_args(NodeKind):
            raise ValueError(f"unknown kind of node {self.kind!r}: one of {get_args(NodeKind)}.")
        wanted = {"head": (True, True), "mlp": (True, False)}.get(self.kind, (False, False))
        if (self.layer >= 0, self.head >= 0) != wanted:
            raise ValueError(
                f"layer {self.layer} and head {self.head} of a node of kind {self.kind!r}: a head has both, an MLP a "
                "layer, `embed` and `logits` have neither."
            )

    @property
    def label(self) -> str:
        """`embed`, `L0H1`, `L1.mlp`, `logits`."""
        return {"head": f"L{self.layer}H{self.head}", "mlp": f"L{self.layer}.mlp"}.get(self.kind, self.kind)

    @classmethod
    def parse(cls, label: str) -> "Node":
        """The node of a label. ValueError with an example of each."""
        if label in ("embed", "logits"):
            return cls("embed" if label == "embed" else "logits")
        if found := re.fullmatch(r"L(\d+)(?:H(\d+)|\.mlp)", label):
            layer, head = int(found[1]), found[2]
            return cls("mlp", layer) if head is None else cls("head", layer, int(head))
        raise ValueError(f"{label!r} names no node; nodes look like embed, L0H1, L1.mlp, logits.")

    def __str__(self) -> str:
        return self.label

    def __lt__(self, other: "Node") -> bool:
        return self._order < other._order

    @property
    def _order(self) -> tuple[bool, int, bool, int]:
        return self.kind == "logits", self.layer, self.kind == "mlp", self.head

    @property
    def stage(self) -> tuple[bool, int, bool]:
        """What is computed at once: all heads of a layer have one stage, and none of them reads another."""
        return self._order[:3]


@total_ordering
@dataclass(frozen=True)
class Edge:
    """What `src` writes, as far as it enters one `input` of `dest`; ordered by destination, input and source.

    Spelled `L0H1->L1H2.k`, `embed->L0H0.q`, `L0H1->L1.mlp`, `L1.mlp->logits` (`parse`, `str`).
    ValueError where `dest` has no such input, or is computed no later than `src`.
    """

    src: Node
    dest: Node
    input: Input

    def __post_init__(self) -> None:
        inputs = inputs_of(self.dest)
        if self.input not in inputs:
            raise ValueError(f"{self.dest} has no input {self.input!r}; it has {list(inputs)}.")
        if self.src.kind == "logits" or not self.src.stage < self.dest.stage:
            raise ValueError(f"{self.src} cannot reach {self.dest}: the forward pass computes it no earlier.")

    @classmethod
    def parse(cls, label: str) -> "Edge":
        """The edge of a label; spaces do not matter. ValueError with an example of each."""
        src, arrow, reader = label.replace(" ", "").partition("->")
        dest, dot, which = reader.rpartition(".") if reader[-2:] in (".q", ".k", ".v") else (reader, "", "")
        if not arrow:
            raise ValueError(f"{label!r} names no edge; edges look like L0H1->L1H2.k, embed->L0.mlp, L1.mlp->logits.")
        node = Node.parse(dest)
        if node.kind == "head" and not dot:
            raise ValueError(f"{label!r} does not say which input of the head: {label}.q, {label}.k or {label}.v.")
        return cls(Node.parse(src), node, as_input(which) if dot else inputs_of(node)[0])

    @property
    def reader(self) -> str:
        """The input that is read: `L1H2.k`, `L1.mlp`, `logits`."""
        return f"{self.dest}.{self.input}" if self.dest.kind == "head" else self.dest.label

    @property
    def label(self) -> str:
        """`L0H1->L1H2.k`."""
        return f"{self.src}->{self.reader}"

    def __str__(self) -> str:
        return self.label

    def __lt__(self, other: "Edge") -> bool:
        return self._order < other._order

    @property
    def _order(self) -> tuple[Node, int, Node]:
        return self.dest, INPUTS.index(self.input), self.src


def as_input(name: str) -> Input:
    """The input of this name. ValueError with those there are."""
    if name not in INPUTS:
        raise ValueError(f"unknown input {name!r}: one of {INPUTS}.")
    return name


def inputs_of(node: Node) -> tuple[Input, ...]:
    """Which inputs a node has: three of a head, one of an MLP and of the logits, none of `embed`."""
    found: Mapping[str, tuple[Input, ...]] = {"head": ("q", "k", "v"), "mlp": ("mlp",), "logits": ("logits",)}
    return found.get(node.kind, ())


@dataclass(frozen=True)
class Graph:
    """All nodes and edges of a model of this shape, in order; equal for equal shapes.

    Attributes:
        n_layers: Blocks that a token passes, each attention and then an MLP.
        n_heads: Heads of each.
        mlps: Whether blocks have MLPs.
    """

    n_layers: int
    n_heads: int
    mlps: bool = True

    @classmethod
    def of(cls, model: HookedModel) -> "Graph":
        """The graph of a model.

        Raises:
            ValueError: Its blocks add attention and MLP in parallel, or several heads share keys and values: then the
                edges are others than those described here.
        """
        require_hooked(model)
        cfg = model.cfg
        if getattr(cfg, "parallel_attn_mlp", False):
            raise ValueError(
                "its blocks run attention and MLP in parallel; edges are those of blocks one after another."
            )
        shared = getattr(cfg, "n_key_value_heads", None)
        if shared is not None and int(shared) != int(cfg.n_heads):
            raise ValueError(f"{cfg.n_heads} heads share {shared} keys and values: an edge into one head's is none.")
        return cls(int(cfg.n_layers), int(cfg.n_heads), not getattr(cfg, "attn_only", False))

    @cached_property
    def sources(self) -> tuple[Node, ...]:
        """Nodes that write: embed, then the heads and the MLP of every layer."""
        found = [Node("embed")]
        for layer in range(self.n_layers):
            found += [Node("head", layer, head) for head in range(self.n_heads)]
            found += [Node("mlp", layer)] if self.mlps else []
        return tuple(found)

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes: those that write, and the logits."""
        return (*self.sources, Node("logits"))

    @cached_property
    def readers(self) -> tuple[tuple[Node, Input], ...]:
        """Every input of every node: q of all heads of a layer, then k, then v, then its MLP; the logits last."""
        found: list[tuple[Node, Input]] = []
        for layer in range(self.n_layers):
            heads = [Node("head", layer, head) for head in range(self.n_heads)]
            found += [(node, as_input(which)) for which in "qkv" for node in heads]
            found += [(Node("mlp", layer), "mlp")] if self.mlps else []
        return (*found, (Node("logits"), "logits"))

    @cached_property
    def edges(self) -> tuple[Edge, ...]:
        """Every edge, in the order of edges."""
        both = ((dest, which, src) for dest, which in self.readers for src in self.sources if src.stage < dest.stage)
        return tuple(sorted(Edge(src, dest, which) for dest, which, src in both))

    @cached_property
    def index(self) -> Mapping[Edge, int]:
        """The number of every edge in `edges`."""
        return {edge: i for i, edge in enumerate(self.edges)}

    @cached_property
    def places(self) -> Mapping[Edge, tuple[int, int]]:
        """Row (among `readers`) and column (among `sources`) of every edge in a `mask`."""
        rows = {reader: i for i, reader in enumerate(self.readers)}
        columns = {node: i for i, node in enumerate(self.sources)}
        return {edge: (rows[edge.dest, edge.input], columns[edge.src]) for edge in self.edges}

    def mask(self, edges: Iterable[Edge]) -> Bool[Tensor, "reader source"]:
        """Which reader gets which source by these edges. KeyError for edges that this graph does not have."""
        mask = torch.zeros(len(self.readers), len(self.sources), dtype=torch.bool)
        for edge in self.check(edges):
            mask[self.places[edge]] = True
        return mask

    def check(self, edges: Iterable[Edge]) -> frozenset[Edge]:
        """These edges as a set, if the graph has them all. KeyError that says what it has instead."""
        chosen = frozenset(edges)
        if unknown := sorted(edge for edge in chosen if edge not in self.index):
            mlps = "with" if self.mlps else "without"
            raise KeyError(
                f"{unknown[0]} is no edge of a model of {self.n_layers} layers of {self.n_heads} heads, {mlps} MLPs."
            )
        return chosen

    def parse(self, labels: Iterable[str]) -> frozenset[Edge]:
        """The edges of these labels. ValueError for what is no label, KeyError for edges that the graph lacks."""
        return self.check(Edge.parse(label) for label in labels)

    def connected(self, edges: Collection[Edge]) -> frozenset[Edge]:
        """Those of the edges that lie on a way from `embed` to `logits` within them; the others can carry nothing.

        An edge from a node that no kept edge reaches from `embed` carries its corrupted value whether it is kept or
        not, and one into a node from which no kept edge leads on changes nothing that is read.
        """
        kept = sorted(self.check(edges), key=lambda edge: edge.dest)
        reached = {Node("embed")}
        for edge in kept:
            if edge.src in reached:
                reached.add(edge.dest)
        leading = {Node("logits")}
        for edge in reversed(kept):
            if edge.dest in leading:
                leading.add(edge.src)
        return frozenset(edge for edge in kept if edge.src in reached and edge.dest in leading)
