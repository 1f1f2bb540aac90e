"""Activations for probes, a bounded part at a time: a sweep over a hundred sites needs no more memory than over one."""

from collections.abc import Iterator, Sequence

from jaxtyping import Float, Int
from torch import Tensor

from cotinterp.mechanism.activations import activations, stream_activations
from cotinterp.mechanism.model import HookedModel
from cotinterp.mechanism.sites import Site

READ_BYTES = 2**26


def stream_places(
    model: HookedModel,
    tokens: Int[Tensor, "n pos"],
    sites: Sequence[Site],
    positions: Int[Tensor, "n places"],
    *,
    max_bytes: int = READ_BYTES,
    batch_size: int | None = None,
) -> Iterator[tuple[Site, int, Float[Tensor, "n d_site"]]]:
    """What `model` holds at every place of every site: site by site, place by place, one vector an example.

    The model runs once for as many sites as fit into `max_bytes` together; one place of one site is the least. What was
    handed out is a view of what was read together, and is freed with the last of it. Errors are those of `activations`.
    """
    first = activations(model, tokens[:1], sites, positions=positions[:1])
    for part, columns in _parts(first, list(dict.fromkeys(sites)), len(tokens), max_bytes):
        held = {site: first[site].new_empty(len(tokens), len(columns), first[site][0, 0].numel()) for site in part}
        at = positions[:, columns]
        for rows, found in stream_activations(model, tokens, part, positions=at, batch_size=batch_size):
            for site in part:
                held[site][rows] = found[site].flatten(2)
        for site in part:
            whole = held.pop(site)
            for number, column in enumerate(columns):
                yield site, column, whole[:, number]


def _parts(
    first: dict[Site, Float[Tensor, "1 places *axes"]], sites: Sequence[Site], n: int, max_bytes: int
) -> Iterator[tuple[list[Site], list[int]]]:
    """Sites to read together and at which places; places are divided only where one site alone is too large."""
    places = next(iter(first.values())).shape[1]
    part: list[Site] = []
    taken = 0
    for site in sites:
        each = n * first[site].nbytes
        if part and taken + each > max_bytes:
            yield part, list(range(places))
            part, taken = [], 0
        if each > max_bytes:
            step = max(1, places * max_bytes // each)
            yield from (([site], list(range(places))[start : start + step]) for start in range(0, places, step))
        else:
            part, taken = [*part, site], taken + each
    if part:
        yield part, list(range(places))
