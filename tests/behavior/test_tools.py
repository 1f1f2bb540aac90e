"""A tool that writes what is asked; the model writes the rest."""

import numpy as np
import pytest
import torch

from cotinterp.behavior.accuracy import accuracy_by_k
from cotinterp.behavior.edits import trace_edits
from cotinterp.behavior.tools import WithTool, late_tool, right_tool, silent_tool
from cotinterp.models.decoding import greedy, prefixes, text_of
from cotinterp.tasks import get_task
from cotinterp.transcripts.batch import collate
from cotinterp.transcripts.problems import solve
from cotinterp.transcripts.render import render
from cotinterp.transcripts.vocabulary import Vocabulary

Z6 = get_task("z6")
(PROBLEM,) = solve(Z6, np.array([[3, 4, 5]]))  # 3*4=1, 1*5=0


def asker(scripted, task=Z6):
    """Writes the steps of the trace from the totals that stand there, and where it has to write one, writes `#`."""
    reader = scripted.reader(task, "cot")

    def policy(text):
        return "#" if text.endswith("=") and "{" in text else reader(text)

    return scripted.Model(task, policy)


def written(model, problem=PROBLEM, given=None):
    batch = collate([render(Z6, problem, "cot")], Vocabulary.of(Z6))
    start = prefixes(model, batch, given=None if given is None else torch.tensor([given]))
    (tokens,) = greedy(model, start, stop=batch.vocabulary.end)
    return text_of(batch.vocabulary, tokens)


def test_the_tool_writes_the_totals_and_the_model_the_rest(scripted):
    assert written(asker(scripted)) == "{3*4=#"
    assert written(WithTool(asker(scripted), Z6)) == "{3*4=1;1*5=0}0#"
    assert written(WithTool(asker(scripted), Z6, silent_tool)) == "{3*4=#"


def test_it_answers_what_was_asked():
    right, late = right_tool(Z6), late_tool(Z6)
    assert (right([(3, 4)]), right([(3, 4), (5, 5)])) == (1, 4)
    assert (late([(3, 4)]), late([(3, 4), (5, 5)])) == (None, 1)


def test_a_wrong_tool_and_a_late_one_are_read_by_a_reader(scripted):
    def always_two(asked):
        return 2

    assert written(WithTool(asker(scripted), Z6, always_two)) == "{3*4=2;2*5=2}2#"
    # The first total is the model's own, as nothing was said.
    own = scripted.Model(Z6, scripted.reader(Z6, "cot"))
    assert written(WithTool(own, Z6, late_tool(Z6))) == "{3*4=1;1*5=1}1#"


def test_instruments_take_both_as_one_model(scripted, some_problems):
    problems = some_problems("z6", 5, k_max=4)
    both = WithTool(asker(scripted), Z6)
    frame = accuracy_by_k(both, Z6, "tool", {"heldout": problems}, run_seed=0).frame()
    assert (frame["accuracy"] == 1.0).all()
    rates = trace_edits(both, Z6, "tool", problems, edits=["substitute_total"], rng=np.random.default_rng(0)).frame()
    of = rates[rates["edit"] == "substitute_total"].set_index(["step", "outcome"])["rate"]
    assert (of.xs("follows", level="outcome") == 1.0).all()
    with pytest.raises(ValueError, match="give `behavior.tools.WithTool"):
        accuracy_by_k(both.model, Z6, "tool", {"heldout": problems}, run_seed=0)
    # A model that recomputes from the prompt passes over the tool.
    alone = WithTool(scripted.Model(Z6, scripted.recomputer(Z6, "cot")), Z6)
    rates = trace_edits(alone, Z6, "tool", problems, edits=["substitute_total"], rng=np.random.default_rng(0)).frame()
    of = rates[rates["edit"] == "substitute_total"].set_index(["step", "outcome"])["rate"]
    assert (of.xs("ignores", level="outcome") == 1.0).all()


def test_what_it_does_not_understand_it_leaves_to_the_model(scripted):
    model = asker(scripted)
    symbols = Vocabulary.of(Z6)
    for text in ("<3*4>{*=", "<3*4>{3=", "<3*4>3*4=", "<3*4>{3*4=1", "<3*4>{3*4=1}="):
        tokens = torch.tensor([symbols.encode(text)])
        assert torch.equal(WithTool(model, Z6)(tokens)[:, -1], model(tokens)[:, -1])


@pytest.mark.parametrize(
    ("name", "why"), [("digit-sum", "writes both '1' and '10'"), ("pointers", "not those of a fold")]
)
def test_tasks_without_a_tool_are_refused(scripted, name, why):
    with pytest.raises(ValueError, match=why):
        WithTool(scripted.Model(get_task(name), lambda text: "#"), get_task(name))
