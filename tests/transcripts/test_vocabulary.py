"""Symbols and tokens."""

import numpy as np
import pytest

from cotinterp.tasks import get_task, task_names
from cotinterp.transcripts.problems import sample_problems
from cotinterp.transcripts.regimes import regime_names
from cotinterp.transcripts.render import render
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


@pytest.mark.parametrize("regime", regime_names())
@pytest.mark.parametrize("name", task_names())
def test_one_vocabulary_writes_every_regime_of_a_task(name, regime):
    task = get_task(name)
    for problem in sample_problems(task, 3, 5, split="train", rng=np.random.default_rng(0)):
        text = render(task, problem, regime).text
        vocabulary = Vocabulary.of(task)
        assert vocabulary.decode(vocabulary.encode(text)) == text


def test_operators_and_brackets_of_a_tree():
    symbols = Vocabulary.of(get_task("expressions-mod11")).symbols
    assert "".join(symbols) == "_<>{}=;#.+-*()0123456789A"


def test_the_symbols_that_reference_models_were_trained_with():
    assert "".join(Vocabulary.of(get_task("digit-sum")).symbols) == "_<>{}=;#.+0123456789"
