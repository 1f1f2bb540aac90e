"""Devices by name."""

import pytest
import torch

from cotinterp.models.build import fast_bfloat16, resolve_device


def accelerator(monkeypatch, kind: str | None, count: int = 1):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: kind is not None)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device(kind) if kind else None)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: count)


@pytest.mark.parametrize(("kind", "chosen"), [(None, "cpu"), ("cuda", "cuda"), ("xpu", "xpu"), ("mps", "cpu")])
def test_auto_takes_the_accelerator_that_can_be_trusted(monkeypatch, kind, chosen):
    accelerator(monkeypatch, kind)
    assert resolve_device("auto").type == chosen


def test_a_named_device_is_taken(monkeypatch):
    accelerator(monkeypatch, "cuda", count=2)
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("cuda:1") == torch.device("cuda:1")


@pytest.mark.parametrize(("kind", "name"), [(None, "cuda"), ("cuda", "cuda:2"), ("cuda", "mps"), (None, "meta")])
def test_a_device_that_is_not_there_is_refused(monkeypatch, kind, name):
    accelerator(monkeypatch, kind, count=2)
    with pytest.raises(ValueError, match=rf"device '{name}' is not available; this machine has \['auto', 'cpu'"):
        resolve_device(name)


def test_an_unknown_device_is_refused():
    with pytest.raises(ValueError, match=r"unknown device 'gpu'; this machine has \['auto', 'cpu'"):
        resolve_device("gpu")


@pytest.mark.parametrize(("avx", "amx", "fast"), [(False, False, False), (True, False, True), (False, True, True)])
def test_a_processor_multiplies_bfloat16_fast_if_it_has_instructions_for_it(monkeypatch, avx, amx, fast):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert fast_bfloat16("cpu") is fast


@pytest.mark.parametrize(("capability", "fast"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_so_does_a_card_from_ampere_on(monkeypatch, capability, fast):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert fast_bfloat16("cuda") is fast


def test_other_devices_make_no_promise():
    assert not fast_bfloat16("meta")
