import numpy as np
import pytest

from cotinterp.mechanism.activations import Budget
from cotinterp.mechanism.patching.sweep_native import Jobs, Sizes, packs, sweep_flops
from cotinterp.models.native.parts import native_parts


def sizes(**changes):
    usual = {"n_layers": 4, "d_model": 128, "d_mlp": 512, "n_heads": 4, "d_vocab_out": 20, "n_pos": 40}
    return Sizes(**{**usual, **changes})


def jobs(n, *, seed=0):
    rng = np.random.default_rng(seed)
    at = rng.integers(30, 40, n)
    return Jobs(np.arange(n), rng.integers(8, size=n), rng.integers(5, size=n), rng.integers(30, size=n), at)


def all_packs(some, given):
    return [(begin, some.select(members)) for begin, members in packs(some, given)]


def test_every_run_is_made_once_and_sees_all_that_it_changes():
    some = jobs(3000)
    found = all_packs(some, sizes())
    assert sorted(np.concatenate([pack.cell for _, pack in found]).tolist()) == list(range(3000))
    for begin, pack in found:
        assert (np.diff(pack.layer) >= 0).all(), "in the order in which they enter"
        assert (begin <= pack.at).all()
        deep = pack.layer < 3
        assert deep.all() or not deep.any()
        assert not deep.any() or (begin <= pack.first).all()


def test_little_is_computed_for_nothing():
    """Many runs: a pass for each first position. Few: they share one, and waste less than a pass costs."""
    many = [pack for _, pack in all_packs(jobs(20000), sizes()) if pack.layer[0] < 3]
    assert all(len(np.unique(pack.first)) == 1 for pack in many)
    few = all_packs(jobs(60), sizes())
    assert len(few) < 15
    assert all((pack.first - begin)[pack.layer < 3].sum() <= 96 for begin, pack in few)


@pytest.mark.parametrize("max_bytes", [4_000_000, 20_000_000, 100_000_000])
def test_no_pass_holds_more_than_its_half_of_the_memory(max_bytes):
    given = sizes(max_bytes=max_bytes)
    largest = 0
    for begin, pack in all_packs(jobs(2000), given):
        held = len(pack) * given.run(int(pack.at.max()) + 1 - begin)
        largest = max(largest, held)
        assert held <= max_bytes // 2
    assert largest > max_bytes // 20 or max_bytes == 100_000_000, "the memory is used"
    assert given.examples_at_once() * given.example() <= max_bytes // 2


def test_rows_are_bounded_too():
    assert all(len(pack) <= 7 for _, pack in all_packs(jobs(500), sizes(most_rows=7)))
    assert sizes(most_rows=7).examples_at_once() == 7


def test_memory_by_hand():
    """Two layers of width 4 with 2 heads and no MLP, 3 positions, 5 logits: 3 runs of 2 layers of 3 (32 + 18) floats,
    and 15 logits; a run of 2 positions holds 2 (36 + 12) + 48 + 40 floats."""
    small = Sizes(n_layers=2, d_model=4, d_mlp=0, n_heads=2, d_vocab_out=5, n_pos=3)
    assert small.example() == 4 * 3 * (2 * 3 * 50 + 15)
    assert small.run(2) == 4 * (2 * 48 + 48 + 40)


def test_memory_for_one_example_is_asked_for(tiny_model):
    parts = native_parts(tiny_model)
    fits = Sizes.of(parts, 8, Budget())
    least = 2 * max(fits.example(), fits.run(8))
    assert Sizes.of(parts, 8, Budget(max_bytes=least)).examples_at_once() >= 1
    with pytest.raises(ValueError, match=f"one example of 8 tokens needs {least:,}"):
        Sizes.of(parts, 8, Budget(max_bytes=least - 1))


def test_no_runs_no_packs():
    assert all_packs(jobs(0), sizes()) == []


def test_flops_by_hand():
    """Width 1, no MLP, two blocks, two logits. A run that changes position 1 of 3 and is read at 2."""
    small = Sizes(n_layers=2, d_model=1, d_mlp=0, n_heads=1, d_vocab_out=2, n_pos=3)

    def flops(layer):
        one = np.ones(1, dtype=np.int64)
        return sweep_flops(Jobs(0 * one, 0 * one, layer * one, one, 2 * one), small)

    logits, read = 2, 1 + 2 * 3
    assert flops(2) == 2 * logits
    assert flops(1) == 2 * (logits + read)
    # Two positions go through the first block: W_O, then scores and values of 2 and 3 keys. Then two keys and two
    # values, and the query of the one that is read.
    assert flops(0) == 2 * (logits + read + 2 * 1 + 2 * (2 + 3) + 2 * 2 + 1)


def test_the_floor_of_a_sweep_is_a_sixth_of_whole_passes():
    """resid_pre of four layers at 43 positions, against the linear layers of as many whole passes."""
    layer, first = (axis.ravel() for axis in np.meshgrid(np.arange(4), np.arange(43), indexing="ij"))
    runs = Jobs(np.arange(172), 0 * layer, layer, first, 0 * layer + 42)
    whole = 172 * 2 * 43 * 4 * 12 * 128**2
    assert 5 < whole / sweep_flops(runs, sizes()) < 6
