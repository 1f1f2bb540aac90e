"""Reading activations and gradients: only the sites, and only the positions, that were asked for."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cotinterp.mechanism.hooks import Hook, hooked, never_reached
from cotinterp.mechanism.interventions import InertEditError
from cotinterp.mechanism.model import HookedModel, TokensLike, require_finite, require_model, require_tokens, several
from cotinterp.mechanism.sites import Site, refuse_write
from cotinterp.models.native.parts import why_not_native

Readings = dict[Site, Tensor]
"""What each site held, or is given, in one run."""


def require_count(name: str, value: object, *, least: int = 1) -> None:
    """ValueError unless `value` is a whole number (no bool) of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{name}={value!r}: give a whole number of at least {least}.")


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much an instrument may run at once; what it finds is the same, up to the rounding of float32.

    Attributes:
        batch_size: Sequences of one forward pass. None: as many as are fast.
        max_bytes: What activations may take, by an estimate. None: 1 GiB.

    Raises:
        ValueError: `max_bytes` is no whole number of at least 1.
    """

    batch_size: int | None = None
    max_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.max_bytes is not None:
            require_count("max_bytes", self.max_bytes)

    @property
    def bytes(self) -> int:
        """`max_bytes`, or 1 GiB."""
        return 2**30 if self.max_bytes is None else self.max_bytes


BUDGET = Budget()


def activations(
    model: HookedModel,
    tokens: TokensLike,
    sites: Iterable[Site],
    *,
    positions: Int[Tensor, " rows"] | Int[Tensor, "rows places"] | None = None,
    batch_size: int | None = None,
) -> dict[Site, Float[Tensor, "batch *axes"]]:
    """What `model` holds at each site when it reads `tokens`, by site.

    Layouts are those of `Site.of`: `batch pos d_model`, `batch pos d_head` for one head. With one position per example
    the position axis is gone (`batch d_model`); with several (`batch places`) it becomes `places`. `batch_size` bounds
    how many examples run at once. Values are copies without gradient, at least float32.

    Raises ValueError for a model in train mode, sites outside the model, sites that its architecture lacks, does not
    fire or lays out in another way, positions outside the tokens, no sites at all.
    """
    streamed = stream_activations(model, tokens, sites, positions=positions, batch_size=batch_size)
    return _joined(found for _, found in streamed)


def run_and_read(
    model: HookedModel,
    tokens: TokensLike,
    sites: Iterable[Site],
    *,
    positions: Int[Tensor, " rows"] | Int[Tensor, "rows places"] | None = None,
    batch_size: int | None = None,
) -> tuple[Float[Tensor, "batch pos d_vocab"], dict[Site, Float[Tensor, "batch *axes"]]]:
    """Logits and `activations` of one and the same run, for callers that need both."""
    runs = [(logits, found) for _, logits, found in _runs(model, tokens, sites, positions, batch_size, to_the_end=True)]
    return torch.cat([logits for logits, _ in runs]), _joined(found for _, found in runs)


def stream_activations(
    model: HookedModel,
    tokens: TokensLike,
    sites: Iterable[Site],
    *,
    positions: Int[Tensor, " rows"] | Int[Tensor, "rows places"] | None = None,
    batch_size: int | None = None,
) -> Iterator[tuple[slice, dict[Site, Float[Tensor, "some *axes"]]]]:
    """`activations`, `batch_size` examples at a time: the rows of each batch, and what its sites hold.

    For callers that reduce what they read: no more than one batch of it exists at any time. Native models compute
    nothing behind the last of the sites. Errors as there, raised by the call and not by the first batch, except those
    of sites that the model turns out not to fire.
    """
    runs = _runs(model, tokens, sites, positions, batch_size, to_the_end=why_not_native(model) is not None)
    return ((rows, found) for rows, _, found in runs)


def _joined(batches: Iterable[dict[Site, Tensor]]) -> dict[Site, Tensor]:
    pieces: dict[Site, list[Tensor]] = {}
    for found in batches:
        for site, part in found.items():
            pieces.setdefault(site, []).append(part)
    # Site by site, so that no more than one of them is there twice.
    joined = ((site, pieces.pop(site)) for site in list(pieces))
    return {site: parts[0] if len(parts) == 1 else torch.cat(parts) for site, parts in joined}


class _Read(Exception):
    """Everything that was asked for has been read: the rest of the pass is not needed."""


def _runs(
    model: HookedModel,
    tokens: TokensLike,
    sites: Iterable[Site],
    positions: Tensor | None,
    batch_size: int | None,
    *,
    to_the_end: bool,
) -> Iterator[tuple[slice, Tensor, dict[Site, Tensor]]]:
    """Rows, logits and readings of every batch; all that can be refused beforehand is.

    Without logits (an empty tensor) unless the runs go on to the end.
    """
    require_model(model)
    tokens = require_tokens(model, tokens)
    wanted = sorted({site.check(model) for site in several(sites, "sites", "[Site('resid_pre', 1)]")})
    if not wanted:
        raise ValueError("no sites were asked for; name some, e.g. residual_sites(model).")
    _check(positions, tokens)
    step = len(tokens) if batch_size is None else batch_size
    if step < 1:
        raise ValueError(f"batch_size={batch_size}: at least one example must run at once.")

    def read(rows: slice) -> tuple[slice, Tensor, dict[Site, Tensor]]:
        store: Readings = {}
        hooks = _hooks(wanted, None if positions is None else positions[rows], store, stop=not to_the_end)
        logits = torch.empty(0)
        with torch.no_grad(), hooked(model, tokens[rows], hooks), suppress(_Read):
            logits = model(tokens[rows]).detach()
        silent = [site for site in wanted if site not in store]
        if silent:
            raise ValueError(never_reached(silent))
        for site in wanted:
            require_finite(model, store[site], f"the activations of {site}")
        return rows, logits, {site: store[site] for site in wanted}

    return (read(slice(start, min(start + step, len(tokens)))) for start in range(0, len(tokens), step))


def at_positions(
    part: Float[Tensor, "batch pos *rest"], positions: Int[Tensor, " batch"] | Int[Tensor, "batch places"]
) -> Float[Tensor, "batch *out"]:
    """One or several positions of each example: `out[i] = part[i, positions[i]]`."""
    rows = torch.arange(len(part), device=part.device).reshape(-1, *[1] * (positions.ndim - 1))
    return part[rows, positions.to(part.device)]


def _hooks(sites: Sequence[Site], positions: Tensor | None, store: Readings, *, stop: bool) -> list[tuple[Site, Hook]]:
    """One reading hook per hook point, however many of its heads are wanted. `stop`: end the pass after the last."""

    def reader(group: list[Site]) -> Hook:
        def read(activation: Tensor, **_: Any) -> None:
            for site in group:
                if site in store:
                    raise ValueError(f"{site} was reached twice in one pass: its layer runs more than once.")
                part = site.of(activation.detach())
                if positions is not None:
                    part = at_positions(site.by_position(part), positions)
                # Half precision is promoted; the clone frees the other heads and is safe from in-place models.
                store[site] = part.to(torch.promote_types(part.dtype, torch.float32)).clone()
            if stop and len(store) == len(sites):
                raise _Read

        return read

    return [(whole, reader(list(group))) for whole, group in groupby(sites, key=lambda site: site.whole)]


def _check(positions: Tensor | None, tokens: Tensor) -> None:
    if positions is None:
        return
    batch, n = tokens.shape
    is_mask = positions.dtype == torch.bool or (
        n > 2 and positions.shape == tokens.shape and bool(((positions == 0) | (positions == 1)).all())
    )
    if is_mask or positions.is_floating_point():
        raise ValueError(
            f"positions: {'a mask' if is_mask else str(positions.dtype).removeprefix('torch.')} of shape "
            f"{tuple(positions.shape)} was given. Wanted are numbers of positions, one or several a row; "
            "mask.nonzero()[:, 1] gives them where each row has one."
        )
    if len(positions) != batch:
        raise ValueError(f"{len(positions)} rows of positions for {batch} examples: give one row for each.")
    if positions.numel() and not 0 <= int(positions.min()) <= int(positions.max()) < n:
        low, high = int(positions.min()), int(positions.max())
        raise ValueError(f"positions reach from {low} to {high}; the tokens have 0 to {n - 1}.")


def gradients(
    model: HookedModel,
    tokens: TokensLike,
    sites: Sequence[Site],
    score: Callable[[Float[Tensor, "batch pos d_vocab"]], Float[Tensor, " batch"]],
    *,
    written: Mapping[Site, Tensor] | None = None,
) -> dict[Site, Float[Tensor, "batch *axes"]]:
    """d score[i] / d activation of example i, at each whole hook, in the hook's layout; one forward, one backward.

    `score` maps logits to one number for each example (rows must not look at each other). `written` puts other values
    at some of the sites first: the gradient is taken there. Sites of the same run do not exclude each other: the
    gradient at one counts everything that it does downstream, also by way of the others.

    The hooks add zeros to the activations, and the gradient is taken with respect to these: an architecture may hand a
    hook a reshaped view that its own forward pass never uses, but what the hook returns it does use. The model is left
    as it was: no parameter gains a `.grad`, and none needs to require one.

    ValueError: a model in train mode, torch.inference_mode, sites with a head, or that do not exist or do not fire.
    InertEditError: what is written at a site is discarded, so that the score has no gradient there.
    """
    require_model(model)
    tokens = require_tokens(model, tokens)
    if torch.is_inference_mode_enabled():
        raise ValueError("gradients cannot be taken under torch.inference_mode(); torch.no_grad() would do no harm.")
    for site in sites:
        if site.head is not None:
            raise ValueError(f"{site} is one head; gradients are taken at whole hooks, here {site.whole}.")
        refuse_write(site.check(model))
    held = dict(written or {})
    added: dict[Site, Tensor] = {}

    def at(site: Site) -> Hook:
        def hook(activation: Tensor, **_: Any) -> Tensor:
            if site in added:
                raise ValueError(f"{site} was reached twice in one pass: its layer runs more than once in this model.")
            value = held[site].to(activation) if site in held else activation
            if site in sites:
                added[site] = torch.zeros_like(activation, requires_grad=True)
                value = value + added[site]
            return value

        return hook

    hooks = [(site, at(site)) for site in sorted({*sites, *held})]
    with torch.enable_grad(), hooked(model, tokens, hooks):
        logits = model(tokens)
        require_finite(model, logits.detach(), "the logits")
        total = score(logits).sum()
        silent = [site for site in sites if site not in added]
        if silent:
            raise ValueError(never_reached(silent))
        order = list(added)
        found = torch.autograd.grad(total, [added[site] for site in order], allow_unused=True)
    unused = [site.label for site, gradient in zip(order, found, strict=True) if gradient is None]
    if unused:
        raise InertEditError(f"the score does not depend on what is written at {unused}: the model discards it.")
    return {site: gradient.detach() for site, gradient in zip(order, found, strict=True)}
