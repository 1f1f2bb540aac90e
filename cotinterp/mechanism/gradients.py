"""Gradients of a number read off the logits with respect to activations, leaving the model as it was.

Zeros are added to the activation and the gradient is taken with respect to them: an architecture may hand a hook a
reshaped view that its own forward pass never uses, but what the hook returns it does use. Only these zeros are
differentiated for, so no parameter gains a `.grad` and none needs to require one.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cotinterp.mechanism.hooks import Hook, hooked, never_reached
from cotinterp.mechanism.interventions import InertEditError
from cotinterp.mechanism.model import HookedModel, require_eval
from cotinterp.mechanism.sites import Site, refuse_write


def gradients(
    model: HookedModel,
    tokens: Int[Tensor, "batch pos"],
    sites: Sequence[Site],
    score: Callable[[Float[Tensor, "batch pos d_vocab"]], Float[Tensor, " batch"]],
    *,
    written: Mapping[Site, Tensor] | None = None,
) -> dict[Site, Float[Tensor, "batch *axes"]]:
    """d score[i] / d activation of example i, at each whole hook, in the hook's layout; one forward, one backward.

    `score` maps logits to one number for each example (rows must not look at each other). `written` puts other values
    at some of the sites first: the gradient is taken there. Sites of the same run do not exclude each other: the
    gradient at one counts everything that it does downstream, also by way of the others.

    ValueError: a model in train mode, torch.inference_mode, sites with a head, or that do not exist or do not fire.
    InertEditError: what is written at a site is discarded, so that the score has no gradient there.
    """
    require_eval(model)
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
        total = score(model(tokens)).sum()
        silent = [site for site in sites if site not in added]
        if silent:
            raise ValueError(never_reached(silent))
        order = list(added)
        found = torch.autograd.grad(total, [added[site] for site in order], allow_unused=True)
    unused = [site.label for site, gradient in zip(order, found, strict=True) if gradient is None]
    if unused:
        raise InertEditError(f"the score does not depend on what is written at {unused}: the model discards it.")
    return {site: gradient.detach() for site, gradient in zip(order, found, strict=True)}
