"""What this machine is, and how fast it multiplies matrices today."""

import os
import platform
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from benchmarks.comparison import Rates
from cotinterp.models.build import fast_bfloat16

PACKAGES = ("torch", "transformer-lens", "scikit-learn", "numpy")


@contextmanager
def computing_with(threads: int) -> Iterator[None]:
    """torch and numpy's BLAS use so many threads inside the block. ValueError below 1."""
    if threads < 1:
        raise ValueError(f"{threads} threads: at least one is needed")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with threadpool_limits(limits=threads):
            yield
    finally:
        torch.set_num_threads(before)


def matmul_rates(device: torch.device, *, size: int = 2048, repeats: int = 7) -> Rates:
    """The best of several products of two square matrices, in floating-point operations a second."""
    return Rates(*(_rate(device, dtype, size, repeats) for dtype in (torch.float32, torch.bfloat16)))


def machine_facts(device: torch.device, rates: Rates) -> dict[str, str | int | float | bool]:
    """What a number of this run depends on: processor, cores, threads, versions, matmul rates in GFLOP/s."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else "",
        "fast_bf16": fast_bfloat16(device),
        "matmul_fp32_gflops": round(rates.fp32 / 1e9, 1),
        "matmul_bf16_gflops": round(rates.bf16 / 1e9, 1),
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{package: version(package) for package in PACKAGES},
    }


def _rate(device: torch.device, dtype: torch.dtype, size: int, repeats: int) -> float:
    left, right = (torch.rand(size, size, device=device, dtype=dtype) for _ in range(2))
    seconds = []
    for _ in range(repeats + 1):
        if device.type == "cuda":
            torch.cuda.synchronize()
        began = time.perf_counter()
        left @ right
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return 2 * size**3 / min(seconds[1:])


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.M) if info.exists() else None
    return found[1] if found else platform.processor()
