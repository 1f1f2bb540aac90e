import torch

from benchmarks.subjects import untrained_subject
from benchmarks.whole_run import same_accuracy, whole_run
from cotinterp.models.handmade import reader


def test_both_train_from_one_spec(subject, amounts, once):
    row = once(whole_run(subject, amounts, 2))
    assert row.equal
    assert row.note.count("/12 [") == 2
    assert (row.unit, row.pairs) == ("s", 1)


def test_a_model_that_can_and_one_that_cannot_are_not_equal(spec):
    untrained = untrained_subject(spec.model_copy(update={"task": "s3"}), torch.device("cpu"))
    handmade = reader("s3", "cot", (2, 3))
    assert not same_accuracy(untrained, 40, handmade, untrained.model).equal
    assert same_accuracy(untrained, 40, handmade, handmade).equal
