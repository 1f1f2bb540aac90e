"""Mistakes of patching: the wrong readout, a donor that is no other, numbers that were not normalized."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from cotinterp.calibration.mutations.subjects import instead, reading_model, total_contrast
from cotinterp.calibration.mutations.trial import Mutation, require
from cotinterp.mechanism import contrast, metrics
from cotinterp.mechanism.effects import Effects
from cotinterp.mechanism.patching import blocks, path_patching, path_runs, result
from cotinterp.mechanism.patching.paths import Path
from cotinterp.mechanism.patching.result import PatchingResult
from cotinterp.mechanism.patching.sweep import patch_sweep
from cotinterp.mechanism.sites import Site


def swept() -> PatchingResult:
    """The reader's residual stream, patched everywhere."""
    return patch_sweep(reading_model(), total_contrast(), kinds=("resid_pre",))


def check_random_donor() -> None:
    """Another example's activations do not restore this example's answer."""
    effect = float(swept().baselines()["random_donor"].effect[0])
    require(effect < 0.9, f"a random donor restores {effect:.2f} of the gap: it is no other example")


def nobody_else(n: int, rng: np.random.Generator) -> Int[np.ndarray, " n"]:
    """A derangement that leaves everybody in place."""
    return np.arange(n)


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
            reading_model(), total_contrast(8), paths, through_mlps=False, by_hooks=by_hooks
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
        instead(blocks, "derangement", nobody_else),
        check_random_donor,
    ),
    Mutation(
        "effects not divided by the gap",
        "full patch exactly 1",
        instead(result, "normalized_effects", in_logits),
        check_self_and_full,
    ),
    Mutation(
        "path patching that holds nothing",
        "a direct path that the model does not have is 0",
        instead(path_runs, "_freezable", nothing_held),
        check_frozen,
    ),
)
