"""Changes of direct attribution are the whole loss where nothing else reaches the logits, and causal."""

import numpy as np
import pytest
import torch

from cotinterp.mechanism.heads.ablation import ablate_heads
from cotinterp.mechanism.heads.backups import direct_change
from cotinterp.mechanism.heads.losses import NO_DONOR
from cotinterp.mechanism.sites import Site, head_sites
from tests.mechanism.contrasts import asked


def test_without_norm_and_mlp_the_changes_of_direct_attribution_are_the_whole_loss(make_tiny, tokens):
    """The logit difference is then the sum of what is written directly: loss = - sum over heads of their changes."""
    model = make_tiny(attn_only=True, normalization_type=None)
    told = asked(clean=tokens, at=torch.tensor([7, 3, 5, 7, 2]), answer=torch.arange(1, 6), foil=torch.arange(6, 11))
    donors = np.array([[1, 2, 3, 4, 0], [2, 3, 4, 0, 1]])
    heads = head_sites(model)
    change = direct_change(model, told, heads, donors)
    lost = ablate_heads(model, told, [[site] for site in heads], donors)
    torch.testing.assert_close(-change.sum(dim=1), lost, atol=1e-3, rtol=1e-3)
    assert change[4:, :4].abs().max() < 1e-5
    assert change[0, 4:].abs().min() > 0
    assert (change[0, 1:4] == 0).all()


@pytest.mark.parametrize("method", ["resample", "mean", "zero"])
def test_pieces_and_missing_donors(tiny_model, tokens, method):
    told = asked(clean=tokens, at=torch.full((5,), 7), answer=torch.arange(1, 6), foil=torch.arange(6, 11))
    donors, heads = np.array([[1, 2, 3, 0, NO_DONOR]]), [Site("z", 0, 1), Site("z", 1, 2)]
    whole = direct_change(tiny_model, told, heads, donors, method=method)
    torch.testing.assert_close(
        direct_change(tiny_model, told, heads, donors, method=method, batch_size=3), whole, equal_nan=True
    )
    assert whole[..., 4].isnan().all()
    assert whole[0, 1, :4].abs().min() > 0
    assert whole[1, 0, :4].abs().max() == 0
