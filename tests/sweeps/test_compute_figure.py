"""Every run and every configuration is drawn once, where its numbers say."""

import pytest

from cotinterp.depth.compute import accuracy_against_compute
from tests.sweeps.made_up_sweep import made_up_sweep


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
