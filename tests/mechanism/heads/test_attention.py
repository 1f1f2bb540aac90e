"""Attention mass between groups of tokens: by hand on a known head, and its sums and chance levels."""

import json
import re

import numpy as np
import pytest
import torch

from cotinterp.mechanism.heads.attention import attention, attention_by_role, uniform_attention
from cotinterp.mechanism.heads.reads import role_masks
from cotinterp.tasks.registry import get_task
from cotinterp.transcripts.batch import collate
from cotinterp.transcripts.problems import solve
from cotinterp.transcripts.render import render
from cotinterp.transcripts.vocabulary import Vocabulary
from tests.mechanism.contrasts import shown
from tests.mechanism.copier import previous_token_copier

TASK = get_task("digit-sum")


@pytest.fixture
def contrast():
    problems = [*solve(TASK, np.array([[3, 4], [9, 8]])), *solve(TASK, np.array([[1, 2, 3]]))]
    batch = collate([render(TASK, problem, "totals") for problem in problems], Vocabulary.of(TASK))
    return shown(batch.tokens, batch)


@pytest.fixture
def model(make_tiny):
    return make_tiny(d_vocab=len(Vocabulary.of(TASK)))


def even_heads(model):
    """Queries without weights: every head attends evenly to everything up to itself."""
    with torch.no_grad():
        for layer in model.original_model.layers:
            layer.attn.q.weight.zero_()
            layer.attn.q.bias.zero_()
    return model


def position_masks(n_rows, n_pos, groups):
    masks = {name: torch.zeros(n_rows, n_pos, dtype=torch.bool) for name in groups}
    for name, positions in groups.items():
        masks[name][:, positions] = True
    return masks


def test_a_view_shows_the_patterns_of_the_model_by_place_and_asks_for_nothing(contrast, model):
    batch = contrast.batch
    view = attention(model, batch, index=1, labels={"task": "digit-sum", "regime": "totals", "run_seed": 3})
    length = int(batch.length[1])
    _, cache = model.run_with_cache(batch.tokens[1:2, :length])
    for layer in range(model.cfg.n_layers):
        pattern = cache[f"blocks.{layer}.attn.hook_pattern"][0].detach().numpy()
        np.testing.assert_allclose(view.patterns[layer], pattern, atol=1e-6)
    assert "digit-sum, totals, seed 3" in repr(view)
    html = view._repr_html_()
    drawn = json.loads(re.search(r"drawAttention\(place.firstChild, (.*)\);\n", html).group(1))
    assert drawn["tokens"][1] == "9\N{MIDDLE DOT}operand\N{MIDDLE DOT}0"
    np.testing.assert_allclose(drawn["attention"][0], view.patterns[0, 0], atol=5.1e-4)
    assert not re.search(r"(src|href)=.https?:", html)
    best = view.patterns[0, 0, view.roles.index("answer") - 1]
    assert f"<td>{view.words[best.argmax()]}</td>" in html


def test_a_transcript_that_is_not_there_is_refused(contrast, model):
    with pytest.raises(IndexError, match="index=3: the batch has 3 transcripts"):
        attention(model, contrast.batch, index=3)


def test_a_head_on_the_previous_token_by_hand(make_tiny):
    """From positions 2 and 3 it looks at 1 and 2; so half its attention from {2, 3} is on {1}, half on {2, 3}."""
    tokens = torch.tensor([[2, 1, 5, 6]])
    masks = position_masks(1, 4, {"first": [0], "second": [1], "rest": [2, 3]})
    result = attention_by_role(previous_token_copier(make_tiny), shown(tokens), masks)
    by_hand = torch.tensor([[1.0, 0, 0], [1, 0, 0], [0, 0.5, 0.5]])
    torch.testing.assert_close(result.mass[0, 0, :, :, 0], by_hand)
    even = torch.tensor(
        [[1.0, 0, 0], [1 / 2, 1 / 2, 0], [(1 / 3 + 1 / 4) / 2, (1 / 3 + 1 / 4) / 2, (1 / 3 + 1 / 2) / 2]]
    )
    torch.testing.assert_close(result.mass[0, 1, :, :, 0], even)
    torch.testing.assert_close(result.chance[:, :, 0], even)


def test_each_destination_spends_all_its_attention_on_the_roles(model, contrast):
    spent = attention_by_role(model, contrast).mass.sum(dim=3)
    known = spent[~spent.isnan()]
    assert len(known) > 100
    torch.testing.assert_close(known, torch.ones_like(known))


def test_even_attention_is_chance_and_random_heads_are_not(model, contrast):
    random = attention_by_role(model, contrast)
    assert (random.mass - random.chance).abs().nan_to_num().max() > 0.1
    even = attention_by_role(even_heads(model), contrast)
    torch.testing.assert_close(even.mass, even.chance.expand_as(even.mass), equal_nan=True)


def test_what_comes_later_gets_nothing(model, contrast):
    result = attention_by_role(model, contrast)
    start, end = result.groups.index("prompt_start"), result.groups.index("end")
    assert torch.equal(result.mass[:, :, start, end], torch.zeros_like(result.mass[:, :, start, end]))
    assert (result.mass[:, :, end, start] > 0).all()


def test_an_example_without_such_a_destination_is_nan_and_not_counted(model, contrast):
    result = attention_by_role(model, contrast)
    separators = result.groups.index("step_end")
    assert result.mass[0, 0, separators, 0].isnan().tolist() == [True, True, False]
    frame = result.frame()
    assert set(frame.loc[frame["dest"] == "step_end", "n"]) == {1}
    assert set(frame.loc[frame["dest"] == "total", "n"]) == {3}


def test_a_batch_in_pieces_gives_the_same(model, contrast):
    whole, pieces = attention_by_role(model, contrast), attention_by_role(model, contrast, batch_size=2)
    torch.testing.assert_close(whole.mass, pieces.mass, equal_nan=True)


def test_frame_has_the_mean_over_examples_of_each_cell(model, contrast):
    result = attention_by_role(model, contrast, labels={"regime": "totals"})
    frame = result.frame()
    assert len(frame) == 2 * 4 * len(result.groups) ** 2
    row = frame.query("layer == 1 and head == 2 and dest == 'answer' and src == 'operand'").iloc[0]
    cell = result.mass[1, 2, result.groups.index("answer"), result.groups.index("operand")]
    assert row["attention"] == pytest.approx(float(cell.mean()))
    assert row["regime"] == "totals"
    assert row["ci_low"] <= row["attention"] <= row["ci_high"]


def test_the_figure_shows_the_heads_that_were_asked_for(model, contrast):
    result = attention_by_role(model, contrast)
    cells = [trace for trace in result.figure(layer=1, head=2).data if trace.type == "heatmap" and trace.z is not None]
    grid = np.asarray(cells[0].z, dtype=float)
    frame = result.frame().query("layer == 1 and head == 2")
    assert grid.shape == (len(result.groups),) * 2
    np.testing.assert_allclose(grid.ravel(), frame["attention"])
    with pytest.raises(ValueError, match="no head 9 in layer 1"):
        result.figure(layer=1, head=9)


def test_masks_that_do_not_fit_are_refused(model, contrast):
    masks = role_masks(contrast)
    with pytest.raises(ValueError, match="no groups"):
        attention_by_role(model, contrast, {})
    with pytest.raises(ValueError, match="mask of 'total' has shape"):
        attention_by_role(model, contrast, {"total": masks["total"][:, :-1]})
    with pytest.raises(ValueError, match="'total' marks no token"):
        attention_by_role(model, contrast, {"total": torch.zeros_like(masks["total"])})


def test_tokens_without_roles_need_groups(model):
    with pytest.raises(ValueError, match="has no roles, so that no read is known by name"):
        attention_by_role(model, shown(torch.zeros(2, 5, dtype=torch.long)))


def test_uniform_attention_spreads_over_the_prefix():
    torch.testing.assert_close(
        uniform_attention(3), torch.tensor([[1, 0, 0], [1 / 2, 1 / 2, 0], [1 / 3, 1 / 3, 1 / 3]])
    )
