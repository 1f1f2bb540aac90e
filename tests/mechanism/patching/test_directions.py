import numpy as np
import pytest
import torch

from cotinterp.mechanism.patching.sweep import patch_both_ways, patch_sweep
from tests.mechanism.contrasts import replaced, told_apart


@pytest.fixture(scope="module")
def contrast(tiny_model):
    tokens = torch.randint(0, 13, (8, 8), generator=torch.Generator().manual_seed(1))
    return told_apart(tiny_model, tokens, replaced(tokens, [3], d_vocab=13), torch.full((8,), 6))


@pytest.fixture(scope="module")
def both(tiny_model, contrast):
    return patch_both_ways(tiny_model, contrast, kinds=("resid_pre", "attn_out"), heads=True, labels={"run_seed": 2})


def test_both_sweeps_with_the_same_options(tiny_model, contrast, both):
    frame = both.frame()
    for direction in ("denoise", "noise"):
        alone = patch_sweep(
            tiny_model,
            contrast,
            kinds=("resid_pre", "attn_out"),
            heads=True,
            labels={"run_seed": 2},
            direction=direction,
        ).frame()
        rows = frame[frame["direction"] == direction].reset_index(drop=True)
        assert rows["site"].tolist() == alone["site"].tolist()
        np.testing.assert_array_equal(rows["effect"], alone["effect"])


def test_side_by_side_is_one_row_a_cell(both):
    table, frame = both.side_by_side(), both.frame()
    assert len(table) == len(frame) / 2
    for direction in ("denoise", "noise"):
        rows = frame[frame["direction"] == direction]
        np.testing.assert_array_equal(table[f"{direction}_effect"], rows["effect"])
        np.testing.assert_array_equal(table[f"{direction}_n"], rows["n"])
    np.testing.assert_array_equal(table["difference"], table["denoise_effect"] - table["noise_effect"])
    of_logits = table[table["metric"] == "logit_diff"].set_index("site")
    assert of_logits.loc["self", ["denoise_effect", "noise_effect"]].tolist() == [0.0, 0.0]
    assert of_logits.loc["full", ["denoise_effect", "noise_effect"]].tolist() == [1.0, 1.0]
    assert of_logits.loc["L1.resid_pre", "difference"].abs().max() > 1e-3


def test_scans_and_details_of_both(both):
    assert both.scan().frame()["direction"].value_counts().to_dict() == dict.fromkeys(
        ("denoise", "noise"), len(both.denoise.cells)
    )
    assert len(both.detail()) == len(both.frame())
    assert both.runs().predicted["clean"].tolist() == both.noise.runs().predicted["clean"].tolist()


def test_figure_has_a_facet_for_each_kind_and_direction(both):
    figure = both.figure(heads=False)
    titles = [note.text.split(" (")[0] for note in figure.layout.annotations]
    ways = ("denoise", "noise")
    assert titles == [f"<b>{kind}</b>, {way}" for kind in ("resid_pre", "attn_out") for way in ways]
    drawn = np.concatenate([np.ravel(trace.z) for trace in figure.data if trace.type == "heatmap"])
    frame = both.frame()
    cells = frame[(frame["metric"] == "logit_diff") & (frame["head"] == -1) & (frame["role"] != "all")]
    shown = cells[cells["effect"] != 0]["effect"]
    np.testing.assert_allclose(np.sort(drawn[drawn != 0]), np.sort(shown), rtol=1e-6)


def test_files(both, tmp_path):
    paths = [str(path.relative_to(tmp_path)) for path in both.save(tmp_path, "patching")]
    assert paths == ["tables/patching.csv", "figures/patching.html", "tables/patching_directions.csv"]
    assert all((tmp_path / path).stat().st_size for path in paths)
