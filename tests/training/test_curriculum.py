"""Ways of teaching: what each shows, what its loss is, its control, and that a kill in any phase changes nothing."""

from itertools import accumulate

import numpy as np
import pytest
import torch

from cotinterp.sweeps.grid import parse_grid
from cotinterp.tasks import get_task
from cotinterp.training.course import Course
from cotinterp.training.curriculum import CURRICULA, control_of, taught, teachers_of, with_controls
from cotinterp.training.learner import Learner, response_loss
from cotinterp.training.loop import torch_threads, train
from cotinterp.training.packing import PackedBatch, packed_loss
from cotinterp.training.spec import Format, OptimizerSpec, RunSpec, Stage
from cotinterp.transcripts.regimes import get_regime
from cotinterp.transcripts.vocabulary import Vocabulary

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def base(tiny):
    """Phases of 8 updates on z6, to four operands."""
    return tiny.model_copy(
        update={
            "k_max": 4,
            "model": tiny.model.model_copy(update={"n_ctx": 32}),
            "optimizer": OptimizerSpec(steps=8, batch_size=10, warmup=3, lr=3e-3),
        }
    )


def phases(spec):
    """Where each phase ends, in updates."""
    return list(accumulate([*(stage.steps for stage in spec.stages), spec.optimizer.steps]))


def shown(learner, spec, step):
    """Rows of the training set in the batch of an update, and where the run is then."""
    course = Course()
    for done in range(step + 1):
        course = course.decided(spec, done)
    return learner._written_rows(learner._rows(step, course), course.mix(spec)), course


def texts(learner, rows):
    vocabulary = Vocabulary.of(learner.task)
    return [vocabulary.decode(learner.data.inputs[row].tolist()) for row in rows.tolist()]


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        *((name, {}) for name in CURRICULA),
        ("short-first", {"positions": "sinusoidal"}),
        ("naive", {"positions": "none"}),
        ("naive", {"positions": "alibi"}),
        ("short-first", {"loops": 2}),
    ],
    ids=str,
)
def test_a_kill_in_every_phase_changes_no_weight(base, name, shape, tmp_path):
    spec = taught(name, base.model_copy(update={"model": base.model.model_copy(update=shape)}))
    for teacher in teachers_of(spec):
        train(teacher, directory=tmp_path / teacher.slug, device="cpu", threads=1)
    whole = train(spec, directory=tmp_path / "whole", device="cpu", threads=1)
    for end, begin in zip(phases(spec), [0, *phases(spec)], strict=False):
        middle = (begin + end) // 2

        def kill(event, middle=middle):
            if event.step == middle:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train(spec, directory=tmp_path / "run", device="cpu", threads=1, checkpoint_every=3, progress=kill)
    run = train(spec, directory=tmp_path / "run", device="cpu", threads=1)
    assert run.weight_hash == whole.weight_hash
    assert run.metadata["step"] == str(spec.most_steps)


def test_a_mix_of_the_regime_alone_is_the_plain_run(base):
    plain = base.model_copy(update={"regime": "direct"})
    mixed = plain.model_copy(update={"mix": (Format(regime="direct"),)})
    with torch_threads(1):
        losses = [
            [Learner.begin(spec, get_task("z6"), CPU).update(step).loss for step in range(3)] for spec in (plain, mixed)
        ]
    assert losses[0] == losses[1]
    assert plain.slug != mixed.slug


def test_shares_divide_a_batch_and_wholes_show_each_problem_in_both_ways(base):
    for name, n_direct, n_cot in (("mixed-30", 3, 7), ("two-pass-0.3", 10, 10)):
        spec = taught(name, base)
        learner = Learner.begin(spec, get_task("z6"), CPU)
        rows, _ = shown(learner, spec, 1)
        problems = learner._rows(1, Course())
        direct, cot = rows[rows < len(learner.k)], rows[rows >= len(learner.k)] - len(learner.k)
        assert (len(direct), len(cot)) == (n_direct, n_cot)
        assert sorted({*direct, *cot}) == sorted(set(problems))
        written = texts(learner, rows)
        assert all("=" in text and "{" not in text and ">" not in text for text in written[:n_direct])
        assert all(">{" in text for text in written[n_direct:])


def test_the_loss_is_the_weighted_mean_of_the_formats_mean_losses(base):
    spec = taught("two-pass-0.3", base)
    learner = Learner.begin(spec, get_task("z6"), CPU)
    rows, course = shown(learner, spec, 0)
    direct, cot = (
        response_loss(learner.module, learner.data.rows(part)).item()
        for part in (rows[rows < len(learner.k)], rows[rows >= len(learner.k)])
    )
    assert direct != pytest.approx(cot, abs=1e-3)
    assert learner.update(0, course).loss == pytest.approx((direct + 0.3 * cot) / 1.3, abs=1e-6)


def test_weights_of_one_are_the_plain_loss(base):
    """A weight of one over the number of scored tokens is the mean; the blanks of a batch weigh nothing."""
    learner = Learner.begin(base, get_task("z6"), CPU)
    batch = PackedBatch.of(learner.data, np.arange(7))
    even = torch.zeros(len(batch.targets))
    even[: len(batch.rows)] = 1 / len(batch.rows)
    weighted, mean = (packed_loss(learner.module, batch, weight=weight).item() for weight in (even, None))
    assert weighted == pytest.approx(mean, abs=1e-6)


def test_internalization_takes_the_steps_away_from_the_front(base):
    spec = taught("internalize", base)
    learner = Learner.begin(spec, get_task("z6"), CPU)
    seen = []
    for step in (0, *phases(spec)[:-1]):
        rows, course = shown(learner, spec, step)
        longest = max(texts(learner, rows[learner.k[rows % len(learner.k)] == 4]), key=len)
        seen.append((course.mix(spec)[0].skip, longest.count("=")))
    assert seen == [(0, 3), (1, 2), (2, 1), (0, 0)]
    thoughts = taught("thoughts", base)
    assert (thoughts.schedule, thoughts.model.architecture) == ("cot:8 cot-1.:2 cot-2.:2", "thoughts")
    learner = Learner.begin(thoughts, get_task("z6"), CPU)
    dots = []
    for step in (0, *phases(thoughts)[:-1]):
        rows, _ = shown(learner, thoughts, step)
        dots.append(max(text.count(".") for text in texts(learner, rows[learner.k[rows % len(learner.k)] == 4])))
    assert dots == [0, 1, 2, 3]
    longer = base.model_copy(update={"k_max": 8, "model": base.model.model_copy(update={"n_ctx": 64})})
    assert [stage.mix[0].skip for stage in taught("internalize-log", longer).stages] == [0, 4, 6]


@pytest.mark.parametrize("name", CURRICULA)
def test_a_control_has_the_phases_without_the_content(base, name):
    spec = taught(name, base)
    control = control_of(spec)
    assert control.most_steps == spec.most_steps
    writes = any(get_regime(regime).writes_totals for regime in spec.regimes)
    assert (phases(control) == phases(spec)) or not writes
    assert control.regime == (spec.regime if writes else "direct")
    assert (control.distill is None) == (spec.distill is None)
    assert not control.model.thoughts
    if spec.model.thoughts:
        assert control.model_copy(update={"model": spec.model}) == spec
        return
    assert not any(get_regime(regime).writes_totals or get_regime(regime).tags_operands for regime in control.regimes)
    task = get_task("z6")
    sign = Vocabulary.of(task).token(task.operator)
    written = [Learner.begin(one.model_copy(update={"distill": None}), task, CPU) for one in (spec, control)]
    assert [bool((learner.data.targets == sign).any()) for learner in written] == [writes, False]
    assert with_controls([spec, spec]) == (*teachers_of(spec), spec, control)


def test_a_grid_trains_the_control_beside_each(base):
    fields = {"task": "z6", "k_max": 4, "model": {"n_layers": 1}, "curriculum": ["mixed-50", "pause"]}
    specs = parse_grid({"name": "g", "runs": [fields]}).specs
    assert [(spec.regime, spec.schedule) for spec in specs] == [
        ("direct-mode", "direct-mode*0.5+cot*0.5"),
        ("direct-mode", "direct-mode*0.5+filler*0.5"),
        ("filler", ""),
        ("direct", ""),
    ]
    taught_by = parse_grid({"name": "g", "runs": [fields | {"curriculum": "hidden-states", "seed": [0, 1]}]}).specs
    assert [one.schedule for one in taught_by] == ["", "states@1", "states-shuffled@1"] * 2
    assert [one.distill.teacher for one in taught_by if one.distill] == [
        slug for one in taught_by if one.regime == "cot" for slug in [one.slug] * 2
    ]
    by_hand = {"teacher": "mine", "layers": [0], "weight": [0.1, 1.0]}
    weights = parse_grid({"name": "g", "runs": [{"task": "z6", "regime": "direct", "distill": by_hand}]})
    assert [spec.schedule for spec in weights.specs] == ["states/L0@0.1", "states/L0@1"]
    with pytest.raises(ValueError, match="unknown curriculum 'mixed'. Did you mean 'mixed-"):
        parse_grid({"name": "g", "runs": [fields | {"curriculum": "mixed"}]})
    with pytest.raises(ValueError, match="leave out regime"):
        parse_grid({"name": "g", "runs": [fields | {"regime": "cot"}]})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mix": [{"regime": "cot", "share": 0.0}]}, "greater than 0"),
        ({"mix": [{"regime": "cot"}, {"regime": "cot", "share": 0.5}]}, "stands twice in one mix"),
        (
            {"mix": [{"regime": "cot"}, {"regime": "direct", "share": 0.005}]},
            "would be shown no problem of a batch of 64",
        ),
        ({"mix": [{"regime": "chains"}]}, "unknown regime 'chains'"),
        ({"k_max": 6, "mix": [{"regime": "cot"}], "model": {"n_ctx": 20}}, "a 'cot' transcript of 'z6'"),
        ({"stages": [{"steps": 5}]}, "as long and of another mix"),
        ({"mix": [{"regime": "cot", "dots": True}]}, "say with skip how many"),
        ({"mix": [{"regime": "filler", "skip": 1, "dots": True}]}, "regime 'filler' writes none; regime 'dots' has"),
    ],
)
def test_a_mix_that_cannot_be_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        RunSpec.model_validate({"task": "z6", "regime": "direct"} | fields, strict=False)


def test_what_is_not_given_stands_in_no_dump_and_slugs_stay(base):
    plain = base.model_copy(update={"stages": (Stage(k_max=3, steps=5),)})
    assert "mix" not in plain.model_dump()
    assert set(Format(regime="cot").model_dump()) == {"regime", "share", "weight", "skip"}
    assert Format(regime="cot", skip=1, dots=True).model_dump()["dots"] is True
    assert plain.model_dump()["stages"] == ({"k_max": 3, "steps": 5, "lr": None},)
    with pytest.raises(ValueError, match="sets stages, mix and distill"):
        taught("naive", plain)
