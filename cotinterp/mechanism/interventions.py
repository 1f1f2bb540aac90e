"""One primitive, `run_with(model, tokens, edits)`; patching, ablation and steering differ only in the value they write.

An edit that did not fire, or that changed nothing, raises: an intervention that silently does nothing looks exactly
like a site that does not matter.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from einops import einsum
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cotinterp.mechanism.hooks import hooked, never_reached
from cotinterp.mechanism.model import HookedModel, require_eval
from cotinterp.mechanism.sites import HEAD_AXIS, Positions, Site, refuse_write


class InertEditError(ValueError):
    """An edit did not fire, or fired and changed nothing, or what it wrote was discarded."""


@dataclass(frozen=True, eq=False)
class Edit:
    """`value` is written at `site`, at `positions` of each example.

    `value`: a tensor in the layout of `Site.of` (or broadcasting to it; without the position axis where `positions` is
    one position per example), or a function from the site's current activation to such a tensor. `positions`: None for
    all, `batch` for one position per example, `batch pos` for a mask; for patterns, query positions.
    `expect_change=False` accepts an edit that leaves all values as they were (a self-patch); it must still fire.
    """

    site: Site
    value: Tensor | Callable[[Tensor], Tensor]
    positions: Positions | None = None
    expect_change: bool = True

    def __post_init__(self) -> None:
        refuse_write(self.site)


@dataclass(eq=False)
class _Firing:
    """One edit during one run: how often it fired, and whether a value became another."""

    edit: Edit
    fired: int = 0
    changed: bool = False

    def __call__(self, activation: Tensor, **_: Any) -> Tensor:
        edit = self.edit
        value = edit.value
        if not isinstance(value, Tensor):
            current = edit.site.of(activation)
            value = value(current)
            if value is current:
                self.fired += 1
                return activation
            if edit.positions is not None and edit.positions.dtype != torch.bool:
                part = edit.site.by_position(value)
                value = part[torch.arange(len(part), device=part.device), edit.positions.to(part.device)]
        written = edit.site.write(activation, value, edit.positions)
        self.fired += 1
        self.changed = self.changed or not torch.equal(written, activation)
        return written

    def __repr__(self) -> str:
        # TransformerLens names hooks by their repr; that of an edit would print its tensors.
        return f"Edit({self.edit.site})"


def run_with(
    model: HookedModel, tokens: Int[Tensor, "batch pos"], edits: Sequence[Edit]
) -> Float[Tensor, "batch pos d_vocab"]:
    """Logits of `model` on `tokens` with every edit applied; the model is left as it was, whatever happens inside.

    Edits of one hook compose in the order given: each sees what the one before it wrote. No gradient is recorded.
    Raises InertEditError if an edit did not fire, changed nothing in any example, or was discarded by TransformerLens;
    ValueError for a model in train mode, a site outside the model, or values and positions that do not fit.
    """
    require_eval(model)
    firings = [_Firing(edit) for edit in edits]
    for edit in edits:
        edit.site.check(model)
    hooks = [(firing.edit.site, firing) for firing in firings]
    with torch.no_grad(), _discarding_raises(edits), hooked(model, tokens, hooks):
        logits: Tensor = model(tokens)
    inert = [_complaint(firing) for firing in firings if _is_inert(firing)]
    if inert:
        fired = [firing.edit.site.label for firing in firings if firing.fired]
        raise InertEditError(f"{'; '.join(inert)}. Fired: {fired or 'none'} of {len(firings)} edits.")
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
    if positions is not None and positions.dtype != torch.bool and donor.ndim >= _n_axes(site):
        rows = torch.arange(len(donor), device=donor.device)
        donor = site.by_position(donor)[rows, positions.to(donor.device)]
    return Edit(site, donor, positions, expect_change)


def ablate_zero(site: Site, positions: Positions | None = None) -> Edit:
    """Write zeros. Off-distribution (Zhang & Nanda 2023, arXiv:2309.16042): prefer resampling, then the mean."""
    return Edit(site, torch.zeros(()), positions)


def ablate_mean(site: Site, reference: Float[Tensor, "n *rest"], positions: Positions | None = None) -> Edit:
    """Write the mean of `reference` over its first axis.

    The caller decides what is averaged: activations `n pos d` give one mean per position, activations gathered at one
    role (`n d`) give one mean vector, which is written at every one of `positions`.
    """
    if not len(reference):
        raise ValueError(f"no reference activations to average for {site}.")
    mean = reference.mean(dim=0)
    if reference.ndim == _n_axes(site) and positions is not None and positions.dtype != torch.bool:
        mean = site.by_position(mean[None])[0][positions.to(mean.device)]
    return Edit(site, mean, positions)


def ablate_resample(
    site: Site,
    own: Float[Tensor, "batch *rest"],
    positions: Positions | None = None,
    *,
    rng: np.random.Generator,
) -> Edit:
    """Write each example's activation from another example of the batch; no example keeps its own.

    `own` are the activations of the very tokens that will be run. Meaningful where the examples share one template, so
    that a position means the same in all of them. ValueError for a batch of one.
    """
    return patch(site, own[torch.from_numpy(derangement(len(own), rng)).to(own.device)], positions)


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
    """Add `scale * direction` to what is there (broadcast over examples and positions)."""
    return Edit(site, lambda current: current + scale * direction.to(current), positions)


def knock_out(site: Site, keys: Bool[Tensor, "batch pos"], queries: Positions | None = None) -> Edit:
    """`knock_out_pairs` of `keys`, from `queries` (all by default)."""
    mask = keys[:, None, :].expand(-1, keys.shape[1], -1)
    if queries is None:
        return knock_out_pairs(site, mask)
    rows = torch.arange(keys.shape[1], device=queries.device)
    dest = queries if queries.dtype == torch.bool else rows[None] == queries[:, None]
    return knock_out_pairs(site, mask & dest.to(mask.device)[:, :, None])


def knock_out_pairs(site: Site, mask: Bool[Tensor, "batch dest src"], *, expect_change: bool = True) -> Edit:
    """Forbid each `dest` to attend to the `src` marked for it, and spread what they had over its other sources.

    `site` is `Site("pattern", layer)` for all heads together or with one head. The pattern is edited and renormalized,
    because TransformerLens discards edits of the scores; both are the same for a softmax, as far as float32 still holds
    the other sources' weights: a head that had (but for less than 1e-38) all of its attention there attends to nothing
    afterward, a row of zeros, where a masked softmax would have turned to the next best. Destinations without a marked
    source keep their rows bit for bit. ValueError for other kinds of site.
    """
    if site.kind != "pattern":
        raise ValueError(f"attention is knocked out at the pattern, not at {site}: Site('pattern', {site.layer}, ...).")

    def without(pattern: Tensor) -> Tensor:
        gone = mask.to(pattern.device)
        return spread_without(pattern, gone if site.head is not None else gone[:, None])

    return Edit(site, without, expect_change=expect_change)


def spread_without(
    pattern: Float[Tensor, "*heads dest src"], gone: Bool[Tensor, "*#heads dest src"]
) -> Float[Tensor, "*heads dest src"]:
    """`pattern` without the marked entries, what they held spread over the others of their row in proportion.

    Rows without a marked entry stay as they are, bit for bit; a row that had nothing elsewhere becomes 0.
    """
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
        f"the edit of {site} fired {firing.fired}x and changed no value: what it writes is what was there "
        "(expect_change=False allows that, for self-patch baselines)"
    )


def replace_values(
    layer: int,
    values: Float[Tensor, "batch pos kv_head d_head"],
    mask: Bool[Tensor, "batch dest src"],
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
        weights = seen[pattern] * mask.to(current.device)[:, None]
        change = values.to(current) - seen[v]
        change = change.repeat_interleave(weights.shape[1] // change.shape[2], dim=2)
        if head is not None:
            return current + weights[:, head] @ change[:, :, head]
        return current + einsum(weights, change, "batch head dest src, batch src head d -> batch dest head d")

    return watch(v, seen), watch(pattern, seen), Edit(z, moved, expect_change=False)
