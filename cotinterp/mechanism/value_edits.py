"""Exchanging what attention moves along some paths, with the attention itself left as it is."""

from einops import einsum
from jaxtyping import Bool, Float
from torch import Tensor

from cotinterp.mechanism.interventions import Edit, watch
from cotinterp.mechanism.sites import Site


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
