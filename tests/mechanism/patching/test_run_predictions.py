"""The four families on models whose mechanism is known."""

import numpy as np
import pytest
import torch

from cotinterp.mechanism.activations import Budget
from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.patching.run_predictions import (
    RunPredictions,
    family_predictions,
    predictions,
    run_predictions,
    source,
)
from cotinterp.mechanism.patching.sweep import patch_sweep
from cotinterp.models.handmade import reader, recomputer
from cotinterp.tasks import get_task
from cotinterp.transcripts.pair_families import pair_families
from cotinterp.transcripts.problems import sample_problems
from tests.mechanism.contrasts import ANY_GAP, contrast_with_gap, replaced

WANTED = ("prompt_operand", "written_total", "both", "unrelated")


def runs(corrupted, *, clean=(0, 0, 0, 0), **others):
    predicted = {"clean": np.array(clean), "corrupted": np.array(corrupted)}
    return RunPredictions(predicted | {run: np.array(codes) for run, codes in others.items()}, "pair", {"run_seed": 1})


def test_predictions_worked_by_hand():
    logits = torch.tensor([[[9.0, 0, 0], [0, 5, 1]], [[0, 0, 9], [1, 0, 2]], [[7, 0, 0], [0, 0, 1]]])
    at, answer, foil = torch.tensor([1, 1, 0]), torch.tensor([1, 0, 1]), torch.tensor([2, 2, 2])
    assert predictions(logits, at, answer, foil).tolist() == [0, 1, 2]


def test_the_table_counts():
    frame = runs((1, 1, 0, 2)).frame()
    corrupted = frame[frame["run"] == "corrupted"]
    assert corrupted[["prediction", "count", "n", "share"]].values.tolist() == [
        ["answer", 1, 4, 0.25],
        ["foil", 2, 4, 0.5],
        ["other", 1, 4, 0.25],
    ]
    assert frame["run_seed"].eq(1).all()
    assert (frame["ci_low"] <= frame["share"]).all()
    assert frame.groupby("run")["share"].sum().eq(1.0).all()


def test_told_apart_is_right_in_both_runs_of_the_unit():
    assert runs((1, 1, 0, 2), clean=(0, 2, 0, 0)).distinguished == 0.25
    assert runs((0, 0, 0, 0), reference=(1, 1, 1, 0)).distinguished == 0.75
    with pytest.raises(KeyError, match=r"no run 'reference' in this contrast; it has \['clean', 'corrupted'\]"):
        runs((0, 0, 0, 0)).share("reference", "foil")


def test_a_sweep_records_what_the_runs_put_first(tiny_model, tokens):
    contrast = contrast_with_gap(tiny_model, tokens, replaced(tokens, [3], d_vocab=13), torch.full((5,), 6))
    with torch.no_grad():
        first = tiny_model(contrast.corrupted)[:, 6].argmax(-1)
    contrast = Contrast.by_position(contrast.clean, contrast.corrupted, contrast.at, (first + 1) % 13, first)
    alone = run_predictions(tiny_model, contrast, budget=Budget(batch_size=2))
    assert alone.predicted["corrupted"].tolist() == [1] * 5
    for direction in ("denoise", "noise"):
        swept = patch_sweep(
            tiny_model,
            contrast,
            kinds=("resid_pre",),
            direction=direction,
            controls=ANY_GAP,
        ).runs()
        for run in ("clean", "corrupted"):
            assert swept.predicted[run].tolist() == alone.predicted[run].tolist()


def test_figure_draws_every_run():
    figure = runs((1, 1, 0, 2)).figure()
    assert {bar.name for bar in figure.data} == {"answer", "foil", "other"}
    assert sum(value for bar in figure.data for value in bar.y) == pytest.approx(2.0)


STAYS, FOLLOWS, OTHER = runs((0, 0, 0, 0)), runs((1, 1, 1, 1)), runs((2, 2, 2, 2))


@pytest.mark.parametrize(
    ("prompt", "trace", "both", "unrelated", "verdict"),
    [
        (STAYS, FOLLOWS, FOLLOWS, STAYS, "trace"),
        (FOLLOWS, STAYS, FOLLOWS, STAYS, "prompt"),
        (FOLLOWS, FOLLOWS, FOLLOWS, STAYS, "either"),
        (STAYS, STAYS, FOLLOWS, STAYS, "undecided"),
        (OTHER, FOLLOWS, FOLLOWS, STAYS, "undecided"),
        (STAYS, FOLLOWS, OTHER, STAYS, "undecided"),
        (STAYS, FOLLOWS, FOLLOWS, OTHER, "undecided"),
        (runs((0, 0, 1, 1)), FOLLOWS, FOLLOWS, STAYS, "undecided"),
    ],
)
def test_where_a_total_comes_from(prompt, trace, both, unrelated, verdict):
    assert source(dict(zip(WANTED, (prompt, trace, both, unrelated), strict=True))) == verdict


def test_a_family_that_is_missing():
    with pytest.raises(KeyError, match=r"\['both', 'unrelated'\] are missing"):
        source({"prompt_operand": STAYS, "written_total": FOLLOWS})


@pytest.mark.parametrize("regime", ["totals", "cot"])
@pytest.mark.parametrize(("make", "verdict"), [(reader, "trace"), (recomputer, "prompt")])
def test_reader_and_recomputer_are_told_apart(make, verdict, regime):
    """Both write the same transcripts: every clean run is right. Only the families can tell."""
    task = get_task("z6")
    problems = sample_problems(task, 4, 10, split="heldout", rng=np.random.default_rng(0))
    families = pair_families(task, problems, regime, step=2, rng=np.random.default_rng(1))
    model = make(task, regime, (4, 4))
    found = {family: run_predictions(model, Contrast.from_pairs(pairs)) for family, pairs in families.items()}
    assert all(one.share("clean", "answer") == 1.0 for one in found.values())
    assert source(found) == verdict
    expected = {"prompt_operand": verdict == "prompt", "written_total": verdict == "trace"}
    for family, follows in (expected | {"both": True, "unrelated": False}).items():
        assert found[family].share("corrupted", "foil") == float(follows), family
        assert found[family].share("corrupted", "answer") == float(not follows), family


Z6 = get_task("z6")


@pytest.fixture(scope="module")
def families():
    problems = sample_problems(Z6, 4, 30, split="heldout", rng=np.random.default_rng(0))
    made = pair_families(Z6, problems, "totals", step=2, rng=np.random.default_rng(0))
    return {family: Contrast.from_pairs(pairs) for family, pairs in made.items()}


@pytest.mark.parametrize(
    ("build", "source", "followed"),
    [(reader, "trace", {"written_total", "both"}), (recomputer, "prompt", {"prompt_operand", "both"})],
)
def test_each_follows_what_it_is_made_to_read(families, build, source, followed):
    result = family_predictions(build(Z6, "totals", (2, 4)), families, labels={"task": "z6"})
    frame = result.frame()
    assert result.source == source
    assert set(frame["source"]) == {source}
    assert set(frame["readout"]) == {"total 2"}
    shares = frame.pivot(index="family", columns="prediction", values="share")
    assert set(shares.index[shares["foil"] == 1]) == followed
    assert set(shares.index[shares["answer"] == 1]) == set(families) - followed
    assert (shares.sum(axis=1) == 1).all()
    assert (frame["n"] == len(families["both"])).all()
    assert len(result.figure().data) == 3


def test_a_missing_family_is_named(families):
    some = {family: contrast for family, contrast in families.items() if family != "unrelated"}
    with pytest.raises(KeyError, match="unrelated"):
        family_predictions(reader(Z6, "totals", (2, 4)), some)
