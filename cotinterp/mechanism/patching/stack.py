"""Several edits in one forward pass: the recipient's tokens repeated along the batch, each edit in a slot of its own.

The rounding of a row may depend on the shape of the batch that it is computed in. So a patched slot is compared with
the same slot of an unpatched run of the same stack: an edit that cannot matter is then exactly 0, not 1e-7.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby

import numpy as np
import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cotinterp.mechanism.interventions import Edit, run_with
from cotinterp.mechanism.metrics import MetricName
from cotinterp.mechanism.model import HookedModel
from cotinterp.mechanism.sites import Site

Numbers = dict[MetricName, Float[np.ndarray, "..."]]


def stacked_changes(
    model: HookedModel,
    recipient: Int[Tensor, "batch pos"],
    sites: Sequence[Site],
    masks: Sequence[Bool[Tensor, "..."]],
    donors: Mapping[Site, Tensor],
    pending: Sequence[int],
    read: Callable[..., Numbers],
    *,
    stack: int,
    checked: bool,
) -> Iterator[tuple[list[int], Numbers]]:
    """What the pending edits changed, a stack at a time: their indices, and by metric `edit batch`.

    Edit i writes `donors` of the whole site under `masks[i]` (`batch pos`, or `batch pos head`). `read(logits, stack=)`
    measures a stacked run. `checked`: an edit that changes no value raises.
    """
    if not pending:
        return
    # As many passes as `stack` asks for, filled evenly; the last one repeats an edit where it is not full.
    stack = -(-len(pending) // -(-len(pending) // stack))
    tokens = repeat(recipient, "batch pos -> (edit batch) pos", edit=stack)
    unpatched = read(run_with(model, tokens, []), stack=stack)
    for start in range(0, len(pending), stack):
        chunk = list(pending[start : start + stack])
        slots = chunk + chunk[-1:] * (stack - len(chunk))
        edits = _edits([(sites[i], masks[i]) for i in slots], donors, expect_change=checked)
        change = minus(read(run_with(model, tokens, edits), stack=stack), unpatched)
        yield chunk, {name: values.reshape(stack, len(recipient))[: len(chunk)] for name, values in change.items()}


def minus(numbers: Numbers, others: Numbers) -> Numbers:
    """The differences, metric by metric."""
    return {name: numbers[name] - others[name] for name in numbers}


def _edits(
    slots: Sequence[tuple[Site, Bool[Tensor, "..."]]], donors: Mapping[Site, Tensor], *, expect_change: bool
) -> list[Edit]:
    """One edit per hook point; each slot of the stack writes its own site and mask, and nothing in the other slots."""
    edits = []
    for whole, group in groupby(range(len(slots)), key=lambda slot: slots[slot][0].whole):
        taken = set(group)
        nowhere = torch.zeros_like(slots[min(taken)][1])
        mask = torch.stack([slots[i][1] if i in taken else nowhere for i in range(len(slots))])
        value = partial(_overwrite, whole, mask, whole.by_position(donors[whole]))
        edits.append(Edit(whole, value, expect_change=expect_change))
    return edits


def _overwrite(
    site: Site, mask: Bool[Tensor, "stack batch pos *head"], donor: Tensor, current: Float[Tensor, "rows *axes"]
) -> Float[Tensor, "rows *axes"]:
    """The stacked activation with the donor's values under the mask."""
    slots = rearrange(site.by_position(current), "(stack batch) ... -> stack batch ...", stack=len(mask))
    written = torch.where(mask[..., None], donor.to(current), slots).flatten(0, 1)
    # The axes that by_position swaps for patterns are neighbors, so that it undoes itself.
    return site.by_position(written)
