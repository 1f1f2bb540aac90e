"""Paths of a model whose mechanism was written by hand: the instrument must say what the weights are."""

import numpy as np
import pytest
import torch

from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.patching.attribution_patching import attribution_patch
from cotinterp.mechanism.patching.path_patching import path_sweep
from cotinterp.mechanism.patching.paths import Path, head_paths
from cotinterp.mechanism.patching.sweep import patch_sweep
from cotinterp.mechanism.sites import Site
from cotinterp.tasks import get_task
from cotinterp.transcripts.batch import collate
from cotinterp.transcripts.pairs import written_total_pairs
from cotinterp.transcripts.problems import solve
from cotinterp.transcripts.render import render
from cotinterp.transcripts.vocabulary import Vocabulary

FINDS_PROMPT_END, READS_TOTAL = Site("z", 0, 0), Site("z", 1, 0)


@pytest.fixture(scope="module")
def task():
    return get_task("z6")


@pytest.fixture(scope="module")
def reader(task):
    from cotinterp.models.handmade import reader

    return reader(task, "totals", (2, 5))


@pytest.fixture(scope="module")
def written_total(task):
    rng = np.random.default_rng(0)
    problems = solve(task, rng.integers(0, 6, size=(8, 4)))
    return Contrast.from_pairs(written_total_pairs(task, problems, "totals", step=2, rng=rng))


@pytest.fixture(scope="module")
def prompt_end(task, reader):
    """The end of the prompt stands elsewhere, so that another place is wanted at the first total (position 9).

    Operands 1 and 2 are equal: which of the two is read does not show, which total is read does.
    """
    problems = solve(task, np.array([[a, b, b, c] for a, b, c in [(5, 3, 1), (1, 2, 0), (4, 1, 1), (2, 5, 3)]]))
    clean = collate([render(task, problem, "totals") for problem in problems], Vocabulary.of(task)).tokens
    corrupted = clean.clone()
    corrupted[:, [6, 8]] = clean[:, [8, 6]]
    with torch.no_grad():
        answer, foil = (reader(tokens)[:, 9].argmax(-1) for tokens in (clean, corrupted))
    return Contrast.by_position(clean, corrupted, torch.full((4,), 9), answer, foil)


@pytest.mark.parametrize("direction", ["denoise", "noise"])
def test_the_written_total_goes_through_the_last_mlp_and_nowhere_else(reader, written_total, direction):
    paths = head_paths(reader, inputs=("q", "k", "v", "mlp_out"))
    goes = {Path(READS_TOTAL, "any"), Path(READS_TOTAL, Site("mlp_out", 1))}
    for through_mlps in (True, False):
        found = path_sweep(reader, written_total, paths, direction=direction, through_mlps=through_mlps)
        expected = goes | ({Path(READS_TOTAL, "logits")} if through_mlps else set())
        for path, effect in zip(found.paths, found.effects().effect, strict=True):
            assert effect == pytest.approx(1.0 if path in expected else 0.0, abs=1e-5), path.label


def test_where_to_read_goes_through_the_query_of_the_total_head(reader, prompt_end):
    """L0H0 -> L1H0 by q, and by way of MLP 0; neither k nor v, and nothing into the head that reads the operand."""
    paths = head_paths(reader, senders=[FINDS_PROMPT_END])
    found = path_sweep(reader, prompt_end, paths)
    for path, effect in zip(found.paths, found.effects().effect, strict=True):
        through = path.receiver in ("any", Site("q", 1, 0))
        assert effect == pytest.approx(1.0 if through else 0.0, abs=1e-5), path.label
    held = path_sweep(reader, prompt_end, paths, through_mlps=False)
    assert np.flatnonzero(np.abs(held.effects().effect) > 1e-6).tolist() == [paths.index(Path(FINDS_PROMPT_END, "any"))]


def test_the_query_is_read_at_the_readout(reader, prompt_end):
    receiver = Site("q", 1, 0)
    paths = [Path(FINDS_PROMPT_END, receiver, place, place) for place in ("position 8", "position 9")]
    assert path_sweep(reader, prompt_end, paths).effects().effect.tolist() == pytest.approx([0.0, 1.0], abs=1e-5)


def test_a_gradient_does_not_see_where_a_hard_head_would_turn(reader, prompt_end):
    """Attention is saturated: patching q of the total head restores the answer, its gradient is 0."""
    true = patch_sweep(reader, prompt_end, kinds=("q",), metrics=("logit_diff",))
    estimated = attribution_patch(reader, prompt_end, kinds=("q",))
    compared = estimated.agreement(true)
    worst = compared.worst(1).iloc[0]
    assert (worst["site"], worst["place"]) == ("L1.q", "position 9")
    assert worst["effect"] == pytest.approx(1.0, abs=1e-5)
    assert worst["score"] == pytest.approx(0.0, abs=1e-5)
    assert compared.frame().iloc[0]["max_difference"] == pytest.approx(1.0, abs=1e-5)
