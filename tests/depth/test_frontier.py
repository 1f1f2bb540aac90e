"""Frontiers worked by hand: gaps, too few problems, accuracies that rise again, and what counts as converged."""

import numpy as np
import pandas as pd
import pytest

from cotinterp.depth.frontier import FRONTIER_COLUMNS, depth_frontier, expressed, one_recipe
from cotinterp.figures.depth import frontier_figure
from tests.depth.made_up_frontiers import reaching, run_rows, sweep


def one(rows, **arguments):
    (found,) = depth_frontier(pd.DataFrame(rows), **arguments).frame().to_dict("records")
    return found


def test_the_frontier_is_the_longest_length_up_to_which_all_are_solved():
    found = one(run_rows({3: 0.95, 4: 0.9, 5: 0.5, 6: 0.92, 7: 0.1}))
    assert {name: found[name] for name in ("frontier", "next_k", "k_low", "k_top", "lengths", "solved", "longest")} == {
        "frontier": 4,
        "next_k": 5,
        "k_low": 3,
        "k_top": 7,
        "lengths": 5,
        "solved": 2,
        "longest": 6,
    }
    assert found["next_accuracy"] == 0.5


def test_not_even_the_shortest_is_a_frontier_of_zero():
    found = one(run_rows({3: 0.89, 4: 0.95}))
    assert (found["frontier"], found["next_k"], found["longest"], found["solved"]) == (0, 3, 4, 0)


def test_a_length_with_too_few_problems_or_none_is_not_measured():
    rows = run_rows({4: 0.95, 8: 0.3}) + run_rows({2: 0.1}, n=29)
    found = one(rows)
    assert (found["k_low"], found["frontier"], found["next_k"], found["lengths"]) == (4, 4, 8, 2)
    assert one(rows, least_problems=29)["frontier"] == 0


def test_another_criterion_moves_the_frontier():
    assert one(run_rows({3: 0.95, 4: 0.8, 5: 0.5}), solved=0.7)["frontier"] == 4


@pytest.mark.parametrize(
    ("held", "train", "changes", "convergence"),
    [
        ({3: 0.95, 4: 0.95}, {}, {"loss_end": 2.0}, "complete"),
        ({3: 0.95, 4: 0.5}, {3: 1.0, 4: 0.9}, {"loss_end": 1.0}, "fitted"),
        ({3: 0.95, 4: 0.5}, {3: 1.0, 4: 0.89}, {"loss_end": 0.97}, "stalled"),
        ({3: 0.95, 4: 0.5}, {3: 1.0, 4: 0.89}, {"loss_end": 0.93}, "improving"),
        ({3: 0.95, 4: 0.5}, {}, {"loss_mid": np.nan, "loss_end": np.nan}, "improving"),
        ({}, {}, {"status": "unfinished"}, "unfinished"),
        ({}, {}, {"status": "failed", "error": "NonFiniteLossError"}, "failed"),
        ({}, {}, {"status": "absent"}, "absent"),
        ({}, {}, {}, "unmeasured"),
    ],
)
def test_convergence(held, train, changes, convergence):
    found = one(run_rows(held, train, **changes))
    assert found["convergence"] == convergence
    assert (found["k_top"] == -1) == (not held)


def test_a_run_that_answers_other_lengths_of_its_training_set_is_not_fitted():
    """Only the first unsolved length decides."""
    assert one(run_rows({3: 0.95, 4: 0.5, 5: 0.4}, {3: 1.0, 4: 0.6, 5: 1.0}))["convergence"] == "improving"


@pytest.mark.parametrize(("loss", "convergence"), [(0.7, "improving"), (0.99, "fitted")])
def test_to_know_the_short_training_problems_by_heart_is_not_to_have_converged(loss, convergence):
    found = one(run_rows({3: 0.4, 4: 0.4, 5: 0.4}, {3: 1.0, 4: 0.8, 5: 0.5}, loss_end=loss))
    assert (found["convergence"], found["next_train_accuracy"], found["least_train_accuracy"]) == (
        convergence,
        1.0,
        0.5,
    )


def test_the_order_of_the_rows_does_not_matter():
    table = sweep(lambda depth, seed: depth + 3 + seed)
    shuffled = table.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(depth_frontier(table).frame(), depth_frontier(shuffled).frame())


def test_readings_are_told_apart():
    rows = reaching(5) + [row | {"reading": "tags"} for row in reaching(9)]
    assert depth_frontier(pd.DataFrame(rows)).frame().set_index("reading")["frontier"].to_dict() == {
        "answer": 5,
        "tags": 9,
    }


def test_texts_that_a_csv_file_leaves_empty_do_not_hide_runs():
    rows = [*reaching(5, run_seed=0, start_from=np.nan), *run_rows({}, status="absent", run_seed=1, start_from=np.nan)]
    table = pd.DataFrame(rows)
    table.loc[table["status"] == "absent", ["reading", "split"]] = np.nan
    assert depth_frontier(table).frame()["convergence"].tolist() == ["fitted", "absent"]


def test_runs_are_counted_by_convergence_and_those_not_monotone():
    rows = [*reaching(5), *reaching(12, run_seed=1), *run_rows({}, status="absent", run_seed=2)]
    rows += run_rows({3: 0.95, 4: 0.2, 5: 0.95}, run_seed=3)
    (counted,) = depth_frontier(pd.DataFrame(rows)).counts().to_dict("records")
    assert {name: counted[name] for name in ("fitted", "complete", "absent", "improving", "failed")} == {
        "fitted": 1,
        "complete": 1,
        "absent": 1,
        "improving": 1,
        "failed": 0,
    }
    assert counted["not_monotone"] == 1


def test_the_recipe_with_most_depths_is_the_frontier_and_a_wider_model_is_not():
    table = pd.concat([sweep(lambda depth, _: 5), sweep(lambda depth, _: 12, depths=(1,), seeds=20, d_model=256)])
    chosen, others = one_recipe(depth_frontier(table).frame())
    assert set(chosen["d_model"]) == {64}
    assert (len(chosen), len(others)) == (12, 20)


def test_table_and_picture_are_saved(tmp_path):
    found = depth_frontier(sweep(lambda depth, seed: depth + 3, convergence="improving"))
    table, figure = found.save(tmp_path, "frontier")
    assert tuple(pd.read_csv(table).columns) == FRONTIER_COLUMNS
    assert figure.stat().st_size > 1000


def test_what_is_no_sweep_table_is_refused():
    table = sweep(lambda depth, seed: 5)
    with pytest.raises(KeyError, match="no column 'accuracy'; did you mean 'accuracies'"):
        depth_frontier(table.rename(columns={"accuracy": "accuracies"}))
    with pytest.raises(ValueError, match="has no rows"):
        depth_frontier(table[:0])
    with pytest.raises(ValueError, match="accuracy in"):
        depth_frontier(table, solved=90.0)
    with pytest.raises(ValueError, match="more than once"):
        depth_frontier(pd.concat([table, table]))


def drawn(figure):
    """Symbols and heights of the runs, panel by panel."""
    panels = {}
    for trace in figure.data:
        if trace.customdata is not None:
            panels[trace.xaxis] = list(zip(trace.marker.symbol, trace.y, strict=True))
    return panels


def test_lower_bounds_are_open_and_have_arrows_above():
    figure = frontier_figure(
        depth_frontier(sweep(lambda depth, seed: depth + 2, convergence="improving", seeds=1)).frame()
    )
    (points,) = drawn(figure).values()
    assert points == [("circle-open", 3), ("circle-open", 4), ("circle-open", 5), ("circle-open", 6)]
    (arrows,) = (trace for trace in figure.data if str(trace.marker.symbol) == "arrow-up")
    assert all(above > below for above, (_, below) in zip(arrows.y, points, strict=True))


def test_converged_runs_are_filled_and_have_none():
    figure = frontier_figure(depth_frontier(sweep(lambda depth, seed: 6 * depth, depths=(1, 2), seeds=1)).frame())
    assert list(drawn(figure).values()) == [[("diamond", 6), ("circle", 12)]]
    (arrows,) = (trace for trace in figure.data if str(trace.marker.symbol) == "arrow-up")
    assert len(arrows.y) == 0


def test_budgets_and_regimes_are_small_multiples_direct_first():
    short = sweep(lambda depth, seed: 3, steps=1000, convergence="improving")
    long, cot = sweep(lambda depth, seed: 5, steps=4000), sweep(lambda depth, seed: 12, regime="cot", depths=(1, 2, 4))
    figure = frontier_figure(depth_frontier(pd.concat([cot, long, short])).frame())
    titles = [note.text for note in figure.layout.annotations if note.text]
    assert [title.split("</b>, ")[1] for title in titles] == [
        "direct, 1,000 steps",
        "direct, 4,000 steps",
        "cot, 1,000 steps",
    ]
    assert [len(points) for points in drawn(figure).values()] == [12, 12, 9]


def test_nothing_measured_is_nothing_to_draw():
    with pytest.raises(ValueError, match="no run of the table was measured"):
        frontier_figure(depth_frontier(pd.DataFrame(run_rows({}, status="absent"))).frame())


def test_what_a_run_until_converged_ended_by_is_its_convergence():
    ended = {"solved": "settled", "settled": "settled", "budget": "budget"}
    rows = [row for n, name in enumerate(ended) for row in reaching(6, convergence="fitted", run_seed=n, ended=name)]
    frame = depth_frontier(pd.DataFrame(rows)).frame()
    assert frame["convergence"].tolist() == list(ended.values())
    assert depth_frontier(pd.DataFrame(reaching(12, ended="budget"))).frame()["convergence"].tolist() == ["complete"]


def test_a_depth_expresses_what_its_best_run_or_that_of_a_smaller_depth_solves():
    found = {1: [4, 8], 2: [3, 3, 7], 4: [12]}
    rows = [
        row
        for depth, reached in found.items()
        for seed, longest in enumerate(reached)
        for row in reaching(longest, n_layers=depth, run_seed=seed, ended="settled" if seed else "budget")
    ]
    frame = depth_frontier(pd.DataFrame(rows)).frame()
    best = expressed(frame)
    assert best["n_layers"].tolist() == [1, 2, 4]
    assert best["best"].tolist() == [8, 8, 12]
    assert best["next_k"].tolist() == [9, 9, -1]
    solved_eight = frame.loc[frame["frontier"] == 8, "slug"].item()
    assert best["proof"].tolist()[:2] == [solved_eight] * 2
    assert best["converged"].tolist() == [1, 2, 1]
    assert not best["tried"].any()


def test_an_answer_alone_is_direct_however_it_was_taught():
    rows = [
        *reaching(5, n_layers=2, run_seed=0, ended="settled"),
        *reaching(9, n_layers=2, run_seed=1, regime="tagging", ended="settled"),
        *reaching(11, n_layers=2, run_seed=1, regime="tagging", reading="tags", ended="settled"),
        *reaching(12, n_layers=2, run_seed=0, regime="cot", ended="settled"),
    ]
    best = expressed(depth_frontier(pd.DataFrame(rows)).frame()).set_index(["regime", "reading"])
    assert best["best"].to_dict() == {("cot", "answer"): 12, ("direct", "answer"): 9, ("tagging", "tags"): 11}
    assert best.loc[("direct", "answer"), ["ways", "runs"]].tolist() == [2, 2]
