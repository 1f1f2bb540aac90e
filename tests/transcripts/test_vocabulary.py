"""Symbols and tokens."""

import pytest

from cotinterp.tasks import get_task, task_names
from cotinterp.transcripts.vocabulary import Vocabulary


@pytest.mark.parametrize("name", task_names())
def test_round_trip_of_everything_a_task_can_write(name):
    task = get_task(name)
    vocabulary = Vocabulary.of(task)
    text = "<" + task.operator.join(task.operands) + ">{" + ";".join(task.states) + "}=#."
    assert vocabulary.decode(vocabulary.encode(text)) == text
    assert len(set(vocabulary.symbols)) == len(vocabulary)


def test_padding_is_token_zero_and_is_dropped():
    vocabulary = Vocabulary.of(get_task("digit-sum"))
    assert vocabulary.encode("_") == [vocabulary.pad] == [0]
    assert vocabulary.decode([0, *vocabulary.encode("1#"), 0]) == "1#"
    assert vocabulary.encode("#") == [vocabulary.end]


def test_a_foreign_symbol_is_named():
    with pytest.raises(KeyError, match="symbol '€' is not in the vocabulary"):
        Vocabulary.of(get_task("digit-sum")).encode("1€")
