"""Is a read needed? Attention from one place to others is cut, or what it moves is exchanged."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from einops import einsum
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cotinterp.figures import heatmap
from cotinterp.mechanism.activations import activations
from cotinterp.mechanism.heads.ablation import (
    METHODS,
    NO_DONOR,
    Plan,
    Rows,
    clean_difference,
    draw_donors,
    logits_lost,
    question,
    substitutes,
    until_readout,
)
from cotinterp.mechanism.heads.attention import patterns
from cotinterp.mechanism.heads.attention_edits import AttentionEdit, CutAttention, MovedValues
from cotinterp.mechanism.heads.attribution import LogitContrast
from cotinterp.mechanism.heads.labels import scan_columns
from cotinterp.mechanism.heads.reads import KNOCK_OUT_READS, STALE_TOTAL_READ, ReadMask, ReadPattern, read_sources
from cotinterp.mechanism.model import HookedModel
from cotinterp.mechanism.sites import Site, residual_sites
from cotinterp.results import Result, with_labels
from cotinterp.transcripts.pairs import Pairs

Sources = Bool[Tensor, "batch pos"]
DESTS = ("readout", "everywhere")


@dataclass(frozen=True, eq=False)
class Cut:
    """One read, cut: `mask` is True where a destination may not see a source; `control` as in `KnockOut`."""

    read: str
    control: str
    dest: str
    mask: ReadMask


def cuts(
    sources: Mapping[str, Sources],
    absent: Mapping[str, Sources],
    at: Int[Tensor, " batch"],
    tokens: Int[Tensor, "batch pos"],
    dests: Sequence[str],
    rng: np.random.Generator,
) -> Iterator[Cut]:
    """Every read and control, from every kind of destination.

    For each read that is not `absent`, as many random tokens before the readout are cut as well, of those that no read
    of `sources` names. ValueError for a read without a source at or before the readout `at` in some example, or where
    no read is named.
    """
    if not sources:
        raise ValueError("no reads to knock out: name at least one mask of source tokens.")
    position = torch.arange(tokens.shape[1], device=tokens.device)
    before = position <= at.to(tokens.device)[:, None]
    named = torch.stack(list(sources.values())).any(dim=0)
    unnamed = before & ~named & (position != at.to(tokens.device)[:, None])
    for name, mask in {**sources, **absent}.items():
        marked = mask & before
        empty = int((~marked.any(dim=1)).sum())
        if empty:
            raise ValueError(f"read {name!r} has no source at or before the readout in {empty} of {len(at)} examples.")
        control = ABSENT_READ if name in absent else ""
        others = _random_tokens(marked.sum(dim=1), unnamed, rng)
        for dest in dests:
            yield Cut(name, control, dest, _paths(marked, at, dest))
            if not control:
                yield Cut(name, RANDOM_SOURCES, dest, _paths(others, at, dest))


def _paths(sources: Sources, at: Int[Tensor, " batch"], dest: str) -> ReadMask:
    """Which destination may not see which source: the readout alone, or all that follow and are no sources."""
    position = torch.arange(sources.shape[1], device=sources.device)
    at = at.to(sources.device)[:, None]
    reading = position == at if dest == "readout" else (position <= at) & ~sources
    return reading[:, :, None] & sources[:, None, :] & (position[None, :] <= position[:, None])


def _random_tokens(n: Int[Tensor, " batch"], pool: Sources, rng: np.random.Generator) -> Sources:
    """`n` tokens of the pool in each example; all of them where there are fewer."""
    score = torch.from_numpy(rng.random(tuple(pool.shape))).to(pool.device).masked_fill(~pool, -1.0)
    rank = score.argsort(dim=1, descending=True).argsort(dim=1)
    return (rank < n[:, None]) & pool


def attention_on(
    model: HookedModel, tokens: Int[Tensor, "batch pos"], masks: Sequence[ReadMask], batch_size: int | None
) -> Float[Tensor, "cut layer head batch"]:
    """Attention along each mask, averaged over the destinations of each example."""
    found = []
    for rows, pattern in patterns(model, tokens, batch_size):
        marked = torch.stack([mask[rows] for mask in masks]).to(pattern)
        n_dest = marked.any(dim=-1).sum(dim=-1).clamp_min(1)
        total = einsum(pattern, marked, "layer b head dest src, cut b dest src -> cut layer head b")
        found.append((total / n_dest[:, None, None]).cpu())
    return torch.cat(found, dim=-1)


RANDOM_SOURCES = "random sources"
ABSENT_READ = "absent read"


@dataclass(frozen=True)
class KnockOut:
    """One row: which read is cut, where, and how.

    Attributes:
        read: Name of the read; for random sources that of the read with as many sources.
        control: Empty, "random sources", or "absent read" for a read that no mechanism in question has.
        dest: "readout" or "everywhere".
        layer: The layer in which it is cut, or None for all layers.
        head: The head in which it is cut, or None for all heads.
        method: "pattern", or what the moved values are replaced by.
        attention: What the cut heads pay the sources on the clean run: mass per destination, mean of heads and
            examples. Exactly 0 where there is nothing to cut, and the loss is then exactly 0.
    """

    read: str
    control: str
    dest: str
    layer: int | None
    head: int | None
    method: str
    attention: float

    @property
    def scope(self) -> str:
        """ "L1H3" for a head, "L1" for all heads of a layer, "all" for those of all layers together."""
        if self.layer is None:
            return "all"
        return f"L{self.layer}" if self.head is None else f"L{self.layer}H{self.head}"


@dataclass(frozen=True)
class KnockOutResult(Result):
    """Logit difference lost under each knock-out, in logits and per example; NaN for examples without a donor.

    Attributes:
        cells: The knock-outs, in the order of the first axis of `lost`.
        clean: The clean logit difference.
    """

    cells: tuple[KnockOut, ...]
    lost: Float[Tensor, "cell batch"]
    clean: Float[Tensor, " batch"]
    labels: Mapping[str, str | int] = field(default_factory=dict)

    def frame(self) -> pd.DataFrame:
        """One row per knock-out.

        `scope`: "L1H3", "L1" or "all"; `layer` and `head` are -1 for all of them. `effect`: mean loss as a share of the
        mean clean logit difference: 1 says that nothing of it is left, above 1 that the foil is now preferred, below 0
        that the read was in the way. `ci_low`, `ci_high`: 95% for the row alone; `scan_low`, `scan_high`, `p`:
        simultaneous (max-statistic over examples) over all rows of the same kind of scope: those of single heads, of
        single layers, or of all heads together are three scans, and the last is the one to begin with.
        """
        places = pd.DataFrame(
            {
                "read": [cell.read for cell in self.cells],
                "control": [cell.control for cell in self.cells],
                "dest": [cell.dest for cell in self.cells],
                "scope": [cell.scope for cell in self.cells],
                "layer": [-1 if cell.layer is None else cell.layer for cell in self.cells],
                "head": [-1 if cell.head is None else cell.head for cell in self.cells],
                "method": [cell.method for cell in self.cells],
                "attention": [cell.attention for cell in self.cells],
            }
        )
        kinds = [(cell.layer is None, cell.head is None) for cell in self.cells]
        scans = []
        for kind in dict.fromkeys(kinds):
            rows = [row for row, other in enumerate(kinds) if other == kind]
            scans.append(scan_columns(self.lost[rows], self.clean).set_axis(rows))
        table = pd.concat([places, pd.concat(scans).sort_index()], axis="columns")
        return with_labels(table, self.labels)

    def effect(self, read: str, *, dest: str, method: str, scope: str = "all", control: str = "") -> float:
        """The effect of one row. KeyError naming what exists."""
        table = self.frame()
        asked = {"read": read, "dest": dest, "method": method, "scope": scope, "control": control}
        row = table[(table[list(asked)] == pd.Series(asked)).all(axis=1)]
        if row.empty:
            known = {name: table[name].unique().tolist() for name in asked}
            raise KeyError(f"no knock-out {asked}; there are {known}")
        return float(row["effect"].iloc[0])

    def figure(self) -> go.Figure:
        """A row for each head, layer and all heads together; a column for each read and control; a panel each for dest
        and method."""
        table = self.frame()
        words = table["read"].str.replace("_", " ")
        named = words.where(table["control"] != RANDOM_SOURCES, "random, as many as " + words)
        return heatmap(
            table.assign(cut=named, panel=table["dest"] + ", " + table["method"]),
            x="cut",
            y="scope",
            value="effect",
            facet="panel",
            midpoint=0.0,
            x_title="what can no longer be read",
            y_title="in which heads",
            value_title="share of logit difference lost",
            hover=["attention", "ci_low", "ci_high", "p", "n"],
            title="What is lost without each read",
        )


SCOPES = ("head", "layer", "all")
KNOCK_OUT_METHODS = ("pattern", *METHODS)


def knock_out_reads(
    model: HookedModel,
    pairs: Pairs,
    *,
    reads: Sequence[ReadPattern] = KNOCK_OUT_READS,
    absent: Sequence[ReadPattern] = (STALE_TOTAL_READ,),
    dests: Sequence[str] = DESTS,
    scopes: Sequence[str] = SCOPES,
    methods: Sequence[str] = ("pattern", "resample"),
    n_draws: int = 2,
    seed: int = 0,
    batch_size: int | None = None,
    labels: Mapping[str, str | int] | None = None,
) -> KnockOutResult:
    """What the clean transcripts lose at the readout of `pairs` without each declared read.

    Sources are named by role and step, relative to the value at the readout (`reads.py`); reads that name nothing for
    it are left out. `absent` are reads that no mechanism in question has: controls. The corrupted transcripts name the
    foil alone. ValueError if no read names a source there. The rest is that of `knock_out_sources`.
    """
    role, step = pairs.readout
    named = {pattern.name: read_sources(pairs.clean, pattern, role, step) for pattern in (*reads, *absent)}
    there = {name: mask for name, mask in named.items() if bool(mask.any())}
    controls = {pattern.name for pattern in absent}
    if not there.keys() - controls:
        raise ValueError(
            f"none of the reads {[pattern.name for pattern in reads]} names a source before {role.value} {step}, "
            "which is where these pairs are read; declare a ReadPattern with a target of that role."
        )
    return knock_out_sources(
        model,
        pairs,
        {name: mask for name, mask in there.items() if name not in controls},
        absent={name: mask for name, mask in there.items() if name in controls},
        dests=dests,
        scopes=scopes,
        methods=methods,
        n_draws=n_draws,
        seed=seed,
        batch_size=batch_size,
        labels=labels,
    )


def knock_out_sources(
    model: HookedModel,
    contrast: Pairs | LogitContrast,
    sources: Mapping[str, Sources],
    *,
    absent: Mapping[str, Sources] | None = None,
    templates: Int[np.ndarray, " batch"] | None = None,
    dests: Sequence[str] = DESTS,
    scopes: Sequence[str] = SCOPES,
    methods: Sequence[str] = ("pattern", "resample"),
    n_draws: int = 2,
    seed: int = 0,
    batch_size: int | None = None,
    labels: Mapping[str, str | int] | None = None,
) -> KnockOutResult:
    """`knock_out_reads` for any model and contrast: `sources[read]` marks the tokens that are read.

    Controls in the same table: the reads of `absent`, and for every other read as many tokens drawn at random among
    those before the readout, for layers and all heads together. A head that pays its sources no attention at all (0 in
    float32, in every example) is not run under `pattern`: its loss of exactly 0 is the answer, and its `attention` of 0
    says so. Any other cut of a pattern that changes nothing raises. `templates` as in `compare_ablations`.

    ValueError for a read without a source before the readout in some example, and for unknown dests, scopes or methods.
    """
    _known(dests, DESTS, "dests")
    _known(scopes, SCOPES, "scopes")
    _known(methods, KNOCK_OUT_METHODS, "methods")
    asked, groups = question(contrast, templates)
    rng = np.random.default_rng(seed)
    donors = draw_donors(groups, n_draws, rng)
    tokens = until_readout(model, asked)
    reads, controls = (
        {name: mask.to(tokens.device)[:, : tokens.shape[1]] for name, mask in named.items()}
        for named in (sources, absent or {})
    )
    found = list(cuts(reads, controls, asked.at, tokens, dests, rng))
    masks = [cut.mask for cut in found]
    mass = attention_on(model, tokens, masks, batch_size)
    values = activations(model, tokens, residual_sites(model, "v"), batch_size=batch_size)
    given = {str(method): {site: substitutes(method, v, groups) for site, v in values.items()} for method in METHODS}
    cells: list[KnockOut] = []
    plans: list[Plan] = []
    for here, cut in zip(mass, found, strict=True):
        for layer, head in _scopes(mass.shape[1], mass.shape[2], scopes):
            if cut.control == RANDOM_SOURCES and head is not None:
                continue
            layers = range(mass.shape[1]) if layer is None else (layer,)
            attention = float(here[list(layers), slice(None) if head is None else head].mean())
            for method in methods:
                cells.append(KnockOut(cut.read, cut.control, cut.dest, layer, head, method, attention))
                if method == "pattern":
                    plans.append(pattern_plan(cut.mask, here, layers, head))
                else:
                    plans.append(
                        value_plan(cut.mask, given[method], values, layers, head, resampled=method == "resample")
                    )
    return KnockOutResult(
        cells=tuple(cells),
        lost=_without_idle(model, asked, plans, cells, donors, batch_size),
        clean=clean_difference(model, asked, batch_size=batch_size),
        labels=dict(labels or {}),
    )


def pattern_plan(
    mask: ReadMask, mass: Float[Tensor, "layer head batch"], layers: Sequence[int], head: int | None
) -> Plan:
    """Attention along `mask` cut in one head or in all heads of some layers; `mass` is what is there to cut."""

    def edits(rows: Rows, _: Rows) -> list[AttentionEdit]:
        made: list[AttentionEdit] = []
        some, expected = mask[rows.to(mask.device)], True
        for layer in layers:
            here = mass[layer] if head is None else mass[layer, head]
            looks = bool(here[..., rows].any())
            # Behind an edited layer a head may have ceased to look there, which is no mistake of the edit.
            made.append(CutAttention(layer, head, some, expect_change=expected and looks))
            expected = expected and not looks
        return made

    return Plan(edits, resampled=False)


def value_plan(
    mask: ReadMask,
    given: Mapping[Site, Tensor],
    own: Mapping[Site, Tensor],
    layers: Sequence[int],
    head: int | None,
    *,
    resampled: bool,
) -> Plan:
    """What is moved along `mask` replaced, in one head or in all heads of some layers, by what `given` holds.

    `own`: the values that each example has itself.
    """

    def edits(rows: Rows, source: Rows) -> list[AttentionEdit]:
        some = mask[rows.to(mask.device)]

        def of(held: Mapping[Site, Tensor], layer: int, which: Rows) -> Tensor:
            values = held[Site("v", layer)]
            return values[which.to(values.device)]

        return [MovedValues(layer, head, of(given, layer, source), of(own, layer, rows), some) for layer in layers]

    return Plan(edits, resampled=resampled)


def _scopes(n_layers: int, n_heads: int, scopes: Sequence[str]) -> Iterator[tuple[int | None, int | None]]:
    """Layer and head of every cut; None for all of them."""
    for scope in scopes:
        for layer in (None,) if scope == "all" else range(n_layers):
            for head in range(n_heads) if scope == "head" else (None,):
                yield layer, head


def _without_idle(
    model: HookedModel,
    contrast: LogitContrast,
    plans: Sequence[Plan],
    cells: Sequence[KnockOut],
    donors: Int[np.ndarray, "draw batch"],
    batch_size: int | None,
) -> Float[Tensor, "cell batch"]:
    """The losses of all cells; of those with no attention to cut, where nothing need be run, exactly 0."""
    active = [index for index, cell in enumerate(cells) if cell.attention > 0]
    lost = torch.zeros(len(cells), len(contrast.clean))
    lost[:, torch.from_numpy((donors == NO_DONOR).any(axis=0))] = torch.nan
    if active:
        lost[active] = logits_lost(model, contrast, [plans[i] for i in active], donors, batch_size=batch_size)
    return lost


def _known(given: Sequence[str], known: Sequence[str], noun: str) -> None:
    wrong = [name for name in given if name not in known]
    if wrong or not given:
        raise ValueError(f"unknown {noun} {wrong}; known: {list(known)}." if wrong else f"no {noun}: {list(known)}.")
