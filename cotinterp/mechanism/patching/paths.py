"""Paths from one component of a model to another, and the list of those that a scan tries.

A path goes from a *sender*, a site that adds to the residual stream, straight to one input of a *receiver*: q, k or v
of a later head, a later MLP, or the logits. Straight means along the residual stream, which no attention head leaves
or enters on the way; so the change stays at the positions at which the sender wrote. Only the receiver moves it: a
head that reads it through k or v carries it from there to the positions of its queries (`destination`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from cotinterp.mechanism.model import HookedModel
from cotinterp.mechanism.sites import Kind, Site, as_kind, head_sites, residual_sites

SENDERS: tuple[Kind, ...] = ("resid_pre", "z", "attn_out", "mlp_out")
INPUTS: tuple[Kind, ...] = ("q", "k", "v", "mlp_out")
ENDS = ("any", "logits")


@dataclass(frozen=True)
class Path:
    """What `sender` writes at `source`, as far as it enters `receiver` directly and the receiver acts at `destination`.

    `sender`: z of a head, attn_out, mlp_out, or resid_pre (of layer 0: the embedding). `receiver`: `Site("q", 2, 0)`,
    a k, v or mlp_out (that is: the input of that MLP); "logits" for the direct path to the logits; "any" for all paths
    at once, which is an ordinary patch of the sender and the yardstick of the others. Under grouped-query attention k
    and v are those of a key-value head and serve its whole group of query heads: they cannot be told apart there.

    `source` and `destination` are labels of places, None for all positions. With a `destination` only what the
    receiver does at those positions counts: for k and v, what its queries there fetch from `source`; q and mlp_out do
    not move anything, so there both places must share positions for the effect to be other than 0.
    """

    sender: Site
    receiver: Site | str
    source: str | None = None
    destination: str | None = None

    def __post_init__(self) -> None:
        if self.sender.kind not in SENDERS:
            raise ValueError(f"{self.sender} does not write to the residual stream; senders are of kind {SENDERS}.")
        if isinstance(self.receiver, str):
            if self.receiver not in ENDS:
                raise ValueError(f"unknown receiver {self.receiver!r}: a Site of kind {INPUTS}, or one of {ENDS}.")
            if self.destination is not None:
                raise ValueError(f"{self.receiver!r} is read at the readout and takes no destination.")
            return
        if self.receiver.kind not in INPUTS:
            raise ValueError(f"{self.receiver} is no input of a component; receivers are of kind {INPUTS}.")
        if self.receiver.kind != "mlp_out" and self.receiver.head is None:
            raise ValueError(f"{self.receiver} are all heads of a layer; name one, as in Site('q', 1, head=0).")
        if not self.sender < self.receiver:
            raise ValueError(f"{self.sender} cannot reach {self.receiver}: the forward pass computes it later.")

    @property
    def input(self) -> str:
        """Which input of the receiver: q, k, v, mlp_out; logits and any for themselves."""
        return self.receiver if isinstance(self.receiver, str) else self.receiver.kind

    @property
    def label(self) -> str:
        """`L0H1.z at total 1 -> L2H0.k at equals 2`."""
        ends = ((self.sender, self.source), (self.receiver, self.destination))
        return " -> ".join(f"{site}" if place is None else f"{site} at {place}" for site, place in ends)

    def check(self, model: HookedModel) -> "Path":
        """This path, if the model has both ends. ValueError that says how many layers or heads there are."""
        for site in (self.sender, self.receiver):
            if isinstance(site, Site):
                site.check(model)
        return self


def head_paths(
    model: HookedModel,
    *,
    senders: Sequence[Site] | None = None,
    receivers: Sequence[Site] | None = None,
    inputs: Sequence[str] = ("q", "k", "v"),
    sources: Sequence[str | None] = (None,),
    destinations: Sequence[str | None] = (None,),
    ends: Sequence[str] = ENDS,
) -> tuple[Path, ...]:
    """Every path from each sender at each source to each later receiver acting at each destination.

    `senders`: every head's z by default. `receivers`: by default each of `inputs` of every head ("mlp_out" among the
    inputs adds the MLPs). `ends`: for each sender the sum of all paths ("any") and the direct path ("logits").
    Paths that are 0 by construction are left out: q and MLPs between two places of different names.
    """
    for kind in inputs:
        if as_kind(kind) not in INPUTS:
            raise ValueError(f"{kind!r} is no input of a component; inputs are {INPUTS}.")
    sent = head_sites(model) if senders is None else senders
    received = tuple(_received(model, inputs)) if receivers is None else receivers
    paths: list[Path] = []
    for sender, source in product(sent, sources):
        paths += [Path(sender, end, source) for end in ends]
        for receiver, destination in product(received, destinations):
            moves = receiver.kind in ("k", "v")
            if sender < receiver and (moves or None in (source, destination) or source == destination):
                paths.append(Path(sender, receiver, source, destination))
    if not paths:
        raise ValueError("no path: no sender comes before any of the receivers, and no ends were asked for.")
    return tuple(path.check(model) for path in paths)


def _received(model: HookedModel, inputs: Sequence[str]) -> Iterator[Site]:
    for kind in inputs:
        yield from residual_sites(model, kind) if kind == "mlp_out" else head_sites(model, kind)
