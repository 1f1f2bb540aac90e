"""Subspaces that are learned by exchanging them: distributed alignment search, and the runs that it is made of.

At one place of one site the component of a base's activation that lies in a subspace is taken from its source,
`x + P (source - x)`, and the loss is that of the counterfactual value which the task's oracle names, symbol by symbol.
The gradient goes through the model and through the orthonormal basis, which is put back to unit length after each
update. What is right is judged as greedy decoding would: every symbol of the value, and the one after it, is the
likeliest. In a native model only what lies behind the place is run, from the block that the site enters.

Geiger et al. 2023, arXiv 2303.02536; Wu et al. 2023, arXiv 2305.08809.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cotinterp.mechanism.activations import activations, require_count
from cotinterp.mechanism.hooks import hooked
from cotinterp.mechanism.model import HookedModel, require_causal, require_model, require_tokens
from cotinterp.mechanism.probing.subspaces import Subspace, exchanged
from cotinterp.mechanism.sites import Site, refuse_write
from cotinterp.models.native.parts import NativeParts, forward, native_parts
from cotinterp.models.native.resume import resume_each
from cotinterp.transcripts.batch import Batch
from cotinterp.transcripts.interchange_pairs import InterchangePairs

AT_ONCE = 256


@dataclass(frozen=True, kw_only=True)
class SubspaceSearch:
    """How a subspace is learned, and how many random ones it is compared with.

    Attributes:
        rank: Dimensions of the subspace, all pairs and all sites alike.
        steps: Updates, each on `batch_size` training pairs.
        learning_rate: Of Adam at the start; it falls to 0 in a straight line.
        sources: Sources that each training problem is paired with; each held-out problem has one.
        n_random: Random subspaces of the same rank.
        seed: Of the pairs, the start, the order of the pairs, the shuffle and the random subspaces.

    Raises:
        ValueError: A count below 1, or a learning rate that is not above 0.
    """

    rank: int = 8
    steps: int = 200
    batch_size: int = 32
    learning_rate: float = 0.05
    sources: int = 2
    n_random: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("rank", "steps", "batch_size", "sources", "n_random"):
            require_count(name, getattr(self, name))
        if not 0 < self.learning_rate < float("inf"):
            raise ValueError(f"learning_rate={self.learning_rate}: a number above 0 is wanted")


def require_exchangeable(model: HookedModel, sites: Sequence[Site]) -> None:
    """ValueError for a model in train mode or one that looks ahead, and for sites that it lacks or cannot write."""
    require_model(model)
    require_causal(model, "what a place holds would depend on the counterfactual written after it")
    for site in sites:
        refuse_write(site.check(model))


def learn_subspace(
    model: HookedModel, pairs: InterchangePairs, site: Site, search: SubspaceSearch = SubspaceSearch()
) -> Subspace:
    """The subspace of `site` whose exchange best makes the model write the counterfactuals of `pairs`."""
    return Bases.of(model, pairs, [site]).at(site).learned(search)


def interchange_accuracy(
    model: HookedModel, pairs: InterchangePairs, site: Site, subspace: Subspace | None
) -> Bool[np.ndarray, " batch"]:
    """Whether the model writes the counterfactual where `subspace` is taken from the source; None: all of `site`."""
    return Bases.of(model, pairs, [site]).at(site).written(subspace)


def own_accuracy(model: HookedModel, pairs: InterchangePairs) -> Bool[np.ndarray, " batch"]:
    """Whether the model, left alone, writes the base's own value at the readout."""
    targets, asked = targets_of(pairs.own, pairs.given - 1, pairs.given)
    found = []
    for rows in torch.arange(len(pairs), device=pairs.given.device).split(AT_ONCE):
        with torch.no_grad():
            logits = model(pairs.own.tokens[rows])
        at = (pairs.given[rows, None] - 1 + torch.arange(targets.shape[1], device=rows.device)).clamp(
            max=logits.shape[1] - 1
        )
        found.append(_right(_rows_at(logits, at), targets[rows], asked[rows]))
    return torch.cat(found).cpu().numpy()


@dataclass(frozen=True, eq=False)
class Exchange:
    """Runs of the bases with something else at one place of one site.

    Attributes:
        current, donor: What base and source hold there, heads in one vector.
        place: Its position in each base.
        targets: Symbols that follow the place, one after the other; `asked` are those of the counterfactual.
        parts, kept, resid, layer: Of native models and sites between blocks: the keys and values before the place, of
            the blocks that are still to come, the stream from the place on, and the block that it enters.
    """

    model: HookedModel
    pairs: InterchangePairs
    site: Site
    current: Float[Tensor, "batch d_site"]
    donor: Float[Tensor, "batch d_site"]
    shape: tuple[int, ...]
    place: Int[Tensor, " batch"]
    targets: Int[Tensor, "batch suffix"]
    asked: Bool[Tensor, "batch suffix"]
    parts: NativeParts | None = None
    kept: tuple[tuple[Tensor, Tensor], ...] = ()
    resid: Tensor | None = None
    layer: int = 0

    def logits(
        self, rows: Int[Tensor, " some"], value: Float[Tensor, "some d_site"]
    ) -> Float[Tensor, "some suffix d_vocab"]:
        """Logits from the place on, of some bases in which it holds `value`; with a gradient where one is recorded."""
        if self.parts is not None and self.resid is not None:
            stream = torch.cat([value[:, None], self.resid[rows][:, 1:]], dim=1)
            kept = [(k[rows], v[rows]) for k, v in self.kept]
            return resume_each(self.parts, kept, layer=self.layer, start=self.place[rows], resid=stream)
        tokens, at = self.pairs.base.tokens[rows], self.place[rows]

        def write(activation: Tensor, **_: object) -> Tensor:
            return self.site.write(activation, value.reshape(len(rows), *self.shape), at)

        with hooked(self.model, tokens, [(self.site, write)]):
            logits: Tensor = self.model(tokens)
        places = (at[:, None] + torch.arange(self.targets.shape[1], device=at.device)).clamp(max=tokens.shape[1] - 1)
        return _rows_at(logits, places)

    def written(self, subspace: Subspace | None, *, matched_to: Subspace | None = None) -> Bool[np.ndarray, " batch"]:
        """Whether the model writes the counterfactual with this subspace exchanged; None: the whole activation."""
        value = self.donor
        if subspace is not None:
            value = exchanged(self.current, self.donor, subspace, matched_to)
        found = []
        with torch.no_grad():
            for rows in torch.arange(len(value), device=value.device).split(AT_ONCE):
                logits = self.logits(rows, value[rows])
                found.append(_right(logits, self.targets[rows], self.asked[rows]))
        return torch.cat(found).cpu().numpy()

    def learned(self, search: SubspaceSearch) -> Subspace:
        """The subspace after the last update."""
        d_site, n = self.current.shape[1], len(self.current)
        if search.rank > d_site:
            raise ValueError(f"rank {search.rank} was asked for; {self.site} has {d_site} dimensions")
        rng = np.random.default_rng([search.seed, 1])
        start = torch.from_numpy(rng.standard_normal((d_site, search.rank))).to(self.current)
        directions = _orthonormal(start).requires_grad_()
        optimizer = torch.optim.Adam([directions], lr=search.learning_rate)
        decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 1e-3, total_iters=search.steps)
        order = np.concatenate([rng.permutation(n) for _ in range(-(-search.steps * search.batch_size // n))])
        with torch.enable_grad():
            for step in range(search.steps):
                chosen = order[step * search.batch_size : (step + 1) * search.batch_size]
                rows = torch.from_numpy(chosen).to(directions.device)
                value = exchanged(self.current[rows], self.donor[rows], Subspace(_orthonormal(directions)))
                log_probs = self.logits(rows, value).log_softmax(-1)
                wanted = log_probs.gather(-1, self.targets[rows][..., None])[..., 0]
                loss = -torch.where(self.asked[rows], wanted, 0.0).sum(dim=1).mean()
                (directions.grad,) = torch.autograd.grad(loss, [directions])
                optimizer.step()
                decay.step()
                with torch.no_grad():
                    # Back to unit length: what is along the basis does nothing, grows, and would slow later updates.
                    directions.copy_(_orthonormal(directions))
        return Subspace(directions.detach())


@dataclass(frozen=True, eq=False)
class Bases:
    """The bases and sources of some pairs, read once for all sites."""

    model: HookedModel
    pairs: InterchangePairs
    current: Mapping[Site, Tensor]
    donor: Mapping[Site, Tensor]
    parts: NativeParts | None
    kept: tuple[tuple[Tensor, Tensor], ...]
    streams: Mapping[int, Tensor]

    @classmethod
    def of(cls, model: HookedModel, pairs: InterchangePairs, sites: Sequence[Site]) -> "Bases":
        require_exchangeable(model, sites)
        tokens, parts = require_tokens(model, pairs.base.tokens), native_parts(model)
        donor = activations(model, pairs.source.tokens, sites, positions=pairs.source_at, batch_size=AT_ONCE)
        blocks = {site: block for site in sites if parts is not None and (block := _enters(site)) is not None}
        by_hooks = [site for site in sites if site not in blocks]
        current = activations(model, tokens, by_hooks, positions=pairs.at, batch_size=AT_ONCE) if by_hooks else {}
        if parts is None or not blocks:
            return cls(model, pairs, current, donor, None, (), {})
        n = int(pairs.at.max())
        suffix = targets_of(pairs.base, pairs.at, pairs.given)[0].shape[1]
        at = (pairs.at[:, None] + torch.arange(suffix, device=tokens.device)).clamp(max=tokens.shape[1] - 1)
        kept: list[list[tuple[Tensor, Tensor]]] = []
        streams: dict[int, list[Tensor]] = {block: [] for block in blocks.values()}
        for rows in torch.arange(len(tokens), device=tokens.device).split(AT_ONCE):
            with torch.no_grad():
                _, states = forward(parts, tokens[rows])
            by_head = ((state.k[:, :n].transpose(1, 2), state.v[:, :n].transpose(1, 2)) for state in states)
            kept.append([(k.contiguous(), v.contiguous()) for k, v in by_head])
            for block, found in streams.items():
                held = states[block].resid_pre if block < len(states) else states[-1].resid_post
                found.append(_rows_at(held, at[rows]))
        joined = tuple(
            (torch.cat([k for k, _ in layer]), torch.cat([v for _, v in layer])) for layer in zip(*kept, strict=True)
        )
        resid = {block: torch.cat(found) for block, found in streams.items()}
        current |= {site: resid[block][:, 0] for site, block in blocks.items()}
        return cls(model, pairs, current, donor, parts, joined, resid)

    def at(self, site: Site) -> Exchange:
        """Exchanges at one of the sites."""
        targets, asked = targets_of(self.pairs.base, self.pairs.at, self.pairs.given)
        block = _enters(site)
        native = self.parts is not None and block is not None
        return Exchange(
            model=self.model,
            pairs=self.pairs,
            site=site,
            current=self.current[site].flatten(1),
            donor=self.donor[site].flatten(1),
            shape=tuple(self.current[site].shape[1:]),
            place=self.pairs.at,
            targets=targets,
            asked=asked,
            parts=self.parts if native else None,
            kept=self.kept[block:] if native and block is not None else (),
            resid=self.streams[block] if native and block is not None else None,
            layer=block or 0,
        )


def _enters(site: Site) -> int | None:
    """The block that what is written at this site enters whole; None for sites inside a block."""
    return {"resid_pre": site.layer, "resid_post": site.layer + 1}.get(site.kind)


def _orthonormal(directions: Float[Tensor, "d_site rank"]) -> Float[Tensor, "d_site rank"]:
    """An orthonormal basis of what the columns span, none of them turned around."""
    basis, rest = torch.linalg.qr(directions)
    turned: Tensor = basis * rest.diagonal().sign()
    return turned


def targets_of(
    batch: Batch, at: Int[Tensor, " batch"], given: Int[Tensor, " batch"]
) -> tuple[Int[Tensor, "batch suffix"], Bool[Tensor, "batch suffix"]]:
    """The tokens after position `at` of each row, and which are the value at the readout and what follows it."""
    n = int((batch.length - 1 - at).max())
    places = at[:, None] + 1 + torch.arange(n, device=at.device)
    asked = (places >= given[:, None]) & (places < batch.length[:, None])
    return batch.tokens.gather(1, places.clamp(max=batch.tokens.shape[1] - 1)), asked


def _rows_at(
    values: Float[Tensor, "batch pos *rest"], places: Int[Tensor, "batch suffix"]
) -> Float[Tensor, "batch suffix *rest"]:
    return values[torch.arange(len(values), device=values.device)[:, None], places]


def _right(
    logits: Float[Tensor, "batch suffix d_vocab"],
    targets: Int[Tensor, "batch suffix"],
    asked: Bool[Tensor, "batch suffix"],
) -> Bool[Tensor, " batch"]:
    """Whether the likeliest symbol is the target wherever one is asked for: greedy decoding writes just that."""
    return ((logits.argmax(dim=-1) == targets) | ~asked).all(dim=1)
