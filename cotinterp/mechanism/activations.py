"""Reading activations: only the sites that were asked for, and only at the positions that were asked for."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cotinterp.mechanism.hooks import Hook, hooked, never_reached
from cotinterp.mechanism.model import HookedModel, require_eval
from cotinterp.mechanism.sites import Site

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
    return run_and_read(model, tokens, sites, positions=positions, batch_size=batch_size)[1]


def run_and_read(
    model: HookedModel,
    tokens: Int[Tensor, "batch pos"],
    sites: Iterable[Site],
    *,
    positions: Int[Tensor, " rows"] | Int[Tensor, "rows places"] | None = None,
    batch_size: int | None = None,
) -> tuple[Float[Tensor, "batch pos d_vocab"], dict[Site, Float[Tensor, "batch *axes"]]]:
    """Logits and `activations` of one and the same run, for callers that need both."""
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
    logits: list[Tensor] = []
    readings: dict[Site, list[Tensor]] = {site: [] for site in wanted}
    for start in range(0, len(tokens), step):
        rows = slice(start, start + step)
        store: Readings = {}
        hooks = _hooks(wanted, None if positions is None else positions[rows], store)
        with torch.no_grad(), hooked(model, tokens[rows], hooks):
            logits.append(model(tokens[rows]).detach())
        silent = [site for site in wanted if site not in store]
        if silent:
            raise ValueError(never_reached(silent))
        for site in wanted:
            readings[site].append(store[site])
    return torch.cat(logits), {site: torch.cat(parts) for site, parts in readings.items()}


def at_positions(
    part: Float[Tensor, "batch pos *rest"], positions: Int[Tensor, " batch"] | Int[Tensor, "batch places"]
) -> Float[Tensor, "batch *out"]:
    """One or several positions of each example: `out[i] = part[i, positions[i]]`."""
    rows = torch.arange(len(part), device=part.device).reshape(-1, *[1] * (positions.ndim - 1))
    return part[rows, positions.to(part.device)]


def _hooks(sites: Sequence[Site], positions: Tensor | None, store: Readings) -> list[tuple[Site, Hook]]:
    """One reading hook per hook point, however many of its heads are wanted."""

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
