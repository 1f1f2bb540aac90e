"""The law of errors that add up: worked by hand, recovered where it holds, told apart where another does."""

import math

import numpy as np
import pandas as pd
import pytest

from cotinterp.depth.error_law import fit_error_laws, law_accuracy

LENGTHS = np.arange(2, 13)
STEPS = (LENGTHS - 1).astype(float)


def counts(law, *parameters, n=4000, seeds=3, chance=0.0, rng=None):
    """Right answers as the law has them, rounded; drawn at random where there is an rng."""
    accuracy = law_accuracy(law, np.array(parameters), STEPS, chance)
    rows = []
    for seed in range(seeds):
        correct = np.round(n * accuracy) if rng is None else rng.binomial(n, accuracy)
        rows.append(pd.DataFrame({"run_seed": seed, "k": LENGTHS, "n": n, "correct": correct.astype(int)}))
    return pd.concat(rows, ignore_index=True)


@pytest.mark.parametrize(
    ("law", "parameters", "steps", "expected"),
    [
        ("threshold", (0.25, 2.0), 2.0, 1 - math.exp(-1)),  # two directions: a = 1 - exp(-1 / (r c^2))
        ("threshold", (0.02, 2.0), 5.0, 1 - math.exp(-2)),
        ("threshold", (0.125, 1.0), 2.0, math.erf(1.0)),  # one: a = erf(1 / sqrt(2 r c^2))
        ("threshold", (0.01, 4.0), 10.0, 1 - 3 * math.exp(-2)),  # four, x = 2 / (r c^2): a = 1 - (1 + x) exp(-x)
        ("one-rate", (0.1,), 3.0, 0.729),
        ("level", (0.4,), 7.0, 0.4),
    ],
)
def test_accuracies_worked_out_by_hand(law, parameters, steps, expected):
    (found,) = law_accuracy(law, np.array(parameters), np.array([steps]))
    assert found == pytest.approx(expected, rel=1e-9)
    (guessed,) = law_accuracy(law, np.array(parameters), np.array([steps]), chance=0.2)
    assert guessed == pytest.approx(0.2 + 0.8 * expected, rel=1e-9)


def test_far_beyond_the_threshold_accuracy_falls_as_a_power_of_the_steps():
    near, far = law_accuracy("threshold", np.array([1.0, 3.0]), np.array([100.0, 200.0]))
    assert far / near == pytest.approx(2.0**-3, rel=1e-3)


@pytest.mark.parametrize(("r", "q", "chance"), [(0.02, 3.0, 0.0), (0.05, 6.0, 0.1), (0.1, 1.0, 0.0)])
def test_an_exact_law_is_recovered_and_predicts_lengths_that_it_has_not_seen(r, q, chance):
    found = fit_error_laws(counts("threshold", r, q, chance=chance), fitted=range(2, 8), chance=chance, resamples=100)
    fit = found.fits["threshold"]
    assert fit.parameters["r"][0] == pytest.approx(r, rel=0.05)
    assert fit.parameters["q"][0] == pytest.approx(q, rel=0.05)
    assert fit.parameters["r"][1] <= r * 1.13
    assert fit.parameters["r"][2] >= r / 1.13
    assert fit.error[0] < 0.005 < found.fits["one-rate"].error[0]
    assert fit.gain[1] > 0
    tested = found.accuracy[~found.accuracy["fitted"]]
    assert tested["k"].tolist() == list(range(8, 13))
    np.testing.assert_allclose(tested["threshold"], tested["measured"], atol=0.01)


def test_a_planted_rate_is_told_apart_from_a_threshold_and_from_a_level():
    rng = np.random.default_rng(0)
    found = fit_error_laws(counts("one-rate", 0.12, seeds=5, n=1000, rng=rng), fitted=range(2, 7), resamples=100)
    value, low, high = found.fits["one-rate"].parameters["e"]
    assert low <= 0.12 <= high
    assert value == pytest.approx(0.12, abs=0.01)
    assert found.fits["threshold"].gain[2] < 0
    assert found.fits["level"].gain[2] < 0
    assert found.fits["one-rate"].gain == (0.0, 0.0, 0.0)
    flat = fit_error_laws(counts("level", 0.6, n=1000, rng=rng), fitted=range(2, 7), resamples=100)
    assert flat.fits["level"].gain[1] > 0.1
    assert flat.fits["level"].parameters["a"][0] == pytest.approx(0.6, abs=0.02)


def test_models_are_redrawn_so_that_seeds_that_differ_widen_the_interval():
    alike, apart = counts("one-rate", 0.1, seeds=4), counts("one-rate", 0.1, seeds=4)
    half = apart["run_seed"] < 2
    apart.loc[half, "correct"] = counts("one-rate", 0.3, seeds=2)["correct"].to_numpy()
    widths = []
    for table in (alike, apart):
        _, low, high = fit_error_laws(table, fitted=(2, 3, 4), resamples=100).fits["one-rate"].parameters["e"]
        widths.append(high - low)
    assert widths[1] > 5 * widths[0]


def test_models_that_hardly_err_or_only_guess_say_nothing_and_are_counted():
    table = counts("threshold", 0.02, 3.0, seeds=4, chance=0.1)
    table.loc[table["run_seed"] == 1, "correct"] = table["n"]
    table.loc[table["run_seed"] == 2, "correct"] = (0.105 * table["n"]).astype(int)
    found = fit_error_laws(table, fitted=range(2, 8), chance=0.1, resamples=20, labels={"task": "z6"})
    assert (found.seeds, found.left_out) == (2, 2)
    frame = found.frame()
    assert frame["law"].tolist() == ["threshold", "one-rate", "level"]
    assert frame[["task", "left_out"]].drop_duplicates().to_numpy().tolist() == [["z6", 2]]
    assert frame[["r", "e", "a"]].notna().to_numpy().tolist() == np.eye(3, dtype=bool).tolist()
    assert {trace.name for trace in found.figure().data} == {"measured", "threshold", "one-rate", "level"}
    with pytest.raises(ValueError, match="no model has 10 wrong answers on the fitted lengths and as many right ones"):
        fit_error_laws(table.assign(correct=table["n"]), fitted=range(2, 8))


@pytest.mark.parametrize(
    ("change", "fitted", "said"),
    [
        (lambda table: table.drop(columns="correct"), (2, 3), r"lack the columns \['correct'\]"),
        (lambda table: pd.concat([table, table]), (2, 3), "seed 0 has two rows for k 2"),
        (lambda table: table, (2,), "two must be fitted at least"),
        (lambda table: table, LENGTHS.tolist(), "and one left to predict"),
    ],
)
def test_counts_that_cannot_be_fitted_are_refused(change, fitted, said):
    with pytest.raises(ValueError, match=said):
        fit_error_laws(change(counts("level", 0.5)), fitted=fitted)
