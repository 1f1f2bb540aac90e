"""Labels: what stands after the place where one is asked is in the training set and never read."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from cotinterp.behavior.accuracy import accuracy_by_k, evaluate_run
from cotinterp.behavior.edits import trace_edits
from cotinterp.models.build import build_module
from cotinterp.studies.instruments import study
from cotinterp.studies.measuring import measure, outcomes, without_trace
from cotinterp.studies.subject import QUICK, Subject
from cotinterp.tasks import get_task
from cotinterp.training.data import NOT_SCORED, TrainingSet, problems_of
from cotinterp.training.learner import response_loss
from cotinterp.training.loop import train
from cotinterp.training.packing import PackedBatch, packed_loss
from cotinterp.transcripts.problems import sample_problems
from cotinterp.transcripts.vocabulary import Vocabulary

Z6, CPU = get_task("z6"), torch.device("cpu")
LABELS = ("label", "label-trace-unread", "label-after-trace")


@pytest.fixture(scope="module")
def specs(tiny):
    """A bidirectional model of two layers in each of the regimes."""
    model = tiny.model.model_copy(update={"n_layers": 2, "attention": "bidirectional"})
    return {name: tiny.model_copy(update={"model": model, "regime": name}) for name in LABELS}


@pytest.fixture(scope="module")
def runs(specs, tmp_path_factory):
    root = tmp_path_factory.mktemp("labels")
    return {
        name: train(spec, directory=root / spec.slug, device="cpu", threads=1, checkpoint_every=25)
        for name, spec in specs.items()
    }


def test_one_symbol_is_asked_for_where_reading_ends(specs):
    vocabulary = Vocabulary.of(Z6)
    for name, ends in (("label", ">"), ("label-trace-unread", ">"), ("label-after-trace", "}")):
        data = TrainingSet.of(specs[name], Z6, CPU)
        rows = zip(problems_of(specs[name], Z6), data.inputs, data.targets, data.length.tolist(), strict=True)
        for problem, inputs, targets, n in rows:
            assert vocabulary.symbols[inputs[n - 1]] == ends
            assert (targets != NOT_SCORED).nonzero()[:, 0].tolist() == [n - 1]
            assert vocabulary.symbols[targets[n - 1]] == Z6.state_text(problem.answer)


def test_a_trace_that_enters_neither_input_nor_loss_changes_no_weight(specs, runs):
    with_trace, without = (TrainingSet.of(specs[name], Z6, CPU) for name in ("label-trace-unread", "label"))
    brace = Vocabulary.of(Z6).token("{")
    assert bool((with_trace.inputs == brace).any(1).all())
    assert not bool((without.inputs == brace).any())
    assert with_trace.sha256 != without.sha256
    assert runs["label-trace-unread"].weight_hash == runs["label"].weight_hash
    assert runs["label-after-trace"].weight_hash != runs["label"].weight_hash


@pytest.mark.parametrize("positions", ["standard", "rotary"])
def test_loss_and_gradient_are_those_of_the_padded_pass_whose_padding_is_masked(specs, positions):
    spec = specs["label-after-trace"]
    shape = spec.model.model_copy(update={"positions": positions})
    module = build_module(shape, len(Vocabulary.of(Z6)), seed=1)
    data, rows = TrainingSet.of(spec, Z6, CPU), np.array([3, 14, 15, 9, 26, 5])
    assert len(data.length[rows].unique()) > 1
    found = []
    for loss in (response_loss(module, data.rows(rows)), packed_loss(module, PackedBatch.of(data, rows, 2))):
        gradient = torch.autograd.grad(loss, list(module.parameters()))
        found.append((loss.detach(), torch.cat([part.flatten() for part in gradient])))
    torch.testing.assert_close(found[0], found[1], atol=1e-6, rtol=1e-4)


def test_a_position_looks_ahead(runs):
    model, tokens = runs["label"].model, torch.tensor([[1, 2, 3, 4, 5]])
    with torch.no_grad():
        first = [model(changed)[0, 0] for changed in (tokens, tokens + torch.tensor([0, 0, 0, 0, 1]))]
    assert model.cfg.attention_dir == "bidirectional"
    assert (first[0] - first[1]).abs().max() > 1e-3


def test_labels_are_measured_without_writing_and_a_trace_may_be_missing(runs):
    run = runs["label-after-trace"]
    frame = evaluate_run(run, max_per_k=20).frame()
    assert set(frame["regime"]) == {"label-after-trace"}
    problems = {"train": sample_problems(Z6, 3, 20, split="train", rng=np.random.default_rng(0))}
    given, missing = (accuracy_by_k(run.model, Z6, name, problems) for name in ("label-after-trace", "label"))
    assert all(output.text.startswith("{") and output.text[-3] == "}" for output in given.outputs)
    assert all(len(output.text) == 2 for output in missing.outputs)
    right = [output.text[0] == str(output.problem.answer) for output in missing.outputs]
    assert right == [output.correct for output in missing.outputs]
    assert [o.text for o in given.outputs] != [o.text for o in missing.outputs]


def test_what_writes_refuses_a_bidirectional_model_by_name(runs):
    run = runs["label"]
    problems = sample_problems(Z6, 3, 5, split="train", rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="the model is bidirectional: it names labels and writes nothing"):
        accuracy_by_k(run.model, Z6, "direct", {"train": problems})
    with pytest.raises(ValueError, match="the model is bidirectional: it names labels and writes nothing"):
        trace_edits(run.model, Z6, "cot", problems, rng=np.random.default_rng(0))


def test_what_cannot_be_asked_as_a_label_is_refused(tiny, specs):
    with pytest.raises(ValidationError, match="a bidirectional model would see the response that 'cot' teaches"):
        specs["label"].model_copy(update={"regime": "cot"})
    with pytest.raises(ValidationError, match="names every state by one symbol"):
        tiny.model_copy(update={"task": "digit-sum", "regime": "label"})


def test_studies_of_transcripts_refuse_a_bidirectional_model(runs):
    subject = Subject.of_run(runs["label"])
    refused = pytest.raises(ValueError, match="it is not causal .* it would see the response, and its answer")
    with refused:
        study("probe", subject)
    with refused:
        subject.batch(subject.trained(1))
    with refused:
        replace(subject, regime="direct")


def test_an_encoder_is_measured_with_its_trace_and_without(runs):
    effort = replace(QUICK, evaluated=5)
    rows = measure(Subject.of_run(runs["label-after-trace"], variant="encoder"), effort, [outcomes, without_trace])
    of = rows[rows["measure"] == "accuracy"].groupby("condition")["problems"].sum()
    assert of["heldout"] == of["without"]
