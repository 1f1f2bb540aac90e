"""Accuracy joined with its price, and the least that was enough."""

import math

import pandas as pd
import pytest

from cotinterp.depth.compute import COMPUTE_COLUMNS, ComputeResult, accuracy_against_compute
from cotinterp.depth.cost import answer_cost, training_flops
from cotinterp.models.spec import ModelSpec
from cotinterp.tasks import get_task
from cotinterp.training.spec import OptimizerSpec, RunSpec
from tests.depth.made_up_sweep import made_up_sweep

pytestmark = pytest.mark.slow

SHAPE = ModelSpec(n_layers=1, d_model=64, n_heads=4, d_mlp=256, n_ctx=128)


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return made_up_sweep()


@pytest.fixture(scope="module")
def priced(table: pd.DataFrame) -> ComputeResult:
    return accuracy_against_compute(table)


@pytest.fixture(scope="module")
def short() -> pd.DataFrame:
    """A table of fewer lengths, for what is priced anew."""
    return made_up_sweep(direct=(1, 2), cot=(1,), k_max=4)


def test_every_run_and_length_has_the_price_of_its_own_answer_and_training(priced: ComputeResult) -> None:
    frame = priced.frame()
    assert tuple(frame) == COMPUTE_COLUMNS
    assert len(frame) == 6 * 2 * 7
    chosen = (frame["regime"] == "cot") & (frame["n_layers"] == 1) & (frame["run_seed"] == 0) & (frame["k"] == 5)
    (row,) = frame[chosen].to_dict("records")
    cost = answer_cost("s3", "cot", SHAPE, 5)
    for name in ("prompt_tokens", "response_tokens", "layer_operations", "flops"):
        assert row[name] == getattr(cost, name)
    spec = RunSpec(task="s3", regime="cot", k_max=8, model=SHAPE, optimizer=OptimizerSpec(steps=1000))
    assert row["training_flops"] == training_flops(spec)


def test_training_problems_tags_and_runs_without_an_evaluation_are_no_rows(short: pd.DataFrame) -> None:
    absent = short.head(1).assign(slug="absent", k=-1, n=0, accuracy=math.nan, split="", reading="", status="absent")
    tags = short.head(5).assign(reading="tags")
    more = accuracy_against_compute(pd.concat([short, absent, tags], ignore_index=True)).frame()
    pd.testing.assert_frame_equal(more, accuracy_against_compute(short).frame())


def test_the_order_of_the_rows_does_not_matter(short: pd.DataFrame) -> None:
    mixed = short.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(accuracy_against_compute(mixed).frame(), accuracy_against_compute(short).frame())


def test_the_least_that_was_enough(priced: ComputeResult) -> None:
    """K = 5 takes four layers of direct and one of cot: fewer parameters, more tokens."""
    cheapest = priced.cheapest().set_index(["k", "regime"])
    direct, cot = cheapest.loc[(5, "direct")], cheapest.loc[(5, "cot")]
    assert (direct["configurations"], direct["good_enough"], direct["configuration"]) == (
        4, 1, "L4, d_model 64, 1000 updates",
    )  # fmt: skip
    assert cot["configuration"] == "L1, d_model 64, 1000 updates"
    assert (direct["response_tokens"], cot["response_tokens"]) == (2, 27)
    assert cot["n_parameters"] < direct["n_parameters"]
    assert direct["flops"] == answer_cost("s3", "direct", SHAPE.model_copy(update={"n_layers": 4}), 5).flops


def test_where_nothing_was_enough_the_nearest_is_told(priced: ComputeResult) -> None:
    cheapest = priced.cheapest().set_index(["k", "regime"])
    nothing = cheapest.loc[(6, "direct")]
    assert (nothing["good_enough"], nothing["configuration"]) == (0, "")
    assert math.isnan(nothing["flops"])
    assert nothing["best_accuracy"] == pytest.approx(0.65, abs=0.01)


def test_the_mean_over_seeds_decides_not_the_best_seed(priced: ComputeResult) -> None:
    rows = priced.frame()
    rows.loc[(rows["regime"] == "direct") & (rows["run_seed"] == 1) & (rows["k"] == 5), "accuracy"] = 0.7
    cheapest = ComputeResult(rows).cheapest().set_index(["k", "regime"])
    assert cheapest.loc[(5, "direct")]["good_enough"] == 0


def test_lengths_with_few_problems_buy_nothing() -> None:
    few = accuracy_against_compute(made_up_sweep(n=20, k_max=4))
    assert few.frame()["n"].max() == 20
    with pytest.raises(KeyError, match="no run was measured at K = 3"):
        few.by_run(3)


def test_means_count_every_length_once_and_keep_seeds_apart(priced: ComputeResult) -> None:
    runs, means = priced.by_run(), priced.by_configuration()
    assert len(runs) == 12
    assert means["runs"].tolist() == [2] * 6
    one = runs[(runs["regime"] == "cot") & (runs["n_layers"] == 2)]
    assert sorted(one["accuracy"].round(3)) == [0.97, 0.99]


def test_what_cannot_be_priced_is_refused(table: pd.DataFrame, priced: ComputeResult) -> None:
    with pytest.raises(KeyError, match="'n_ctx'"):
        accuracy_against_compute(table.drop(columns="n_ctx"))
    with pytest.raises(ValueError, match="no run in the table was evaluated"):
        accuracy_against_compute(table[table["split"] == "train"])
    with pytest.raises(KeyError, match="unknown task 'mine'"):
        accuracy_against_compute(table.assign(task="mine"))
    with pytest.raises(ValueError, match="accuracy is a share"):
        priced.cheapest(90.0)


def test_a_task_that_the_registry_does_not_know_can_be_given(short: pd.DataFrame) -> None:
    mine = accuracy_against_compute(short.assign(task="mine"), tasks={"mine": get_task("s3")}).frame()
    assert (mine["flops"] == accuracy_against_compute(short).frame()["flops"]).all()


@pytest.fixture(scope="module")
def result():
    return accuracy_against_compute(made_up_sweep(("s3", "parity"), steps=(1000, 4000)))


def test_a_row_of_panels_for_each_task_and_a_column_for_each_price(result):
    figure = result.figure()
    rows = [axis.title.text for axis in figure.select_yaxes() if axis.title.text]
    assert rows == ["<b>parity</b><br>held-out accuracy", "<b>s3</b><br>held-out accuracy"]
    titles = [axis.title.text for axis in figure.select_xaxes() if axis.title.text]
    assert titles == ["FLOPs per answer", "tokens per answer (END included)", "training FLOPs"]
    assert {axis.type for axis in figure.select_xaxes()} == {"log"}


@pytest.mark.parametrize("k", [None, 5])
def test_points_are_the_runs_and_large_ones_the_configurations(result, k):
    figure, runs, means = result.figure(k), result.by_run(k), result.by_configuration(k)
    seeds = [trace for trace in figure.data if trace.mode == "markers"]
    large = [trace for trace in figure.data if trace.mode != "markers"]
    assert sum(len(trace.x) for trace in seeds) == 3 * len(runs)
    assert sum(len(trace.x) for trace in large) == 3 * len(means)
    drawn = {(x, y) for trace in large for x, y in zip(trace.x, trace.y, strict=True)}
    for price in ("flops", "response_tokens", "training_flops"):
        assert set(zip(means[price], means["accuracy"], strict=True)) <= drawn


def test_each_regime_and_budget_is_named_once_and_depth_is_written(result):
    figure = result.figure()
    named = [trace.name for trace in figure.data if trace.showlegend]
    assert sorted(named) == sorted(
        f"{regime}, {steps} updates" for regime in ("direct", "cot") for steps in (1000, 4000)
    )
    labels = {label for trace in figure.data if trace.text is not None for label in trace.text}
    assert labels == {"L1", "L2", "L3", "L4"}
    colors = {trace.name.split(",")[0]: trace.marker.color for trace in figure.data}
    symbols = {trace.name.split(",")[0]: trace.marker.symbol for trace in figure.data}
    assert len(set(colors.values())) == len(set(symbols.values())) == 2


def test_a_length_that_was_not_measured_is_refused(result):
    with pytest.raises(KeyError, match=r"measured: \[2, 3, 4, 5, 6, 7, 8\]"):
        result.figure(40)
