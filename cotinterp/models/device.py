"""Where a model runs."""

import torch


def resolve_device(name: str = "auto") -> torch.device:
    """The device called `name`; "auto" is this machine's accelerator where it has one, else the CPU.

    "auto" passes over Apple's MPS, on which TransformerLens warns of silently wrong results; it can be asked for.

    Raises:
        ValueError: torch knows no such device, or this machine has none; those that it has are listed.
    """
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if name == "auto":
        return accelerator if accelerator is not None and accelerator.type != "mps" else torch.device("cpu")
    count = torch.accelerator.device_count() if accelerator is not None else 0
    there = ["auto", "cpu"] + ([accelerator.type] if accelerator is not None else [])
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"unknown device {name!r}; this machine has {there}") from error
    if device.type != "cpu" and (device.type not in there or (device.index or 0) >= count):
        raise ValueError(f"device {name!r} is not available; this machine has {there}, accelerators: {count}")
    return device


def fast_bfloat16(device: torch.device | str) -> bool:
    """Whether the device multiplies bfloat16 matrices in hardware: a CPU with AVX512-BF16 or AMX, CUDA from Ampere on.

    Where it does not, bfloat16 is emulated and slower than float32.
    """
    place = torch.device(device)
    if place.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return place.type == "cuda" and torch.cuda.get_device_capability(place) >= (8, 0)
