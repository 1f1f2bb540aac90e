"""Rollouts against Hugging Face: the same weights and the same draws give the same symbols."""

from dataclasses import replace

import pytest
import torch

from benchmarks.rollouts import rollouts
from cotinterp.calibration.peers import gpt2_of

pytestmark = pytest.mark.slow


def test_the_gpt2_has_the_logits_of_the_model(workload):
    batch = workload.batch(workload.heldout(4, k=3))
    with torch.no_grad():
        torch.testing.assert_close(
            gpt2_of(workload.model)(batch.tokens).logits, workload.model(batch.tokens), atol=1e-4, rtol=0
        )


def test_both_draw_the_same_symbols_and_others_are_seen(workload, amounts, once):
    (comparison,) = rollouts(workload, amounts)
    row = once(comparison)
    assert row.equal, row.note
    assert row.note == "0 of 6 outputs differ"
    assert len(set(comparison.ours())) > 1
    assert not once(replace(comparison, theirs=lambda: comparison.ours()[::-1])).equal
