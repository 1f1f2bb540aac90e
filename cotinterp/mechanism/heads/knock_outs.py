"""Is a read needed? Attention from one place to others is cut, or what it moves is exchanged, and the loss is measured.

Attention weight alone is no evidence that a token is used (Jain & Wallace 2019, arXiv 1902.10186). Two interventions on
the path of one read, with everything else left as it is (attention knock-out: Geva et al. 2023, arXiv 2304.14767):

- `pattern`: the attention to the sources is set to 0 and the rest renormalized, as a mask inside the softmax would do;
- `resample`, `mean`, `zero`: the head looks as before, but what it moves from the sources are the values of another
  example of the template, their mean over the template, or nothing.

`pattern` also changes what is read instead; `resample` removes only what the values say about this problem, and hence
comes first where both disagree. Two kinds of destination: `readout`, the position whose logits are read, cuts the
direct read; `everywhere`, all positions behind the sources, also cuts detours by way of other tokens. Neither cuts what
the model has computed at places before the sources, such as the total on its way to being written.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

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
from cotinterp.mechanism.heads.attention_edits import AttentionEdit, CutAttention, MovedValues
from cotinterp.mechanism.heads.attribution import LogitContrast
from cotinterp.mechanism.heads.knock_out_result import RANDOM_SOURCES, KnockOut, KnockOutResult
from cotinterp.mechanism.heads.read_cuts import DESTS, Sources, attention_on, cuts
from cotinterp.mechanism.heads.reads import KNOCK_OUT_READS, STALE_TOTAL_READ, ReadMask, ReadPattern, read_sources
from cotinterp.mechanism.model import HookedModel
from cotinterp.mechanism.sites import Site, residual_sites
from cotinterp.transcripts.pairs import Pairs

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
