"""Mistakes of taking attention scores apart and of comparing models: parts forgotten, fits judged on what they saw."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from cotinterp.calibration.mutations.trial import Mutation, instead, random_model, require, transcripts
from cotinterp.mechanism.heads import composition, routes
from cotinterp.mechanism.probing import alignment
from cotinterp.mechanism.sites import Site
from cotinterp.transcripts.roles import Role

DEST, SRC = (Role.EQUALS, 2), (Role.TOTAL, 1)


def check_scores() -> None:
    """The parts of a score sum to what the model's own queries and keys give."""
    routes.attention_routes(random_model(), transcripts(8), DEST, [SRC])


def without_attention_bias(right: Callable[..., Any]) -> Callable[..., Any]:
    """The stream with b_O forgotten."""

    def stream(*args: object) -> Any:
        return [part for part in right(*args) if part[0].kind != "attention_bias"]

    return stream


def check_contrast() -> None:
    """What is the same at all sources has no part in a contrast on the side of the key."""
    result = routes.attention_routes(random_model(), transcripts(8), DEST, [SRC])
    constant = [row for row, part in enumerate(result.components) if part.kind == "input_bias"]
    part = float(result.key[..., constant, :].abs().max())
    require(part < 1e-4, f"the bias of keys, which all sources share, is given {part:.2g} of a contrast")


def never_centered(members: Tensor, seen: Tensor, name: str, batch: Any, of: str) -> Float[Tensor, "batch pos"]:
    """Scores in the place of contrasts."""
    return members.double() / members.sum(dim=1, keepdim=True)


def check_order() -> None:
    """No head listens to one of its own layer or of a later one."""
    scores = composition.composition_scores(random_model()).scores
    late = float(scores[:, 1, :, :].abs().max()) + float(scores[:, 0, :, 0].abs().max())
    require(late == 0, f"heads are said to listen to what comes after them, by {late:.2f}")


def any_order(right: Callable[..., Any]) -> Callable[..., Any]:
    """A comparison of layers that is always true."""

    def arranged(value: Tensor, pattern: str, **sizes: int) -> Tensor:
        found: Tensor = right(value, pattern, **sizes)
        return found - 10 if pattern == "layer -> layer 1 1 1" else found

    return arranged


def check_shuffled_map() -> None:
    """A rotation fitted on problems that were dealt out anew explains nothing of held-out ones."""
    model, site = random_model(), Site("resid_post", 1)
    models = {"0": model, "1": random_model(seed=1)}
    result = alignment.align_streams(models, transcripts(40), [(*DEST, 2)], sites=[site])
    found = result.of("0", "1", site, "shuffled").r_squared
    require(found < 0.1, f"a map between unrelated problems explains {found:.2f} of the stream")


def judged_on_training(right: Callable[..., Any]) -> Callable[..., Any]:
    """A split whose test rows are those that were fitted on, in the order in which they were dealt out."""

    def split(train: Any, problems: Any, seed: int) -> Any:
        rows = torch.from_numpy(np.flatnonzero(train))
        return alignment._Split(rows, rows, rows, rows.flip(0))

    return split


ROUTE_MUTATIONS = (
    Mutation(
        "b_O dropped from what queries and keys are made of",
        "parts must sum to the model's own scores",
        instead(routes, "_stream", without_attention_bias(routes._stream)),
        check_scores,
    ),
    Mutation(
        "scores taken for contrasts",
        "what all sources share drops out on the side of the key",
        instead(routes, "_weights", never_centered),
        check_contrast,
    ),
    Mutation(
        "composition of heads in any order",
        "no head listens to a later one",
        instead(composition, "rearrange", any_order(rearrange)),
        check_order,
    ),
    Mutation(
        "an alignment judged on the problems that it was fitted on",
        "a map between problems that were dealt out anew explains nothing",
        instead(alignment._Split, "of", judged_on_training(alignment._Split.of)),
        check_shuffled_map,
    ),
)
