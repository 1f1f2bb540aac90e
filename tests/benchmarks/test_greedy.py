from dataclasses import replace

import pytest

from benchmarks.greedy import generated, greedy_decodings, same_texts
from benchmarks.subjects import mixed_problems
from cotinterp.behavior.decoding import verified_greedy


def test_the_peer_writes_the_same_symbols(subject, amounts, once):
    (comparison,) = greedy_decodings(subject, amounts)
    row = once(comparison)
    assert row.equal, row.note
    assert row.note == "0 of 12 outputs differ"


@pytest.mark.parametrize("cached", [False, True])
def test_with_and_without_its_cache(subject, cached):
    batch = subject.batch(mixed_problems(subject, 6))
    written = generated(subject, batch, cached=cached)
    assert written == verified_greedy(subject.model, batch)
    assert len(set(written)) > 1


def test_one_other_symbol_is_seen(subject, amounts, once):
    (comparison,) = greedy_decodings(subject, amounts)
    texts = comparison.ours()
    assert not once(replace(comparison, theirs=lambda: ("x" + texts[0][1:], *texts[1:]))).equal
    assert same_texts(("a", "b"), ("a", "c")).note == "1 of 2 outputs differ"
