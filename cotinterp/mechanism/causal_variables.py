"""Is a variable of the task a causal variable of the model? Subspaces that are learned by exchanging them.

Distributed alignment search: at one site and place an orthonormal subspace is learned, by gradient through the model,
such that taking its coordinates from another problem's run (`x + P (source - x)`) makes the model write what the task's
oracle names for the exchanged variable (`transcripts.interchange_pairs`). The **interchange accuracy** (IIA) is the
share of held-out pairs in which it does: every symbol of the value, and the symbol after it. Base and source are the
whole of two problems, so a subspace that carries more than the variable is as wrong as one that carries less.

A subspace that was searched for may be found where there is nothing to find, so every fit stands beside

- `shuffled`: the same search on pairs whose counterfactuals were dealt out anew, asked about the true ones;
- `random`: subspaces of the same rank that move every example exactly as far;
- `unmapped` variables, fitted in the same way, which the model need not carry there (the only test that separates good
  alignments from any others in arXiv 2607.00267), and `rival` ones, which it would carry there if it worked otherwise;
- the same search in an untrained model;
- the whole activation (`full`), the ceiling where the place holds nothing else that the readout depends on, and
  everything but the subspace (`rest`), at which the variable should be left behind.

Pairs whose counterfactual value is the base's own are never among them. Maps are linear: others reach every accuracy on
models that compute nothing (arXiv 2507.08802). An accuracy of 1 does not show that the subspace is what the model uses
by itself (Makelov et al. 2023, arXiv 2311.17030), nor that it is the only one.

Geiger et al. 2023, arXiv 2303.02536; Wu et al. 2023, arXiv 2305.08809.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cotinterp.figures.probing import causal_variables_figure
from cotinterp.mechanism.activations import activations, require_count
from cotinterp.mechanism.hooks import hooked
from cotinterp.mechanism.model import HookedModel, require_causal, require_model, require_tokens
from cotinterp.mechanism.probing.subspaces import Subspace, exchanged
from cotinterp.mechanism.sites import Site, refuse_write, residual_sites, site_columns
from cotinterp.models.native.parts import NativeParts, forward, native_parts
from cotinterp.models.native.resume import resume_each
from cotinterp.results import Result, wilson, with_labels
from cotinterp.tasks.task import Task
from cotinterp.transcripts.batch import Batch
from cotinterp.transcripts.interchange_pairs import InterchangePairs, interchange_pairs
from cotinterp.transcripts.problems import Problem
from cotinterp.transcripts.regimes import Regime
from cotinterp.transcripts.roles import Role, place_words

Hypothesis = Literal["mapped", "rival", "unmapped"]
Conclusion = Literal["carried", "not shown to be carried", "undecided"]
AT_ONCE = 256


@dataclass(frozen=True, kw_only=True)
class Alignment:
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


@dataclass(frozen=True, kw_only=True)
class VariableRule:
    """When a variable counts as carried at a site. Declared before looking, and the same for every site.

    - carried: the lower end of the interval of IIA is at least `min_iia`, and IIA lies `margin` or more above each of
      its controls: shuffled labels, the best random subspace, the same search in the untrained model where there is
      one, and every unmapped variable at this site.
    - undecided: fewer than `min_pairs` held-out pairs, or the model itself writes the base's value in less than
      `min_base` of them: what it does not compute it need not carry.
    - not shown to be carried: everything else.
    """

    min_iia: float = 0.75
    margin: float = 0.25
    min_base: float = 0.8
    min_pairs: int = 20


DECLARED = VariableRule()


@dataclass(frozen=True, kw_only=True, eq=False)
class VariableCell:
    """One variable at one site of one model: whether the model wrote the counterfactual, held-out pair by pair.

    Attributes:
        subspace: The one that was learned.
        learned, shuffled, full, rest, before: With the learned subspace exchanged, one learned on shuffled
            counterfactuals, the whole activation, all but the learned subspace, and nothing.
        random: With random subspaces that move as far as the learned one.
        train: With the learned subspace, on the pairs that it was learned on.
        base: Whether the model, left alone, writes the base's own value.
        dropped: Held-out problems of which no source tells base and counterfactual apart.
    """

    variable: str
    hypothesis: Hypothesis
    model: str
    site: Site
    place: tuple[Role, int]
    readout: tuple[Role, int]
    subspace: Subspace
    learned: Bool[np.ndarray, " batch"]
    shuffled: Bool[np.ndarray, " batch"]
    random: Bool[np.ndarray, "draws batch"]
    full: Bool[np.ndarray, " batch"]
    rest: Bool[np.ndarray, " batch"]
    before: Bool[np.ndarray, " batch"]
    train: Bool[np.ndarray, " train"]
    base: Bool[np.ndarray, " batch"]
    dropped: int

    @property
    def iia(self) -> float:
        """Share of held-out pairs in which the model writes the counterfactual."""
        return float(self.learned.mean())

    @property
    def controls(self) -> float:
        """The best of its own controls: shuffled counterfactuals, random subspaces."""
        return max(float(self.shuffled.mean()), float(self.random.mean(axis=1).max()))

    @property
    def row(self) -> dict[str, str | int | float]:
        """Its row of the table."""
        low, high = wilson(int(self.learned.sum()), len(self.learned))
        drawn = self.random.mean(axis=1)
        return {
            "model": self.model,
            "target": self.variable,
            "hypothesis": self.hypothesis,
            **site_columns(self.site),
            "role": self.place[0].value,
            "step": self.place[1],
            "readout": place_words(*self.readout),
            "rank": self.subspace.rank,
            "n": len(self.learned),
            "dropped": self.dropped,
            "iia": self.iia,
            "ci_low": low,
            "ci_high": high,
            "train_iia": float(self.train.mean()),
            "shuffled_iia": float(self.shuffled.mean()),
            "random_iia": float(drawn.mean()),
            "random_max": float(drawn.max()),
            "full_iia": float(self.full.mean()),
            "rest_iia": float(self.rest.mean()),
            "before_iia": float(self.before.mean()),
            "base_accuracy": float(self.base.mean()),
        }


@dataclass(frozen=True, eq=False)
class CausalVariables(Result):
    """Interchange accuracies of all variables, sites and models, per pair until the table; answers by `rule`."""

    cells: tuple[VariableCell, ...]
    rule: VariableRule
    labels: Mapping[str, str | int]

    @classmethod
    def joined(cls, results: Sequence["CausalVariables"]) -> "CausalVariables":
        """Several places of one model as one table. ValueError where rules or labels differ."""
        first = results[0]
        if any((other.rule, other.labels) != (first.rule, first.labels) for other in results):
            raise ValueError("only results of one rule and one run make one table")
        return cls(tuple(cell for result in results for cell in result.cells), first.rule, first.labels)

    def frame(self) -> pd.DataFrame:
        """A row per model, place, variable and site: IIA with Wilson's interval over held-out pairs, and its controls.

        `full_iia`, `rest_iia` and `before_iia` ask for the same counterfactual with the whole activation exchanged, all
        but the subspace, and nothing. `base_accuracy`: how often the model writes the base's own value.
        """
        rows = [
            {**cell.row, "answer": answer, "reason": reason}
            for cell, (answer, reason) in zip(self.cells, self.answers, strict=True)
        ]
        return with_labels(pd.DataFrame(rows), self.labels)

    def figure(self) -> go.Figure:
        """IIA by site with its interval, beside the controls; a facet for each variable and model."""
        return causal_variables_figure(self.frame())

    @cached_property
    def answers(self) -> tuple[tuple[Conclusion, str], ...]:
        """For every cell the answer of the rule, and why in words."""
        return tuple(self._judged(cell) for cell in self.cells)

    def _judged(self, cell: VariableCell) -> tuple[Conclusion, str]:
        rule, n = self.rule, len(cell.learned)
        if n < rule.min_pairs:
            return "undecided", f"{n} held-out pairs; {rule.min_pairs} or more would decide"
        if cell.base.mean() < rule.min_base:
            return "undecided", f"the model itself writes the base's value in {cell.base.mean():.0%} of the pairs"
        beside = {"shuffled labels": float(cell.shuffled.mean()), "random": float(cell.random.mean(axis=1).max())}
        for other in self.cells:
            if (other.site, other.place) == (cell.site, cell.place) and other is not cell:
                if other.variable == cell.variable and other.model == "untrained" != cell.model:
                    beside["untrained"] = other.iia
                if other.hypothesis == "unmapped" and other.model == cell.model:
                    beside[f"unmapped {other.variable}"] = other.iia
        low = wilson(int(cell.learned.sum()), n).low
        said = f"IIA {cell.iia:.2f} (from {low:.2f}); " + ", ".join(f"{k} {v:.2f}" for k, v in beside.items())
        carried = low >= rule.min_iia and all(cell.iia - value >= rule.margin for value in beside.values())
        return ("carried" if carried else "not shown to be carried"), said


def causal_variables(
    model: HookedModel,
    task: Task,
    regime: str | Regime,
    problems: Sequence[Problem],
    test: Sequence[Problem],
    *,
    place: tuple[Role | str, int],
    readout: tuple[Role | str, int],
    variables: Mapping[str, Hypothesis],
    sites: Sequence[Site] | None = None,
    alignment: Alignment = Alignment(),
    rule: VariableRule = DECLARED,
    untrained: HookedModel | None = None,
    labels: Mapping[str, str | int] | None = None,
) -> CausalVariables:
    """Learns a subspace for every variable at every site, on pairs of `problems`, and exchanges it in pairs of `test`.

    Args:
        place: Role and step at which the site is exchanged, of a value of several symbols at the last of them.
        readout: Role and step of the value that the model then writes. The base's own text stands before it.
        variables: By name (`s_2`, `x_3`, `s_2,x_3`; `interchange_pairs`), what each is: `mapped` where the hypothesis
            has it, `rival` where another mechanism would, `unmapped` where nothing needs it at the place. Without an
            unmapped one, nothing tells what the search itself can do.
        sites: By default what enters each layer (`resid_pre`) and what leaves the last (`resid_post`), which are fast
            in native models; others are written by hooks.
        untrained: The same model at its initialization, searched alike.
        labels: Constant columns of the table: task, regime, run_seed.

    Raises:
        KeyError: A place or a readout that some transcript lacks.
        NoPairsError: A variable that can never matter at the readout.
        ValueError: A problem on both sides, no variables, a rank beyond the site's size, sites
            that cannot be written, a model in train mode or one that looks ahead.
    """
    sites = (*residual_sites(model), Site("resid_post", int(model.cfg.n_layers) - 1)) if sites is None else sites
    models = {"trained": model, **({} if untrained is None else {"untrained": untrained})}
    for one in models.values():
        require_model(one)
        require_causal(one, "what a place holds would depend on the counterfactual written after it")
        for site in sites:
            refuse_write(site.check(one))
    if not variables or not sites:
        raise ValueError("nothing to search for: give at least one variable and one site")
    if shared := set(problems) & set(test):
        raise ValueError(f"{len(shared)} problems are in both training and test, such as {next(iter(shared))}")
    cells = []
    for variable, hypothesis in variables.items():
        pairs, held_out = (
            interchange_pairs(
                task,
                side,
                regime,
                variable=variable,
                place=place,
                readout=readout,
                rng=np.random.default_rng([alignment.seed, number]),
                sources=sources,
            )
            for number, (side, sources) in enumerate(((problems, alignment.sources), (test, 1)))
        )
        dealt = pairs.shuffled(np.random.default_rng([alignment.seed, 2]))
        for name, one in models.items():
            base = own_accuracy(one, held_out)
            known, shuffled, asked = (_Bases.of(one, side, sites) for side in (pairs, dealt, held_out))
            for site in sites:
                learned, placebo = (_learned(side.at(site), alignment) for side in (known, shuffled))
                exchange = asked.at(site)
                rng = np.random.default_rng([alignment.seed, 3])
                random = [Subspace.random(learned.d_site, learned.rank, rng) for _ in range(alignment.n_random)]
                cells.append(
                    VariableCell(
                        variable=variable,
                        hypothesis=hypothesis,
                        model=name,
                        site=site,
                        place=held_out.place,
                        readout=held_out.readout,
                        subspace=learned,
                        learned=exchange.written(learned),
                        shuffled=exchange.written(placebo),
                        random=np.stack([exchange.written(other, matched_to=learned) for other in random]),
                        full=exchange.written(None),
                        rest=exchange.written(learned.complement()),
                        before=exchange.written(Subspace(learned.basis[:, :0])),
                        train=known.at(site).written(learned),
                        base=base,
                        dropped=held_out.dropped,
                    )
                )
    return CausalVariables(tuple(cells), rule, dict(labels or {}))


def align(model: HookedModel, pairs: InterchangePairs, site: Site, alignment: Alignment = Alignment()) -> Subspace:
    """The subspace of `site` whose exchange best makes the model write the counterfactuals of `pairs`."""
    return _learned(_Bases.of(model, pairs, [site]).at(site), alignment)


def interchange_accuracy(
    model: HookedModel, pairs: InterchangePairs, site: Site, subspace: Subspace | None
) -> Bool[np.ndarray, " batch"]:
    """Whether the model writes the counterfactual where `subspace` is taken from the source; None: all of `site`."""
    return _Bases.of(model, pairs, [site]).at(site).written(subspace)


def own_accuracy(model: HookedModel, pairs: InterchangePairs) -> Bool[np.ndarray, " batch"]:
    """Whether the model, left alone, writes the base's own value at the readout."""
    targets, asked = _targets(pairs.own, pairs.given - 1, pairs.given)
    found = []
    for rows in torch.arange(len(pairs)).split(AT_ONCE):
        with torch.no_grad():
            logits = model(pairs.own.tokens[rows])
        at = (pairs.given[rows, None] - 1 + torch.arange(targets.shape[1])).clamp(max=logits.shape[1] - 1)
        found.append(_right(_rows_at(logits, at), targets[rows], asked[rows]))
    return torch.cat(found).cpu().numpy()


@dataclass(frozen=True, eq=False)
class _Exchange:
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


@dataclass(frozen=True, eq=False)
class _Bases:
    """The bases and sources of some pairs, read once for all sites."""

    model: HookedModel
    pairs: InterchangePairs
    current: Mapping[Site, Tensor]
    donor: Mapping[Site, Tensor]
    parts: NativeParts | None
    kept: tuple[tuple[Tensor, Tensor], ...]
    streams: Mapping[int, Tensor]

    @classmethod
    def of(cls, model: HookedModel, pairs: InterchangePairs, sites: Sequence[Site]) -> "_Bases":
        tokens, parts = require_tokens(model, pairs.base.tokens), native_parts(model)
        donor = activations(model, pairs.source.tokens, sites, positions=pairs.source_at, batch_size=AT_ONCE)
        blocks = {site: block for site in sites if parts is not None and (block := _enters(site)) is not None}
        by_hooks = [site for site in sites if site not in blocks]
        current = activations(model, tokens, by_hooks, positions=pairs.at, batch_size=AT_ONCE) if by_hooks else {}
        if parts is None or not blocks:
            return cls(model, pairs, current, donor, None, (), {})
        n = int(pairs.at.max())
        suffix = _targets(pairs.base, pairs.at, pairs.given)[0].shape[1]
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

    def at(self, site: Site) -> _Exchange:
        """Exchanges at one of the sites."""
        targets, asked = _targets(self.pairs.base, self.pairs.at, self.pairs.given)
        block = _enters(site)
        native = self.parts is not None and block is not None
        return _Exchange(
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


def _learned(exchange: _Exchange, alignment: Alignment) -> Subspace:
    """The subspace after the last update."""
    d_site, n = exchange.current.shape[1], len(exchange.current)
    if alignment.rank > d_site:
        raise ValueError(f"rank {alignment.rank} was asked for; {exchange.site} has {d_site} dimensions")
    rng = np.random.default_rng([alignment.seed, 1])
    start = torch.from_numpy(rng.standard_normal((d_site, alignment.rank))).to(exchange.current)
    directions = _orthonormal(start).requires_grad_()
    optimizer = torch.optim.Adam([directions], lr=alignment.learning_rate)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 1e-3, total_iters=alignment.steps)
    order = np.concatenate([rng.permutation(n) for _ in range(-(-alignment.steps * alignment.batch_size // n))])
    with torch.enable_grad():
        for step in range(alignment.steps):
            chosen = order[step * alignment.batch_size : (step + 1) * alignment.batch_size]
            rows = torch.from_numpy(chosen).to(directions.device)
            value = exchanged(exchange.current[rows], exchange.donor[rows], Subspace(_orthonormal(directions)))
            log_probs = exchange.logits(rows, value).log_softmax(-1)
            wanted = log_probs.gather(-1, exchange.targets[rows][..., None])[..., 0]
            loss = -torch.where(exchange.asked[rows], wanted, 0.0).sum(dim=1).mean()
            (directions.grad,) = torch.autograd.grad(loss, [directions])
            optimizer.step()
            decay.step()
            with torch.no_grad():
                # Back to unit length: what is along the basis does nothing, grows, and would make later updates small.
                directions.copy_(_orthonormal(directions))
    return Subspace(directions.detach())


def _orthonormal(directions: Float[Tensor, "d_site rank"]) -> Float[Tensor, "d_site rank"]:
    """An orthonormal basis of what the columns span, none of them turned around."""
    basis, rest = torch.linalg.qr(directions)
    turned: Tensor = basis * rest.diagonal().sign()
    return turned


def _targets(
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
