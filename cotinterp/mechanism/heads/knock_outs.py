"""Is a read needed? Attention from one place to others is cut, or what it moves is exchanged.

Attention weight alone is no evidence that a token is used (Jain & Wallace 2019, arXiv 1902.10186). So the path of one
read is intervened on, with everything else left as it is (attention knock-out: Geva et al. 2023, arXiv 2304.14767);
`Cuts` names the ways. Cutting the attention also changes what is read instead, because the rest is renormalized;
exchanging the values for those of another example removes only what they say about this problem. Where the two
disagree, go by the exchange.

No cut touches what the model has computed at places before the sources, such as the total on its way to being written.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from einops import einsum
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from cotinterp.figures import heatmap
from cotinterp.mechanism.activations import Readings, activations
from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.heads.attention import patterns
from cotinterp.mechanism.heads.attention_edits import AttentionEdit, CutAttention, MovedValues
from cotinterp.mechanism.heads.losses import (
    METHODS,
    TWO_DONORS,
    Draws,
    Examples,
    Intervention,
    clean_difference,
    donors_of,
    logits_lost,
    scan_columns,
    substitutes,
    with_donor,
)
from cotinterp.mechanism.heads.reads import (
    KNOCK_OUT_READS,
    STALE_TOTAL_READ,
    ReadMask,
    ReadPattern,
    SourceMask,
    predicted_at_readout,
    source_masks,
)
from cotinterp.mechanism.interventions import rounding
from cotinterp.mechanism.model import HookedModel
from cotinterp.mechanism.sites import Site, mask_of, residual_sites, site_columns
from cotinterp.results import Result, with_labels

RANDOM_SOURCES = "random sources"
ABSENT_READ = "absent read"

ATTENDED = 2 * rounding(torch.bfloat16)
"""Attention (6%) whose loss shows in a pattern of any precision: a cut of so much that changes nothing is a mistake."""

DESTS = ("readout", "everywhere")
SCOPES = ("head", "layer", "all")
KNOCK_OUT_METHODS = ("pattern", *METHODS)


@dataclass(frozen=True, kw_only=True)
class Cuts:
    """Which cuts are made of every read.

    Attributes:
        dests: Who loses sight of the sources: the "readout" alone, the position whose logits are read, or "everywhere",
            all that follow the sources, which also cuts detours by way of other tokens.
        scopes: In which heads: in each "head" alone, in all heads of a "layer", in "all" heads of all layers together.
        methods: "pattern" sets the attention to 0 and renormalizes, as a mask inside the softmax would do. "resample",
            "mean" and "zero" leave it as it is and exchange the values that it moves: for those of another example of
            the template, for their mean over the template, for nothing.

    ValueError for names that do not exist, and where one of the three is empty.
    """

    dests: Sequence[str] = DESTS
    scopes: Sequence[str] = SCOPES
    methods: Sequence[str] = ("pattern", "resample")

    def __post_init__(self) -> None:
        for noun, known in {"dests": DESTS, "scopes": SCOPES, "methods": KNOCK_OUT_METHODS}.items():
            given = getattr(self, noun)
            wrong = [name for name in given if name not in known]
            if wrong or not given:
                raise ValueError(
                    f"unknown {noun} {wrong}; known: {list(known)}." if wrong else f"no {noun}: {list(known)}."
                )

    def places(self, n_layers: int, n_heads: int) -> Iterator[tuple[int | None, int | None]]:
        """Layer and head of every cut; None for all of them."""
        for scope in self.scopes:
            for layer in (None,) if scope == "all" else range(n_layers):
                for head in range(n_heads) if scope == "head" else (None,):
                    yield layer, head


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
        """One "head", all heads of a "layer", or "all" heads of all layers together."""
        return "all" if self.layer is None else "layer" if self.head is None else "head"

    @property
    def site(self) -> Site | str:
        """Whose attention it is; "all" for that of all layers together."""
        return "all" if self.layer is None else Site("pattern", self.layer, self.head)


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

        `scope`: head, layer or all; `site` is then `L1H3.pattern`, `L1.pattern` or `all`. `effect`: mean loss as a
        share of the mean clean logit difference: 1 says that nothing of it is left, above 1 that the foil is now
        preferred, below 0 that the read was in the way. `ci_low`, `ci_high`: 95% for the row alone; `scan_low`,
        `scan_high`, `p`: simultaneous (max-statistic over examples) over all rows of the same scope: single heads,
        single layers and all heads together are three scans, and the last is the one to begin with. `n`, `dropped`,
        `note` as in `scan_columns`.
        """
        places = pd.DataFrame(
            [
                {
                    "read": cell.read,
                    "control": cell.control,
                    "dest": cell.dest,
                    "scope": cell.scope,
                    **site_columns(cell.site),
                    "method": cell.method,
                    "attention": cell.attention,
                }
                for cell in self.cells
            ]
        )
        scans = [
            scan_columns(self.lost[list(rows)], self.clean).set_axis(rows)
            for rows in places.groupby("scope").groups.values()
        ]
        table = pd.concat([places, pd.concat(scans).sort_index()], axis="columns")
        return with_labels(table, self.labels)

    def effect(self, read: str, *, dest: str, method: str, site: str = "all", control: str = "") -> float:
        """The effect of one row. KeyError naming what exists."""
        table = self.frame()
        asked = {"read": read, "dest": dest, "method": method, "site": site, "control": control}
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
            y="site",
            value="effect",
            facet="panel",
            midpoint=0.0,
            x_title="what can no longer be read",
            y_title="in which heads",
            value_title="share of logit difference lost",
            hover=["attention", "ci_low", "ci_high", "p", "n"],
            title="What is lost without each read",
        )


ALL_CUTS = Cuts()


def knock_out_reads(
    model: HookedModel,
    contrast: Contrast,
    reads: Sequence[ReadPattern] | Mapping[str, Shaped[Tensor, "..."]] = KNOCK_OUT_READS,
    *,
    absent: Sequence[ReadPattern] | Mapping[str, Shaped[Tensor, "..."]] | None = None,
    cuts: Cuts = ALL_CUTS,
    draws: Draws = TWO_DONORS,
    batch_size: int | None = None,
    labels: Mapping[str, str | int] | None = None,
) -> KnockOutResult:
    """What the clean transcripts lose at the readout of `contrast` without each read.

    `reads`: patterns, whose sources are named by role and step relative to the value at the readout (`reads.py`), those
    that name nothing for it being left out; or, for tokens without roles, `reads[name]`, a mask `batch pos` of the
    tokens that are read. `absent`: in the same form, reads that no mechanism in question has; with patterns, totals
    that are out of date. The corrupted side of the contrast names the foil alone.

    Controls in the same table: the absent reads, and for every other read as many tokens drawn at random among those
    before the readout, for layers and all heads together. A head that pays its sources no attention at all (0 in
    float32, in every example) is not run under `pattern`: its loss of exactly 0 is the answer, and its `attention` of 0
    says so. Any other cut of a pattern that changes nothing raises.

    ValueError where no pattern names a source at the readout, and for a read that some example has no source of.
    """
    if absent is None:
        absent = {} if isinstance(reads, Mapping) else (STALE_TOTAL_READ,)
    there = _sources(contrast, reads)
    if not there and not isinstance(reads, Mapping):
        role, step = predicted_at_readout(contrast)
        raise ValueError(
            f"none of the reads {[pattern.name for pattern in reads]} names a source before {role.value} {step}, "
            "which is where this contrast is read; declare a ReadPattern with a target of that role."
        )
    rng = draws.rng()
    donors = donors_of(contrast, draws.n_donors, rng)
    contrast = contrast.until_readout(model)
    tokens = contrast.clean
    wanted, controls = (
        {name: mask.to(tokens.device)[:, : tokens.shape[1]] for name, mask in named.items()}
        for named in (there, _sources(contrast, absent))
    )
    found = list(read_cuts(wanted, controls, contrast.at, tokens, cuts.dests, rng))
    mass = attention_on(model, tokens, [cut.mask for cut in found], batch_size)
    values = activations(model, tokens, residual_sites(model, "v"), batch_size=batch_size)
    given = {str(method): {site: substitutes(method, v, contrast) for site, v in values.items()} for method in METHODS}
    cells: list[KnockOut] = []
    interventions: list[Intervention] = []
    for here, cut in zip(mass, found, strict=True):
        for layer, head in cuts.places(mass.shape[1], mass.shape[2]):
            if cut.control == RANDOM_SOURCES and head is not None:
                continue
            layers = range(mass.shape[1]) if layer is None else (layer,)
            attention = float(here[list(layers), slice(None) if head is None else head].mean())
            for method in cuts.methods:
                cells.append(KnockOut(cut.read, cut.control, cut.dest, layer, head, method, attention))
                interventions.append(
                    cut_attention(cut.mask, here, layers, head)
                    if method == "pattern"
                    else exchange_values(cut.mask, given[method], values, layers, head, resampled=method == "resample")
                )
    return KnockOutResult(
        cells=tuple(cells),
        lost=_without_idle(model, contrast, interventions, cells, donors, batch_size),
        clean=clean_difference(model, contrast, batch_size=batch_size),
        labels=dict(labels or {}),
    )


def _sources(
    contrast: Contrast, reads: Sequence[ReadPattern] | Mapping[str, Shaped[Tensor, "..."]]
) -> dict[str, SourceMask]:
    """The tokens of each read that names any; masks of the user's own as they are."""
    if isinstance(reads, Mapping):
        return {name: mask_of(mask, contrast.clean.shape, f"the mask of read {name!r}") for name, mask in reads.items()}
    return {name: mask for name, mask in source_masks(contrast, reads).items() if bool(mask.any())}


@dataclass(frozen=True, eq=False)
class ReadCut:
    """One read, cut: `mask` is True where a destination may not see a source; `control` as in `KnockOut`."""

    read: str
    control: str
    dest: str
    mask: ReadMask


def read_cuts(
    sources: Mapping[str, SourceMask],
    absent: Mapping[str, SourceMask],
    at: Int[Tensor, " batch"],
    tokens: Int[Tensor, "batch pos"],
    dests: Sequence[str],
    rng: np.random.Generator,
) -> Iterator[ReadCut]:
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
            yield ReadCut(name, control, dest, _paths(marked, at, dest))
            if not control:
                yield ReadCut(name, RANDOM_SOURCES, dest, _paths(others, at, dest))


def _paths(sources: SourceMask, at: Int[Tensor, " batch"], dest: str) -> ReadMask:
    """Which destination may not see which source: the readout alone, or all that follow and are no sources."""
    position = torch.arange(sources.shape[1], device=sources.device)
    at = at.to(sources.device)[:, None]
    reading = position == at if dest == "readout" else (position <= at) & ~sources
    return reading[:, :, None] & sources[:, None, :] & (position[None, :] <= position[:, None])


def _random_tokens(n: Int[Tensor, " batch"], pool: SourceMask, rng: np.random.Generator) -> SourceMask:
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


def cut_attention(
    mask: ReadMask, mass: Float[Tensor, "layer head batch"], layers: Sequence[int], head: int | None
) -> Intervention:
    """Attention along `mask` cut in one head or in all heads of some layers; `mass` is what is there to cut."""

    def edits(rows: Examples, _: Examples) -> list[AttentionEdit]:
        made: list[AttentionEdit] = []
        some, expected = mask[rows.to(mask.device)], True
        for layer in layers:
            here = mass[layer] if head is None else mass[layer, head]
            attended = bool((here[..., rows] > ATTENDED).any())
            # Behind an edited layer a head may have ceased to look there, which is no mistake of the edit.
            made.append(CutAttention(layer, head, some, expect_change=expected and attended))
            expected = expected and not attended
        return made

    return Intervention(edits, resampled=False)


def exchange_values(
    mask: ReadMask,
    given: Readings,
    own: Readings,
    layers: Sequence[int],
    head: int | None,
    *,
    resampled: bool,
) -> Intervention:
    """What is moved along `mask` replaced, in one head or in all heads of some layers, by what `given` holds.

    `own`: the values that each example has itself.
    """

    def edits(rows: Examples, givers: Examples) -> list[AttentionEdit]:
        some = mask[rows.to(mask.device)]

        def of(held: Readings, layer: int, which: Examples) -> Tensor:
            values = held[Site("v", layer)]
            return values[which.to(values.device)]

        return [MovedValues(layer, head, of(given, layer, givers), of(own, layer, rows), some) for layer in layers]

    return Intervention(edits, resampled=resampled)


def _without_idle(
    model: HookedModel,
    contrast: Contrast,
    interventions: Sequence[Intervention],
    cells: Sequence[KnockOut],
    donors: Int[np.ndarray, "draw batch"],
    batch_size: int | None,
) -> Float[Tensor, "cell batch"]:
    """The losses of all cells; of those with no attention to cut, where nothing need be run, exactly 0."""
    active = [index for index, cell in enumerate(cells) if cell.attention > 0]
    lost = torch.full((len(cells), len(contrast)), torch.nan)
    lost[:, torch.from_numpy(with_donor(donors))] = 0.0
    if active:
        lost[active] = logits_lost(model, contrast, [interventions[i] for i in active], donors, batch_size=batch_size)
    return lost
