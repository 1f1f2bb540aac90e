import numpy as np
import pytest
import torch

from cotinterp.mechanism.activations import Budget
from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.metrics import kl, logit_diff
from cotinterp.mechanism.patching.runs import Changes, Meter, checked_place, partners, place_mask, rows_at_once, rows_in
from cotinterp.mechanism.sites import Site


@pytest.fixture
def contrast(tokens):
    answer, foil = torch.tensor([1, 2, 3, 4, 5]), torch.tensor([6, 7, 8, 9, 10])
    return Contrast.by_position(tokens, (tokens + 1) % 13, torch.tensor([7, 6, 7, 6, 6]), answer, foil)


def test_a_pass_is_bounded_in_tokens_and_in_logits(tiny_model, contrast):
    assert rows_at_once(tiny_model, contrast) == 3072 // 8
    assert rows_at_once(tiny_model, contrast, batch_size=3) == 3
    with pytest.raises(ValueError, match="batch_size=0"):
        rows_at_once(tiny_model, contrast, batch_size=0)


def test_a_pass_is_bounded_in_bytes(tiny_model, contrast):
    """Of 8 tokens: 3 x 16 of the site, 12 x 16 and 2 x 32 of the layer, 3 x 4 x 8 of patterns, 6 x 13 of logits."""
    row = 4 * 8 * (48 + 192 + 64 + 96 + 78)
    assert rows_in(tiny_model, contrast, [Site("resid_pre", 0)], 5 * row) == 5
    pattern = 4 * 8 * 3 * 4 * 8
    assert rows_in(tiny_model, contrast, [Site("resid_pre", 0), Site("pattern", 1)], 2 * (row + pattern)) == 2
    assert rows_in(tiny_model, contrast, [Site("resid_pre", 0)], Budget().bytes) == 2**30 // row
    with pytest.raises(ValueError, match=f"one example of 8 tokens needs {row:,}"):
        rows_in(tiny_model, contrast, [Site("resid_pre", 0)], row - 1)


def test_a_meter_reads_logits_that_were_already_read(contrast):
    generator = torch.Generator().manual_seed(0)
    logits, reference = (torch.randn(5, 8, 13, generator=generator) for _ in range(2))
    meter = Meter.against(contrast, ["logit_diff", "kl"], reference)
    rows = torch.tensor([3, 0, 3])
    found, whole = meter.of_readout(logits[rows, contrast.at[rows]], rows), meter.of(logits)
    for name, values in whole.items():
        np.testing.assert_allclose(found[name], values[[3, 0, 3]])
        np.testing.assert_array_equal(meter.of_readout(logits[torch.arange(5), contrast.at])[name], values)


def test_partners_share_the_readout_and_the_places(contrast):
    for seed in range(5):
        found = partners(contrast, np.random.default_rng(seed))
        assert set(found[[0, 2]].tolist()) == {0, 2}
        assert found[0] == 2
        assert sorted(found[[1, 3, 4]].tolist()) == [1, 3, 4]
        assert not (found == np.arange(5)).any()
    alone = contrast.select(torch.tensor([0, 1, 3]))
    assert partners(alone, np.random.default_rng(0)).tolist() == [-1, 2, 1]


def test_a_meter_reads_stacked_rows_as_single_ones(contrast):
    generator = torch.Generator().manual_seed(0)
    logits, reference = (torch.randn(5, 8, 13, generator=generator) for _ in range(2))
    meter = Meter.against(contrast, ["logit_diff", "kl"], reference)
    single, stacked = meter.of(logits), meter.of(torch.cat([logits, 2 * logits]), stack=2)
    read = (contrast.at, contrast.answer, contrast.foil)
    np.testing.assert_allclose(single["logit_diff"], logit_diff(logits.double(), *read).numpy())
    np.testing.assert_allclose(single["kl"], kl(logits.double(), reference.double(), contrast.at).numpy())
    for name, values in single.items():
        np.testing.assert_array_equal(stacked[name][:5], values)
    np.testing.assert_allclose(stacked["logit_diff"][5:], 2 * single["logit_diff"])


def test_places(contrast, tokens):
    assert place_mask(None, contrast, tokens).all()
    assert place_mask("position 3", contrast, tokens)[:, 3].all()
    assert int(place_mask("position 3", contrast, tokens).sum()) == 5
    with pytest.raises(ValueError, match="no place 'position 8' at or before the readout; the contrast has"):
        checked_place("position 8", contrast)


def test_blocks_are_joined_along_examples():
    def part(values, ran):
        row = {"logit_diff": np.array(values)}
        changes = {"logit_diff": np.array([values, values])}
        predicted = {"clean": np.zeros(len(values), dtype=int)}
        return Changes(changes, row, {"self": row}, np.array(ran), predicted, np.ones((2, len(values)), dtype=bool))

    both = Changes.joined([part([1.0, 2.0], [True, False]), part([3.0], [False, False])])
    assert both.changes["logit_diff"].tolist() == [[1.0, 2.0, 3.0]] * 2
    assert both.gaps["logit_diff"].tolist() == both.baselines["self"]["logit_diff"].tolist() == [1.0, 2.0, 3.0]
    assert both.ran.tolist() == [True, False]
    assert (both.live.shape, both.predicted["clean"].shape) == ((2, 3), (3,))
