"""Where heads look, by hand on known heads: at chance for even attention, peaked for heads that look at one token."""

import numpy as np
import pytest
import torch

from cotinterp.mechanism.heads.read_scores import iteration_scores, peakiness, step_links
from cotinterp.tasks.registry import get_task
from cotinterp.transcripts.batch import collate
from cotinterp.transcripts.problems import solve
from cotinterp.transcripts.render import render
from cotinterp.transcripts.vocabulary import Vocabulary
from tests.mechanism.contrasts import shown
from tests.mechanism.copier import previous_token_copier

TASK = get_task("digit-sum")
TOKENS = torch.tensor([[2, 1, 5, 6], [3, 4, 7, 0]])


def contrast_of(regime, operands):
    problems = solve(TASK, np.array(operands))
    batch = collate([render(TASK, problem, regime) for problem in problems], Vocabulary.of(TASK))
    return shown(batch.tokens, batch)


def mask_of(*places):
    """True at each (example, destination, source)."""
    mask = torch.zeros(2, 4, 4, dtype=torch.bool)
    for place in places:
        mask[place] = True
    return mask


@pytest.fixture
def scores(make_tiny):
    """The copier looks from 1 at 0, from 2 at 1, from 3 at 2. Example 0 has three destinations, example 1 one."""
    reads = {
        "copied": {"a": mask_of((0, 1, 0), (0, 2, 0), (1, 3, 2)), "b": mask_of((0, 3, 1), (0, 3, 2))},
        "absent": {},
    }
    return iteration_scores(previous_token_copier(make_tiny), shown(TOKENS), reads)


def test_scores_of_a_head_on_the_previous_token_by_hand(scores):
    assert scores.score("copied", "a")[0, 0] == pytest.approx((0.5 + 1) / 2)
    assert scores.score("copied", "b")[0, 0] == pytest.approx(1.0)
    assert scores.score("copied")[0, 0] == pytest.approx((2 / 3 + 1) / 2)


def test_scores_of_an_even_head_by_hand_and_equal_to_chance(scores):
    assert scores.score("copied", "a")[0, 1] == pytest.approx(((1 / 2 + 1 / 3) / 2 + 1 / 4) / 2)
    assert scores.score("copied", "b")[0, 1] == pytest.approx(1 / 2)
    for target in ("a", "b", "all"):
        assert scores.score("copied", target)[0, 1] == pytest.approx(scores.chance_level("copied", target))
        assert scores.above_chance("copied", target)[0, 1] == pytest.approx(0, abs=1e-6)


def test_above_chance_is_one_where_nothing_else_is_looked_at(scores):
    assert scores.above_chance("copied", "b")[0, 0] == pytest.approx(1.0)


def test_a_peak_needs_one_token_with_more_than_half(scores):
    """Evenly over two sources of 1/4 each is no peak, nor is exactly one half on position 0."""
    assert scores.peakiness("copied", "a")[0].tolist() == pytest.approx([3 / 4, 0])
    assert scores.peakiness("copied", "b")[0].tolist() == pytest.approx([1, 0])


def test_a_read_that_cannot_be_made_is_nan(scores):
    assert scores.targets("absent") == ()
    assert scores.score("absent").isnan().all()
    assert np.isnan(scores.chance_level("absent"))
    rows = scores.frame().query("read == 'absent'")
    assert len(rows) == 2
    assert rows["attention"].isna().all()
    assert rows["n"].tolist() == [0, 0]


def test_unknown_names_are_refused_with_those_that_exist(scores):
    with pytest.raises(KeyError, match=r"no read 'nothing'; there are \['copied', 'absent'\]"):
        scores.score("nothing")
    with pytest.raises(KeyError, match=r"no target 'c' here; there are \['a', 'b', 'all'\]"):
        scores.score("copied", "c")


def test_frame_counts_examples_and_destinations(scores):
    frame = scores.frame().query("read == 'copied' and head == 0").set_index("target")
    assert frame["n"].to_dict() == {"a": 2, "b": 1, "all": 2}
    assert frame["n_dest"].to_dict() == {"a": 3, "b": 1, "all": 4}
    assert frame["attention"].to_dict() == pytest.approx({"a": 0.75, "b": 1.0, "all": 5 / 6})
    assert frame["peakiness"].to_dict() == pytest.approx({"a": 0.75, "b": 1.0, "all": 5 / 6})


def test_a_source_ahead_of_its_destination_is_refused(make_tiny):
    with pytest.raises(ValueError, match="read 'x' before 'y' marks a source behind its destination"):
        iteration_scores(previous_token_copier(make_tiny), shown(TOKENS), {"x": {"y": mask_of((0, 1, 2))}})


@pytest.mark.parametrize("regime", ["cot", "totals", "direct"])
def test_even_heads_are_at_chance_in_every_regime_and_random_heads_are_not(make_tiny, regime):
    model = make_tiny(d_vocab=len(Vocabulary.of(TASK)), n_ctx=48)
    contrast = contrast_of(regime, [[3, 4, 5, 6], [9, 9, 9, 9], [1, 2, 3, 4]])
    random = iteration_scores(model, contrast)
    with torch.no_grad():
        for layer in model.original_model.layers:
            layer.attn.q.weight.zero_()
            layer.attn.q.bias.zero_()
    even = iteration_scores(model, contrast)
    for read, target in even.rows:
        chance = torch.full((2, 4), even.chance_level(read, target))
        torch.testing.assert_close(even.score(read, target), chance)
        assert (random.score(read, target) - chance).abs().max() > 1e-3


def test_direct_has_no_previous_total_and_its_operands_are_chance_at_one_half(make_tiny):
    model = make_tiny(d_vocab=len(Vocabulary.of(TASK)))
    scores = iteration_scores(model, contrast_of("direct", [[3, 4, 5], [1, 2, 3]]))
    assert scores.targets("previous_total") == ()
    assert scores.score("previous_total").isnan().all()
    assert scores.chance_level("next_operand") == pytest.approx(3 / 7)


def test_a_batch_in_pieces_gives_the_same(make_tiny):
    model = make_tiny(d_vocab=len(Vocabulary.of(TASK)), n_ctx=48)
    contrast = contrast_of("cot", [[3, 4, 5], [9, 9, 9], [1, 2, 3]])
    whole, pieces = iteration_scores(model, contrast), iteration_scores(model, contrast, batch_size=2)
    torch.testing.assert_close(whole.attention, pieces.attention)
    assert torch.equal(whole.n_dest, pieces.n_dest)


def test_the_figure_has_a_column_for_each_read_and_target_and_a_row_for_each_head(scores):
    grid = next(trace for trace in scores.figure().data if trace.type == "heatmap" and trace.z is not None)
    assert list(grid.x) == ["copied, before a", "copied, before b", "absent"]
    assert list(grid.y) == ["L0H0.pattern", "L0H1.pattern"]
    shown = np.asarray(grid.z, dtype=float)
    np.testing.assert_allclose(shown[0, :2], [0.75, 1.0])
    assert np.isnan(shown[:, 2]).all()


PARITY = get_task("parity")
LINKS = ("prompt_end", "trace_start", "next_operand", "previous_operand")


def batch_of(*rows, regime="chain"):
    problems = [solve(PARITY, np.array([row]))[0] for row in rows]
    return collate([render(PARITY, problem, regime) for problem in problems], Vocabulary.of(PARITY))


def test_links_by_hand():
    """`<1+0+1>{10}0#`: s_1 is predicted at `{`, position 7, and s_2 at s_1, position 8."""
    batch = batch_of([1, 0, 1])
    dest, links = step_links(batch)
    assert batch.transcripts[0].text == f"<1{PARITY.operator}0{PARITY.operator}1>{{10}}0#"
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
    sizes = {"n_layers": 1, "n_heads": 1, "d_head": n, "d_model": n, "n_ctx": n, "d_vocab": len(Vocabulary.of(PARITY))}
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
    model = make_tiny(d_vocab=len(Vocabulary.of(PARITY)), n_ctx=16)
    batch = batch_of([1, 0, 1], [0, 0, 1], [1, 1, 1])
    assert torch.equal(peakiness(model, batch, batch_size=2).share, peakiness(model, batch).share)


def test_the_picture_has_a_row_for_each_head(make_tiny):
    figure = peakiness(looking(make_tiny, {}), batch_of([1, 0, 1])).figure()
    assert list(figure.data[0].y) == ["L0H0.pattern"]


@pytest.mark.parametrize("batch", [batch_of([1, 0, 1], regime="direct"), batch_of([1, 0], [1, 0, 1])])
def test_transcripts_without_a_total_at_every_step_are_refused(make_tiny, batch):
    with pytest.raises(KeyError, match="total of step"):
        peakiness(looking(make_tiny, {}), batch)
