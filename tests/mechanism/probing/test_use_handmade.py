"""On models whose mechanism is known: the total that a step starts from is used by the reader, and its decoy is not."""

from functools import partial

import numpy as np
import pytest

from cotinterp.mechanism.activations import activations
from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.probing.linear_probe import fit_probe
from cotinterp.mechanism.probing.subspaces import Subspace
from cotinterp.mechanism.probing.totals import running_total
from cotinterp.mechanism.probing.use import RandomSubspaces, probe_use
from cotinterp.mechanism.sites import Site
from cotinterp.models.handmade import reader, reader_blueprint, recomputer, recomputer_blueprint
from cotinterp.tasks import get_task
from cotinterp.transcripts.batch import collate
from cotinterp.transcripts.pairs import operand_pairs
from cotinterp.transcripts.problems import sample_problems
from cotinterp.transcripts.render import render
from cotinterp.transcripts.roles import Role
from cotinterp.transcripts.vocabulary import Vocabulary

TASK = get_task("z6")
K, STEP, OPTIONS = 4, 2, {"regime": "totals", "k_range": (4, 4), "decoy": True}
# What the heads of layer 1 bring to the place where total 3 is computed.
SITE, PLACE = Site("attn_out", 1), (Role.STEP_END, STEP)
MODELS = {"reader": (reader, reader_blueprint), "recomputer": (recomputer, recomputer_blueprint)}


@pytest.fixture(scope="module", params=MODELS)
def handmade(request):
    """A model, its truth, a probe for s_2 with its accuracy on other problems, and pairs that change s_2."""
    write, blueprint = MODELS[request.param]
    model = write(TASK, **OPTIONS)
    train, test, others = (
        sample_problems(TASK, K, n, split=split, rng=np.random.default_rng(seed))
        for seed, (n, split) in enumerate([(240, "train"), (80, "heldout"), (30, "heldout")])
    )
    rows, truth = zip(*(read(model, problems) for problems in (train, test)), strict=True)
    probe = fit_probe(rows[0], truth[0], at=SITE, target=f"s_{STEP}")
    accuracy = float((probe.predict(rows[1]) == truth[1]).mean())
    pairs = operand_pairs(
        TASK, others, "totals", index=1, rng=np.random.default_rng(0), readout=(Role.TOTAL, 3), first_symbol=True
    )
    use = partial(
        probe_use,
        model,
        Contrast.from_pairs(pairs),
        site=SITE,
        place="step end 2",
        batch_size=1024,
        controls=RandomSubspaces(n=19),
    )
    return request.param, blueprint(TASK, **OPTIONS), probe, accuracy, use


def read(model, problems):
    batch = collate([render(TASK, problem, "totals") for problem in problems], Vocabulary.of(TASK))
    positions = batch.where(*PLACE)
    return activations(model, batch.tokens, [SITE], positions=positions)[SITE], running_total(batch, STEP)


def test_the_probe_finds_the_total_in_both_and_its_use_in_one(handmade):
    name, _, probe, accuracy, use = handmade
    assert accuracy == 1.0
    result = use(probe)
    assert result.answers[0][0] == {"reader": "used", "recomputer": "not shown to be used"}[name], result.answers
    interchanges = result.frame().query("intervention == 'interchange'")
    assert interchanges["full_effect"].to_numpy() == pytest.approx(1.0, abs=1e-4)
    assert (interchanges["n"] == 30).all()


def test_the_copy_that_is_read_and_the_copy_that_is_not(handmade):
    name, truth, _, _, use = handmade
    assert truth.unread == ("decoy",)
    decoy = use(Subspace.span(truth.basis("decoy").T))
    assert decoy.answers[0][0] == "not shown to be used"
    assert decoy.frame()["effect"].tolist() == [0.0] * 4
    assert decoy.frame()["written"].min() > 0.1
    taken = use(Subspace.span(truth.basis("total" if name == "reader" else "sum").T))
    assert taken.answers[0][0] == "used"
    interchanges = taken.frame().query("intervention == 'interchange'")
    assert interchanges["effect"].to_numpy() == pytest.approx(1.0, abs=1e-4)
    assert interchanges["iia"].tolist() == [1.0, 1.0]
