"""Which attention is cut, worked out by hand on six tokens read at the last."""

import numpy as np
import pytest
import torch

from cotinterp.mechanism.activations import activations
from cotinterp.mechanism.heads.knock_outs import attention_on, read_cuts
from cotinterp.mechanism.sites import Site

TOKENS = torch.zeros(2, 6, dtype=torch.long)
AT = torch.tensor([5, 4])


def marked(*positions):
    mask = torch.zeros(2, 6, dtype=torch.bool)
    mask[:, list(positions)] = True
    return mask


def cut(sources, absent=None, dests=("readout", "everywhere"), seed=0):
    found = read_cuts(sources, absent or {}, AT, TOKENS, dests, np.random.default_rng(seed))
    return {(each.read, each.control, each.dest): each.mask for each in found}


def paths(mask, row):
    return [tuple(path) for path in mask[row].nonzero().tolist()]


def test_the_readout_alone_or_all_that_follow_lose_sight_of_the_sources():
    found = cut({"totals": marked(1, 3)})
    assert paths(found["totals", "", "readout"], 0) == [(5, 1), (5, 3)]
    assert paths(found["totals", "", "readout"], 1) == [(4, 1), (4, 3)]
    assert paths(found["totals", "", "everywhere"], 0) == [(2, 1), (4, 1), (4, 3), (5, 1), (5, 3)]
    assert paths(found["totals", "", "everywhere"], 1) == [(2, 1), (4, 1), (4, 3)]


def test_random_sources_are_as_many_tokens_that_no_read_names_and_that_stand_before_the_readout():
    found = cut({"one": marked(1, 3), "other": marked(0)})
    assert paths(found["one", "random sources", "readout"], 0) == [(5, 2), (5, 4)]
    assert paths(found["one", "random sources", "readout"], 1) == [(4, 2)]
    drawn = {
        tuple(paths(cut({"other": marked(0)}, seed=s)["other", "random sources", "readout"], 0)) for s in range(40)
    }
    assert drawn == {((5, src),) for src in (1, 2, 3, 4)}


def test_absent_reads_are_cut_like_others_and_have_no_random_sources():
    assert list(cut({"one": marked(1)}, {"none": marked(2)}, ["readout"])) == [
        ("one", "", "readout"),
        ("one", "random sources", "readout"),
        ("none", "absent read", "readout"),
    ]


def test_sources_behind_the_readout_are_none():
    with pytest.raises(ValueError, match="read 'late' has no source at or before the readout in 1 of 2 examples"):
        cut({"late": marked(5)})
    with pytest.raises(ValueError, match="no reads to knock out"):
        cut({})


def test_attention_on_a_mask_is_the_mass_per_destination(tiny_model, tokens):
    mask = torch.zeros(5, 8, 8, dtype=torch.bool)
    mask[:, 6, [1, 2]] = mask[:, 7, [1, 2]] = True
    pattern = activations(tiny_model, tokens, [Site("pattern", 1)])[Site("pattern", 1)]
    expected = pattern[:, :, 6:, 1:3].sum(dim=-1).mean(dim=-1)
    found = attention_on(tiny_model, tokens, [mask], batch_size=2)
    torch.testing.assert_close(found[0, 1], expected.T)
