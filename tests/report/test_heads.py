"""The head table: numbers as they are, sortable, every text escaped, every label with its rule."""

import re

import pandas as pd

from cotinterp.figures.labels import RunKey
from cotinterp.report import ReportInputs, heads_table_html

RUN = {
    "task": "s3",
    "regime": "cot",
    "run_seed": 0,
    "attention_to_previous_total": 0.5,
    "attention_to_next_operand": float("nan"),
}


def table() -> pd.DataFrame:
    return pd.DataFrame(
        [
            RUN | {"layer": 0, "head": 0, "attribution": -2.0, "ablation_effect": 0.1, "label": "<b>reader"},
            RUN | {"layer": 1, "head": 3, "attribution": 1.0, "ablation_effect": 0.4, "label": "mixed"},
        ]
    )


def test_cells_carry_the_exact_value_for_sorting_and_three_decimals_for_reading() -> None:
    html = heads_table_html(table())
    assert 'data-value="-2.0" style="--share:100%">\N{MINUS SIGN}2.000</td>' in html
    assert 'class="number plus" data-value="1.0" style="--share:50%">1.000</td>' in html
    assert re.findall(r'<th scope="row" data-value="(\d)">(L\dH\d)</th>', html) == [("0", "L0H0"), ("1", "L1H3")]


def test_a_missing_number_is_a_dash() -> None:
    assert (
        re.findall(r'data-value="nan" style="--share:0%">([^<]*)</td>', heads_table_html(table()))
        == ["\N{EN DASH}"] * 2
    )


def test_labels_and_rules_are_escaped_and_missing_rules_are_said_to_be_missing() -> None:
    html = heads_table_html(table(), {"<b>reader": "mass > 0.5 & needed"})
    assert "<b>reader" not in html
    assert "<dt>&lt;b&gt;reader</dt><dd>mass &gt; 0.5 &amp; needed</dd>" in html
    assert "<dt>mixed</dt><dd>No rule was stored with this label.</dd>" in html


def test_a_rule_does_not_repeat_its_label_and_a_caveat_stands_with_its_run() -> None:
    html = heads_table_html(table(), {"mixed": "mixed: otherwise"}, caveats={RunKey("s3", "cot", 0): "only <guesses>"})
    assert "<dt>mixed</dt><dd>otherwise</dd>" in html
    assert "<caption>s3, cot, seed 0: only &lt;guesses&gt;</caption>" in html
    other = heads_table_html(table(), caveats={RunKey("s3", "direct", 0): "only guesses"})
    assert "<caption>s3, cot, seed 0</caption>" in other
    placed = table().assign(readout="total 3", n=7, note="7 examples, 8 are needed")
    assert "seed 0, read at total 3, n = 7: 7 examples, 8 are needed</caption>" in heads_table_html(placed)


def test_one_table_a_model_with_headings_that_a_keyboard_reaches(inputs: ReportInputs) -> None:
    html = heads_table_html(inputs.tables["heads"], inputs.label_rules)
    assert html.count("<table") == 4
    assert html.count('aria-sort="none"><button type="button">') == 4 * 6
    assert html.count("<tr>") == 4 * 17
