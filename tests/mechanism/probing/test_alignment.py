"""A planted rotation is found and carries everything over; unrelated streams and unrelated problems stay at chance."""

import numpy as np
import pytest
import torch
from scipy.linalg import orthogonal_procrustes

from cotinterp.mechanism.probing.alignment import MAPS, UNTRAINED, align_streams, explained, fit_alignment
from cotinterp.mechanism.sites import Site
from cotinterp.models.handmade import random_rotation, reader, rotated
from cotinterp.tasks import get_task
from cotinterp.transcripts.batch import collate
from cotinterp.transcripts.problems import sample_problems
from cotinterp.transcripts.render import render
from cotinterp.transcripts.roles import Role
from cotinterp.transcripts.vocabulary import Vocabulary

TASK = get_task("z6")
VOCABULARY = Vocabulary.of(TASK)
PLACES = [(Role.EQUALS, 1, 1), (Role.EQUALS, 2, 2)]
SITES = [Site("resid_pre", 1), Site("resid_post", 1)]


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def turn(d_model=16, seed=0, keeps_mean=False):
    return random_rotation(d_model, torch.Generator().manual_seed(seed), keeps_mean=keeps_mean)


@pytest.fixture(scope="module")
def batch():
    problems = sample_problems(TASK, 3, 120, split="train", rng=np.random.default_rng(0))
    return collate([render(TASK, problem, "cot") for problem in problems], VOCABULARY)


def test_a_planted_rotation_scale_and_shift_are_recovered():
    stream, rotation = drawn(60, 2, 16), turn()
    shift = drawn(2, 16, seed=1)
    found = fit_alignment(stream, 3 * stream @ rotation + shift)
    torch.testing.assert_close(found.rotation, rotation, atol=1e-9, rtol=0)
    assert found.scale == pytest.approx(3)
    torch.testing.assert_close(found.apply(stream), 3 * stream @ rotation + shift)


def test_the_rotation_is_that_of_scipy():
    stream, target = drawn(60, 1, 16), drawn(60, 1, 16, seed=1) + drawn(60, 1, 16) @ turn(seed=2)
    centered, wanted = ((each - each.mean(0))[:, 0].numpy() for each in (stream, target))
    expected, size = orthogonal_procrustes(centered, wanted)
    found = fit_alignment(stream, target)
    np.testing.assert_allclose(found.rotation.numpy(), expected, atol=1e-9)
    assert found.scale == pytest.approx(size / np.square(centered).sum())


def test_unrelated_streams_explain_nothing_of_one_another_on_held_out_problems():
    stream, target = drawn(400, 2, 16), drawn(400, 2, 16, seed=1)
    found = fit_alignment(stream[:300], target[:300])
    held = explained(found.apply(stream[300:]), target[300:], found.target_mean)
    assert abs(held) < 0.1
    assert explained(found.apply(stream[:300]), target[:300], found.target_mean) > held


@pytest.mark.parametrize("one_map", [False, True])
@pytest.mark.parametrize(("norm", "keeps_mean"), [("LN", True), ("RMS", False)])
def test_a_model_in_another_basis_is_the_same_model(make_tiny, batch, norm, keeps_mean, one_map):
    model = make_tiny(d_vocab=len(VOCABULARY), n_ctx=40, normalization_type=norm)
    models = {"0": model, "0 turned": rotated(model, turn(keeps_mean=keeps_mean))}
    result = align_streams(models, batch, PLACES, sites=SITES, one_map=one_map)
    for pair in (("0", "0 turned"), ("0 turned", "0")):
        for site in SITES:
            same, raw, dealt = (result.of(*pair, site, how) for how in MAPS)
            assert 1 - same.r_squared < 1e-5
            assert same.scale == pytest.approx(1, abs=1e-5)
            np.testing.assert_array_equal(same.correct, same.home_correct)
            np.testing.assert_array_equal(np.nan_to_num(same.follows), np.nan_to_num(same.home_follows))
            assert raw.r_squared < 0.5
            assert dealt.r_squared < 0.2


def test_what_a_reader_reads_and_writes_carries_over_by_the_rotation_alone(batch):
    """Its probes are perfect before total 2 in the last block's stream, and a state written there decides the total."""
    model = reader(TASK, "cot", (3, 3))
    turned = rotated(model, turn(int(model.cfg.d_model)))
    site = Site("resid_post", 1)
    result = align_streams({"reader": model, "turned": turned}, batch, PLACES, sites=[site])
    table = result.frame().query("model == 'reader'").set_index("map")
    assert table.loc["rotation", ["accuracy", "home_accuracy", "follows", "home_follows"]].tolist() == [1, 1, 1, 1]
    for control in ("identity", "shuffled"):
        assert table.loc[control, "accuracy"] < 0.5
        assert table.loc[control, "follows"] < 0.5
    assert table.loc["rotation", "chance"] < 0.4


def test_another_model_is_not_explained_as_a_rotation_would_explain_it(make_tiny, batch):
    sizes = {"d_vocab": len(VOCABULARY), "n_ctx": 40}
    model = make_tiny(**sizes)
    models = {"0": model, "0 turned": rotated(model, turn(keeps_mean=True))}
    result = align_streams(models, batch, PLACES, untrained=make_tiny(seed=5, **sizes), sites=SITES)
    for site in SITES:
        other = result.of("0", UNTRAINED, site)
        assert other.r_squared < 0.6
        low, high = other.interval()
        assert low < other.r_squared < high
    assert {cell.model for cell in result.cells} == {"0", "0 turned"}


def test_means_of_places_are_no_part_of_the_comparison():
    """Two places that differ by much, and problems that do not differ but by noise of their own."""
    apart = torch.tensor([0.0, 100.0])[:, None]
    stream, target = drawn(200, 2, 16) + apart, drawn(200, 2, 16, seed=1) - apart
    found = fit_alignment(stream[:150], target[:150])
    assert abs(explained(found.apply(stream[150:]), target[150:], found.target_mean)) < 0.2


def test_what_cannot_be_compared_is_refused(make_tiny, batch):
    sizes = {"d_vocab": len(VOCABULARY), "n_ctx": 40}
    model = make_tiny(**sizes)
    with pytest.raises(ValueError, match="Wanted are two at least"):
        align_streams({"0": model}, batch, PLACES)
    with pytest.raises(ValueError, match="models of different widths"):
        align_streams({"0": model, "1": make_tiny(d_model=32, d_head=8, **sizes)}, batch, PLACES)
    with pytest.raises(KeyError, match="equals of step 7"):
        align_streams({"0": model, "1": model}, batch, [(Role.EQUALS, 7, 1)])
    with pytest.raises(ValueError, match="wanted are the same problems"):
        fit_alignment(drawn(1, 1, 4), drawn(1, 1, 4))
    with pytest.raises(ValueError, match="there is nothing to align"):
        fit_alignment(torch.zeros(5, 1, 4), drawn(5, 1, 4))


def test_the_table_and_the_figures(make_tiny, batch, tmp_path):
    sizes = {"d_vocab": len(VOCABULARY), "n_ctx": 40}
    models = {"0": make_tiny(**sizes), "1": make_tiny(seed=1, **sizes)}
    result = align_streams(models, batch, PLACES, sites=SITES, labels={"task": "z6"})
    assert len(result.frame()) == 2 * len(SITES) * len(MAPS)
    for measure in ("r_squared", "accuracy", "follows"):
        assert len(result.figure(measure).data)
    assert len(result.save(tmp_path, "alignment")) == 2
    with pytest.raises(KeyError, match="there are pairs"):
        result.of("0", "2", SITES[0])
