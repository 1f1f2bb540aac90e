"""Attention views: the script as CircuitsVis ships it, the numbers as given, symbols that cannot become markup."""

import json
import re
from pathlib import Path

import circuitsvis.attention
import numpy as np
import pytest

from cotinterp.figures.attention import (
    AttentionView,
    attention_view,
    circuitsvis_script,
    read_attention_views,
    save_attention_views,
)
from cotinterp.figures.labels import RunKey
from cotinterp.report import ReportInputs

pytestmark = pytest.mark.slow

TOKENS = ("<", "</script>", "#")
PATTERNS = np.tril(np.full((2, 1, 3, 3), 1 / 3))


def view() -> AttentionView:
    return AttentionView(RunKey("s3", "cot", 0), TOKENS, ("prompt_start", "total", "end"), (-1, 1, -1), PATTERNS)


def test_the_script_is_the_one_that_circuitsvis_embeds_in_every_view() -> None:
    local = circuitsvis.attention.attention_heads(PATTERNS[:, 0], list("abc")).local_src
    ours = circuitsvis_script().replace("<\\/script>", "")
    assert len(ours) > 1_000_000
    assert ours.strip() in local


def test_the_script_cannot_close_its_element_nor_point_to_another_file() -> None:
    script = circuitsvis_script().lower()
    assert "</script" not in script
    assert "<!--" not in script
    assert "sourcemappingurl" not in script


def test_a_view_holds_every_head_by_name_with_its_own_numbers() -> None:
    patterns = np.stack([np.full((1, 3, 3), 0.25), np.full((1, 3, 3), 0.5)])
    html = attention_view(TOKENS, patterns)
    (stored,) = re.findall(r'<script type="application/json">(.*?)</script>', html)
    payload = json.loads(stored)
    assert payload["tokens"] == list(TOKENS)
    assert payload["attentionHeadNames"] == ["L0H0", "L1H0"]
    assert payload["attention"] == [[[0.25] * 3] * 3, [[0.5] * 3] * 3]
    assert '<option value="1">L1H0</option>' in html


def test_symbols_of_a_prompt_do_not_become_markup() -> None:
    html = attention_view(TOKENS, PATTERNS)
    assert html.count("</script>") == 1
    assert html.count("<script") == 1


def test_tokens_that_do_not_fit_the_pattern_are_refused() -> None:
    with pytest.raises(ValueError, match=r"2 tokens .* 3 by 3"):
        attention_view(TOKENS[:2], PATTERNS)
    with pytest.raises(ValueError, match=r"2 tokens, 3 roles"):
        AttentionView(RunKey("s3", "cot", 0), TOKENS[:2], ("a", "b", "c"), (0, 0, 0), PATTERNS)


def test_views_come_back_as_they_were_stored(tmp_path: Path, inputs: ReportInputs) -> None:
    save_attention_views(inputs.attention, tmp_path)
    back = read_attention_views(tmp_path)
    for before, after in zip(inputs.attention, back, strict=True):
        assert (after.run, after.tokens, after.roles, after.steps) == (
            before.run,
            before.tokens,
            before.roles,
            before.steps,
        )
        np.testing.assert_allclose(after.patterns, before.patterns, atol=5.1e-4)
    assert read_attention_views(tmp_path / "nowhere") == ()


def test_a_damaged_file_of_views_is_named(tmp_path: Path) -> None:
    path = save_attention_views([view()], tmp_path)
    path.write_text(path.read_text()[:-20])
    with pytest.raises(ValueError, match=r"attention\.json does not hold attention views"):
        read_attention_views(tmp_path)
