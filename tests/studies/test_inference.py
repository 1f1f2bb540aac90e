"""Votes, verifiers and heads on models that are known: a handmade reader, sharp or with errors drawn into it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cotinterp.behavior.search.labeled_steps import label_steps
from cotinterp.behavior.search.methods import METHODS
from cotinterp.behavior.search.scoring import Oracle, WorstStep
from cotinterp.behavior.search.spent import Spent
from cotinterp.behavior.search.verification import ScoredSteps, auroc
from cotinterp.behavior.search.writer import Search
from cotinterp.calibration.ground_truth import handmade_models
from cotinterp.models.spec import ModelSpec
from cotinterp.studies import inference
from cotinterp.studies.evidence import CHOSEN_FROM
from cotinterp.studies.inference import exchanged, head_effects, rewarded, searched, verified
from cotinterp.studies.subject import QUICK_EVIDENCE, Subject, untrained_twin
from cotinterp.studies.verifiers import fitted_probe, fitted_reward

pytestmark = pytest.mark.slow

EFFORT = replace(QUICK_EVIDENCE, searched=24, paired=12)


def subject_of(truth):
    return Subject(
        model=truth.model,
        task=truth.task,
        regime=truth.regime,
        run_seed=5,
        k_range=(2, 4),
        trained_on=truth.trained(20, k=2) + truth.trained(20, k=4),
    )


@pytest.fixture(scope="module")
def subjects():
    return {truth.name: subject_of(truth) for truth in handmade_models()}


@pytest.fixture(scope="module")
def erring():
    """The reader with its logits divided, so that what is drawn at temperature 1 is wrong now and then."""
    truth = next(one for one in handmade_models() if one.name == "reader (cot)")
    with torch.no_grad():
        head = truth.model.original_model.head
        for weights in head.parameters():
            weights /= SOFTER
    shape = ModelSpec(n_layers=2, d_model=16, n_heads=2, d_mlp=32, n_ctx=truth.model.cfg.n_ctx)
    return replace(subject_of(truth), build_untrained=untrained_twin(shape, truth.task, 0))


SOFTER = 3.0


def means(rows, measure):
    of = rows[rows["measure"] == measure]
    value, trials = ((of[name] * of["problems"]).groupby(of["condition"]).sum() for name in ("value", "trials"))
    return (value / trials).to_dict()


def test_votes_are_those_of_the_method_and_cost_as_much(erring):
    rows = searched(erring, EFFORT)
    right, flops = means(rows, "chosen_right"), means(rows, "flops")
    batch = erring.batch(erring.heldout(EFFORT.searched))
    for name, n in (("greedy", 1), ("vote", 1), ("vote", 3)):
        found = METHODS[name](
            erring.model,
            erring.task,
            batch,
            None,
            n * erring.model.cfg.n_ctx,
            rng=np.random.default_rng(erring.draw),
            search=Search(draws=n),
        ).examples()
        assert right[f"{name}|{n}"] == pytest.approx(found["correct"].mean())
        assert flops[f"{name}|{n}"] == pytest.approx(found["flops"].mean(), rel=1e-3)
    assert 0.05 < right["vote|1"] < right["vote|32"]
    gain = means(rows, "beyond_greedy")
    assert all(gain[at] == pytest.approx(right[at] - right["greedy|1"]) for at in gain)


def test_a_model_that_answers_at_once_is_asked_once(subjects):
    rows = searched(subjects["parallel"], EFFORT)
    assert set(rows["condition"]) == {"", "greedy|1"}
    assert means(rows, "chosen_right") == {"greedy|1": 1.0}


def test_verifiers_choose_among_what_is_voted_on(erring, monkeypatch):
    monkeypatch.setattr(inference, "UPDATES", 30)
    rows = verified(erring, EFFORT)
    right = means(rows, "chosen_right")
    assert set(right) == {
        f"best-of-n|{name}|{CHOSEN_FROM}" for name in ("oracle", "likelihood", "process reward", "probe")
    }
    batch = erring.batch(erring.heldout(EFFORT.searched))
    rng, search = np.random.default_rng(erring.draw), Search(draws=CHOSEN_FROM)
    spend, budget = METHODS["best-of-n"], CHOSEN_FROM * erring.model.cfg.n_ctx
    found = spend(erring.model, erring.task, batch, Oracle(), budget, rng=rng, search=search).examples()
    assert right[f"best-of-n|oracle|{CHOSEN_FROM}"] == pytest.approx(found["correct"].mean())
    voted = means(searched(erring, EFFORT), "chosen_right")[f"vote|{CHOSEN_FROM}"]
    beyond = means(rows, "beyond_vote")
    assert all(beyond[at] == pytest.approx(right[at] - voted) for at in right)
    told = means(rows, "auroc")
    # The wrong symbol of a step was an unlucky draw, and its likelihood says so.
    assert told["likelihood"] > 0.9
    assert {"probe", "surface", "process reward", "probe|untrained", "probe|shuffled"} < set(told)


def test_the_auroc_of_a_table_is_that_of_its_scores():
    rng = np.random.default_rng(0)
    scores, right = rng.normal(size=60).round(1), rng.random(60) < 0.7
    rows = inference._auroc(ScoredSteps("mine", scores, right), np.arange(60) // 3, 4)
    assert means(rows, "auroc") == {"mine": pytest.approx(auroc(scores, right), abs=1e-3)}
    assert rows["trials"].mul(rows["problems"]).sum() == (~right).sum()


def test_a_response_is_as_good_as_its_worst_step(erring):
    """Every step that a text was labeled at, read as a text of its own; and a scorer that counts the symbols."""

    class Shortest:
        name = "length"

        def __call__(self, model, texts):
            return texts.length.double()

        def at(self, model, texts, places):
            return places.double() + 1

        def cost(self, model, texts):
            return (Spent(),) * len(texts)

    batch = erring.batch(erring.heldout(40))
    steps = label_steps(erring.model, erring.task, batch, rng=np.random.default_rng(0), n_samples=1)
    verifiers = (Shortest(), fitted_probe(erring, steps), fitted_reward(erring, steps, updates=20))
    number, row = steps.texts.length, steps.texts.row
    for verifier in verifiers:
        alone, worst = verifier(erring.model, steps.texts), WorstStep(verifier)(erring.model, steps.texts)
        begins = (row[None] == row[:, None]) & (number[None] <= number[:, None])
        torch.testing.assert_close(worst, alone.expand(len(row), -1).masked_fill(~begins, torch.inf).amin(1))
        assert (worst < alone).any()
        assert WorstStep(verifier).cost(erring.model, steps.texts) == verifier.cost(erring.model, steps.texts)
        assert not len(WorstStep(verifier)(erring.model, steps.select(np.zeros(len(row), dtype=bool)).texts))


def test_what_is_exchanged_in_right_and_in_wrong_prefixes_is_kept_apart(erring):
    rows = exchanged(erring, EFFORT)
    conditions = {f"{kind}:{what}" for kind in ("wrong", "right") for what in ("changed", "right")}
    assert set(rows.loc[rows["measure"] == "verifier_use", "condition"]) == conditions
    # The reader goes on from what is written: the whole state at a step's end moves nothing that it reads.
    assert set(rows["measure"]) == {"verifier_use", "verifier_use_whole"}


def test_a_model_without_errors_has_no_wrong_steps_to_be_known(subjects):
    with pytest.raises(ValueError, match="all .* labels are good|classes|one label"):
        verified(subjects["reader (cot)"], EFFORT)


def test_the_head_that_reads_the_total_carries_all_of_it_and_a_recomputer_has_none(subjects):
    read = means(head_effects(subjects["reader (cot)"], EFFORT), "head_effect")
    assert read["L1H0"] == pytest.approx(1.0, abs=0.1)
    assert max(abs(value) for head, value in read.items() if head != "L1H0") < 0.01
    again = means(head_effects(subjects["recomputer (cot)"], EFFORT), "head_effect")
    assert max(map(abs, again.values())) < 0.01


def test_traces_that_are_begun_and_those_that_end_right(subjects):
    rows = rewarded(subjects["reader (cot)"], EFFORT)
    assert means(rows, "trace_begun") == {"greedy": 1.0, "sample": 1.0}
    assert means(rows, "trace_right") == {"greedy": 1.0, "sample": 1.0}
    at_once = rewarded(subjects["parallel"], EFFORT)
    assert means(at_once, "trace_begun")["greedy"] == 0.0
    assert "trace_right" not in set(at_once["measure"])
