"""A run that trains in a second, and one such run trained.

cotinterp is imported inside the fixtures: pytest may load this file before the shape checks are hooked in.
"""

import shutil

import pytest


@pytest.fixture(scope="session")
def tiny():
    """60 steps of a one-layer model on z6."""
    from cotinterp.models.spec import ModelSpec
    from cotinterp.training.spec import OptimizerSpec, RunSpec

    return RunSpec(
        task="z6",
        regime="cot",
        k_max=3,
        n_train=100,
        model=ModelSpec(n_layers=1, d_model=16, n_heads=2, d_mlp=32, n_ctx=24),
        optimizer=OptimizerSpec(steps=60, batch_size=8, warmup=10, lr=3e-3),
    )


@pytest.fixture(scope="session")
def trained(tiny, tmp_path_factory):
    """The tiny run, trained without interruption."""
    from cotinterp.training.loop import train

    directory = tmp_path_factory.mktemp("checkpoints") / tiny.slug
    return train(tiny, directory=directory, device="cpu", threads=1, checkpoint_every=10)


@pytest.fixture
def root(trained, tmp_path):
    """A folder with a copy of the trained run, to be damaged."""
    shutil.copytree(trained.directory, tmp_path / "checkpoints" / trained.spec.slug)
    return tmp_path / "checkpoints"
