import numpy as np
import pytest
import torch
from transformer_lens.model_bridge.sources import build_bridge_from_module
from transformer_lens.tools.analysis import interchange as oracle
from transformers import GPT2Config, GPT2LMHeadModel

from cotinterp.mechanism.activations import activations
from cotinterp.mechanism.interventions import InertEditError, patch, run_with
from cotinterp.mechanism.probing.linear_probe import fit_probe
from cotinterp.mechanism.probing.subspaces import Subspace, exchanged, interchange
from cotinterp.mechanism.sites import Site

D = 16
SITE = Site("resid_pre", 1)


@pytest.fixture
def some():
    return Subspace.random(D, 5, np.random.default_rng(0))


@pytest.fixture
def donor(tiny_model, tokens):
    """Activations of other tokens, at every site asked for."""
    return lambda site: activations(tiny_model, tokens.roll(1, 0), [site])[site]


def nothing(d=D):
    return Subspace(torch.zeros(d, 0))


def everything(d=D):
    return Subspace.random(d, d, np.random.default_rng(1))


def rows(n, seed):
    return torch.randn(n, D, generator=torch.Generator().manual_seed(seed))


def test_the_projection_is_idempotent_symmetric_and_keeps_what_lies_in_it(some):
    x, y = rows(7, 0), rows(7, 1)
    assert torch.allclose(some.part(some.part(x)), some.part(x), atol=1e-6)
    assert torch.allclose((some.part(x) * y).sum(1), (x * some.part(y)).sum(1), atol=1e-5)
    inside = torch.randn(3, 5) @ some.basis.T
    assert torch.allclose(some.part(inside), inside, atol=1e-5)
    assert torch.allclose(some.part(x) + some.complement().part(x), x, atol=1e-6)
    assert float(some.part(some.complement().basis.T).abs().max()) < 1e-6
    assert (some.rank, some.complement().rank, some.d_site) == (5, 11, 16)


def test_the_whole_space_gives_the_donor_and_the_empty_one_the_recipient(some):
    x, y = rows(7, 0), rows(7, 1)
    assert float((exchanged(x, y, everything()) - y).abs().max()) < 1e-6
    assert torch.equal(exchanged(x, y, nothing()), x)
    twice = exchanged(exchanged(x, y, some), y, some.complement())
    assert float((twice - y).abs().max()) < 1e-6


def test_a_projection_by_hand():
    """Onto (1, 1) / sqrt 2: the mean of both coordinates, in both."""
    line = Subspace.span(torch.tensor([[2.0], [2.0]]))
    assert torch.allclose(line.part(torch.tensor([[4.0, 0.0], [1.0, -1.0]])), torch.tensor([[2.0, 2.0], [0.0, 0.0]]))
    moved = exchanged(torch.tensor([[4.0, 0.0]]), torch.tensor([[0.0, 0.0]]), line)
    assert torch.allclose(moved, torch.tensor([[2.0, -2.0]]))


def test_span_drops_what_others_span_and_orders_by_size():
    directions = torch.tensor([[1.0, 0.0, 2.0], [0.0, 10.0, 0.0], [0.0, 0.0, 0.0]])
    assert Subspace.span(directions).rank == 2
    longest = Subspace.span(directions, rank=1)
    assert torch.allclose(longest.basis.abs(), torch.tensor([[0.0], [1.0], [0.0]]), atol=1e-6)
    assert Subspace.span(torch.zeros(3, 2)).rank == 0
    with pytest.raises(ValueError, match="rank 3 was asked for; these 3 directions span 2"):
        Subspace.span(directions, rank=3)
    with pytest.raises(ValueError, match="the 3 columns of the basis are not orthonormal"):
        Subspace(directions)


def test_the_whole_space_is_a_patch_and_the_empty_one_changes_nothing(tiny_model, tokens, donor):
    for site in (SITE, Site("mlp_out", 0), Site("z", 1, 2), Site("z", 1)):
        d = {"z": 4 if site.head is not None else 16}.get(site.kind, D)
        for where in (None, torch.tensor([5, 2, 3, 1, 4])):
            given = donor(site)
            patched = run_with(tiny_model, tokens, [patch(site, given, where)])
            exchanged_all = run_with(tiny_model, tokens, [interchange(site, given, everything(d), where)])
            assert torch.allclose(exchanged_all, patched, atol=2e-5)
            assert not torch.allclose(patched, tiny_model(tokens), atol=1e-2)
            edit = interchange(site, given, nothing(d), where, expect_change=False)
            assert torch.equal(run_with(tiny_model, tokens, [edit]), run_with(tiny_model, tokens, []))
            with pytest.raises(InertEditError, match="changed no value"):
                run_with(tiny_model, tokens, [interchange(site, given, nothing(d), where)])


def test_a_subspace_and_its_complement_make_the_full_patch(tiny_model, tokens, donor, some):
    given = donor(SITE)
    mask = torch.zeros(5, 8, dtype=torch.bool)
    mask[:, 2:4] = True
    both = [interchange(SITE, given, some, mask), interchange(SITE, given, some.complement(), mask)]
    patched = run_with(tiny_model, tokens, [patch(SITE, given, mask)])
    assert torch.allclose(run_with(tiny_model, tokens, both), patched, atol=2e-5)
    one, other = (run_with(tiny_model, tokens, [edit]) for edit in both)
    assert not torch.allclose(one, patched, atol=1e-2)
    assert not torch.allclose(other, patched, atol=1e-2)


def test_only_the_places_named_are_edited(tiny_model, tokens, donor, some):
    at = torch.tensor([5, 2, 3, 1, 4])
    site = Site("resid_post", 1)
    before = run_with(tiny_model, tokens, [])
    after = run_with(tiny_model, tokens, [interchange(site, donor(site), some, at)])
    assert torch.equal((after != before).any(dim=-1).nonzero(), torch.stack([torch.arange(5), at], dim=1))
    gathered = donor(site)[torch.arange(5), at]
    again = run_with(tiny_model, tokens, [interchange(site, gathered, some, at)])
    assert torch.allclose(again, after, atol=1e-5)


def test_one_mean_for_all_is_written_everywhere(tiny_model, tokens, donor, some):
    """After the component was replaced by the mean's, every example reads the same there."""
    at, site = torch.full((5,), 3), Site("resid_pre", 1)
    own = activations(tiny_model, tokens, [site], positions=at)[site]
    moved = exchanged(own, own.mean(0).expand_as(own), some)
    assert torch.allclose(some.part(moved), some.part(own.mean(0, keepdim=True)).expand(5, D), atol=1e-5)
    found = run_with(tiny_model, tokens, [interchange(site, own.mean(0), some, at)])
    expected = run_with(tiny_model, tokens, [patch(site, moved, at)])
    assert torch.allclose(found, expected, atol=1e-5)


def test_a_placebo_moves_as_far_and_elsewhere(some):
    x, y = rows(9, 0), rows(9, 1)
    other = Subspace.random(D, 5, np.random.default_rng(7))
    meant, placebo = exchanged(x, y, some) - x, exchanged(x, y, other, matched_to=some) - x
    assert torch.allclose(placebo.norm(dim=1), meant.norm(dim=1), atol=1e-5)
    assert torch.allclose(other.part(placebo), placebo, atol=1e-5)
    unmatched = exchanged(x, y, other) - x
    assert float((unmatched.norm(dim=1) - meant.norm(dim=1)).abs().max()) > 0.1
    # What differs only outside the placebo's subspace gives it no direction to move in.
    assert torch.equal(exchanged(x, x, other, matched_to=some), x)


def test_random_subspaces_follow_the_data_where_told_to():
    rng = np.random.default_rng(0)
    flat = rows(200, 0) * torch.tensor([1.0, 1.0, 1.0] + [0.0] * (D - 3)) + 5.0
    like = Subspace.random(D, 3, rng, like=flat)
    assert torch.allclose(like.part(torch.eye(D)).diagonal()[:3], torch.ones(3), atol=1e-4)
    with pytest.raises(ValueError, match="rank 4 was asked for; these 4 directions span 3"):
        Subspace.random(D, 4, rng, like=flat)
    held = [float(Subspace.random(D, 4, rng).part(rows(1, seed)).norm() ** 2) for seed in range(400)]
    assert np.mean(held) / D == pytest.approx(4 / D, rel=0.08)


def test_an_interchange_in_what_a_probe_reads_gives_the_donors_reading():
    features, truth = rows(300, 0), np.arange(300) % 3
    features[:, :3] += 2.0 * torch.eye(3)[truth]
    probe = fit_probe(features * torch.linspace(0.1, 10, D), truth)
    x, y = rows(50, 3) * torch.linspace(0.1, 10, D), rows(50, 4) * torch.linspace(0.1, 10, D)
    subspace = Subspace.of_probe(probe)
    assert subspace.rank == 2
    assert (probe.predict(x) != probe.predict(y)).mean() > 0.3
    assert (probe.predict(exchanged(x, y, subspace)) == probe.predict(y)).all()
    assert (probe.predict(exchanged(x, y, subspace.complement())) == probe.predict(x)).all()


def test_split_tells_what_readers_see_from_what_they_do_not():
    """(e0 + e4) / sqrt 2 with readers that see e0 and e1: the shadows are e0 and e4."""
    eye = torch.eye(6)
    mixed = Subspace.span(eye[:, :1] + eye[:, 4:5])
    seen, unseen = mixed.split(torch.stack([eye[0] + eye[1], eye[1]], dim=1))
    assert torch.allclose(seen.basis.abs(), eye[:, :1], atol=1e-6)
    assert torch.allclose(unseen.basis.abs(), eye[:, 4:5], atol=1e-6)
    assert [part.rank for part in Subspace.span(eye[:, 1:2]).split(eye[:, :2])] == [1, 0]


def test_what_does_not_fit_is_refused(tiny_model, tokens, donor, some):
    with pytest.raises(ValueError, match=r"L1.pattern holds attention weights"):
        interchange(Site("pattern", 1), torch.zeros(5, 4, 8, 8), some)
    with pytest.raises(ValueError, match=r"a subspace of 16 dimensions does not fit L1H2.z: 4"):
        run_with(tiny_model, tokens, [interchange(Site("z", 1, 2), donor(Site("z", 1, 2)), some)])


@pytest.fixture(scope="module")
def das(tiny_model):
    """A subspace that TransformerLens learned in a few steps, for the sources' answers."""
    generator = torch.Generator().manual_seed(5)
    base, source = (torch.randint(0, 13, (48, 8), generator=generator) for _ in range(2))
    at = torch.randint(6, 8, (48,), generator=generator)

    def task(tokens):
        return tiny_model(tokens)[:, -1]

    targets = task(source).argmax(-1)
    options = {"rank": 3, "base_positions": at, "source_positions": at, "epochs": 3, "batch_size": 48}
    learned = oracle.fit_das(tiny_model, SITE.hook, base, source, targets, task, **options)
    acts = oracle.collect_activations(tiny_model, SITE.hook, source, task, positions=at)
    return learned, base, acts, at, targets, task


def test_interchange_agrees_with_fit_das(tiny_model, das):
    learned, base, acts, at, targets, task = das
    subspace = Subspace(learned.basis)
    step = oracle.SubspaceInterchange(learned.subspace)
    theirs = oracle.intervened_logits(tiny_model, SITE.hook, step, base, acts, task, positions=at)
    ours = run_with(tiny_model, base, [interchange(SITE, acts, subspace, at)])[:, -1]
    assert float((ours - theirs).abs().max()) < 1e-5
    assert ((ours.argmax(-1) == targets) == (theirs.argmax(-1) == targets)).all()
    assert not torch.allclose(ours, task(base), atol=0.1)


def test_a_model_that_is_not_ours(randomized, tokens, some):
    """A Hugging Face GPT-2 with random weights: the same identities, and the same logits as TransformerLens's."""
    config = GPT2Config(n_layer=2, n_head=4, n_embd=16, vocab_size=13, n_positions=16)
    bridge = build_bridge_from_module(GPT2LMHeadModel(config), architecture="GPT2LMHeadModel", hf_config=config)
    model, at = randomized(bridge, seed=5), torch.tensor([5, 2, 3, 1, 4])
    acts = activations(model, tokens.roll(1, 0), [SITE], positions=at)[SITE]
    step = oracle.SubspaceInterchange(some.basis)
    theirs = oracle.intervened_logits(model, SITE.hook, step, tokens, acts, model, positions=at)
    ours = run_with(model, tokens, [interchange(SITE, acts, some, at)])
    assert float((ours - theirs).abs().max()) < 1e-5
    assert not torch.allclose(ours, run_with(model, tokens, []), atol=1e-2)
    both = [interchange(SITE, acts, one, at) for one in (some, some.complement())]
    assert torch.allclose(run_with(model, tokens, both), run_with(model, tokens, [patch(SITE, acts, at)]), atol=2e-5)


def test_the_placebo_agrees_with_transformer_lens(tiny_model, das):
    learned, base, acts, at, _, task = das
    subspace, random = Subspace(learned.basis), Subspace.random(D, 3, np.random.default_rng(2))
    placebo = oracle.NormMatchedPlacebo(oracle.SubspaceInterchange(learned.basis), random.basis)
    theirs = oracle.intervened_logits(tiny_model, SITE.hook, placebo, base, acts, task, positions=at)
    ours = run_with(tiny_model, base, [interchange(SITE, acts, random, at, matched_to=subspace)])[:, -1]
    assert float((ours - theirs).abs().max()) < 1e-5
    assert not torch.allclose(ours, task(base), atol=0.1)
