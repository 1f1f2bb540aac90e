"""The four families on models whose mechanism is known."""

import numpy as np
import pytest
import torch

from cotinterp.mechanism.activations import Budget
from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.patching.run_predictions import (
    LEAST_PAIRS,
    RunPredictions,
    family_predictions,
    predictions,
    run_predictions,
    source,
    would_decide,
)
from cotinterp.mechanism.patching.sweep import patch_sweep
from cotinterp.models.handmade import reader, recomputer
from cotinterp.results import wilson
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


def many(foil, n=20, *, otherwise=0):
    """Of n corrupted runs so many put the foil first, the others the answer (or what `otherwise` says)."""
    return runs([1] * foil + [otherwise] * (n - foil), clean=[0] * n)


STAYS, FOLLOWS, OTHER = many(0), many(20), many(0, otherwise=2)


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
        (many(10), FOLLOWS, FOLLOWS, STAYS, "undecided"),
    ],
)
def test_where_a_total_comes_from(prompt, trace, both, unrelated, verdict):
    found = dict(zip(WANTED, (prompt, trace, both, unrelated), strict=True))
    assert source(found) == verdict
    assert (would_decide(found) == "") == (verdict != "undecided")


def reader_of(n, trace=None):
    """What a reader does, in n pairs of each family; `trace` puts something else for the changed total."""
    stays, follows = many(0, n), many(n, n)
    return dict(zip(WANTED, (stays, trace or follows, follows, stays), strict=True))


def test_few_pairs_decide_nothing_and_it_is_said_how_many_it_takes():
    for n in (1, 4, LEAST_PAIRS - 1):
        assert source(reader_of(n)) == "undecided"
        assert would_decide(reader_of(n)).startswith(f"only {n} pairs of prompt_operand, {n} pairs of written_total")
        assert would_decide(reader_of(n)).endswith("it takes 16 at least")
    assert source(reader_of(LEAST_PAIRS)) == "trace"
    assert wilson(LEAST_PAIRS - 1, LEAST_PAIRS - 1)[0] < 0.8 < wilson(LEAST_PAIRS, LEAST_PAIRS)[0]


@pytest.mark.parametrize(
    ("followed", "said"),
    [
        (18, "foil first in 90% of 20 pairs (70% to 97%, must lie above 80%): about 62 pairs at that share decide"),
        (16, "foil first in 80% of 20 pairs (58% to 92%, must lie above 80%): more pairs may decide"),
        (10, "foil first in 50% of 20 pairs (30% to 70%, must lie above 80%): more pairs do not decide"),
    ],
)
def test_the_interval_decides_and_not_the_share(followed, said):
    found = reader_of(20, many(followed, otherwise=2))
    assert source(found) == "undecided"
    assert would_decide(found) == f"written_total: {said}"
    assert wilson(56, 62)[0] > 0.8 > wilson(54, 60)[0]


def test_a_family_that_is_missing_is_what_would_decide():
    found = {"prompt_operand": STAYS, "written_total": FOLLOWS}
    assert source(found) == "undecided"
    assert would_decide(found) == "no pairs of both, unrelated: all four families of pair_families are needed"


@pytest.mark.parametrize("regime", ["totals", "cot"])
@pytest.mark.parametrize(("make", "verdict"), [(reader, "trace"), (recomputer, "prompt")])
def test_reader_and_recomputer_are_told_apart(make, verdict, regime):
    """Both write the same transcripts: every clean run is right. Only the families can tell."""
    task = get_task("z6")
    problems = sample_problems(task, 4, 20, split="heldout", rng=np.random.default_rng(0))
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


def test_a_missing_family_leaves_the_source_open(families):
    some = {family: contrast for family, contrast in families.items() if family != "unrelated"}
    result = family_predictions(reader(Z6, "totals", (2, 4)), some)
    assert set(result.frame()["source"]) == {"undecided"}
    assert result.frame()["would_decide"].str.startswith("no pairs of unrelated").all()
    with pytest.raises(ValueError, match=r"families \(none\) were given; known are \['prompt_operand'"):
        family_predictions(reader(Z6, "totals", (2, 4)), {})
    with pytest.raises(ValueError, match=r"families \['operand'\] were given"):
        family_predictions(reader(Z6, "totals", (2, 4)), {"operand": families["both"]})


def test_families_of_other_pairs_are_refused(families):
    """Of as many rows, and made by the same function: only the question tells them apart."""
    problems = sample_problems(Z6, 4, 30, split="heldout", rng=np.random.default_rng(1))
    others = pair_families(Z6, problems, "totals", step=2, rng=np.random.default_rng(0))
    mixed = {**families, "unrelated": Contrast.from_pairs(others["unrelated"])}
    assert len(mixed["unrelated"]) == len(mixed["both"])
    with pytest.raises(ValueError, match=r"\['unrelated'\] do not ask what 'prompt_operand' asks"):
        family_predictions(reader(Z6, "totals", (2, 4)), mixed)


def test_one_pair_given_twenty_times_is_one_pair(families):
    one = {family: contrast.select(torch.zeros(20, dtype=torch.long)) for family, contrast in families.items()}
    with pytest.raises(ValueError, match=r"19 of 20 pairs are given again \(pair 1 is pair 0\)"):
        family_predictions(reader(Z6, "totals", (2, 4)), one)


def test_nothing_changed_is_no_run_that_stays(families):
    both = families["both"]
    same = Contrast(both.clean, both.clean, both.at, both.answer, both.foil, both.places)
    with pytest.raises(ValueError, match="clean and corrupted are the same tokens up to the readout in 30 of 30 pairs"):
        run_predictions(reader(Z6, "totals", (2, 4)), same)


def test_logits_that_are_no_numbers_put_nothing_first():
    logits = torch.tensor([[[0.0, 1.0, float("nan")]], [[0.0, 1.0, 2.0]]])
    at, answer, foil = torch.tensor([0, 0]), torch.tensor([1, 1]), torch.tensor([0, 0])
    with pytest.raises(ValueError, match="logits at the readout are NaN in 1 of 2 runs"):
        predictions(logits, at, answer, foil)
