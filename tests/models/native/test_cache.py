"""New tokens read after a cache are what the whole sequence says they are."""

import pytest
import torch

from cotinterp.models.native.cache import Cache, extend, joined
from cotinterp.models.native.parts import forward, native_parts

CLOSE = {"atol": 1e-5, "rtol": 1e-5}


@torch.no_grad()
def test_ragged_pieces_say_what_the_whole_sequence_says(native, tokens):
    """Each row is read in pieces of its own lengths, padding (token 0) on the right of each piece."""
    parts = native_parts(native)
    whole, states = forward(parts, tokens)
    cache = Cache.empty(parts, len(tokens), tokens.shape[1])
    rows = torch.arange(len(tokens))
    for n_new in ([3, 1, 4, 2], [1, 5, 0, 2], [2, 3, 5, 5], [3, 0, 0, 0]):
        n_new, begin = torch.tensor(n_new), cache.length
        places = (begin[:, None] + torch.arange(int(n_new.max()))).clamp(max=tokens.shape[1] - 1)
        real = torch.arange(places.shape[1]) < n_new[:, None]
        resid, cache = extend(parts, cache, tokens.gather(1, places).masked_fill(~real, 0), n_new)
        expected = whole[rows[:, None], places]
        torch.testing.assert_close(parts.logits(resid)[real], expected[real], **CLOSE)
    assert cache.length.tolist() == [9, 9, 9, 9]
    for state, k, v in zip(states, cache.k, cache.v, strict=True):
        torch.testing.assert_close(k[:, :, :9].transpose(1, 2), state.k, **CLOSE)
        torch.testing.assert_close(v[:, :, :9].transpose(1, 2), state.v, **CLOSE)


@torch.no_grad()
def test_rows_are_dropped_repeated_cut_and_joined(native, tokens):
    parts = native_parts(native)
    _, first = extend(parts, Cache.empty(parts, 4, 9), tokens[:, :6], torch.tensor([6, 2, 4, 5]))
    chosen = torch.tensor([3, 0, 0])
    cut = first.rows(chosen).cut(torch.tensor([5, 6, 3]))
    assert cut.length.tolist() == [5, 6, 3]
    _, other = extend(parts, Cache.empty(parts, 1, 12), tokens[2:3, :4])
    both = joined([cut, other])
    assert (both.room, both.length.tolist()) == (12, [5, 6, 3, 4])
    new = torch.tensor([[7, 1], [2, 2], [9, 0], [4, 4]])
    resid, _ = extend(parts, both, new)
    logits = parts.logits(resid)
    for row, (source, n) in enumerate([(3, 5), (0, 6), (0, 3), (2, 4)]):
        whole, _ = forward(parts, torch.cat([tokens[source, :n], new[row]])[None])
        torch.testing.assert_close(logits[row], whole[0, -2:], **CLOSE)


@torch.no_grad()
def test_what_is_kept_matters(native, tokens):
    """The negative control: after another sequence's cache the logits are others."""
    parts = native_parts(native)
    whole, _ = forward(parts, tokens)
    _, cache = extend(parts, Cache.empty(parts, 4, 9), tokens[:, :8])
    right, wrong = (
        parts.logits(extend(parts, one, tokens[:, 8:])[0])[:, 0] for one in (cache, cache.rows(torch.arange(4).flip(0)))
    )
    torch.testing.assert_close(right, whole[:, 8], **CLOSE)
    assert (wrong - whole[:, 8]).abs().amax(1).min() > 1e-3


def test_what_does_not_fit_is_refused(native, tokens):
    parts = native_parts(native)
    with pytest.raises(ValueError, match="9 positions in a cache with room for 5 and a context of 12"):
        extend(parts, Cache.empty(parts, 4, 5), tokens)
    with pytest.raises(ValueError, match="13 positions in a cache with room for 20 and a context of 12"):
        extend(parts, Cache.empty(parts, 1, 20), torch.zeros(1, 13, dtype=torch.long))
    with pytest.raises(ValueError, match="no caches to join"):
        joined([])
