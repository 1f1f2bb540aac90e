"""One primitive, `run_with(model, tokens, edits)`; patching, ablation and steering differ only in the value they write.

An edit that did not fire, or that changed nothing, raises: an intervention that silently does nothing looks exactly
like a site that does not matter.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

import numpy as np
import torch
from einops import einsum
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from cotinterp.mechanism.hooks import hooked, never_reached
from cotinterp.mechanism.model import HookedModel, TokensLike, require_finite, require_model, require_tokens, several
from cotinterp.mechanism.sites import HEAD_AXIS, Positions, Site, check_positions, mask_of, refuse_write


class InertEditError(ValueError):
    """An edit did not fire, or fired and changed nothing, or what it wrote was discarded."""


@dataclass(frozen=True, eq=False)
class Edit:
    """`value` is written at `site`, at `positions` of each example.

    `value`: a tensor in the layout of `Site.of` (or broadcasting to it, see `Site.fit`; without the position axis where
    `positions` is one position per example), or a function from the site's current activation to such a tensor.
    `positions`: None for all, `batch` for one position per example, `batch pos` for a mask; for patterns, query
    positions. `expect_change=False` accepts an edit that leaves all values as they were, up to `rounding` (a
    self-patch); it must still fire.
    """

    site: Site
    value: Tensor | Callable[[Tensor], Tensor]
    positions: Positions | None = None
    expect_change: bool = True

    def __post_init__(self) -> None:
        refuse_write(self.site)
        if not isinstance(self.value, Tensor) and not callable(self.value):
            raise ValueError(
                f"the value of an edit of {self.site} is a tensor, or a function of what stands there; got "
                f"{type(self.value).__name__}: torch.as_tensor makes a tensor of it."
            )
        if self.positions is not None:
            check_positions(self.positions, self.site)


_SINGLE_ULPS, _HALF_ULPS = 64, 4


def rounding(dtype: torch.dtype) -> float:
    """How far two passes that should hold the same may differ at one place, in units of the largest number there.

    64 units in the last place of float32 and float64 (7.6e-6, 1.4e-14), 4 of bfloat16 and float16 (3%, 0.4%), where
    fewer operations are rounded as coarsely as their result. Measured on trained and random models, other batch sizes,
    widths and orders of operations: up to 22 on trained ones (70 in one pattern of a random one), in half precision up
    to 5 in a pattern and 4 elsewhere. What is written and differs by less cannot be told from the same value.
    """
    half = dtype in (torch.bfloat16, torch.float16)
    return (_HALF_ULPS if half else _SINGLE_ULPS) * float(torch.finfo(dtype).eps)


def differs(
    written: Float[Tensor, "batch *axes"], before: Float[Tensor, "batch *axes"], site: Site
) -> Bool[Tensor, "batch pos"]:
    """The places of a hook at which more changed than rounding does, in all heads of the place or in one.

    The size of a place is its largest number: over all heads, so that a head that holds nothing has a size too; for
    patterns over the row of a head.
    """
    now, then = (site.whole.by_position(each) for each in (written, before))
    if site.kind != "pattern":
        now, then = now.flatten(start_dim=2)[:, :, None], then.flatten(start_dim=2)[:, :, None]
    size = torch.maximum(now.abs(), then.abs()).amax(dim=-1)
    # Negated, so that a NaN is a change too.
    moved = ~((now - then).abs().amax(dim=-1) <= rounding(before.dtype) * size)
    return (moved & (now != then).any(dim=-1)).any(dim=-1)


@dataclass(eq=False)
class _Firing:
    """One edit during one run: how often it fired, and whether a value became another where a row has tokens."""

    edit: Edit
    length: Int[Tensor, " batch"] | None = None
    fired: int = 0
    changed: bool = False
    dtype: torch.dtype = torch.float32

    def __call__(self, activation: Tensor, **_: Any) -> Tensor:
        edit, self.dtype = self.edit, activation.dtype
        value = edit.value
        if not isinstance(value, Tensor):
            current = edit.site.of(activation)
            value = value(current)
            if value is current:
                self.fired += 1
                return activation
            value = edit.site.fit(value, current.shape)
            if edit.positions is not None and edit.positions.dtype != torch.bool:
                value = edit.site.at(value, edit.positions)
        written = edit.site.write(activation, value, edit.positions)
        self.fired += 1
        if edit.expect_change and not self.changed:
            places = differs(written, activation, edit.site)
            if self.length is not None:
                inside = torch.arange(places.shape[1], device=places.device) < self.length.to(places.device)[:, None]
                places = places & inside
            self.changed = bool(places.any())
        return written

    def __repr__(self) -> str:
        # TransformerLens names hooks by their repr; that of an edit would print its tensors.
        return f"Edit({self.edit.site})"


def run_with(
    model: HookedModel,
    tokens: TokensLike,
    edits: Sequence[Edit],
    *,
    length: Int[Tensor, " batch"] | None = None,
) -> Float[Tensor, "batch pos d_vocab"]:
    """Logits of `model` on `tokens` with every edit applied; the model is left as it was, whatever happens inside.

    Edits of one hook compose in the order given: each sees what the one before it wrote. No gradient is recorded.
    `length`: how many tokens each row has; behind them is padding, where a change counts as none.
    Raises InertEditError if an edit did not fire, changed nothing in any example (what it wrote is compared with what
    stood there, up to `rounding`), or was discarded by TransformerLens;
    ValueError for what `require_model` and `require_tokens` refuse, a site outside the model, values and positions that
    do not fit, and logits that are NaN.
    """
    require_model(model)
    tokens, edits = require_tokens(model, tokens), several(edits, "edits", "[edit]")
    firings = [_Firing(edit, length) for edit in edits]
    for edit in edits:
        edit.site.check(model)
    hooks = [(firing.edit.site, firing) for firing in firings]
    with torch.no_grad(), _discarding_raises(edits), hooked(model, tokens, hooks):
        logits: Tensor = model(tokens)
    inert = [_complaint(firing) for firing in firings if _is_inert(firing)]
    if inert:
        fired = [firing.edit.site.label for firing in firings if firing.fired]
        raise InertEditError(f"{'; '.join(inert)}. Fired: {fired or 'none'} of {len(firings)} edits.")
    require_finite(model, logits, "the logits")
    return logits


@dataclass(frozen=True, eq=False)
class Write:
    """What one run of a stack writes at a whole hook: `value` wherever `mask` is true.

    `value` has the hook's layout for a single run; it may be a function from the run's current activation to such a
    tensor, and None restores what the run holds without any edit. `mask` has positions (for patterns, those of the
    queries) on its second axis and, for kinds with heads, heads on its third. `expect_change` is that of `Edit`.
    """

    site: Site
    mask: Bool[Tensor, "batch pos *head"]
    value: Tensor | Callable[[Tensor], Tensor] | None
    expect_change: bool = True

    def within(self, mask: Bool[Tensor, "batch pos"]) -> "Write":
        """The same write at fewer positions."""
        return replace(self, mask=self.mask & (mask if self.mask.ndim == 2 else mask[..., None]))


def stacked_edits(runs: Sequence[Sequence[Write]], *, unedited: Mapping[Site, Tensor] | None = None) -> list[Edit]:
    """Edits that make several runs in one pass, each with writes of its own: one edit for each hook.

    The tokens of that pass are those of the runs, one after the other: run i has the i-th part of the rows and makes
    `runs[i]`, which may be empty. `unedited`: what the same pass holds without edits, for writes that restore it.
    Compare with an unedited pass of the same tokens: the rounding of a row may depend on the rows beside it. An edit is
    inert if no run changes anything at its hook.
    """
    by_hook: dict[Site, list[tuple[int, Write]]] = {}
    for run, writes in enumerate(runs):
        for write in writes:
            by_hook.setdefault(write.site.whole, []).append((run, write))

    def edit(site: Site, writes: Sequence[tuple[int, Write]]) -> Edit:
        def overwrite(current: Tensor) -> Tensor:
            first = writes[0][1].value
            if isinstance(first, Tensor) and all(write.value is first for _, write in writes):
                # All runs write parts of one donor: one pass over the stack.
                where = torch.zeros(len(runs), *writes[0][1].mask.shape, dtype=torch.bool, device=current.device)
                for run, write in writes:
                    where[run] |= write.mask
                own = site.by_position(current).unflatten(0, (len(runs), -1))
                merged = torch.where(where[..., None], site.by_position(first).to(current), own)
                return site.by_position(merged.flatten(0, 1))
            written = current.clone()
            parts = written.chunk(len(runs))
            for run, write in writes:
                if write.value is None:
                    assert unedited is not None
                    value = unedited[site].chunk(len(runs))[run]
                else:
                    value = write.value if isinstance(write.value, Tensor) else write.value(parts[run])
                here = site.by_position(parts[run])
                here.copy_(torch.where(write.mask[..., None], site.by_position(value).to(current), here))
            return written

        return Edit(site, overwrite, expect_change=any(write.expect_change for _, write in writes))

    return [edit(site, by_hook[site]) for site in sorted(by_hook)]


def patch(
    site: Site, donor: Float[Tensor, "*donor"], positions: Positions | None = None, *, expect_change: bool = True
) -> Edit:
    """Write another run's activation: as `activations` returned it, with all positions or already gathered at them."""
    if _one_each(positions) and donor.ndim >= _n_axes(site):
        donor = site.at(donor, positions)
    return Edit(site, donor, positions, expect_change)


def ablate_zero(site: Site, positions: Positions | None = None) -> Edit:
    """Write zeros. Off-distribution (Zhang & Nanda 2023, arXiv:2309.16042): prefer resampling, then the mean."""
    return Edit(site, torch.zeros(()), positions)


def ablate_mean(
    site: Site,
    reference: Float[Tensor, "n *rest"],
    positions: Positions | None = None,
    *,
    templates: Int[np.ndarray, " n"] | None = None,
) -> Edit:
    """Write the mean of `reference` over its first axis.

    The caller decides what is averaged: activations gathered at one role (`n d`) give one mean vector, which is written
    at every one of `positions`; activations `n pos d` give one mean per position. These suppose that a position means
    the same in every example. Where it does not, `templates` has a number for each example of the run, whose own
    activations `reference` then are: the mean is over those of the same number. ValueError without it for positions
    that differ between examples, and for an example that is the only one of its template.
    """
    if not len(reference):
        raise ValueError(f"no reference activations to average for {site}.")
    by_position = reference.ndim == _n_axes(site)
    if templates is not None:
        mean = torch.empty_like(reference)
        for members in _companions(templates, len(reference), site):
            mean[members] = reference[members].mean(dim=0)
        return patch(site, mean, positions)
    mean = reference.mean(dim=0, keepdim=True)
    if by_position and positions is not None:
        _require_same_places(positions, site)
        mean = site.at(mean, positions[:1]) if _one_each(positions) else mean
    return Edit(site, mean, positions)


def ablate_resample(
    site: Site,
    own: Float[Tensor, "batch *rest"],
    positions: Positions | None = None,
    *,
    rng: np.random.Generator,
    templates: Int[np.ndarray, " batch"] | None = None,
) -> Edit:
    """Write each example's activation from another example of the batch; no example keeps its own.

    `own` are the activations of the very tokens that will be run. With one position per example, each is given what the
    other has at its own position. Without positions, or with a mask (which must be the same in all examples), a
    position has to mean the same in all of them: they share one template, or `templates` has a number for each, and
    only those of the same number lend each other theirs. ValueError for a batch of one, and for an example that is the
    only one of its template.
    """
    if templates is None:
        donors = derangement(len(own), rng)
        if positions is not None and not _one_each(positions):
            _require_same_places(positions, site)
    else:
        _companions(templates, len(own), site)
        donors = draw_donors(templates, 1, rng)[0]
    if _one_each(positions) and own.ndim == _n_axes(site):
        own = site.at(own, positions)
    return patch(site, own[torch.from_numpy(donors).to(own.device)], positions)


def _one_each(positions: Positions | None) -> TypeGuard[Tensor]:
    return positions is not None and positions.dtype != torch.bool


def _require_same_places(positions: Positions, site: Site) -> None:
    check_positions(positions, site)
    if not bool((positions == positions[:1]).all()):
        raise ValueError(
            f"the positions of {site} differ between examples, so that one position holds different things in them: "
            "give activations that were gathered at one position for each (activations(..., positions=...)), or "
            "`templates`, a number for each example that tells which of them are laid out alike."
        )


def _companions(templates: Int[np.ndarray, " n"], n: int, site: Site) -> list[Int[Tensor, " some"]]:
    """The examples of each template."""
    numbers = np.asarray(templates)
    if numbers.shape != (n,):
        raise ValueError(f"templates of shape {numbers.shape} for {n} examples of {site}: give one number for each.")
    groups = [np.flatnonzero(numbers == number) for number in np.unique(numbers)]
    alone = [int(members[0]) for members in groups if len(members) < 2]
    if alone:
        raise ValueError(f"examples {alone} are the only ones of their template: leave them out, or give others.")
    return [torch.from_numpy(members) for members in groups]


NO_DONOR = -1
"""In the place of a donor: the example is the only one of its template."""


def draw_donors(
    templates: Int[np.ndarray, " batch"], n_draws: int, rng: np.random.Generator
) -> Int[np.ndarray, "draw batch"]:
    """For every draw and example, another example of its template; `NO_DONOR` for the only one of its kind.

    Within a draw every example gives and receives once. ValueError if no example has a companion.
    """
    donors = np.full((n_draws, len(templates)), NO_DONOR)
    for template in np.unique(templates):
        members = np.flatnonzero(templates == template)
        if len(members) > 1:
            for draw in donors:
                draw[members] = members[derangement(len(members), rng)]
    if (donors == NO_DONOR).all():
        raise ValueError(
            f"no two of the {len(templates)} examples share a template, so there is no donor to resample from: "
            "give more problems, or problems with one number of operands."
        )
    return donors


def derangement(n: int, rng: np.random.Generator) -> Int[np.ndarray, " n"]:
    """A random permutation of 0..n-1 that leaves nothing in place: one random cycle. ValueError for n < 2."""
    if n < 2:
        raise ValueError(f"resampling needs at least two examples, {n} given: there is no other to take from.")
    order = rng.permutation(n)
    donors = np.empty(n, dtype=np.int64)
    donors[order] = np.roll(order, 1)
    return donors


def steer(
    site: Site, direction: Float[Tensor, "*direction"], positions: Positions | None = None, *, scale: float = 1.0
) -> Edit:
    """Add `scale * direction` to what is there; one vector is added everywhere (`Site.fit`)."""
    return Edit(site, lambda current: current + site.fit(scale * direction.to(current), current.shape), positions)


def knock_out(site: Site, keys: Shaped[Tensor, "..."], queries: Positions | None = None) -> Edit:
    """`knock_out_pairs` of `keys`, a mask `batch pos`, from `queries` (all by default)."""
    keys = mask_of(keys, getattr(keys, "shape", ())[:2], f"keys of {site}")
    mask = keys[:, None, :].expand(-1, keys.shape[1], -1)
    if queries is None:
        return knock_out_pairs(site, mask)
    check_positions(queries, site)
    rows = torch.arange(keys.shape[1], device=queries.device)
    dest = queries if queries.dtype == torch.bool else rows[None] == queries[:, None]
    return knock_out_pairs(site, mask & dest.to(mask.device)[:, :, None])


def knock_out_pairs(site: Site, mask: Shaped[Tensor, "..."], *, expect_change: bool = True) -> Edit:
    """Forbid each `dest` to attend to the `src` marked for it (a mask `batch dest src`), and spread what they had over
    its other sources.

    `site` is `Site("pattern", layer)` for all heads together or with one head. The pattern is edited and renormalized,
    because TransformerLens discards edits of the scores; both are the same for a softmax, as far as float32 still holds
    the other sources' weights: a head that had (but for less than 1e-38) all of its attention there attends to nothing
    afterward, a row of zeros, where a masked softmax would have turned to the next best. Destinations that pay nothing
    to a marked source keep their rows bit for bit. ValueError for other kinds of site.
    """
    if site.kind != "pattern":
        raise ValueError(f"attention is knocked out at the pattern, not at {site}: Site('pattern', {site.layer}, ...).")

    def without(pattern: Tensor) -> Tensor:
        gone = mask_of(mask, (len(pattern), *pattern.shape[-2:]), f"the mask of {site}").to(pattern.device)
        return spread_without(pattern, gone if site.head is not None else gone[:, None])

    return Edit(site, without, expect_change=expect_change)


def spread_without(
    pattern: Float[Tensor, "*heads dest src"], gone: Bool[Tensor, "*#heads dest src"]
) -> Float[Tensor, "*heads dest src"]:
    """`pattern` without the marked entries, what they held spread over the others of their row in proportion.

    Rows in which the marked entries hold nothing stay as they are, bit for bit: sharing out nothing would move them by
    rounding. A row that had nothing elsewhere becomes 0.
    """
    gone = gone & (pattern != 0)
    kept = pattern.masked_fill(gone, 0.0)
    spread = kept / kept.sum(-1, keepdim=True).clamp_min(torch.finfo(kept.dtype).tiny)
    return torch.where(gone.any(dim=-1, keepdim=True), spread, pattern)


def watch(site: Site, into: dict[Site, Tensor]) -> Edit:
    """Write nothing, and put a copy of what `site` holds in this run into `into`, after the edits before this one."""

    def seen(current: Tensor) -> Tensor:
        into[site] = current.detach().clone()
        return current

    return Edit(site, seen, expect_change=False)


@contextmanager
def _discarding_raises(edits: Sequence[Edit]) -> Iterator[None]:
    """TransformerLens fires the pattern of some architectures when it has been used already, and merely warns."""
    patterns = sorted({edit.site.label for edit in edits if edit.site.kind == "pattern"})
    if not patterns:
        yield
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="(?s).*edit is discarded", category=UserWarning)
        try:
            yield
        except UserWarning as warning:
            raise InertEditError(
                f"the edit of {patterns} fired and was discarded: in this architecture attention runs inside the "
                "Hugging Face module, and its pattern is shown when it has been used already. It can be read, not "
                "written: write q, k, v or z of the layer instead."
            ) from warning


def _n_axes(site: Site) -> int:
    return 3 + (site.kind in HEAD_AXIS and site.head is None)


def _is_inert(firing: _Firing) -> bool:
    return not firing.fired or (firing.edit.expect_change and not firing.changed)


def _complaint(firing: _Firing) -> str:
    site = firing.edit.site
    if not firing.fired:
        return f"the edit of {site} did not fire: {never_reached([site])}"
    return (
        f"the edit of {site} fired {firing.fired}x and changed no value"
        f"{'' if firing.length is None else ' before the padding'}: what it writes is what was there, up to the "
        f"rounding of {str(firing.dtype).removeprefix('torch.')} (expect_change=False allows that, for self-patch "
        "baselines)"
    )


def replace_values(
    layer: int,
    values: Float[Tensor, "batch pos kv_head d_head"],
    mask: Shaped[Tensor, "..."],
    head: int | None = None,
) -> tuple[Edit, ...]:
    """Where `dest` attends to a marked `src`, move `values` there instead of the source's own; the pattern stays.

    Exact: z of the destination gains pattern * (values - own values), both read in the very run that is edited, so
    that edits of earlier layers count. One head, or all heads of the layer; grouped values serve their group of heads.
    The edits may change nothing (equal values, a head that does not look there): this is then the answer.
    """
    seen: dict[Site, Tensor] = {}
    v, pattern, z = Site("v", layer), Site("pattern", layer), Site("z", layer, head)

    def moved(current: Tensor) -> Tensor:
        if not {v, pattern} <= seen.keys():
            raise ValueError(
                f"{z} is made before {pattern} or {v} is known in this architecture, so what it moves cannot be "
                "replaced along some paths alone."
            )
        shape = (len(current), *seen[pattern].shape[-2:])
        weights = seen[pattern] * mask_of(mask, shape, f"the mask of {z}").to(current.device)[:, None]
        if values.shape != seen[v].shape:
            raise ValueError(f"values of shape {tuple(values.shape)} for {v}, which holds {tuple(seen[v].shape)}.")
        change = values.to(current) - seen[v]
        change = change.repeat_interleave(weights.shape[1] // change.shape[2], dim=2)
        if head is not None:
            return current + weights[:, head] @ change[:, :, head]
        return current + einsum(weights, change, "batch head dest src, batch src head d -> batch dest head d")

    return watch(v, seen), watch(pattern, seen), Edit(z, moved, expect_change=False)
