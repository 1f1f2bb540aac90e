import json

import pytest
import torch

from benchmarks.machine import computing_with, machine_facts, matmul_rates

CPU = torch.device("cpu")


def test_rates_are_positive_and_facts_are_plain():
    rates = matmul_rates(CPU, size=32, repeats=2)
    assert min(rates) > 0
    facts = machine_facts(CPU, rates)
    assert facts == json.loads(json.dumps(facts))
    assert facts["threads"] == torch.get_num_threads()


def test_threads_are_put_back():
    before = torch.get_num_threads()
    with computing_with(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_no_threads_are_refused():
    with pytest.raises(ValueError, match="at least one"), computing_with(0):
        pass
