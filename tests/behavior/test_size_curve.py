"""Otherwise equal runs by number of training problems."""

import numpy as np
import pytest

from cotinterp.behavior.accuracy import accuracy_by_k
from cotinterp.behavior.generalization import SizeCurve, generalization_by_k, size_specs
from cotinterp.tasks import get_task
from cotinterp.training.spec import RunSpec
from cotinterp.transcripts.problems import sample_problems

Z6 = get_task("z6")


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
