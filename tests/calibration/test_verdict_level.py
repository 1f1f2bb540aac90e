"""Evidence with known rates, and how often a claim that is just not so is supported by it."""

import numpy as np
import pytest
from scipy.stats import t

from cotinterp.calibration.verdict_level import (
    NULLS,
    TASK,
    Simulated,
    SyntheticCell,
    VerdictLevel,
    claim_at,
    of_model,
    simulated,
    simulated_tables,
    synthetic,
    verdict_level,
)
from cotinterp.claims.judge import judge
from cotinterp.results import wilson
from cotinterp.studies.evidence import COLUMNS, Evidence

pytestmark = pytest.mark.slow

ACCURACY = SyntheticCell(measure="accuracy", expected=0.7, k=2, condition="heldout", problems=400)


def numbers(evidence, **cell):
    """The number of each seed in the only cell that is so."""
    table = evidence.table
    for name, value in cell.items():
        table = table[table[name] == value]
    sums = (table[["value", "trials"]].mul(table["problems"], axis=0)).groupby(table["run_seed"]).sum()
    return (sums["value"] / sums["trials"]).to_numpy()


def drawn(cells, *, seeds=range(100), spread=0.05, seed=0):
    return synthetic("z6", cells, seeds=seeds, spread=spread, rng=np.random.default_rng(seed))


def test_models_vary_around_the_rate_as_far_as_they_were_told():
    found = numbers(drawn([ACCURACY]))
    # 100 models with spread 0.05, each with 400 problems: sqrt(0.05^2 + 0.7 * 0.3 / 400) = 0.055.
    assert abs(found.mean() - 0.7) < 4 * 0.055 / 10
    assert abs(found.std() - 0.055) < 0.017


def test_without_a_spread_only_problems_vary():
    found = numbers(drawn([ACCURACY], spread=0.0))
    assert abs(found.std() - np.sqrt(0.7 * 0.3 / 400)) < 0.007


@pytest.mark.parametrize(("rate", "spread"), [(0.5, 0.1), (0.95, 0.03), (0.1, 0.05)])
def test_the_mean_over_models_is_exactly_the_rate(rate, spread):
    rates = [of_model(rate, spread, place) for place in (np.arange(4000) + 0.5) / 4000]
    assert np.mean(rates) == pytest.approx(rate, abs=1e-3)
    assert np.std(rates) == pytest.approx(spread, rel=0.02)
    assert 0 <= min(rates) <= max(rates) <= 1


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_what_is_always_so_is_so_in_every_model(rate):
    assert of_model(rate, 0.1, 0.3) == rate


def test_a_spread_that_a_rate_has_no_room_for_is_cut():
    rates = [of_model(0.99, 0.3, place) for place in (np.arange(4000) + 0.5) / 4000]
    assert np.mean(rates) == pytest.approx(0.99, abs=1e-3)
    assert np.std(rates) == pytest.approx(np.sqrt(0.99 * 0.01) / 2, rel=0.05)


def test_a_model_that_is_weak_at_one_length_is_weak_at_another():
    longer = SyntheticCell(measure="accuracy", expected=0.5, k=4, condition="heldout", problems=400)
    other = SyntheticCell(measure="agreement", expected=0.5, k=4, problems=400)
    evidence = drawn([ACCURACY, longer, other], spread=0.1)
    two, four, apart = (
        numbers(evidence, measure=m, k=k) for m, k in (("accuracy", 2), ("accuracy", 4), ("agreement", 4))
    )
    assert np.corrcoef(two, four)[0, 1] > 0.8
    assert abs(np.corrcoef(four, apart)[0, 1]) < 0.3


def test_means_and_constants():
    mean = SyntheticCell(measure="marginal_log_prob", expected=-2.0, k=4, kind="mean", within=0.5)
    chance = SyntheticCell(measure="chance", expected=1 / 6, k=4, kind="constant", problems=7)
    evidence = drawn([mean, chance], spread=0.3)
    found = numbers(evidence, measure="marginal_log_prob")
    assert found.mean() == pytest.approx(-2.0, abs=0.1)
    assert found.std() == pytest.approx(np.sqrt(0.3**2 + 0.5**2 / 200), rel=0.2)
    rows = evidence.table[evidence.table["measure"] == "chance"]
    assert len(rows) == 100
    assert set(rows["problems"]) == {7}
    assert rows["value"].to_numpy() == pytest.approx(1 / 6, abs=1e-5)


def test_every_run_is_listed_and_layers_follow_from_the_variant():
    shallow = SyntheticCell(measure="accuracy", expected=0.5, k=2, regime="direct", variant="L1", condition="heldout")
    evidence = drawn([ACCURACY, shallow], seeds=range(3))
    assert list(evidence.table.columns) == list(COLUMNS)
    runs = evidence.runs[["regime", "variant", "n_layers", "run_seed"]].apply(tuple, axis=1).tolist()
    assert sorted(runs) == [(*run, seed) for run in (("cot", "", 4), ("direct", "L1", 1)) for seed in range(3)]
    assert set(evidence.table.groupby(["regime", "n_layers"]).groups) == {("cot", 4), ("direct", 1)}


def test_the_same_seed_of_the_generator_gives_the_same_world():
    one, same, other = (drawn([ACCURACY], seeds=range(3), seed=seed).table for seed in (0, 0, 1))
    assert one.equals(same)
    assert not one.equals(other)


def test_a_cell_with_two_numbers_and_an_impossible_rate_are_refused():
    with pytest.raises(ValueError, match="these have several: .*accuracy"):
        drawn([ACCURACY, ACCURACY])
    with pytest.raises(ValueError, match="a rate lies in 0..1, got 1.2"):
        drawn([SyntheticCell(measure="accuracy", expected=1.2, k=2)])


@pytest.mark.parametrize(("spread", "problems"), [(0.0, 40), (0.1, 200)])
def test_a_truth_on_the_threshold_is_seldom_supported_and_mostly_covered(spread, problems):
    found = simulated(NULLS[0], 20, spread=spread, problems=problems)
    assert (found.worlds, found.seeds, found.null) == (20, 5, "rate")
    # 5% of 20 is 1: 5 or more have a chance of 0.3%, and so have fewer than 16 covered at 95%.
    assert found.supported <= 4
    assert found.covered >= 16


def world_of(name):
    return next(null for null in NULLS if null.name == name)


def test_seeds_that_share_their_problems_err_on_the_same_ones():
    cell = SyntheticCell(measure="accuracy", expected=0.5, k=4, condition="heldout", problems=1000)
    spread = {}
    for shared in (0.0, 0.9):
        means = [
            numbers(synthetic("t", [cell], spread=0.0, shared=shared, rng=np.random.default_rng(world))).mean()
            for world in range(60)
        ]
        spread[shared] = np.std(means)
    # An outcome's correlation is 2/pi asin(0.9) = 0.71: of the variance over problems, 0.71 + 0.29/5 is left.
    assert spread[0.0] == pytest.approx(np.sqrt(0.25 / 5000), rel=0.35)
    assert spread[0.9] == pytest.approx(np.sqrt(0.25 / 1000 * (0.71 + 0.29 / 5)), rel=0.35)
    assert set(synthetic("t", [cell], shared=0.9, rng=np.random.default_rng(0)).runs["draw"]) == {0}


def test_what_seeds_share_is_in_the_error_and_would_be_missed():
    effects, errors = [], {"told": [], "told otherwise": []}
    for world in range(40):
        made = synthetic(
            TASK, world_of("rate, problems shared").cells, spread=0.0, shared=0.9, rng=np.random.default_rng(world)
        )
        otherwise = Evidence(made.table, made.runs.assign(draw=made.runs["run_seed"]))
        for name, evidence in (("told", made), ("told otherwise", otherwise)):
            verdict = judge(claim_at(NULLS[0]), evidence)
            errors[name].append((verdict.ci_high - verdict.ci_low) / 2 / t.ppf(0.975, 4))
        effects.append(verdict.effect)
    # The true spread is known to a ninth of itself by forty worlds.
    assert np.mean(errors["told"]) > 0.9 * np.std(effects)
    assert np.mean(errors["told otherwise"]) < 0.75 * np.std(effects)


def test_two_kinds_of_models_are_seldom_supported_and_mostly_called_mixed():
    found = simulated(world_of("half at 1, half at 0"), 40, spread=0.0, problems=200)
    assert (found.above, found.supported <= 4, found.mixed >= 34) == (0.5, True, True)


def test_a_truth_far_above_its_threshold_is_supported_every_time():
    null = NULLS[0]._replace(at=0.2)
    assert simulated(null, 5, spread=0.03, problems=200).supported == 5


def test_a_table_of_nulls_has_hardly_any_supported():
    found = simulated_tables(NULLS[0], 2, spread=0.1, family=8, problems=100)
    assert (found.null, found.worlds, found.covered) == ("any of 8", 2, -1)
    assert found.supported == 0


def test_every_kind_of_world_has_a_row():
    null = next(null for null in NULLS if null.name == "difference")._replace(spreads=(0.0, 0.1))
    result = verdict_level(1, nulls=[null], problems=(20,), family=2)
    table = result.frame()
    assert table["null"].tolist() == ["difference", "difference", "any of 2"]
    assert table["spread"].tolist() == [0.0, 0.1, 0.1]
    assert result.figure().data


def test_shares_are_of_worlds():
    row = VerdictLevel((Simulated("rate", 0.1, 40, 5, 0.5, 50, 4, 2, 47),)).frame().iloc[0]
    assert row[["share", "ci_low", "ci_high"]].tolist() == [0.08, *wilson(4, 50)]
    assert row[["coverage", "coverage_low", "coverage_high"]].tolist() == [0.94, *wilson(47, 50)]
    table = VerdictLevel((Simulated("any of 16", 0.1, 40, 5, 0.5, 10, 1, 0, -1),)).frame()
    assert np.isnan(table["coverage"].iloc[0])


def test_no_worlds_are_refused():
    with pytest.raises(ValueError, match="0 worlds: at least one is needed"):
        verdict_level(0)
