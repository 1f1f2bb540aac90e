import numpy as np
import pytest

from cotinterp.claims.cells import (
    CellOutcomes,
    EvidenceIndex,
    MissingEvidence,
    measured_cells,
    pooled_cells,
    redrawn_cells,
)
from tests.claims.worlds import accuracies, evidence, rows


def book(*parts):
    return EvidenceIndex(evidence(parts))


def test_a_mean_is_the_sum_of_values_over_the_sum_of_trials():
    cells = measured_cells(book(rows("accuracy", 30, 40, k=2), rows("accuracy", 10, 60, k=3)), "toy", 0)
    assert cells.mean("accuracy", regime="cot", k=2, condition="heldout").tolist() == [0.75]
    assert cells.mean("accuracy", regime="cot", condition="heldout").tolist() == [0.4]
    assert cells.ks("accuracy", regime="cot", condition="heldout") == (2, 3)


def test_a_cell_that_was_not_measured_is_named_with_what_was():
    cells = measured_cells(book(rows("accuracy", 30, 40, k=2)), "toy", 0)
    with pytest.raises(MissingEvidence, match=r"no 'accuracy' of 'toy', 'cot' .*k 9.*\('', 'heldout', 2, -1\)"):
        cells.mean("accuracy", regime="cot", k=9, condition="heldout")
    with pytest.raises(MissingEvidence, match=r"no 'edit' of 'toy', 'cot'.*in that regime: \['accuracy'\]"):
        cells.mean("edit", regime="cot")


def test_a_measure_that_was_refused_is_missed_with_the_reason():
    refusal = rows("refused", 0, 1, k=0, condition="probes: ValueError: 4 inputs make this total")
    cells = measured_cells(book(rows("accuracy", 30, 40, k=2), refusal), "toy", 0)
    with pytest.raises(MissingEvidence, match="^'toy', 'cot' refused probes: ValueError: 4 inputs"):
        cells.mean("probe", regime="cot")
    with pytest.raises(MissingEvidence, match="no 'accuracy'.*k 9"):
        cells.mean("accuracy", regime="cot", k=9, condition="heldout")


def test_redrawn_problems_scatter_as_a_binomial_does():
    cells = redrawn_cells(book(rows("accuracy", 300, 400)), "toy", 0)
    drawn = cells.mean("accuracy", regime="cot", condition="heldout")
    assert drawn.mean() == pytest.approx(0.75, abs=0.003)
    assert drawn.std() == pytest.approx(np.sqrt(0.75 * 0.25 / 400), rel=0.1)


def test_a_cell_in_which_all_are_right_is_not_known_exactly():
    drawn = redrawn_cells(book(rows("accuracy", 400, 400)), "toy", 0).mean(
        "accuracy", regime="cot", condition="heldout"
    )
    assert 0 < drawn.std() < 0.01


def test_values_that_are_no_hits_are_redrawn_as_they_are():
    cell = CellOutcomes(np.array([0.5, 0.5]), np.array([1.0, 1.0]), np.array([3, 4]))
    value, trials = cell.redrawn(np.random.default_rng(0))
    assert set(value / trials) == {0.5}


def test_problems_are_redrawn_with_all_their_trials():
    cell = CellOutcomes(np.array([0.0, 10.0]), np.array([10.0, 10.0]), np.array([50, 50]))
    value, trials = cell.redrawn(np.random.default_rng(0))
    # Were the 1000 trials independent, the spread would be a third of this.
    assert (value / trials).std() == pytest.approx(0.05, rel=0.1)


def test_draws_depend_on_neither_the_order_of_rows_nor_of_seeds():
    parts = [*accuracies("cot", [0.5, 0.6, 0.7], k=2), *accuracies("direct", [0.2, 0.3, 0.4], k=3)]
    forth, back = book(*parts), book(*parts[::-1])
    for seed in range(3):
        one, other = (
            redrawn_cells(which, "toy", seed).mean("accuracy", regime="direct", condition="heldout")
            for which in (forth, back)
        )
        np.testing.assert_array_equal(one, other)


def test_pooled_cells_add_up_and_forgive_a_seed_without_them():
    parts = [rows("error_kind", 1, 4, seed=0, condition="x"), rows("error_kind", 5, 6, seed=1, condition="x")]
    pooled = pooled_cells(book(*parts, rows("accuracy", 1, 1, seed=2)), "toy", (0, 1, 2))
    assert pooled.mean("error_kind", regime="cot", condition="x").tolist() == [0.6]


def test_layers_and_variants_are_those_of_the_models():
    cells = measured_cells(book(rows("accuracy", 1, 2), rows("accuracy", 1, 2, variant="L1", n_layers=1)), "toy", 0)
    assert cells.variants("cot") == ("", "L1")
    assert (cells.n_layers("cot"), cells.n_layers("cot", "L1")) == (4, 1)
    with pytest.raises(MissingEvidence, match="variant 'L9'"):
        cells.n_layers("cot", "L9")
