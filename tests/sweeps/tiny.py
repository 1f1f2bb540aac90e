"""Sweeps that take a moment."""

from cotinterp.models.spec import ModelSpec
from cotinterp.sweeps.grid import Grid
from cotinterp.training.spec import OptimizerSpec, RunSpec

MODEL = ModelSpec(n_layers=1, d_model=8, n_heads=2, d_mlp=16, n_ctx=24)
PROBLEMS = 10


def tiny(regime="direct", seed=0, steps=20, lr=1e-3, **fields):
    optimizer = OptimizerSpec(steps=steps, batch_size=4, warmup=5, lr=lr)
    fields = {"task": "s3", "k_max": 3, "n_train": 20, "model": MODEL} | fields
    return RunSpec(regime=regime, seed=seed, optimizer=optimizer, **fields)


def grid_of(*specs):
    return Grid("tiny", specs, PROBLEMS)


DIVERGING = tiny(seed=9, lr=1e30)
FIVE = grid_of(tiny(), tiny("cot"), tiny(seed=1), DIVERGING, tiny("tagging"))
"""Four runs that end well and one that does not."""
