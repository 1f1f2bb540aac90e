"""Peakiness by hand on a known head, its control, and what it refuses."""

import numpy as np
import pytest
import torch

from cotinterp.mechanism.heads.read_scores import peakiness, step_links
from cotinterp.tasks.registry import get_task
from cotinterp.transcripts.batch import collate
from cotinterp.transcripts.problems import solve
from cotinterp.transcripts.render import render
from cotinterp.transcripts.vocabulary import Vocabulary

TASK = get_task("parity")
LINKS = ("prompt_end", "trace_start", "next_operand", "previous_operand")


def batch_of(*rows, regime="chain"):
    problems = [solve(TASK, np.array([row]))[0] for row in rows]
    return collate([render(TASK, problem, regime) for problem in problems], Vocabulary.of(TASK))


def test_links_by_hand():
    """`<1+0+1>{10}0#`: s_1 is predicted at `{`, position 7, and s_2 at s_1, position 8."""
    batch = batch_of([1, 0, 1])
    dest, links = step_links(batch)
    assert batch.transcripts[0].text == f"<1{TASK.operator}0{TASK.operator}1>{{10}}0#"
    assert dest.tolist() == [[7, 8]]
    assert {name: src.tolist() for name, src in links.items()} == {
        "prompt_end": [[6, 6]],
        "trace_start": [[7, 7]],
        "next_operand": [[3, 5]],
        "previous_operand": [[1, 3]],
    }
    assert tuple(links) == LINKS


def looking(make_tiny, targets, n=16):
    """One head that looks from each position in `targets` at the one given there, and from any other at itself."""
    sizes = {"n_layers": 1, "n_heads": 1, "d_head": n, "d_model": n, "n_ctx": n, "d_vocab": len(Vocabulary.of(TASK))}
    model = make_tiny(**sizes, attn_only=True, normalization_type=None)
    native = model.original_model
    with torch.no_grad():
        for parameter in native.parameters():
            parameter.zero_()
        native.pos.weight.copy_(torch.eye(n))
        native.layers[0].attn.k.weight.copy_(torch.eye(n))
        for dest in range(n):
            native.layers[0].attn.q.weight[targets.get(dest, dest), dest] = 300
    return model


def test_a_head_that_looks_at_the_operand_in_one_step_of_two_by_hand(make_tiny):
    """At `{` it looks at operand 1, at s_1 at `>`: each is half of the steps of both problems."""
    batch = batch_of([1, 0, 1], [0, 0, 1])
    found = peakiness(looking(make_tiny, {7: 3, 8: 6}), batch, labels={"run_seed": 3}).frame()
    assert found["link"].tolist() == list(LINKS)
    assert found["peakiness"].tolist() == [0.5, 0.0, 0.5, 0.0]
    assert found["attention"].tolist() == pytest.approx([0.5, 0.0, 0.5, 0.0])
    assert set(found["n"]) == {2}
    assert set(found["run_seed"]) == {3}


def test_an_iteration_head_has_all_peaks_on_the_next_operand_and_one_that_lags_has_them_on_the_control(make_tiny):
    batch = batch_of([1, 0, 1])
    right, late = ({7: 3, 8: 5}, {7: 1, 8: 3})
    assert peakiness(looking(make_tiny, right), batch).frame()["peakiness"].tolist() == [0.0, 0.0, 1.0, 0.0]
    assert peakiness(looking(make_tiny, late), batch).frame()["peakiness"].tolist() == [0.0, 0.0, 0.0, 1.0]


def test_even_attention_has_no_peak(make_tiny):
    model = looking(make_tiny, {})
    with torch.no_grad():
        model.original_model.layers[0].attn.q.weight.zero_()
    result = peakiness(model, batch_of([1, 0, 1], [0, 1, 1]))
    assert not result.share.any()
    assert result.frame()["attention"].tolist() == pytest.approx([(1 / 8 + 1 / 9) / 2] * 4)


def test_a_few_examples_at_a_time_are_all_at_once(make_tiny):
    model = make_tiny(d_vocab=len(Vocabulary.of(TASK)), n_ctx=16)
    batch = batch_of([1, 0, 1], [0, 0, 1], [1, 1, 1])
    assert torch.equal(peakiness(model, batch, batch_size=2).share, peakiness(model, batch).share)


def test_the_picture_has_a_row_for_each_head(make_tiny):
    figure = peakiness(looking(make_tiny, {}), batch_of([1, 0, 1])).figure()
    assert list(figure.data[0].y) == ["L0H0.pattern"]


@pytest.mark.parametrize("batch", [batch_of([1, 0, 1], regime="direct"), batch_of([1, 0], [1, 0, 1])])
def test_transcripts_without_a_total_at_every_step_are_refused(make_tiny, batch):
    with pytest.raises(KeyError, match="total of step"):
        peakiness(looking(make_tiny, {}), batch)
