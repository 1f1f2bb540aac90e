"""Attaching functions to sites of any bridge, and refusing what would be silently wrong there.

Architectures differ: a block that adds attention and MLP in parallel has no resid_mid, multi-head latent attention lays
its heads out in another way, and attention that stays inside the Hugging Face module may show its pattern only with
`attn_implementation="eager"`. Each of these says so instead of answering.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from cotinterp.mechanism.model import HookedModel
from cotinterp.mechanism.sites import HEAD_AXIS, KINDS, Kind, Site

Hook = Callable[..., Tensor | None]


@contextmanager
def hooked(model: HookedModel, tokens: Int[Tensor, "batch pos"], hooks: Sequence[tuple[Site, Hook]]) -> Iterator[None]:
    """Inside, a forward pass of `tokens` calls each function with the activation of its site's hook, all heads of it.

    ValueError for a site that the model does not have, and for an activation that is not laid out as `Site.of` says.
    """
    checked = [(site.hook, _checked(model, tokens, site, hook)) for site, hook in hooks]
    with ExitStack() as stack:
        try:
            stack.enter_context(model.hooks(fwd_hooks=checked))
        except KeyError:
            raise ValueError(_missing(model, [site for site, _ in hooks])) from None
        yield


def available_kinds(model: HookedModel, layer: int = 0) -> tuple[Kind, ...]:
    """The kinds of site that this layer has a hook for; `check_model` says whether it fires and what an edit does."""
    return tuple(kind for kind in KINDS if _has(model, Site(kind, layer)))


def never_reached(sites: Sequence[Site]) -> str:
    """What to say of hooks that exist and were not fired by a run, and what to do about it."""
    named = [site.label for site in sites]
    advice = (
        " (some Hugging Face models hand out attention patterns only if loaded with attn_implementation='eager': load "
        "this one so, and wrap it anew)"
        if any(site.kind == "pattern" for site in sites)
        else ""
    )
    return f"the model ran but never reached {named}: it does not fire these hooks{advice}"


def _checked(model: HookedModel, tokens: Int[Tensor, "batch pos"], site: Site, hook: Hook) -> Hook:
    batch, n = tokens.shape
    heads = site.n_heads(model)
    expected: tuple[int, ...] = (batch, n)
    if site.kind in HEAD_AXIS:
        expected = (batch, heads, n, n) if site.kind == "pattern" else (batch, n, heads)

    def call(activation: Float[Tensor, "..."], **named: Any) -> Tensor | None:
        axes = len(expected) + (site.kind != "pattern")
        if activation.ndim != axes or tuple(activation.shape[: len(expected)]) != expected:
            wanted = ", ".join(map(str, expected)) + ("" if site.kind == "pattern" else ", ...")
            raise ValueError(
                f"{site.whole} holds {tuple(activation.shape)} in this model, where ({wanted}) is expected"
                f"{' (heads on axis ' + str(HEAD_AXIS[site.kind]) + ')' if site.kind in HEAD_AXIS else ''}: its "
                "architecture lays this activation out in another way, so heads or positions would be mixed up. "
                "Use resid_pre, attn_out, mlp_out or resid_post of the layer."
            )
        return hook(activation, **named)

    return call


def _has(model: HookedModel, site: Site) -> bool:
    try:
        with model.hooks(fwd_hooks=[(site.hook, lambda activation, **_: activation)]):
            return True
    except KeyError:
        return False


def _missing(model: HookedModel, sites: Sequence[Site]) -> str:
    absent = [site for site in sites if not _has(model, site)]
    layer = absent[0].layer
    return (
        f"the model has no {[site.label for site in absent]}; layer {layer} has {list(available_kinds(model, layer))}. "
        "(A block that runs attention and MLP side by side has no resid_mid, one without attention no heads.)"
    )
