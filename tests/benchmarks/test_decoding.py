"""What a model writes: the same symbols as the peers, greedy and sampled."""

from dataclasses import replace

import pytest

from benchmarks.decoding import generated, greedy_decodings, same_texts, sampled_decodings
from benchmarks.workload import mixed_problems
from cotinterp.models.decoding import verified_greedy

pytestmark = pytest.mark.slow


def test_the_peer_writes_the_same_symbols(workload, amounts, once):
    (comparison,) = greedy_decodings(workload, amounts)
    row = once(comparison)
    assert row.equal, row.note
    assert row.note == "0 of 12 outputs differ"


@pytest.mark.parametrize("cached", [False, True])
def test_with_and_without_its_cache(workload, cached):
    batch = workload.batch(mixed_problems(workload, 6))
    written = generated(workload, batch, cached=cached)
    assert written == verified_greedy(workload.model, batch)
    assert len(set(written)) > 1


def test_one_other_symbol_is_seen(workload, amounts, once):
    (comparison,) = greedy_decodings(workload, amounts)
    texts = comparison.ours()
    assert not once(replace(comparison, theirs=lambda: ("x" + texts[0][1:], *texts[1:]))).equal
    assert same_texts(("a", "b"), ("a", "c")).note == "1 of 2 outputs differ"


def test_the_same_symbols_are_drawn_with_and_without_a_cache(workload, amounts, once):
    (comparison,) = sampled_decodings(workload, amounts)
    row = once(comparison)
    assert row.equal, row.note
    assert row.note == "0 of 6 outputs differ"


def test_other_draws_are_seen(workload, amounts, once):
    (comparison,) = sampled_decodings(workload, amounts)
    assert not once(replace(comparison, theirs=lambda: comparison.ours()[::-1])).equal
