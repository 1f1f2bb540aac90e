"""The generalization ratio beside its baselines, at fixed marginals, and by number of training problems."""

import math
from itertools import product

import numpy as np
import pandas as pd
import pytest

from cotinterp.behavior.accuracy import accuracy_by_k
from cotinterp.behavior.generalization import (
    SizeCurve,
    generalization_by_k,
    guessing,
    majority_credit,
    neighbor_credit,
    rake,
    ratio_interval,
    size_specs,
    size_thresholds,
)
from cotinterp.results import wilson
from cotinterp.tasks import get_task
from cotinterp.training.spec import RunSpec
from cotinterp.transcripts.problems import sample_problems, solve

Z6 = get_task("z6")


def problems(*rows):
    return solve(Z6, np.array(rows))


def test_the_most_frequent_answer_of_the_length_is_guessed_and_ties_are_shared():
    trained = (*problems((1, 1), (0, 2), (0, 3)), *problems((0, 0, 5), (0, 0, 4)))
    asked = (*problems((2, 0), (3, 0)), *problems((5, 0, 0), (1, 0, 0)))
    # Two operands: the answer 2 twice, 3 once. Three: 5 and 4 once each, so either guess is right half of the time.
    assert majority_credit(trained, asked).tolist() == [1.0, 0.0, 0.5, 0.0]


def test_the_nearest_training_problem_lends_its_answer():
    trained = problems((0, 0, 1), (0, 0, 2), (3, 3, 3))
    # (0, 0, 3): one operand from answers 1 and 2, its own answer is 3. (0, 3, 4) has answer 1: two operands from all.
    assert neighbor_credit(Z6, trained, problems((0, 0, 3), (0, 3, 4))).tolist() == [0.0, 1 / 3]


def test_a_training_problem_is_its_own_neighbor():
    trained = problems((0, 1), (2, 3), (5, 5))
    assert neighbor_credit(Z6, trained, trained).tolist() == [1.0, 1.0, 1.0]


def test_without_regard_to_order_a_reordered_twin_is_at_distance_zero():
    trained = problems((1, 2, 3), (0, 0, 0))
    twin = problems((3, 1, 2))
    assert neighbor_credit(Z6, trained, twin, reordered=True).tolist() == [1.0]
    # In order every operand differs from both training problems: the answers 0 and 0 tie, and 0 is right.
    assert neighbor_credit(Z6, trained, twin).tolist() == [1.0]
    assert neighbor_credit(Z6, problems((1, 2, 3), (0, 1, 0)), problems((3, 1, 2))).tolist() == [0.0]


def test_multisets_count_repeated_operands():
    trained = problems((1, 1, 2), (1, 2, 2))
    # (2, 1, 1) is the first reordered; counting an operand once only would tie it with the second (answer 5).
    assert neighbor_credit(Z6, trained, problems((2, 1, 1)), reordered=True).tolist() == [1.0]


def test_a_length_that_was_never_trained_has_no_baseline():
    with pytest.raises(ValueError, match=r"no training problem has 3 operands \(training lengths: \[2\]\)"):
        majority_credit(problems((0, 1)), problems((0, 1, 2)))


PARITY = get_task("parity")


def parities(*rows):
    return solve(PARITY, np.array(rows))


def test_problems_with_the_reference_marginals_keep_weight_one():
    everything = parities(*product((0, 1), repeat=3))
    raked = rake(everything, everything)
    assert raked.weights == pytest.approx(np.ones(8))
    assert raked.discrepancy == pytest.approx(0, abs=1e-12)
    assert raked.effective_n == pytest.approx(8)


def test_an_operand_that_is_too_frequent_is_weighted_down():
    """(0,0) three times, (1,0), (0,1), (1,1) once: with uniform marginals the three copies share the weight of one."""
    uneven = parities((0, 0), (0, 0), (0, 0), (1, 0), (0, 1), (1, 1))
    raked = rake(uneven, parities(*product((0, 1), repeat=2)))
    assert raked.weights == pytest.approx(np.array([0.5, 0.5, 0.5, 1.5, 1.5, 1.5]))
    assert raked.effective_n == pytest.approx(36 / (3 * 0.25 + 3 * 2.25))
    assert raked.discrepancy < 1e-9


def test_an_operand_that_never_occurs_is_reported_as_the_discrepancy():
    raked = rake(parities((0, 0), (0, 1)), parities(*product((0, 1), repeat=2)))
    assert raked.discrepancy == pytest.approx(0.5)


def test_lengths_are_not_mixed():
    with pytest.raises(ValueError, match=r"problems of one length; got 1 and 1 problems of lengths \[2, 3\]"):
        rake(parities((0, 1)), parities((0, 1, 1)))


COLUMNS = [
    "task",
    "regime",
    "run_seed",
    "k",
    "n_train",
    "n_heldout",
    "train",
    "heldout",
    "chance",
    "majority",
    "nearest",
]
COLUMNS += ["reordered", "ratio", "ci_low", "ci_high", "matched", "matched_ratio", "discrepancy", "effective_n"]


def table(task, known):
    """Answers the problems that it knows; elsewhere always the first state."""
    answers = {problem.operands: problem.answer for problem in known}

    def policy(text):
        prompt, _, written = text.partition(">")
        operands = tuple(task.parse_operand(x) for x in prompt.removeprefix("<").split(task.operator))
        return "#" if written else task.state_text(answers.get(operands, 0))

    return policy


@pytest.fixture(scope="module")
def sides():
    rng = np.random.default_rng(0)
    return {side: sample_problems(Z6, 3, 400, split=side, rng=rng) for side in ("train", "heldout")}


def measured(scripted, policy, sides):
    return generalization_by_k(Z6, accuracy_by_k(scripted.Model(Z6, policy), Z6, "direct", sides), sides["train"])


def test_an_algorithm_generalizes_with_ratio_one(scripted, sides):
    (cell,) = measured(scripted, scripted.recomputer(Z6, "direct"), sides).cells
    assert (cell.train, cell.heldout, cell.ratio, cell.matched, cell.matched_ratio) == (1, 1, 1, 1, 1)
    low, high = cell.interval
    assert low < 1 < high
    assert low > 0.85


def test_a_table_does_not(scripted, sides):
    result = measured(scripted, table(Z6, sides["train"]), sides)
    (cell,) = result.cells
    assert cell.train == 1
    assert cell.heldout == pytest.approx(np.mean([problem.answer == 0 for problem in sides["heldout"]]))
    assert cell.interval.low < 0 < cell.interval.high
    assert list(result.frame().columns) == COLUMNS


def test_a_guesser_has_nothing_to_generalize(scripted, sides):
    (cell,) = measured(scripted, table(Z6, ()), sides).cells
    assert np.isnan([cell.ratio, *cell.interval, cell.matched_ratio]).all()


def test_training_problems_among_the_held_out_ones_are_refused(scripted, sides):
    leaked = {"train": sides["train"], "heldout": sides["train"][:5]}
    with pytest.raises(ValueError, match="5 held-out problems were trained on"):
        measured(scripted, scripted.recomputer(Z6, "direct"), leaked)


def test_the_ratio_interval_is_wilsons_where_training_accuracy_is_known_and_chance_is_zero():
    low, high = ratio_interval((0.3, 50), (1.0, 10_000_000), 0.0)
    assert (low, high) == pytest.approx(tuple(wilson(15, 50)), abs=1e-4)


def test_the_ratio_interval_covers_at_about_its_level():
    rng = np.random.default_rng(0)
    truth = (0.6 - 1 / 6) / (0.9 - 1 / 6)
    intervals = [
        ratio_interval((rng.binomial(80, 0.6) / 80, 80), (rng.binomial(120, 0.9) / 120, 120), 1 / 6)
        for _ in range(1000)
    ]
    covered = np.mean([low <= truth <= high for low, high in intervals])
    assert 0.93 <= covered <= 0.97


def test_the_runs_of_a_curve_differ_in_the_number_of_problems_alone():
    spec = RunSpec(task="z6", regime="direct", seed=4)
    specs = size_specs(spec, [300, 100, 300])
    assert list(specs) == [100, 300]
    assert [one.n_train for one in specs.values()] == [100, 300]
    assert {one.model_copy(update={"n_train": spec.n_train}) for one in specs.values()} == {spec}
    assert len({one.slug for one in specs.values()}) == 2


def test_no_sizes_are_refused():
    with pytest.raises(ValueError, match="at least one number of training problems"):
        size_specs(RunSpec(task="z6", regime="direct"), [])


def test_the_table_and_the_figure_say_which_size_each_row_belongs_to(scripted):
    rng = np.random.default_rng(0)
    sides = {side: sample_problems(Z6, 3, 30, split=side, rng=rng) for side in ("train", "heldout")}
    right = scripted.Model(Z6, scripted.recomputer(Z6, "direct"))
    wrong = scripted.Model(Z6, scripted.babbler(Z6))
    runs = {
        size: generalization_by_k(Z6, accuracy_by_k(model, Z6, "direct", sides), sides["train"])
        for size, model in ((1000, right), (100, wrong))
    }
    curve = SizeCurve(runs)
    frame = curve.frame()
    assert list(frame.columns[:5]) == ["task", "regime", "run_seed", "training_size", "k"]
    assert frame[["training_size", "heldout"]].to_numpy().tolist() == [[100, 0.0], [1000, 1.0]]
    drawn = {trace.name: list(trace.y) for trace in curve.figure().data}
    assert drawn["held-out problems"] == [0.0, 1.0]


def ratios(means, seeds=3, spread=0.0, **labels):
    return pd.DataFrame(
        [
            {
                "task": "s3",
                "n_layers": 1,
                **labels,
                "n_train": size,
                "run_seed": seed,
                "ratio": mean + spread * (seed - 1),
            }
            for size, mean in means.items()
            for seed in range(seeds)
        ]
    )


@pytest.mark.parametrize(
    ("means", "threshold"),
    [
        ({100: 0.0, 10_000: 1.0}, 1000.0),
        ({100: 0.25, 1000: 0.5, 10_000: 1.0}, 1000.0),
        ({100: 0.7, 1000: 0.2, 10_000: 0.8}, 1000 * math.sqrt(10)),
        ({100: 0.9, 1000: 0.9}, 0.0),
        ({100: 0.0, 1000: 0.4}, math.inf),
    ],
)
def test_a_threshold_is_where_the_mean_passes_one_half_for_good(means, threshold):
    (row,) = size_thresholds(ratios(means), ["task", "n_layers"]).to_dict("records")
    assert (row["sizes"], row["seeds"]) == (len(means), 3)
    assert row["threshold"] == row["ci_low"] == row["ci_high"] == pytest.approx(threshold)


def test_seeds_that_differ_widen_the_interval_of_a_threshold():
    both = pd.concat([ratios({100: 0.2, 10_000: 0.8}, spread=0.2), ratios({100: 0.2, 10_000: 0.8}, n_layers=4)])
    wide, narrow = size_thresholds(both, ["task", "n_layers"]).to_dict("records")
    assert wide["threshold"] == narrow["threshold"] == pytest.approx(1000)
    assert wide["ci_low"] < 1000 < wide["ci_high"]


def test_one_seed_at_a_size_gives_a_threshold_and_no_interval():
    few = pd.concat([ratios({100: 0.0}), ratios({10_000: 1.0}, seeds=1)])
    (row,) = size_thresholds(few, ["task"]).to_dict("records")
    assert row["threshold"] == pytest.approx(1000)
    assert math.isnan(row["ci_low"])
    assert math.isnan(row["ci_high"])


def test_a_threshold_of_one_size_or_of_a_run_twice_is_refused():
    for wrong in (ratios({100: 0.5}), pd.concat([ratios({100: 0.0, 1000: 1.0})] * 2)):
        with pytest.raises(ValueError, match="a threshold takes two numbers of training problems"):
            size_thresholds(wrong, ["task"])


def test_guessing_is_the_share_of_the_most_frequent_answer():
    assert guessing(get_task("s3"), 2) == pytest.approx(1 / 6)
    assert guessing(get_task("digit-sum"), 2) == pytest.approx(0.1)
