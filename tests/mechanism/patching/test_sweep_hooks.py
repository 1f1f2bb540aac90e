import numpy as np
import pytest
import torch

from cotinterp.mechanism.activations import activations
from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.interventions import Edit, patch, run_with
from cotinterp.mechanism.metrics import logit_diff
from cotinterp.mechanism.patching.runs import Cell, Changes, Runs
from cotinterp.mechanism.patching.sweep_hooks import sweep_block
from cotinterp.mechanism.sites import Site, head_sites
from tests.mechanism.contrasts import contrast_with_gap, replaced

pytestmark = pytest.mark.slow

NAMES = ("logit_diff", "probability")


@pytest.fixture
def contrast(tiny_model, tokens):
    """Position 3 differs; read at 6 or 7."""
    return contrast_with_gap(tiny_model, tokens, replaced(tokens, [3], d_vocab=13), torch.tensor([6, 7, 7, 6, 7]))


@pytest.fixture
def cells(tiny_model, contrast):
    sites = [Site(kind, layer) for kind in ("resid_pre", "attn_out", "mlp_out", "z", "pattern") for layer in range(2)]
    sites += [*head_sites(tiny_model), *head_sites(tiny_model, "pattern")]
    return tuple(Cell(site, place) for site in sites for place in contrast.places)


def block(model, contrast, cells, *, noise=False, rows=slice(None), partner=(1, 2, 3, 4, 0), **options):
    runs = Runs.of(contrast, rows, np.array(partner), noise=noise)
    return sweep_block(model, runs, cells, NAMES, **{"stack": 7, **options})


@pytest.mark.parametrize("noise", [False, True])
def test_every_cell_is_its_own_edit(tiny_model, contrast, cells, noise):
    """The stacked sweep against one `run_with` for every cell."""
    found = block(tiny_model, contrast, cells, noise=noise).changes["logit_diff"]
    donor, recipient = (contrast.corrupted, contrast.clean) if noise else (contrast.clean, contrast.corrupted)
    read = (contrast.at, contrast.answer, contrast.foil)
    before = logit_diff(run_with(tiny_model, recipient, []), *read)
    donors = activations(tiny_model, donor, {cell.site for cell in cells})
    for i, cell in enumerate(cells):
        edit = Edit(cell.site, donors[cell.site], contrast.places[cell.place], expect_change=False)
        change = logit_diff(run_with(tiny_model, recipient, [edit]), *read) - before
        np.testing.assert_allclose(found[i], change.numpy(), atol=2e-5, err_msg=str(cell))


def test_equal_cells_are_skipped_and_zero_when_run(tiny_model, contrast, cells):
    skipped = block(tiny_model, contrast, cells)
    equal = ~skipped.ran
    assert 0 < equal.sum() < len(cells)
    assert not skipped.changes["logit_diff"][equal].any()
    every = block(tiny_model, contrast, cells, skip_equal=False)
    assert every.ran.all()
    np.testing.assert_allclose(every.changes["logit_diff"], skipped.changes["logit_diff"], atol=2e-5)


def test_what_cannot_matter_is_exactly_zero(tiny_model, contrast, cells):
    """Before the change, after the readout, and in the last layer away from it: zero and not 1e-7."""
    found = block(tiny_model, contrast, cells).changes["logit_diff"]
    for cell, changes in zip(cells, found, strict=True):
        position = int(cell.place.split()[-1])
        for row, at in enumerate(contrast.at.tolist()):
            last = cell.site.layer == 1 and cell.site.kind != "resid_pre" and position != at
            if position < 3 or position > at or last:
                assert changes[row] == 0.0, (cell, row)
    assert (np.abs(found) > 1e-3).any(axis=1).sum() > 20, "or the zeros would say nothing"


def test_zero_is_exact_where_rounding_depends_on_the_shape_of_the_batch(tiny_model, contrast, cells):
    """As on hardware that picks its kernel by shape: each row of each batch size has an error of its own."""

    class Rounds:
        cfg, training, run_with_cache, hooks = tiny_model.cfg, False, tiny_model.run_with_cache, tiny_model.hooks

        def __call__(self, tokens):
            error = torch.arange(1.0, len(tokens) + 1) / len(tokens)
            return tiny_model(tokens) * (1 + 1e-3 * error[:, None, None])

    found = block(Rounds(), contrast, cells)
    for cell, changes in zip(cells, found.changes["logit_diff"], strict=True):
        if int(cell.place.split()[-1]) < 3:
            assert not changes.any()
        if cell == Cell(Site("attn_out", 1), "position 4"):
            assert found.ran[cells.index(cell)]
            assert not changes.any()
    assert not found.baselines["self"]["logit_diff"].any()
    assert (found.baselines["full"]["logit_diff"] == found.gaps["logit_diff"]).all()


@pytest.mark.parametrize("stack", [1, 2, 1000])
def test_the_stack_changes_nothing(tiny_model, contrast, cells, stack):
    found, expected = block(tiny_model, contrast, cells, stack=stack), block(tiny_model, contrast, cells)
    for name in NAMES:
        np.testing.assert_allclose(found.changes[name], expected.changes[name], atol=2e-5)


def test_blocks_of_examples_join(tiny_model, contrast, cells):
    parts = [block(tiny_model, contrast, cells, rows=slice(start, start + 2)) for start in (0, 2, 4)]
    joined, expected = Changes.joined(parts), block(tiny_model, contrast, cells)
    for name in NAMES:
        np.testing.assert_allclose(joined.changes[name], expected.changes[name], atol=2e-5)
        np.testing.assert_allclose(joined.gaps[name], expected.gaps[name], atol=2e-5)
    np.testing.assert_allclose(
        joined.baselines["random_donor"]["logit_diff"], expected.baselines["random_donor"]["logit_diff"], atol=2e-5
    )
    assert (joined.ran == expected.ran).all()


def test_baselines(tiny_model, contrast, cells):
    """Self is nothing and full everything, bit for bit; the random donor is the next example's whole run."""
    found = block(tiny_model, contrast, cells)
    for name in NAMES:
        assert not found.baselines["self"][name].any()
        assert (found.baselines["full"][name] == found.gaps[name]).all()
    with torch.no_grad():
        read = (contrast.at, contrast.answer, contrast.foil)
        change = logit_diff(tiny_model(contrast.clean.roll(-1, 0)), *read) - logit_diff(
            tiny_model(contrast.corrupted), *read
        )
    np.testing.assert_allclose(found.baselines["random_donor"]["logit_diff"], change.numpy(), atol=2e-5)


def test_unrelated_donors_are_another_examples_activations(tiny_model, contrast):
    site, place = Site("resid_pre", 1), "position 5"
    found = block(tiny_model, contrast, (Cell(site, place),), unrelated_donor=True, partner=(1, 2, 3, 4, -1))
    donor = activations(tiny_model, contrast.clean, [site])[site].roll(-1, 0)
    patched = run_with(tiny_model, contrast.corrupted, [patch(site, donor, torch.full((5,), 5))])
    read = (contrast.at, contrast.answer, contrast.foil)
    change = logit_diff(patched, *read) - logit_diff(run_with(tiny_model, contrast.corrupted, []), *read)
    np.testing.assert_allclose(found.changes["logit_diff"][0, :4], change[:4].numpy(), atol=2e-5)
    assert np.isnan(found.changes["logit_diff"][0, 4]), "the last example has no partner"
    assert np.isnan(found.baselines["random_donor"]["logit_diff"][4])


def test_a_place_of_several_tokens_is_patched_whole(tiny_model, tokens):
    """Two tokens differ; patching both restores the clean run, either of them alone does not."""
    pair = contrast_with_gap(tiny_model, tokens, replaced(tokens, [2, 3], d_vocab=13), torch.full((5,), 7))
    both = torch.zeros(5, 8, dtype=torch.bool)
    both[:, 2:4] = True
    places = {"both": both, "first": pair.places["position 2"]}
    contrast = Contrast(pair.clean, pair.corrupted, pair.at, pair.answer, pair.foil, places)
    found = block(tiny_model, contrast, [Cell(Site("resid_pre", 0), place) for place in places], stack=1)
    np.testing.assert_array_equal(found.changes["logit_diff"][0], found.gaps["logit_diff"])
    assert (np.abs(found.changes["logit_diff"][1] - found.gaps["logit_diff"]) > 1e-3).all()
