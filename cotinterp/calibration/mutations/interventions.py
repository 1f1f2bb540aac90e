"""Mistakes of reading and writing activations: parts forgotten, the wrong axis, edits that do nothing."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cotinterp.calibration.mutations.trial import (
    Mutation,
    instead,
    random_model,
    reading_model,
    require,
    total_contrast,
    transcripts,
)
from cotinterp.mechanism import contrast, interventions, metrics, sites
from cotinterp.mechanism.activations import activations
from cotinterp.mechanism.heads import attribution
from cotinterp.mechanism.interventions import Edit, ablate_zero, run_with
from cotinterp.mechanism.metrics import Effects
from cotinterp.mechanism.patching import effects, path_hooks, path_patching, runs
from cotinterp.mechanism.patching.paths import Path
from cotinterp.mechanism.patching.runs import PatchingControls
from cotinterp.mechanism.patching.sweep import PatchingResult, patch_sweep
from cotinterp.mechanism.sites import Site
from cotinterp.models.build import Bridge


def check_attribution_sum() -> None:
    """The parts of the residual stream sum to the logit difference that the model itself gives."""
    attribution.logit_attribution(random_model(), total_contrast(8))


def without_attention_bias(right: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    """The decomposition of a stream with b_O forgotten."""

    def parts(*args: object, **options: object) -> Iterator[Any]:
        return (part for part in right(*args, **options) if part[0].kind != "attention_bias")

    return parts


def check_head_axis() -> None:
    """The outputs of the heads, each read through its site and written out by its own W_O, add up to attn_out."""
    model = random_model()
    # As many positions as heads: only then is the wrong axis silent.
    tokens = transcripts(8).tokens[:, : model.cfg.n_heads]
    heads = [Site("z", 1, head) for head in range(model.cfg.n_heads)]
    found = activations(model, tokens, [*heads, Site("attn_out", 1)])
    written = torch.stack([found[site] @ model.W_O[1, head].detach() for head, site in enumerate(heads)]).sum(0)
    missed = float((written + model.b_O[1].detach() - found[Site("attn_out", 1)]).abs().max())
    require(missed < 1e-4, f"the heads' outputs miss attn_out by {missed:.2g}")


def check_edit() -> None:
    """An edit reaches the forward pass and changes what is there."""
    run_with(random_model(), transcripts(4).tokens, [ablate_zero(Site("mlp_out", 1))])


def untouched(self: Site, activation: Tensor, value: Tensor, positions: Tensor | None = None) -> Tensor:
    """A write whose result is thrown away."""
    return activation


def check_sweep_acts() -> None:
    """Of all that is patched, something changes what the model says: from its weights, and through its hooks."""
    for by_hooks in (False, True):
        controls = PatchingControls(by_hooks=by_hooks)
        patch_sweep(reading_model(), total_contrast(8), kinds=("resid_pre",), controls=controls)


def deaf(right: Callable[..., Any]) -> Callable[..., Any]:
    """A hook that fires and whose value is not taken over, as TransformerLens does at attn_scores."""

    def fire(self: Any, activation: Tensor, **options: Any) -> Tensor:
        right(self, activation, **options)
        return activation

    return fire


def check_renormalized() -> None:
    """After a knock-out every query still pays one unit of attention."""
    model, tokens = random_model(), transcripts(4).tokens
    keys = torch.zeros(tokens.shape, dtype=torch.bool)
    keys[:, 1] = True
    seen: list[Tensor] = []

    def spy(pattern: Tensor) -> Tensor:
        seen.append(pattern.clone())
        return pattern

    site = Site("pattern", 0)
    run_with(model, tokens, [interventions.knock_out(site, keys), Edit(site, spy, expect_change=False)])
    mass = seen[0].sum(-1)[:, :, 2:]
    require(bool((mass - 1).abs().max() < 1e-5), f"some query pays {float(mass.min()):.2f} of attention, not 1")


def zeroed_only(site: Site, keys: Tensor, queries: Tensor | None = None) -> Edit:
    """A knock-out that takes attention away and gives it to nobody."""
    return Edit(site, lambda pattern: pattern.masked_fill(keys[:, None, None], 0.0), queries)


def check_train_mode() -> None:
    """A model in train mode is refused: its runs may differ although nothing was edited."""
    model = random_model()
    model.train()
    try:
        run_with(model, transcripts(4).tokens, [])
    except ValueError:
        return
    require(False, "a model in train mode was run")


INTERVENTION_MUTATIONS = (
    Mutation(
        "b_O dropped from the decomposition",
        "attributions must sum to the model's own logit difference",
        instead(attribution, "parts_in", without_attention_bias(attribution.parts_in)),
        check_attribution_sum,
    ),
    Mutation(
        "wrong head axis of z (1 instead of -2)",
        "the heads' outputs must add up to attn_out",
        instead(sites, "HEAD_AXIS", {**sites.HEAD_AXIS, "z": 1}),
        check_head_axis,
    ),
    Mutation(
        "hook that does not fire",
        "an edit must fire",
        instead(Bridge, "hooks", lambda self, **hooks: nullcontext()),
        check_edit,
    ),
    Mutation(
        "hook that fires and changes nothing",
        "an edit must change a value",
        instead(Site, "write", untouched),
        check_edit,
    ),
    Mutation(
        "hook that fires and whose value is thrown away (as at attn_scores)",
        "a sweep in which nothing changes is refused",
        instead(interventions._Firing, "__call__", deaf(interventions._Firing.__call__)),
        check_sweep_acts,
    ),
    Mutation(
        "knock-out without renormalization",
        "every query pays one unit of attention",
        instead(interventions, "knock_out", zeroed_only),
        check_renormalized,
    ),
    Mutation(
        "model left in train mode",
        "instruments refuse it",
        instead(interventions, "require_model", lambda model: None),
        check_train_mode,
    ),
)


def swept() -> PatchingResult:
    """The reader's residual stream, patched everywhere."""
    return patch_sweep(reading_model(), total_contrast(), kinds=("resid_pre",))


def check_random_donor() -> None:
    """Another example's activations do not restore this example's answer."""
    effect = float(swept().baselines()["random_donor"].effect[0])
    require(effect < 0.9, f"a random donor restores {effect:.2f} of the gap: it is no other example")


def nobody_else(pairs: contrast.Contrast, rng: np.random.Generator, **options: bool) -> Int[np.ndarray, " batch"]:
    """Partners, with everybody its own."""
    return np.arange(len(pairs))


def check_self_and_full() -> None:
    """A self-patch is exactly 0 and a full patch exactly 1."""
    baselines = swept().baselines()
    found = float(baselines["self"].effect[0]), float(baselines["full"].effect[0])
    require(found == (0.0, 1.0), f"self-patch {found[0]:.3g} and full patch {found[1]:.3g}, not 0 and 1")


def in_logits(change: Float[np.ndarray, "cells batch"], gap: Float[np.ndarray, " batch"], **options: Any) -> Effects:
    """Effects that somebody forgot to divide by the gap."""
    mean = change.mean(axis=1)
    return Effects(mean, mean, mean, len(gap), 0)


def check_readout() -> None:
    """A model that makes no mistakes gives the pairs' answer at the readout."""
    pairs = total_contrast()
    with torch.no_grad():
        logits = reading_model()(pairs.clean)
    right = float(metrics.accuracy(logits, pairs.at, pairs.answer).mean())
    require(right == 1, f"a model that is always right gives {right:.0%} of the answers: it is read elsewhere")


def read_late(right: Callable[..., Any]) -> Callable[..., Any]:
    """Pairs read at the target itself instead of the place that predicts it."""

    def from_pairs(pairs: Any) -> Any:
        made = right(pairs)
        return contrast.Contrast(
            made.clean, made.corrupted, made.at + 1, made.answer, made.foil, made.places, made.addresses, made.pair
        )

    return from_pairs


def check_frozen() -> None:
    """What the total head writes reaches the logits through the MLP alone: with MLPs held, its direct path is 0."""
    site = Site("z", 1, 0)
    paths = (Path(site, "logits"), Path(site, "any"))
    for by_hooks in (False, True):
        result = path_patching.path_sweep(
            reading_model(), total_contrast(8), paths, through_mlps=False, controls=PatchingControls(by_hooks=by_hooks)
        )
        direct = result.of(paths[0])
        require(abs(direct) < 1e-5, f"{direct:.2f} of the effect is said to go straight to the logits")


def nothing_held(model: Any, through_mlps: bool) -> list[Site]:
    """Run 2 of path patching with every later component recomputed."""
    return []


PATCHING_MUTATIONS = (
    Mutation(
        "off-by-one role: read at the total itself, not before it",
        "a model that is always right gives the answer at the readout",
        instead(contrast.Contrast, "from_pairs", read_late(contrast.Contrast.from_pairs)),
        check_readout,
    ),
    Mutation(
        "random donor that is the example's own",
        "random-donor baseline below 1",
        instead(runs, "partners", nobody_else),
        check_random_donor,
    ),
    Mutation(
        "effects not divided by the gap",
        "full patch exactly 1",
        instead(effects, "normalized_effects", in_logits),
        check_self_and_full,
    ),
    Mutation(
        "path patching that holds nothing",
        "a direct path that the model does not have is 0",
        instead(path_hooks, "_freezable", nothing_held),
        check_frozen,
    ),
)
