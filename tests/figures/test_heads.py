"""The picture of the table of heads shows its numbers, missing ones as missing."""

import numpy as np
import pandas as pd

from cotinterp.figures import head_figure

TABLE = pd.DataFrame(
    {
        "layer": [0, 1],
        "head": [2, 0],
        "attribution": [-0.5, 2.0],
        "ablation_effect": [np.nan, np.nan],
        "attention_to_previous_total": [0.25, 1.0],
        "attention_to_next_operand": [0.0, 0.5],
        "label": ["mixed", "total reader"],
    }
)


def test_each_number_has_a_column_and_each_head_a_row_with_its_label():
    figure = head_figure(TABLE, title="heads")
    assert [trace.z[:, 0].tolist() for trace in figure.data if trace.text[0][0] != "–"] == [
        [-0.5, 2.0],
        [0.25, 1.0],
        [0.0, 0.5],
    ]
    assert list(figure.data[0].y) == ["mixed  <b>L0H2</b> ", "total reader  <b>L1H0</b> "]


def test_signed_numbers_are_white_at_zero_and_amounts_share_one_scale():
    attribution, _, previous, following = head_figure(TABLE, title="heads").data
    assert (attribution.zmin, attribution.zmax) == (-2.0, 2.0)
    assert (previous.zmin, previous.zmax) == (following.zmin, following.zmax) == (0.0, 1.0)


def test_numbers_that_are_missing_are_dashes():
    assert [row[0] for row in head_figure(TABLE, title="heads").data[1].text] == ["–", "–"]
