from dataclasses import replace

from benchmarks.sampled import sampled_decodings


def test_the_same_symbols_are_drawn_with_and_without_a_cache(subject, amounts, once):
    (comparison,) = sampled_decodings(subject, amounts)
    row = once(comparison)
    assert row.equal, row.note
    assert row.note == "0 of 6 outputs differ"


def test_other_draws_are_seen(subject, amounts, once):
    (comparison,) = sampled_decodings(subject, amounts)
    assert not once(replace(comparison, theirs=lambda: comparison.ours()[::-1])).equal
