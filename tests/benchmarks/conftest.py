"""A tiny workload with random parameters, and amounts that take a moment. cotinterp is imported in the fixtures."""

import pytest
import torch


@pytest.fixture(scope="session")
def spec():
    """Two layers, written sums of two or three digits, batches of eight."""
    from cotinterp.models.spec import ModelSpec
    from cotinterp.training.spec import OptimizerSpec, RunSpec

    model = ModelSpec(n_layers=2, d_model=16, n_heads=2, d_mlp=32, n_ctx=48)
    optimizer = OptimizerSpec(steps=4, batch_size=8, warmup=2)
    return RunSpec(
        task="digit-sum", regime="cot", k_min=2, k_max=3, n_train=64, model=model, optimizer=optimizer, precision="fp32"
    )


@pytest.fixture(scope="session")
def workload(spec):
    """Shared and never changed."""
    from benchmarks.workload import untrained_workload

    found = untrained_workload(spec, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in found.model.parameters():
            parameter.copy_(0.4 * torch.randn(parameter.shape, generator=generator))
    return found


@pytest.fixture(scope="session")
def amounts():
    from benchmarks.workload import Amounts

    return Amounts(
        decoded=12, sampled=6, rollouts=(3, 2), patched=(1, 3), patched_k=3, path_pairs=3, peer_sequences=60,
        probed=240, probed_k=3, peer_probes=4,
    )  # fmt: skip


@pytest.fixture
def once():
    """`once(comparison)`: its row, from one pair of timings."""
    from benchmarks.comparison import Rates
    from benchmarks.measurement import measured

    return lambda comparison: measured(comparison, Rates(fp32=1e9, bf16=2e9), repeats=1)
