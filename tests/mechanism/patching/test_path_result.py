import numpy as np
import pandas as pd
import pytest
import torch

from cotinterp.mechanism.contrast import Address
from cotinterp.mechanism.patching.path_patching import PathPatchingResult
from cotinterp.mechanism.patching.paths import Path
from cotinterp.mechanism.patching.runs import Changes
from cotinterp.mechanism.sites import Site

COLUMNS = ["task", "regime", "run_seed", "pair", "direction", "through_mlps"]
COLUMNS += ["sender", "sender_kind", "sender_layer", "sender_head", "source_role", "source_step"]
COLUMNS += ["receiver", "receiver_kind", "receiver_layer", "receiver_head"]
COLUMNS += ["destination_role", "destination_step", "metric", "effect", "ci_low", "ci_high", "p_adjusted", "n"]
PATHS = (
    Path(Site("z", 0, 2), "any", "total 1"),
    Path(Site("z", 0, 2), "logits", "total 1"),
    Path(Site("z", 0, 2), Site("k", 1, 3), "total 1", "equals 2"),
    Path(Site("mlp_out", 0), Site("mlp_out", 1)),
)


def by_hand(n=2, **changes):
    """Every gap is 4. Path 0 closes 1 and 3 of them in turn, path 1 nothing, path 2 all, path 3 two too many."""
    gap = np.full(n, 4.0)
    rows = np.stack([np.resize([1.0, 3.0], n), np.zeros(n), gap, -0.5 * gap])
    measured = Changes(
        changes={"logit_diff": rows},
        gaps={"logit_diff": gap},
        baselines={"self": {"logit_diff": 0 * gap}, "full": {"logit_diff": gap}},
        ran=np.array([True, False, True, True]),
        predicted={"clean": np.zeros(n, dtype=int), "corrupted": np.ones(n, dtype=int)},
    )
    addresses = {"total 1": Address("total", 1, "13"), "equals 2": Address("equals", 2, "=")}
    given = {"through_mlps": True, "direction": "denoise", "pair": "p", "labels": {"task": "z6"}, **changes}
    return PathPatchingResult(paths=PATHS, measured=measured, addresses=addresses, **given)


def test_the_table_worked_by_hand():
    frame = by_hand().frame()
    assert list(frame.columns) == COLUMNS
    assert frame[["sender", "receiver", "receiver_kind", "effect", "n"]].values.tolist() == [
        ["self", "any", "any", 0.0, 2],
        ["full", "any", "any", 1.0, 2],
        ["L0H2.z", "any", "any", 0.5, 2],
        ["L0H2.z", "logits", "logits", 0.0, 2],
        ["L0H2.z", "L1H3.k", "k", 1.0, 2],
        ["L0.mlp_out", "L1.mlp_out", "mlp_out", -0.5, 2],
    ]
    path = frame.iloc[4]
    assert path[["source_role", "source_step", "destination_role", "destination_step"]].tolist() == [
        "total", 1, "equals", 2,
    ]  # fmt: skip
    assert path[["sender_layer", "sender_head", "receiver_layer", "receiver_head"]].tolist() == [0, 2, 1, 3]
    assert frame.loc[0, ["sender_layer", "sender_head", "receiver_layer", "receiver_head"]].tolist() == [-1] * 4
    assert frame.loc[5, ["sender_head", "receiver_layer", "receiver_head"]].tolist() == [-1, 1, -1]
    assert frame.loc[5, ["source_role", "source_step"]].tolist() == ["all", -1]
    assert frame.loc[2, ["ci_low", "ci_high"]].tolist() == [0.25, 0.75]
    assert frame["through_mlps"].all()


def test_p_values_are_those_of_the_scan():
    """Eight pairs: the constant paths reach the smallest p there is, 1 / 2^7; the empty one has p = 1."""
    result = by_hand(n=8)
    p = result.frame()["p_adjusted"].tolist()[2:]
    assert p == result.scan().frame()["p_adjusted"].tolist()
    assert p[1] == 1.0
    assert p[2] == p[3] == 1 / 2**7
    assert p[2] <= p[0] < 0.05
    assert np.isnan(result.frame()["p_adjusted"][:2]).all()


def test_one_path():
    assert by_hand().of(PATHS[3]) == -0.5
    with pytest.raises(KeyError, match="L0H2.z -> any is not among the 4 paths"):
        by_hand().of(Path(Site("z", 0, 2), "any"))


def test_unmeasured_metrics():
    with pytest.raises(ValueError, match="did you mean 'logit_diff'"):
        by_hand().effects("logitdiff")
    with pytest.raises(ValueError, match=r"kl was not measured in this sweep; it has \['logit_diff'\]"):
        by_hand().scan("kl")


def test_without_a_gap_effects_are_missing():
    result = by_hand()
    result.measured.gaps["logit_diff"][:] = 0.0
    frame = result.frame()
    assert frame["effect"].isna().all()
    assert frame["p_adjusted"].isna().all()
    assert (frame["n"] == 0).all()
    with pytest.raises(ValueError, match="none of 2 pairs has a gap"):
        result.check()
    result.check(require_gap=False)


def test_the_figure_draws_every_path():
    figure = by_hand().figure()
    drawn = [trace for trace in figure.data if trace.type == "heatmap"]
    assert sorted(note.text for note in figure.layout.annotations)[:4] == ["any", "k", "logits", "mlp_out"]
    values = np.concatenate([np.ravel(trace.z) for trace in drawn])
    assert sorted(values[np.isfinite(values)].tolist()) == [-0.5, 0.0, 0.5, 1.0]
    assert [list(trace.x) for trace in drawn if "L1H3" in trace.x[0]] == [["L1H3 at equals 2"]]
    title = figure.layout.title.text.replace("<br>", " ")
    assert "restored along one path" in title
    assert "MLPs recomputed on the way" in title
    assert "lost along one path" in by_hand(direction="noise").figure().layout.title.text.replace("<br>", " ")


def test_saved(tmp_path):
    table, _ = by_hand().save(tmp_path, "paths")
    assert list(pd.read_csv(table).columns) == COLUMNS


def test_a_result_holds_no_model():
    assert not any(isinstance(value, torch.nn.Module) for value in vars(by_hand()).values())
