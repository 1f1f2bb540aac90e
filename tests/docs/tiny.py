"""The runs of the pages in small: what a reader trains in a minute, a test trains in a second."""

from typing import Any

from cotinterp.models.spec import ModelSpec
from cotinterp.training.spec import OptimizerSpec, RunSpec


def tiny(spec: RunSpec, *, n_layers: int = 1) -> RunSpec:
    """The same task, regime and lengths with a model and a training that take a second."""
    changes: dict[str, Any] = {
        "model": ModelSpec(n_layers=n_layers, d_model=16, n_heads=2, d_mlp=32),
        "optimizer": OptimizerSpec(steps=60, batch_size=16, warmup=5),
        "n_train": 200,
    }
    return spec.model_copy(update=changes)
