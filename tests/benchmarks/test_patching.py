from dataclasses import replace

import pytest

from benchmarks.patching import HEADS, RESID_PRE, head_sweeps, patched, resid_pre_sweeps, sweep_comparison, sweep_flops

pytestmark = pytest.mark.slow

SWEEPS = {"resid_pre": resid_pre_sweeps, "heads": head_sweeps}


@pytest.mark.parametrize("name", SWEEPS)
def test_every_batch_agrees_with_the_peer(name, workload, amounts, once):
    rows = [once(comparison) for comparison in SWEEPS[name](workload, amounts)]
    assert [row.work.rpartition(" ")[2] for row in rows] == ["1", "3"]
    for row in rows:
        assert row.equal, row.note


def test_a_peer_with_little_to_do_takes_evenly_spaced_cells(workload):
    contrast = patched(workload, 3, 3)
    whole = sweep_comparison(workload, RESID_PRE, contrast, peer_sequences=10**6)
    part = sweep_comparison(workload, RESID_PRE, contrast, peer_sequences=30)
    n = contrast.clean.shape[1]
    assert (whole.their_share, len(whole.theirs())) == (1, 2 * n)
    assert len(part.theirs()) == pytest.approx(part.their_share * 2 * n)
    assert len(part.theirs()) * 3 <= 30


@pytest.mark.parametrize("sweep", [RESID_PRE, HEADS], ids=lambda sweep: sweep.name)
def test_one_cell_off_is_seen(sweep, workload, once):
    comparison = sweep_comparison(workload, sweep, patched(workload, 2, 3), peer_sequences=10**6)
    found = comparison.theirs()
    assert float(found.abs().max()) > 0.01
    found[len(found) // 2] += 1e-2
    assert not once(replace(comparison, theirs=lambda: found)).equal


def test_a_swapped_order_of_cells_is_seen(workload, once):
    comparison = sweep_comparison(workload, HEADS, patched(workload, 2, 3), peer_sequences=10**6)
    assert not once(replace(comparison, theirs=lambda: comparison.ours().flip(0))).equal


def test_pairs_differ_and_nothing_stands_after_the_readout(workload):
    contrast = patched(workload, 3, 3)
    assert len(contrast) == 3
    assert bool((contrast.clean != contrast.corrupted).any(dim=1).all())
    assert contrast.clean.shape[1] == int(contrast.at.max()) + 1
    assert len(contrast.places) == contrast.clean.shape[1]


def test_the_floor_is_below_a_pass_for_every_cell(workload):
    contrast = patched(workload, 3, 3)
    lengths = (contrast.at + 1).numpy()
    everything = workload.cost.forward(lengths, read=3) * (2 + 2 * contrast.clean.shape[1])
    assert 2 * workload.cost.forward(lengths, read=3) < sweep_flops(workload, RESID_PRE, contrast) < everything
