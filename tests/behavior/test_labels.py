"""What a table says of the model that it is about."""

from cotinterp.behavior.accuracy import described, labels_of
from cotinterp.tasks import get_task


def test_labels_are_the_first_columns_of_every_table():
    assert list(labels_of(get_task("s3"), "cot", 4).items()) == [("task", "s3"), ("regime", "cot"), ("run_seed", 4)]


def test_described():
    assert described({"task": "s3", "regime": "cot", "run_seed": 4}) == "s3, cot, run seed 4"
