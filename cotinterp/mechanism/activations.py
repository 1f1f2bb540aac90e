"""Reading activations: only the sites that were asked for, and only at the positions that were asked for."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import groupby
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cotinterp.mechanism.hooks import Hook, hooked, never_reached
from cotinterp.mechanism.model import HookedModel, require_eval
from cotinterp.mechanism.sites import Site
from cotinterp.models.native.parts import why_not_native

Readings = dict[Site, Tensor]


def activations(
    model: HookedModel,
    tokens: Int[Tensor, "batch pos"],
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
    tokens: Int[Tensor, "batch pos"],
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
    tokens: Int[Tensor, "batch pos"],
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
    tokens: Int[Tensor, "batch pos"],
    sites: Iterable[Site],
    positions: Tensor | None,
    batch_size: int | None,
    *,
    to_the_end: bool,
) -> Iterator[tuple[slice, Tensor, dict[Site, Tensor]]]:
    """Rows, logits and readings of every batch; all that can be refused beforehand is.

    Without logits (an empty tensor) unless the runs go on to the end.
    """
    require_eval(model)
    wanted = sorted({site.check(model) for site in sites})
    if not wanted:
        raise ValueError("no sites were asked for; name some, e.g. residual_sites(model).")
    if not len(tokens):
        raise ValueError("no tokens to run: the batch is empty.")
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
    if len(positions) != batch:
        raise ValueError(f"{len(positions)} rows of positions for {batch} examples: give one row for each.")
    if positions.numel() and not 0 <= int(positions.min()) <= int(positions.max()) < n:
        low, high = int(positions.min()), int(positions.max())
        raise ValueError(f"positions reach from {low} to {high}; the tokens have 0 to {n - 1}.")
