"""What a probe reads, and what its directions do, does not depend on what fills the padding, nor on how wide it is."""

import numpy as np
import pytest
import torch

from cotinterp.mechanism.activations import activations
from cotinterp.mechanism.probing.controls import Controls
from cotinterp.mechanism.probing.subspaces import Subspace
from cotinterp.mechanism.probing.totals import probe_totals
from cotinterp.mechanism.probing.transfer import transfer_totals
from cotinterp.mechanism.probing.use import RandomSubspaces, probe_use
from cotinterp.mechanism.sites import Site
from cotinterp.tasks import get_task
from cotinterp.transcripts.batch import collate
from cotinterp.transcripts.problems import sample_problems
from cotinterp.transcripts.render import render
from cotinterp.transcripts.roles import Role
from cotinterp.transcripts.vocabulary import Vocabulary
from tests.mechanism.padding import mixed_contrast, repadded, repadded_batch, same_numbers

pytestmark = pytest.mark.slow

SITE = Site("resid_pre", 1)
TASK = get_task("digit-sum")
VOCABULARY = Vocabulary.of(TASK)


@pytest.fixture(scope="module")
def model(make_tiny):
    return make_tiny(d_vocab=len(VOCABULARY), n_ctx=48)


@pytest.fixture(scope="module")
def batch():
    problems = [
        problem
        for k in (3, 4)
        for problem in sample_problems(TASK, k, 150, split="train", rng=np.random.default_rng(k))
    ]
    return collate([render(TASK, problem, "cot") for problem in problems], VOCABULARY)


def test_probes_read_no_padding(model, batch):
    other = repadded_batch(batch, wider=5, seed=3)
    assert not torch.equal(other.tokens[:, : batch.tokens.shape[1]], batch.tokens)
    options = {"sites": [SITE], "places": [("equals", 1), ("operand", 2)], "controls": Controls(untrained=model)}
    one, two = (probe_totals(model, given, targets=[1], **options) for given in (batch, other))
    same_numbers(one.frame(), two.frame())
    places = [("equals", 1, 1), ("operand", 2, 1)]
    one, two = (transfer_totals({"m": (model, given)}, places, sites=[SITE]) for given in (batch, other))
    same_numbers(one.frame(), two.frame())


def test_activations_know_nothing_of_padding_nor_of_their_neighbors(model, batch):
    at = batch.where(Role.EQUALS, 2)
    other = repadded_batch(batch, wider=5, seed=3)
    order = torch.randperm(len(batch), generator=torch.Generator().manual_seed(0))
    plain, padded, shuffled = (
        activations(model, tokens, [SITE], positions=positions, batch_size=64)[SITE]
        for tokens, positions in ((batch.tokens, at), (other.tokens, at), (batch.tokens[order], at[order]))
    )
    torch.testing.assert_close(padded, plain, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(shuffled, plain[order], rtol=1e-4, atol=1e-5)


def test_use_depends_on_no_padding(model):
    contrast = mixed_contrast()
    other = repadded(contrast, d_vocab=len(VOCABULARY), wider=4, seed=3)
    place = next(iter(contrast.places))
    subspace = Subspace.random(16, 2, np.random.default_rng(0))
    one, two = (
        probe_use(model, given, subspace, SITE, label, removal=removal, controls=RandomSubspaces(n=19)).frame()
        for removal in ("resample",)
        for label in [list(contrast.places)[-1]]
        for given in (contrast, other)
    )
    assert place in other.places
    same_numbers(one, two, atol=1e-4)
