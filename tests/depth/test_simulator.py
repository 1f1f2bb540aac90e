"""The simulator's numbers: by hand, and against the price of an answer, the serial budget and the fitted laws."""

import math
from itertools import product

import numpy as np
import pytest

from cotinterp.depth.cost import answer_cost, serial_budget
from cotinterp.depth.laws import LAWS, log2_longest
from cotinterp.depth.simulator import (
    NO_TASK,
    PLAIN_MODEL,
    Simulator,
    Sliders,
    layers_needed,
    length_table,
    longest_solved,
)
from cotinterp.models.spec import ModelSpec
from cotinterp.tasks import get_task

pytestmark = pytest.mark.slow

SHAPE = ModelSpec(n_layers=1, d_model=32, n_heads=4, d_mlp=48, n_ctx=512)


def test_layers_needed_by_hand() -> None:
    at = Sliders(b=1.0, enough=3, floor=4)
    assert [layers_needed("linear", k, at) for k in (2, 3, 12, 64)] == [1, 2, 11, 63]
    assert [layers_needed("logarithmic", k, at) for k in (2, 3, 4, 5, 64)] == [1, 2, 2, 3, 6]
    assert [layers_needed("constant", k, at) for k in (2, 4, 5, 64)] == [1, 1, 3, 3]
    assert [layers_needed("none", k, at) for k in (2, 4, 5, 64)] == [1, 1, None, None]
    steep = Sliders(b=2.5)
    assert [layers_needed("linear", k, steep) for k in (2, 6, 7, 11)] == [1, 2, 3, 4]
    assert [layers_needed("logarithmic", k, steep) for k in (2, 8, 32, 64)] == [1, 2, 2, 3]


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("at", [Sliders(), Sliders(b=0.75, enough=5, floor=7), Sliders(b=4.0, enough=1, floor=1)])
def test_what_is_needed_and_what_is_solved_are_one_law(law, at) -> None:
    for k in range(2, 65):
        need = layers_needed(law, k, at)
        for n_layers in range(1, 71):
            assert (longest_solved(law, n_layers, at) + 1e-9 >= k) == (need is not None and n_layers >= need)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("n_layers", [1, 2, 5])
def test_the_curves_are_those_of_the_laws_that_are_fitted(law, n_layers) -> None:
    """A fitted law starts from log2 K* at the least depth: that of one layer here."""
    at = Sliders(b=1.5, enough=3, floor=4)
    theta = np.array([np.log2(longest_solved(law, 1, at))])
    fitted = log2_longest(law, theta, depth=np.array([float(n_layers)]), lowest=1.0, enough=3.0)
    assert fitted.item() == pytest.approx(np.log2(longest_solved(law, n_layers, at)))


@pytest.mark.parametrize("task", ["s3", "digit-sum", "parity"])
def test_every_readout_is_the_price_of_an_answer_and_the_serial_budget(task) -> None:
    simulator = Simulator.of(SHAPE, length_table([task], range(6, 7)))
    for n_layers, regime in product((1, 7), ("direct", "cot")):
        shown = simulator.readouts(Sliders(k=6, n_layers=n_layers))
        cost = answer_cost(task, regime, SHAPE.model_copy(update={"n_layers": n_layers}), 6)
        assert shown[f"prompt.{regime}"] == cost.prompt_tokens
        assert shown[f"response.{regime}"] == pytest.approx(cost.response_tokens, rel=1e-12)
        assert shown[f"operations.{regime}"] == pytest.approx(cost.layer_operations, rel=1e-12)
        assert shown[f"slots.{regime}"] == pytest.approx(cost.slots_before_answer, rel=1e-12)
        assert shown[f"flops.{regime}"] == pytest.approx(cost.flops, rel=1e-12)
        budget = serial_budget(get_task(task), regime, n_layers=n_layers, ks=range(6, 7))
        assert shown[f"slots.{regime}"] == pytest.approx(budget["slots_before_answer"].item(), rel=1e-12)
        assert shown["needed.linear"] == budget["additions"].item()
        assert shown["needed.logarithmic"] == budget["tree_levels"].item()


def test_without_a_task_it_counts_what_states_of_one_symbol_take() -> None:
    at = Sliders(k=9, n_layers=3)
    s3 = Simulator.of(PLAIN_MODEL, length_table(["s3"], range(9, 10)))
    assert s3.d_vocab == NO_TASK.d_vocab
    assert NO_TASK.readouts(at) == s3.readouts(at)
    assert NO_TASK.readouts(Sliders(k=9, step_tokens=1))["response.cot"] == 8 + 1 + 2


def test_lengths_end_where_the_task_does() -> None:
    table = length_table(["digit-sum"])
    assert table["k"].max() == 12
    assert Simulator.of(SHAPE, table).longest == 12
    assert NO_TASK.longest == 64


def test_what_is_not_there_is_refused() -> None:
    with pytest.raises(KeyError, match="unknown task"):
        length_table(["mine"])
    with pytest.raises(ValueError, match="no lengths of that task"):
        Simulator.of(SHAPE, length_table(["s3"], range(2, 3)).head(0))


def test_the_constant_law_solves_every_length_from_some_depth_on() -> None:
    at = Sliders(enough=3, floor=2)
    assert [longest_solved("constant", n_layers, at) for n_layers in (1, 2, 3)] == [2, 2, math.inf]
