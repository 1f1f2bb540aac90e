"""Probes and the surface baseline where it is known what the states and the text hold, and what the model reads."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cotinterp.behavior.search.labeled_steps import LabeledSteps
from cotinterp.behavior.search.scoring import Scorer, Texts
from cotinterp.mechanism.sites import Site
from cotinterp.studies.verifier_use import verifier_use
from cotinterp.studies.verifiers import ProbeScorer, SurfaceScorer, verify_steps
from cotinterp.tasks import get_task
from cotinterp.transcripts.batch import collate
from cotinterp.transcripts.problems import sample_problems
from cotinterp.transcripts.render import render
from cotinterp.transcripts.vocabulary import Vocabulary
from tests.mechanism.conftest import build_tiny

TASK = get_task("parity")
VOCABULARY = Vocabulary.of(TASK)
N = len(VOCABULARY)
AFTER = Site("resid_post", 0)
TOKEN, SEEN, OUT = slice(0, N), slice(N, 2 * N), slice(2 * N, 3 * N)


def counting(*, reads: bool):
    """One layer whose head adds up how often each symbol stands in the text so far, into slots that the unembedding
    reads (the next symbol is the more frequent of `0` and `1`) or, with `reads` False, into slots that nothing reads.

    In the second the next symbol is the last one again.
    """
    sizes = {"n_layers": 1, "n_heads": 1, "d_head": N, "d_model": 3 * N, "d_vocab": N, "n_ctx": 40}
    model = build_tiny(**sizes, attn_only=True, normalization_type=None)
    native = model.original_model
    with torch.no_grad():
        for parameter in native.parameters():
            parameter.zero_()
        native.tok_embed.weight[:, TOKEN] = torch.eye(N)
        attn = native.layers[0].attn
        attn.v.weight[:, TOKEN] = torch.eye(N)
        attn.o.weight[SEEN] = 4 * torch.eye(N)
        digits = torch.zeros(N)
        digits[[VOCABULARY.token("0"), VOCABULARY.token("1")]] = 1
        native.head.weight[:, SEEN if reads else TOKEN] = torch.diag(digits) if reads else torch.eye(N)
    return model


def ones(text: str) -> bool:
    return text.count("1") > text.count("0")


def steps_of(seed: int, n: int = 200, *, label=ones, of_step: bool = False) -> LabeledSteps:
    """First steps of random text, in which labels are what they are made to be: a property of the whole text or of the
    step alone."""
    rng = np.random.default_rng(seed)
    problems = sample_problems(TASK, 9, n, split="train" if seed == 0 else "heldout", rng=rng)
    n = len(problems)
    batch = collate([render(TASK, problem, "cot") for problem in problems], VOCABULARY)
    written = ["{" + "".join(rng.choice(["0", "1"], 4)) + ";" for _ in problems]
    whole = [transcript.prompt + text for transcript, text in zip(batch.transcripts, written, strict=True)]
    length = torch.tensor([len(text) for text in whole])
    tokens = torch.tensor([VOCABULARY.encode(text) for text in whole])
    texts = Texts(
        batch=batch,
        row=torch.arange(n),
        tokens=tokens,
        length=length,
        ended=torch.zeros(n, dtype=torch.bool),
        log_prob=torch.zeros(n, dtype=torch.float64),
    )
    right = np.array([label(text) for text in (written if of_step else whole)])
    return LabeledSteps(texts, np.arange(n), np.ones(n, dtype=np.int64), right, right, np.full(n, np.nan))


def scores(verification):
    frame = verification.frame().set_index(["scorer", "model", "site", "labels"]).sort_index()
    return lambda scorer, site, labels="true", model="trained": frame.loc[(scorer, model, site, labels)]


def test_what_states_hold_and_the_step_does_not_is_found_by_the_probe_alone():
    blind = counting(reads=True)
    with torch.no_grad():
        blind.original_model.layers[0].attn.v.weight.zero_()
    one = scores(
        verify_steps(counting(reads=True), steps_of(0), steps_of(1), untrained=blind, scorers=(), n_shuffles=2)
    )
    assert one("probe", "L0.resid_post").auroc > 0.97
    assert one("probe", "L0.resid_post").selectivity > 0.3
    # The step is a part of the text, so that it tells a little; the end of a step alone tells nothing.
    assert one("surface", "surface").auroc < 0.85
    assert one("probe", "L0.resid_pre").auroc == pytest.approx(0.5)
    assert one("probe", "L0.resid_post", model="untrained").auroc == pytest.approx(0.5)
    for row in [one("probe", "L0.resid_post", "shuffled").iloc[i] for i in range(2)]:
        assert row.ci_low < 0.5 < row.ci_high


def test_what_the_text_betrays_is_found_on_the_surface_as_well():
    train, test = (steps_of(seed, label=lambda text: "11" in text, of_step=True) for seed in (0, 1))
    one = scores(verify_steps(counting(reads=True), train, test, scorers=()))
    assert one("surface", "surface").auroc > 0.99
    fewer = scores(verify_steps(counting(reads=True), train, test, scorers=(), n_grams=1))
    assert fewer("surface", "surface").auroc < 0.99


def test_scorers_say_what_the_verification_says_and_what_they_cost():
    model, train, test = counting(reads=True), steps_of(0), steps_of(1)
    probe, surface = ProbeScorer.fit(model, train, AFTER), SurfaceScorer.fit(train)
    verification = verify_steps(model, train, test, sites=[AFTER], scorers=(probe, surface), n_shuffles=0)
    by_name = [(one.scorer, one.scores) for one in verification.scored]
    for name in ("probe", "surface"):
        first, second = (found for scorer, found in by_name if scorer == name)
        np.testing.assert_allclose(first, second, atol=1e-5)
    assert isinstance(probe, Scorer)
    assert isinstance(surface, Scorer)
    assert [one.read for one in probe.cost(model, test.texts)] == test.texts.length.tolist()
    assert {one.read for one in surface.cost(model, test.texts)} == {0}
    assert len(verification.reliability())


def test_a_problem_on_both_sides_is_refused():
    steps = steps_of(0)
    with pytest.raises(ValueError, match="in both train and test"):
        verify_steps(counting(reads=True), steps, steps)
    with pytest.raises(ValueError, match="give both kinds"):
        verify_steps(counting(reads=True), steps, replace(steps_of(1), right=np.ones(len(steps_of(1)), dtype=bool)))


def test_an_exchange_changes_the_next_step_where_the_model_reads_what_the_probe_reads():
    model, train, test = counting(reads=True), steps_of(0), steps_of(1, 24)
    use = verifier_use(model, TASK, test, ProbeScorer.fit(model, train, AFTER))
    table = use.frame().set_index(["prefix", "subspace"])
    for prefix in ("wrong", "right"):
        probe = table.loc[(prefix, "probe")]
        assert probe.changed > 0.6
        assert probe.p <= 0.05
        assert probe.changed > 2 * table.loc[(prefix, "random")].changed
        assert table.loc[(prefix, "whole")].changed > 0.9
        assert probe.ci_low <= probe.changed <= probe.ci_high
    assert len(use.figure().data)


def test_what_is_there_and_never_read_changes_nothing():
    model, train, test = counting(reads=False), steps_of(0), steps_of(1, 24)
    scorer = ProbeScorer.fit(model, train, AFTER)
    assert np.mean((scorer(model, test.texts).numpy() > 0.5) == test.right) > 0.9
    table = verifier_use(model, TASK, test, scorer).frame().set_index(["prefix", "subspace"])
    for prefix in ("wrong", "right"):
        assert table.loc[(prefix, "probe")].changed == 0
        assert abs(table.loc[(prefix, "probe")].log_prob_change) < 1e-6


def test_too_few_random_directions_are_refused():
    model, train = counting(reads=True), steps_of(0)
    with pytest.raises(ValueError, match="19 or more"):
        verifier_use(model, TASK, steps_of(1, 24), ProbeScorer.fit(model, train, AFTER), n_random=5)
