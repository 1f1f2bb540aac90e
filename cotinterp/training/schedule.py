"""The learning rate of each step."""

import math

from cotinterp.training.spec import OptimizerSpec


def learning_rate(optimizer: OptimizerSpec, step: int) -> float:
    """Rate of update `step` (from 0): linear rise over the warm-up, then half a cosine down to the final fraction.

    The last step of the warm-up and the first after it have the highest rate, the last update has the lowest.
    """
    if step < optimizer.warmup:
        return optimizer.lr * (step + 1) / optimizer.warmup
    span = optimizer.steps - 1 - optimizer.warmup
    progress = (step - optimizer.warmup) / span if span > 0 else 0.0
    shape = 0.5 * (1 + math.cos(math.pi * progress))
    return optimizer.lr * (optimizer.final_lr_fraction + (1 - optimizer.final_lr_fraction) * shape)
