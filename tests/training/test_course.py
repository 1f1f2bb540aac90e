"""When a run has learned: rates, stages and the criterion, on curves whose later course is known; then a run as one."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from cotinterp.models.weights import CheckpointError
from cotinterp.training.checkpoints import STABLE_FILE, STATE_FILE, read_record
from cotinterp.training.course import DECAY, Check, Course
from cotinterp.training.learner import Learner
from cotinterp.training.loop import train
from cotinterp.training.progress import METRICS_FILE, read_metrics
from cotinterp.training.spec import OptimizerSpec, RunSpec, Stage
from cotinterp.training.spec_file import task_of

EVERY = 200
CURVES = json.loads((Path(__file__).parent / "curves.json").read_text())
"""Checks of real runs that were not allowed to settle, every 200 updates; how each was made stands in the file."""


def converging(steps=1000, **fields):
    return OptimizerSpec(steps=steps, until="converged", **{"warmup": 100, "lr": 1.0, "check_every": EVERY} | fields)


def of(optimizer, *stages):
    return RunSpec(task="z6", regime="direct", k_max=8, optimizer=optimizer, stages=stages)


def rates(spec):
    """The rate of every update, where no check says anything."""
    found, step, course = [], 0, Course()
    while step < course.last(spec):
        found.append(course.rate(spec, step))
        step += 1
        course = course.decided(spec, step)
    return found, course


def test_the_rate_rises_is_stable_and_decays_to_its_fraction():
    found, course = rates(of(converging()))
    assert (course.ended, course.decay, len(found)) == ("budget", 800, 1000)
    assert found[:2] == [0.01, 0.02]
    assert set(found[99:800]) == {1.0}
    assert found[800] == pytest.approx(1 - 0.9 * math.sqrt(1 / 200))
    assert found[-1] == pytest.approx(0.1)
    assert sorted(found[800:], reverse=True) == found[800:]


def test_what_ends_early_decays_over_a_fifth_of_its_updates():
    spec, early = of(converging(100_000)), Course(right=2)
    course = early.decided(spec, 4000)
    assert (course.ended, course.decay, course.last(spec)) == ("solved", 4000, 5000)
    assert course.decided(spec, 4500) == course
    assert DECAY * 5000 == 1000


def test_stages_have_their_rates_and_the_cosine_begins_after_them():
    spec = of(OptimizerSpec(steps=50, warmup=10, lr=1.0), Stage(k_max=3, steps=20), Stage(k_max=4, steps=30, lr=0.5))
    found, course = rates(spec)
    assert len(found) == spec.most_steps == 100
    assert found[:20] == [*(i / 10 for i in range(1, 11)), *[1.0] * 10]
    assert set(found[20:50]) == {0.5}
    assert (found[50], found[-1]) == (1.0, pytest.approx(0.1))
    assert (course.stage, course.began, course.ended) == (2, 50, "")
    assert [list(Course(stage=stage).lengths(spec)) for stage in range(3)] == [[2, 3], [2, 3, 4], list(range(2, 9))]


def test_a_stage_ends_when_its_lengths_are_solved_or_its_updates_are_used_up():
    spec = of(converging(10_000), Stage(k_max=3, steps=2000), Stage(k_max=4, steps=2000))
    assert Course().decided(spec, 1999) == Course()
    assert Course(right=1).decided(spec, 400) == Course(right=1)
    assert Course(right=2).decided(spec, 400) == Course(stage=1, began=400)
    assert Course(stage=1, began=400).decided(spec, 2400) == Course(stage=2, began=2400)


def check(step, train=1.0, validation=0.2, train_loss=0.0, validation_loss=1.0):
    return Check(step, (3, 4), (train,) * 2, (validation,) * 2, train_loss, validation_loss, (100, 100))


def followed(checks, **fields):
    """Where a run with these checks would have ended, and why."""
    spec, course = of(converging(10**6, **fields)), Course()
    for one in checks:
        course = course.seen(one, EVERY).decided(spec, one.step)
        if course.ended:
            return course.decay, course.ended
    return None, ""


def steps(last):
    return range(EVERY, last + 1, EVERY)


def test_what_stands_still_has_settled_after_its_patience_and_not_before():
    assert followed(check(step) for step in steps(20_000)) == (10_000, "settled")
    moved_at_9000 = [check(step, validation=0.2 if step < 9000 else 0.5) for step in steps(60_000)]
    decay, ended = followed(moved_at_9000)
    # The average over the last fifth of the updates follows late: at most for as long again.
    assert ended == "settled"
    assert 9000 / (1 - 0.7) <= decay <= 2 * 9000 / (1 - 0.7)
    assert followed(moved_at_9000, patience=1.0) == (None, "")


def test_one_length_that_is_not_solved_is_enough_and_one_check_is_not():
    def half(step):
        return Check(step, (3, 4), (1.0, 1.0), (1.0, 0.9), 0.0, 0.1, (100, 100))

    assert followed(half(step) for step in steps(8000)) == (None, "")
    spiky = [check(step, validation=1.0 if step % 400 else 0.9) for step in steps(8000)]
    assert followed(spiky) == (None, "")
    assert followed([check(200, validation=0.95), check(400, validation=1.0)]) == (400, "solved")


def test_noise_does_not_keep_a_run_from_settling_and_a_drift_does():
    noise = [check(step, validation=0.3 + 0.04 * (-1) ** (step // EVERY)) for step in steps(40_000)]
    assert followed(noise)[1] == "settled"
    falls = [check(step, validation_loss=2.0 - step / 32_000) for step in steps(60_000)]
    assert followed(falls) == (None, "")
    rises = [check(step, validation_loss=2.0 + step / 5000) for step in steps(60_000)]
    assert followed(rises) == (10_000, "settled")
    peak = [
        check(step, train=min(1.0, step / 5000), validation_loss=3.0 - abs(step - 6000) / 8000)
        for step in steps(28_000)
    ]
    assert followed(peak) == (None, "")


def test_the_way_back_from_a_spike_is_no_move_and_a_fall_from_the_peak_is():
    """A table at a constant rate: every now and then its losses are elsewhere for a check or two."""

    def spiky(step):
        apart = step % 6000 in (EVERY, 2 * EVERY)
        return check(step, train_loss=5.0 if apart else 0.0, validation_loss=3.0 if apart else 8.0)

    assert followed(spiky(step) for step in steps(60_000))[1] == "settled"
    falls = [check(step, validation_loss=8.0 * 0.9 ** max(0, step / 4000 - 1)) for step in steps(60_000)]
    assert followed(falls) == (None, "")


def test_few_problems_must_move_by_more():
    def few(n):
        seen = [Check(step, (3,), (1.0,), (0.2 + 0.1 * (step > 5000),), 0.0, 1.0, (n,)) for step in steps(60_000)]
        return followed(seen)[0]

    assert few(20) == 10_000 < few(100)


def recorded(name):
    curve = CURVES[name]
    for step, *sides, train_loss, validation_loss in curve["checks"]:
        losses = (train_loss, validation_loss)
        yield Check(step, tuple(curve["lengths"]), *map(tuple, sides), *losses, tuple(curve["problems"]))


@pytest.mark.parametrize("name", CURVES)
def test_recorded_curves_end_as_what_came_later_says(name):
    """What settles is what nothing more came of, in as long again; what was still learning goes on."""
    checks = list(recorded(name))
    decay, ended = followed(checks)
    assert [decay, ended] == CURVES[name]["ends"]
    if ended == "settled":
        then = [np.array(one.validation_accuracy) for one in checks if one.step >= decay]
        assert max((later - then[0]).max() for later in then) < 0.2
        assert np.mean(then[len(then) // 2 :], axis=0) == pytest.approx(then[0], abs=0.1)


def test_a_plateau_much_longer_than_what_came_before_it_is_taken_for_the_end():
    """What `settled` does not establish: patience is in proportion, so a later drop can be missed."""
    late = [check(step, validation=0.2 if step < 12_000 else 1.0) for step in steps(20_000)]
    assert followed(late) == (10_000, "settled")
    assert followed(late, settle_after=15_000) == (12_200, "solved")
    assert followed(late, patience=1.0) == (12_200, "solved")


def test_a_course_is_stored_as_it_is():
    course = Course(stage=1, began=7, moved=9, smooth=(0.1, 1 / 3), reference=(0.2, 0.3), decay=5, ended="settled")
    assert Course.loads(course.dumps()) == course
    assert Course.loads("") == Course()


@pytest.fixture(scope="module")
def short(tiny):
    """The tiny run until it is converged, in stages, with checks every few updates."""
    optimizer = OptimizerSpec(
        steps=60, batch_size=8, warmup=10, lr=3e-3, until="converged", check_every=10, settle_after=20, patience=1.0
    )
    update = {"optimizer": optimizer, "k_max": 4, "stages": (Stage(k_max=3, steps=20),)}
    model = tiny.model.model_copy(update={"n_ctx": 32})
    return tiny.model_copy(update=update | {"model": model})


def stretched(spec, **fields):
    return spec.model_copy(update={"optimizer": spec.optimizer.model_copy(update=fields)})


@pytest.fixture(scope="module")
def stages(short, tmp_path_factory):
    directory = tmp_path_factory.mktemp("stages") / short.slug
    return train(short, directory=directory, device="cpu", threads=1, checkpoint_every=10)


@pytest.mark.slow
def test_a_run_says_why_it_ended_and_logs_its_checks(short, stages):
    assert (stages.metadata["ended"], stages.metadata["step"]) == ("budget", "80")
    lines = [line for line in read_metrics(stages.directory / METRICS_FILE) if "validation_loss" in line]
    assert [line["step"] for line in lines] == [10, 20, 30, 40, 50, 60]
    assert "validation_accuracy_4" not in lines[0]
    assert {"validation_accuracy_4", "train_accuracy_4"} <= set(lines[-1])
    assert {line["lr"] for line in lines[1:]} == {3e-3}


@pytest.mark.slow
def test_a_stage_shows_its_lengths_alone(short):
    learner = Learner.begin(short, task_of(short), torch.device("cpu"))
    first = [learner._rows(step, Course()) for step in range(20)]
    assert {int(k) for rows in first for k in learner.k[rows]} == {2, 3}
    last = [learner._rows(step, Course(stage=1, began=20)) for step in range(20, 60)]
    assert {int(k) for rows in last for k in learner.k[rows]} == {2, 3, 4}


@pytest.mark.slow
@pytest.mark.parametrize("killed_after", [5, 25, 45, 75])
def test_an_interrupted_run_goes_on_to_the_same_weights(short, stages, tmp_path, killed_after):
    def interrupt(event):
        if event.step == killed_after:
            raise KeyboardInterrupt

    settings = {"directory": tmp_path / short.slug, "device": "cpu", "threads": 1, "checkpoint_every": 10}
    with pytest.raises(KeyboardInterrupt):
        train(short, progress=interrupt, **settings)
    assert train(short, **settings).weight_hash == stages.weight_hash
    assert not (tmp_path / short.slug / STATE_FILE).exists()


@pytest.mark.slow
def test_a_longer_budget_goes_on_from_the_stable_phase_bit_for_bit(short, stages, tmp_path):
    longer, seen = stretched(short, steps=120), []
    alone = train(longer, directory=tmp_path / "alone" / longer.slug, device="cpu", threads=1)
    shutil.copytree(stages.directory, tmp_path / "beside" / stages.directory.name)
    run = train(
        longer,
        directory=tmp_path / "beside" / longer.slug,
        device="cpu",
        threads=1,
        progress=lambda event: seen.append(event.step),
    )
    assert read_record(stages.directory / STABLE_FILE).step == 64
    assert seen == list(range(65, 141))
    assert run.weight_hash == alone.weight_hash
    logs = [read_metrics(one.directory / METRICS_FILE) for one in (run, alone)]
    assert [line["loss"] for line in logs[0]] == [line["loss"] for line in logs[1]]


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [{"steps": 30}, {"steps": 120, "patience": 0.5}, {"steps": 120, "lr": 1e-3}, {"steps": 120, "check_every": 20}],
)
def test_what_would_have_gone_another_way_begins_anew(short, stages, tmp_path, changes):
    shutil.copytree(stages.directory, tmp_path / stages.directory.name)
    other, seen = stretched(short, **changes), []
    train(
        other, directory=tmp_path / other.slug, device="cpu", threads=1, progress=lambda event: seen.append(event.step)
    )
    assert seen[0] == 1


@pytest.mark.slow
def test_a_damaged_stable_phase_is_not_gone_on_with(short, stages, tmp_path):
    shutil.copytree(stages.directory, tmp_path / stages.directory.name)
    path = tmp_path / stages.directory.name / STABLE_FILE
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError):
        read_record(path)
    longer, seen = stretched(short, steps=90), []
    train(
        longer,
        directory=tmp_path / longer.slug,
        device="cpu",
        threads=1,
        progress=lambda event: seen.append(event.step),
    )
    assert seen[0] == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"optimizer": {"steps": 9, "patience": 0.5}}, "patience would be ignored: they belong to until = 'converged'"),
        ({"optimizer": {"steps": 9, "until": "solved"}}, "'steps' or 'converged'"),
        ({"stages": [{"k_max": 8, "steps": 5}]}, r"stages end at k_max \[8\].*up to the k_max 8 of the run"),
        ({"stages": [{"k_max": 4, "steps": 5}, {"k_max": 3, "steps": 5}]}, "each must be longer than the one before"),
        ({"stages": [{"k_max": 1, "steps": 5}]}, "from k_min 2 on"),
        ({"stages": [{"k_max": 3, "steps": 0}]}, "greater than or equal to 1"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        RunSpec.model_validate_json(json.dumps({"task": "z6", "regime": "direct", "k_max": 8} | fields))


def test_what_is_not_set_stands_in_no_file_and_a_schedule_has_its_word():
    plain = RunSpec(task="z6", regime="direct")
    assert plain.slug == "z6-direct-L4-s0-" + plain.sha256[:8]
    assert not {"stages", "until", "patience"} & {*plain.model_dump(), *plain.model_dump()["optimizer"]}
    spec = of(converging(10), Stage(k_max=3, steps=5), Stage(k_max=4, steps=6, lr=0.5))
    assert (plain.schedule, spec.schedule) == ("", "3:5 4:6@0.5 converged")
    assert stretched(spec, patience=1.0).schedule == "3:5 4:6@0.5 converged patience=1"
    assert RunSpec.model_validate_json(spec.model_dump_json()) == spec
    assert stretched(spec, steps=20).stable_sha256 == spec.stable_sha256 != stretched(spec, lr=0.5).stable_sha256
