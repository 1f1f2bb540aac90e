import numpy as np
import pytest
import torch

from cotinterp.mechanism.activations import Budget, activations
from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.interventions import Edit, Write, run_with
from cotinterp.mechanism.metrics import kl, logit_diff
from cotinterp.mechanism.patching.runs import (
    Changes,
    Meter,
    StackedRuns,
    checked_place,
    minus,
    partners,
    place_mask,
    rows_at_once,
    rows_in,
)
from cotinterp.mechanism.sites import Site
from tests.mechanism.contrasts import contrast_with_gap, replaced


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


SITES = [Site("resid_pre", 0), Site("z", 1, 2), Site("attn_out", 0), Site("resid_pre", 0), Site("pattern", 1)]


def masks(tokens):
    """One position for each site, over the heads of the kinds that have them."""
    found = []
    for i, site in enumerate(SITES):
        mask = torch.zeros(*tokens.shape, dtype=torch.bool)
        mask[:, i + 2] = True
        heads = torch.ones(4, dtype=torch.bool) if site.head is None else torch.arange(4) == site.head
        found.append(mask[..., None] & heads if site.kind in ("z", "pattern") else mask)
    return found


@pytest.fixture
def meter(tiny_model, tokens):
    contrast = contrast_with_gap(tiny_model, tokens, replaced(tokens, [3], d_vocab=13), torch.full((5,), 7))
    return Meter.against(contrast, ("logit_diff",), run_with(tiny_model, tokens, []))


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_every_run_of_a_stack_is_compared_with_itself_unedited(tiny_model, tokens, meter, size):
    """Against one `run_with` for each edit; the last stack need not be full, and runs come in any order."""
    donors = activations(tiny_model, tokens.flip(0), {site.whole for site in SITES})
    writes = [[Write(site, mask, donors[site.whole])] for site, mask in zip(SITES, masks(tokens), strict=True)]
    stacked = StackedRuns.of(tiny_model, meter, tokens, size)
    found = dict(stacked.changes((i, writes[i]) for i in (0, 3, 1, 4)))
    assert list(found) == [0, 3, 1, 4]
    before = meter.of(run_with(tiny_model, tokens, []))
    for i, change in found.items():
        position = torch.zeros(tokens.shape, dtype=torch.bool)
        position[:, i + 2] = True
        edit = Edit(SITES[i], SITES[i].of(donors[SITES[i].whole]), position)
        expected = minus(meter.of(run_with(tiny_model, tokens, [edit])), before)["logit_diff"]
        assert change["logit_diff"] == pytest.approx(expected, abs=2e-5), SITES[i]


def test_a_run_of_the_recipients_own_values_changes_exactly_nothing(tiny_model, tokens, meter):
    own, mask = activations(tiny_model, tokens.repeat(3, 1), [Site("z", 0)]), torch.ones(5, 8, 4, dtype=torch.bool)
    stacked = StackedRuns.of(tiny_model, meter, tokens, 3, [Site("z", 0)])
    assert torch.equal(stacked.unedited[Site("z", 0)], own[Site("z", 0)])
    restored = [Write(Site("z", 0), mask, None, expect_change=False)]
    found = dict(stacked.changes([(0, []), (1, restored)]))
    assert not np.stack([change["logit_diff"] for change in found.values()]).any()
    assert list(stacked.changes([])) == []
