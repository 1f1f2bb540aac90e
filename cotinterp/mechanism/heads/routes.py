"""How a head finds what it looks at: its attention scores, split into what each part of the residual stream put there.

The score of a source, before the softmax, is a product of a query made at the destination and a key made at the source.
Both are affine in the residual stream once the scale of the norm is frozen at its value on this input, and the stream
is a sum of named parts: embeddings, earlier heads, biases, MLPs. So the score is a sum over pairs of parts, exactly and
for each example (Elhage et al. 2021, transformer-circuits.pub/2021/framework; with frozen norms). A head is routed by
position where position embeddings make the difference, by symbol where token embeddings do, else by what earlier heads
or MLPs wrote.

A softmax does not feel what all scores share. Therefore the parts are those of the *contrast*: the score of a source
minus the mean score of all other tokens that the destination can see.

What it does not establish: where an earlier head or MLP has its information from (the MLP of the first layer knows both
symbol and position), that the model uses what is moved along a route (`knock_out_reads`, `path_sweep`), or what the
score would be without a part, since the scale of the norm would change. Parts have signs, so that shares can exceed 1
where others are negative.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, get_args

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from einops import einsum, rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cotinterp.figures.heads import routes_figure
from cotinterp.mechanism.activations import activations, at_positions
from cotinterp.mechanism.heads.attribution import NORM_FAMILIES, Component, norm_parameters
from cotinterp.mechanism.heads.labels import LOOKS_AT_BOTH
from cotinterp.mechanism.heads.reads import ReadPattern, read_sources
from cotinterp.mechanism.model import HookedModel, require_causal, require_model, tolerance_of, weight
from cotinterp.mechanism.sites import Site, residual_sites, site_columns
from cotinterp.models.native.parts import key_bias, native_parts
from cotinterp.results import Result, bootstrap_means, with_labels
from cotinterp.transcripts.batch import Batch
from cotinterp.transcripts.roles import ROLE_CODE, Place, Role, place_words

Measure = Literal["contrast", "score"]
"""What is split: a score minus the mean score of all other tokens that can be seen, or the score itself."""
Side = Literal["query", "key"]
SIDES: tuple[Side, ...] = get_args(Side)
Group = Literal["position", "symbol", "heads", "mlps", "biases"]
GROUPS: tuple[Group, ...] = get_args(Group)
"""Kinds of parts; `heads` and `mlps` are of earlier layers, `biases` the same in all problems and at all places."""

_GROUP_OF: Mapping[str, Group] = {
    "position_embedding": "position",
    "token_embedding": "symbol",
    "head": "heads",
    "mlp_out": "mlps",
    "attention_bias": "biases",
    "input_bias": "biases",
}

ROUTED = 0.5
"""A head is routed by one kind of parts where they make more than half of its contrast: more than all others."""
NAMED = 0.1
"""Parts of at least a tenth of the contrast are named in a sentence."""
_ROWS = 32
"""Examples that are taken apart at once: their parts at every position are held in double precision."""


class RouteMismatch(ArithmeticError):
    """The parts do not sum to the model's own scores, or these are not what its attention is made of."""


@dataclass(frozen=True, eq=False)
class RouteResult(Result):
    """What makes each head look from one place at others: its scores by the parts of the query, and of the key.

    Positive parts draw attention to the source. Each of `query`, `key` and `pairs` sums to `total`.

    Attributes:
        dest: The place that looks, in words.
        srcs: The places that may be looked at; of several tokens (a total of two characters) the mean of their scores.
        components: Parts of the stream, in the order in which the model writes them; those at or behind a head's own
            layer are 0 for it.
        of: What is split.
        query: By what each component put into the query, whole key.
        key: By what each component put into the key, whole query.
        pairs: By kinds of components, `GROUPS` of the query by `GROUPS` of the key.
        total: What they sum to.
        attention: After the softmax, summed over the tokens of the source.
    """

    dest: str
    srcs: tuple[str, ...]
    components: tuple[Component, ...]
    of: Measure
    query: Float[Tensor, "src layer head component batch"]
    key: Float[Tensor, "src layer head component batch"]
    pairs: Float[Tensor, "src layer head asked found batch"]
    total: Float[Tensor, "src layer head batch"]
    attention: Float[Tensor, "src layer head batch"]
    labels: Mapping[str, str | int] = field(default_factory=dict)

    def shares(self, head: Site, src: str, side: Side) -> dict[str, float]:
        """Share of the mean total by component of one side, for the components that the head can see.

        NaN where the mean total is not told from 0 (its 95% interval over examples holds 0). KeyError for a source or
        a head that is not there.
        """
        index, parts = self._index(head, src), getattr(self, side)
        values = parts[index].double().mean(dim=-1) / self.mean_totals[index]
        return {
            part.label: float(value)
            for part, value in zip(self.components, values, strict=True)
            if _seen(part, head.layer)
        }

    def groups(self, head: Site, src: str, side: Side) -> dict[Group, float]:
        """`shares` by kind of component."""
        index = self._index(head, src)
        found = self.pairs[index].double().mean(dim=-1) / self.mean_totals[index]
        return dict(zip(GROUPS, found.sum(dim=1 if side == "query" else 0).tolist(), strict=True))

    def route(self, head: Site, src: str) -> tuple[str, str]:
        """The kind of components that make more than `ROUTED` of the contrast: of the query, and of the key.

        `mixed` where none does, `none` where the head does not prefer the source (a total that is not above 0).
        """
        if not self.mean_totals[self._index(head, src)] > 0:
            return "none", "none"
        query, key = (
            next((name for name, share in self.groups(head, src, side).items() if share > ROUTED), "mixed")
            for side in SIDES
        )
        return query, key

    def looking(self, least: float = LOOKS_AT_BOTH) -> list[tuple[Site, str]]:
        """Heads and sources with a mean attention of at least `least`, most attention first."""
        means = self.attention.double().mean(dim=-1)
        found = [
            (float(means[index]), Site("pattern", int(index[1]), int(index[2])), self.srcs[int(index[0])])
            for index in map(tuple, (means >= least).nonzero().tolist())
        ]
        return [(head, src) for _, head, src in sorted(found, key=lambda one: -one[0])]

    def sentence(self, head: Site, src: str) -> str:
        """In words what routes one head: components with at least `NAMED` of its total, of the key and of the query."""
        index = self._index(head, src)
        start = f"{head.block} at {self.dest} attends to {src} (attention {float(self.attention[index].mean()):.2f})"
        mean = float(self.mean_totals[index])
        if np.isnan(mean):
            return f"{start}, but its score there is not told from that of the other places"
        what = "score contrast (against the other places)" if self.of == "contrast" else "score"
        if mean < 0:
            return f"{start}, though its {what} is negative ({mean:.2f})"
        sides = (f"on the {side} side {self._named(head, src, side)}" for side in reversed(SIDES))
        return f"{start}; of its {what}, {mean:.2f}, {', '.join(sides)}"

    def describe(self, least: float = LOOKS_AT_BOTH) -> list[str]:
        """`sentence` of every head that looks; one that says so where none does."""
        found = [self.sentence(head, src) for head, src in self.looking(least)]
        return found or [f"no head at {self.dest} has a mean attention of {least:g} to any of {list(self.srcs)}"]

    def frame(self) -> pd.DataFrame:
        """One row per source, head, side and component that the head can see, in logits of attention.

        `share`: of the mean total, empty where that is not told from 0. Intervals are over examples.
        """
        rows, values = [], []
        for src, layer, head in np.ndindex(*self.total.shape[:3]):
            site = Site("pattern", layer, head)
            of_total = {
                "dest": self.dest,
                "src": self.srcs[src],
                "attention": float(self.attention[src, layer, head].double().mean()),
                "measure": self.of,
                "total": float(self.total[src, layer, head].double().mean()),
            }
            for side in SIDES:
                shares, parts = self.shares(site, self.srcs[src], side), getattr(self, side)[src, layer, head]
                for part, value in zip(self.components, parts, strict=True):
                    if _seen(part, layer):
                        what = {"side": side, "component": part.kind, "source": part.label}
                        rows.append({**site_columns(site), **of_total, **what, "share": shares[part.label]})
                        values.append(value)
        each = torch.stack(values).double().numpy()
        low, high = bootstrap_means(each)
        columns = {"contribution": each.mean(axis=1), "ci_low": low, "ci_high": high, "n": each.shape[1]}
        return with_labels(pd.DataFrame(rows).assign(**columns), self.labels)

    def by_groups(self) -> pd.DataFrame:
        """One row per source and head for each kind of query component by each kind of key component."""
        rows = []
        for src, layer, head in np.ndindex(*self.total.shape[:3]):
            means = self.pairs[src, layer, head].double().mean(dim=-1)
            total = float(self.mean_totals[src, layer, head])
            for asked, found in np.ndindex(*means.shape):
                kinds = {"query": GROUPS[asked], "key": GROUPS[found], "contribution": float(means[asked, found])}
                place = {**site_columns(Site("pattern", layer, head)), "dest": self.dest, "src": self.srcs[src]}
                rows.append({**place, **kinds, "share": float(means[asked, found]) / total})
        return with_labels(pd.DataFrame(rows), self.labels)

    def figure(self, least: float = LOOKS_AT_BOTH) -> go.Figure:
        """A row for each head that looks and each side, a column for each component; the words stand above it.

        Where no head has a mean attention of `least`, the one with the most is drawn.
        """
        shown = self.looking(least)
        if not shown:
            shown = self.looking(float(self.attention.double().mean(dim=-1).max()))[:1]
        return routes_figure(self.frame(), [(head.layer, head.head, src) for head, src in shown], self.describe(least))

    def _named(self, head: Site, src: str, side: Side) -> str:
        shares = sorted(self.shares(head, src, side).items(), key=lambda one: -abs(one[1]))
        named = [f"{share:.0%} comes from {_words(label)}" for label, share in shares if abs(share) >= NAMED]
        return ", ".join(named[:1] + [one.replace(" comes", "") for one in named[1:]]) or "no part has a tenth"

    def _index(self, head: Site, src: str) -> tuple[int, int, int]:
        n_layers, n_heads = self.total.shape[1:3]
        if src not in self.srcs:
            raise KeyError(f"no source {src!r}; there are {list(self.srcs)}")
        if head.head is None or head.layer >= n_layers or head.head >= n_heads:
            raise KeyError(f"no head {head.block}; there are {n_layers} layers of {n_heads} heads")
        return self.srcs.index(src), head.layer, head.head

    @cached_property
    def mean_totals(self) -> Float[np.ndarray, "src layer head"]:
        """Mean of `total` over examples; NaN where its 95% interval holds 0, so that nothing is a share of it."""
        values = rearrange(self.total, "src layer head batch -> (src layer head) batch").double().numpy()
        low, high = bootstrap_means(values)
        told = np.where((low <= 0) & (high >= 0), np.nan, values.mean(axis=1))
        return np.asarray(told.reshape(self.total.shape[:3]))


def attention_routes(
    model: HookedModel,
    batch: Batch,
    dest: Place,
    srcs: Sequence[Place | ReadPattern] | None = None,
    *,
    of: Measure = "contrast",
    batch_size: int | None = None,
    labels: Mapping[str, str | int] | None = None,
) -> RouteResult:
    """What makes every head look from `dest` at each of `srcs`: by position, by symbol, by what earlier parts wrote.

    Args:
        batch: Transcripts that all have these places, such as those of one length.
        dest: Role and step (-1 where it has none); of a value of several characters the last.
        srcs: Places before or at `dest`, or reads by name (`reads.py`), which are looked up for what `dest` predicts.
            By default every place up to `dest`.
        of: `contrast`, or `score` for the score itself.
        batch_size: Examples that are taken apart at once.

    ALiBi counts as position, in the key and asked for by the biases of the query. Norms may be layer norm, RMS norm or
    none; keys may be shared by several heads.

    Raises:
        KeyError: Some transcript lacks a place; the places that exist are named.
        ValueError: A model that looks ahead, one of rotary positions (which are in no part of the stream), a source
            behind the destination, nothing else to see, a task whose steps do not follow its operands (for reads).
        RouteMismatch: The parts miss the model's own queries and keys, or these its pattern, by more than rounding.
    """
    require_model(model)
    require_causal(model, "scores of later tokens, padding too, would count among the others")
    slopes = _position_slopes(model)
    at = batch.where(dest[0], None if dest[1] < 0 else dest[1], part=-1)
    names, weights = _source_weights(batch, at, srcs, of)
    step = batch_size or _ROWS
    pieces = [
        _taken_apart(model, batch.tokens[rows], at[rows], weights[:, rows], slopes)
        for rows in (slice(start, start + step) for start in range(0, len(batch), step))
    ]
    return RouteResult(
        dest=place_words(*dest),
        srcs=names,
        components=pieces[0].components,
        of=of,
        **{name: torch.cat([getattr(piece, name) for piece in pieces], dim=-1) for name in _FIELDS},
        labels=dict(labels or {}),
    )


def _position_slopes(model: HookedModel) -> Float[Tensor, " head"] | None:
    kind = getattr(model.cfg, "positional_embedding_type", "standard")
    parts = native_parts(model)
    slopes = None if parts is None else parts.slopes
    if kind == "rotary" or (kind == "alibi" and slopes is None):
        raise ValueError(
            f"model: its positions are {kind!r}, which are in the score itself and in no part of the residual stream. "
            "Wanted is a model of learned, sinusoidal or no positions, or a native one of 'alibi'."
        )
    return slopes


def _source_weights(
    batch: Batch, at: Int[Tensor, " batch"], srcs: Sequence[Place | ReadPattern] | None, of: Measure
) -> tuple[tuple[str, ...], Float[Tensor, "src batch pos"]]:
    """Names of the sources, and what the scores of each token count in the total of each source."""
    rows, position = torch.arange(len(batch), device=at.device), torch.arange(batch.tokens.shape[1], device=at.device)
    seen = position <= at[:, None]
    if srcs is None:
        first = batch.transcripts[0].tokens[: int(at[0]) + 1]
        srcs = list(dict.fromkeys((token.role, token.step) for token in first))
    names, weights = [], []
    for src in srcs:
        if isinstance(src, ReadPattern):
            following = (at + 1).clamp_max(batch.tokens.shape[1] - 1)
            role, step = int(batch.role[rows, following][0]), int(batch.step[rows, following][0])
            name = src.name.replace("_", " ")
            members = read_sources(batch, src, _role_of(role), step)
        else:
            name, members = place_words(*src), batch.mask(src[0], src[1])
        weights.append(_weights(members & seen, seen, name, batch, of))
        names.append(name)
    if not names:
        raise ValueError("srcs: none were given. Wanted are places, such as [(Role.TOTAL, 1)], or reads.")
    return tuple(names), torch.stack(weights)


def _role_of(code: int) -> Role:
    return next(role for role, number in ROLE_CODE.items() if number == code)


def _weights(
    members: Bool[Tensor, "batch pos"], seen: Bool[Tensor, "batch pos"], name: str, batch: Batch, of: Measure
) -> Float[Tensor, "batch pos"]:
    if not bool(members.any(dim=1).all()):
        example = int((~members.any(dim=1)).nonzero()[0])
        places = dict.fromkeys(place_words(token.role, token.step) for token in batch.transcripts[example].tokens)
        raise KeyError(
            f"{batch.transcripts[example].text!r} has no {name} at or before the destination; places: {list(places)}"
        )
    others = seen & ~members
    weights = members.double() / members.sum(dim=1, keepdim=True)
    if of == "score":
        return weights
    if not bool(others.any(dim=1).all()):
        raise ValueError(f"{name} is all that the destination can see, so that its score has nothing to be above.")
    return weights - others.double() / others.sum(dim=1, keepdim=True)


_FIELDS = ("query", "key", "pairs", "total", "attention")


@dataclass(frozen=True, eq=False)
class _Taken:
    """The fields of a result, of some of the examples."""

    components: tuple[Component, ...]
    query: Float[Tensor, "src layer head component batch"]
    key: Float[Tensor, "src layer head component batch"]
    pairs: Float[Tensor, "src layer head asked found batch"]
    total: Float[Tensor, "src layer head batch"]
    attention: Float[Tensor, "src layer head batch"]


def _seen(part: Component, layer: int) -> bool:
    return part.layer is None or part.layer < layer


def _words(label: str) -> str:
    block, _, part = label.partition(".")
    if not block.startswith("L"):
        return f"the {label.replace('_', ' ')}"
    return f"{block}'s output" if not part else f"the {'MLP' if part == 'mlp_out' else part} of {block}"


def _taken_apart(
    model: HookedModel,
    tokens: Int[Tensor, "batch pos"],
    at: Int[Tensor, " batch"],
    weights: Float[Tensor, "src batch pos"],
    slopes: Float[Tensor, " head"] | None,
) -> _Taken:
    """All layers, of some examples at once."""
    kinds = ("resid_pre", "z", "q", "k", "pattern", *(() if getattr(model.cfg, "attn_only", False) else ("mlp_out",)))
    found = activations(model, tokens, [site for kind in kinds for site in residual_sites(model, kind)])
    stream = _stream(model, tokens, found)
    components = tuple(component for component, _ in stream)
    group = torch.tensor([GROUPS.index(_GROUP_OF[part.kind]) for part in components], device=tokens.device)
    member = torch.nn.functional.one_hot(group, len(GROUPS)).double()
    past = torch.arange(tokens.shape[1], device=tokens.device) <= at[:, None]
    layers: dict[str, list[Tensor]] = {name: [] for name in _FIELDS}
    for layer in range(int(model.cfg.n_layers)):
        queries, keys = _projected(model, layer, stream, found[Site("resid_pre", layer)], at)
        scores = einsum(queries.sum(dim=0), keys.sum(dim=0), "b h d, b s h d -> b h s")
        own_q, own_k = (found[Site(kind, layer)].double() for kind in ("q", "k"))
        own_q, own_k = (own.repeat_interleave(scores.shape[1] // own.shape[2], dim=2) for own in (own_q, own_k))
        own = einsum(at_positions(own_q, at), own_k, "b h d, b s h d -> b h s") / own_q.shape[-1] ** 0.5
        pattern = at_positions(Site("pattern", layer).by_position(found[Site("pattern", layer)]), at).double()
        bias = 0.0 if slopes is None else key_bias(slopes, tokens.shape[1])[:, 0].double()
        _check(model, layer, scores, own, own + bias, pattern, past)
        chosen = einsum(weights, keys, "src b s, j b s h d -> j src b h d")
        pairs = einsum(queries, chosen, "i b h d, j src b h d -> src h i j b")
        by_group = einsum(pairs, member, member, "src h i j b, i asked, j found -> src h asked found b")
        query, key = pairs.sum(dim=3), pairs.sum(dim=2)
        if slopes is not None:
            added = einsum(weights, key_bias(slopes, tokens.shape[1])[:, 0].double(), "src b s, h s -> src h b")
            places = [part.kind for part in components]
            query[:, :, places.index("input_bias")] += added
            key[:, :, places.index("position_embedding")] += added
            by_group[:, :, GROUPS.index("biases"), GROUPS.index("position")] += added
        attention = einsum(pattern, (weights > 0).double(), "b h s, src b s -> src h b")
        for name, value in zip(_FIELDS, (query, key, by_group, key.sum(dim=2), attention), strict=True):
            layers[name].append(value.float().cpu())
    return _Taken(components, **{name: torch.stack(values, dim=1) for name, values in layers.items()})


def _stream(
    model: HookedModel, tokens: Int[Tensor, "batch pos"], found: Mapping[Site, Tensor]
) -> list[tuple[Component, Float[Tensor, "batch pos d_model"]]]:
    """What adds to the residual stream before the last block, at every position; the input bias stands last, empty."""
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens, names_filter=["hook_embed"])
    embedding, first = cache["hook_embed"].double(), found[Site("resid_pre", 0)].double()
    stream = [(Component("token_embedding"), embedding), (Component("position_embedding"), first - embedding)]
    output_weights, output_biases = weight(model, "W_O").double(), getattr(model, "b_O", None)
    for layer in range(int(model.cfg.n_layers) - 1):
        z = found[Site("z", layer)].double()
        written = einsum(z, output_weights[layer], "b s h d, h d d_model -> h b s d_model")
        stream += [(Component("head", layer, head), part) for head, part in enumerate(written)]
        if output_biases is not None:
            stream.append((Component("attention_bias", layer), output_biases[layer].detach().double().expand_as(first)))
        if Site("mlp_out", layer) in found:
            stream.append((Component("mlp_out", layer), found[Site("mlp_out", layer)].double()))
    return [*stream, (Component("input_bias"), torch.zeros_like(first))]


def _projected(
    model: HookedModel,
    layer: int,
    stream: Sequence[tuple[Component, Float[Tensor, "batch pos d_model"]]],
    resid_pre: Float[Tensor, "batch pos d_model"],
    at: Int[Tensor, " batch"],
) -> tuple[Float[Tensor, "component batch head d_head"], Float[Tensor, "component batch pos head d_head"]]:
    """Queries at the destination, scaled, and keys at every position, by component."""
    family = NORM_FAMILIES.get(model.cfg.normalization_type, "layer norm")
    norm = getattr(model.blocks[layer], "ln1", None)  # type: ignore[attr-defined]
    gain, shift = norm_parameters(norm, model.cfg, resid_pre.shape[-1], resid_pre.device)
    x = resid_pre.double()
    x = x - x.mean(dim=-1, keepdim=True) if family == "layer norm" else x
    scale = (x.square().mean(dim=-1, keepdim=True) + model.cfg.eps).sqrt() if family != "no norm" else 1.0

    def made(name: str, place: Int[Tensor, " batch"] | None) -> Float[Tensor, "component batch *pos head d_head"]:
        matrix = weight(model, f"W_{name}")[layer].double()
        folded = gain[:, None] * matrix
        folded = folded - folded.mean(dim=1, keepdim=True) if family == "layer norm" else folded
        bias = getattr(model, f"b_{name}", None)
        constant = einsum(shift, matrix, "d_model, head d_model d_head -> head d_head")
        constant = constant if bias is None else constant + bias[layer].detach().double()
        parts = []
        for component, part in stream:
            if component.kind == "input_bias":
                here = constant.expand(*part.shape[:2], *constant.shape)
            elif _seen(component, layer):
                here = einsum(part / scale, folded, "b s d_model, head d_model d_head -> b s head d_head")
            else:
                here = torch.zeros_like(constant).expand(*part.shape[:2], *constant.shape)
            parts.append(here if place is None else at_positions(here, place))
        return torch.stack(parts)

    queries, keys = made("Q", at), made("K", None)
    shared = queries.shape[-2] // keys.shape[-2]
    return queries / queries.shape[-1] ** 0.5, keys.repeat_interleave(shared, dim=-2)


def _check(
    model: HookedModel,
    layer: int,
    scores: Float[Tensor, "batch head pos"],
    own: Float[Tensor, "batch head pos"],
    biased: Float[Tensor, "batch head pos"],
    pattern: Float[Tensor, "batch head pos"],
    past: Bool[Tensor, "batch pos"],
) -> None:
    """RouteMismatch unless the parts give the model's own scores, and these its pattern."""
    size = max(1.0, float(own.abs().max()))
    visible = rearrange(past, "b s -> b 1 s")
    missed = float(((scores - own).abs() * visible).max())
    made = biased.masked_fill(~visible, -torch.inf).softmax(dim=-1)
    off = float((made - pattern).abs().max())
    if missed > tolerance_of(model) * size or off > tolerance_of(model) * size:
        raise RouteMismatch(
            f"layer {layer}: the parts miss the model's own scores by {missed:.3g} of {size:.3g}, and the softmax of "
            f"these its pattern by {off:.3g}. "
            + (
                "Something besides embeddings, z @ W_O + b_O and mlp_out writes to the stream, or queries and keys are "
                "not W_Q and W_K of its norm."
                if missed > tolerance_of(model) * size
                else "Its scores are scaled, capped or biased in another way than by sqrt(d_head)."
            )
        )
