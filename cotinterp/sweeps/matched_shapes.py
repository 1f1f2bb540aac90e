"""Shapes that a rival gets the same of: as many operations for an answer, or as many parameters.

Written tokens cost operations, so a model that writes nothing has to be given them in depth or in width before the two
are compared (matched controls of the depth frontier). What is matched is a count; equal counts need not be equally easy
to learn with.
"""

from collections.abc import Callable, Iterable
from typing import Literal

from pydantic import ValidationError

from cotinterp.models.spec import ModelSpec
from cotinterp.sweeps.cost import answer_lengths, priced
from cotinterp.tasks import Task, get_task
from cotinterp.transcripts.regimes import Regime
from cotinterp.transcripts.vocabulary import Vocabulary

MOST_LAYERS, MOST_WIDTH = 64, 4096
"""Limits of ModelSpec."""


def equal_flops(
    model: ModelSpec,
    task: str | Task,
    k: int,
    *,
    regime_from: str | Regime = "cot",
    regime_to: str | Regime = "direct",
    by: Literal["depth", "width"] = "depth",
    within: float = 0.25,
) -> ModelSpec:
    """The shape whose answer in `regime_to` costs most nearly as many operations as `model`'s answer in `regime_from`.

    Both answer problems of `k` operands, with a cache of keys (`answer_cost`). By depth, only n_layers changes; by
    width, d_model goes through the multiples of n_heads and d_mlp keeps its ratio to it. Everything else, n_ctx
    included, stays.

    Args:
        within: Largest difference that is let pass, as a fraction of what is to be matched.

    Raises:
        ValueError: No shape inside ModelSpec's limits comes that near; the nearest one and what it costs are named.
    """
    task = get_task(task)
    d_vocab = len(Vocabulary.of(task))
    wanted = priced(answer_lengths(task, regime_from, k), model, d_vocab).flops
    lengths = answer_lengths(task, regime_to, k)
    shapes = _deeper(model) if by == "depth" else _wider(model, model.n_layers)
    return _nearest(shapes, lambda shape: priced(lengths, shape, d_vocab).flops, wanted, within, "operations an answer")


def equal_parameters(model: ModelSpec, n_layers: int, *, d_vocab: int = 0, within: float = 0.25) -> ModelSpec:
    """The shape of `n_layers` blocks with most nearly as many parameters as `model`: deeper and narrower, or reversed.

    d_model goes through the multiples of n_heads and d_mlp keeps its ratio to it. `d_vocab` symbols are embedded and
    unembedded; 0 leaves those parameters out of both counts. Position vectors are counted.

    Raises:
        ValueError: As in `equal_flops`.
    """
    wanted = float(model.n_parameters(d_vocab))
    shapes = _wider(model, n_layers)
    return _nearest(shapes, lambda shape: float(shape.n_parameters(d_vocab)), wanted, within, "parameters")


def _deeper(model: ModelSpec) -> Iterable[ModelSpec]:
    for n_layers in range(1, MOST_LAYERS + 1):
        yield model.model_copy(update={"n_layers": n_layers})


def _wider(model: ModelSpec, n_layers: int) -> Iterable[ModelSpec]:
    """Every width, the narrowest first. Heads stay as many as they are; rotary positions need an even d_head."""
    step = model.n_heads * (2 if model.positions == "rotary" else 1)
    for d_model in range(step, MOST_WIDTH + 1, step):
        d_mlp = max(1, round(model.d_mlp * d_model / model.d_model))
        yield model.model_copy(update={"n_layers": n_layers, "d_model": d_model, "d_mlp": d_mlp})


def _nearest(
    shapes: Iterable[ModelSpec], count: Callable[[ModelSpec], float], wanted: float, within: float, unit: str
) -> ModelSpec:
    """The shape whose count is nearest; counts rise along `shapes`, so the search ends at the first one above."""
    best: tuple[float, ModelSpec] | None = None
    try:
        for shape in shapes:
            away = abs(count(shape) - wanted)
            if best is None or away < best[0]:
                best = (away, shape)
            if count(shape) >= wanted:
                break
    except ValidationError as error:
        if best is None:
            raise ValueError(f"no such shape: {error.errors()[0]['msg']}") from error
    assert best is not None, "every range of shapes has a first"
    away, shape = best
    if away > within * wanted:
        raise ValueError(
            f"no shape inside ModelSpec's limits has {wanted:,.0f} {unit} within {within:.0%}: the nearest, "
            f"n_layers {shape.n_layers}, d_model {shape.d_model}, d_mlp {shape.d_mlp}, has {count(shape):,.0f}. "
            "Change the other dimension, fewer operands, or a larger `within`"
        )
    return shape
