"""States drawn toward a teacher's: which are compared, how far apart they are, where the gradient goes, the errors."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from cotinterp.models.build import as_bridge, build_module
from cotinterp.models.weights import CheckpointError
from cotinterp.tasks import get_task
from cotinterp.training.course import BEGINNING
from cotinterp.training.curriculum import control_of, taught, teacher_of, teachers_of, with_controls
from cotinterp.training.data import problems_of
from cotinterp.training.distillation import (
    TeacherStates,
    diagonal,
    distance,
    normalized,
    others_of_the_length,
    steps_of_layers,
    teacher_states,
)
from cotinterp.training.learner import Learner
from cotinterp.training.loop import train
from cotinterp.training.packing import PackedBatch, packed_states, scored_loss
from cotinterp.training.progress import METRICS_FILE, read_metrics
from cotinterp.training.spec import Distill, Format, RunSpec
from cotinterp.transcripts.batch import collate
from cotinterp.transcripts.render import render
from cotinterp.transcripts.vocabulary import Vocabulary

CPU = torch.device("cpu")
Z6 = get_task("z6")


@pytest.fixture(scope="module")
def base(tiny):
    """Three layers, to five operands."""
    model = tiny.model.model_copy(update={"n_layers": 3, "n_ctx": 40})
    return tiny.model_copy(update={"k_max": 5, "model": model, "regime": "direct"})


@pytest.fixture(scope="module")
def spec(base):
    return taught("hidden-states", base)


@pytest.fixture
def teacher(trained, base):
    """An untrained model of three layers as if it had been trained to write the trace."""
    return as_teacher(trained, teacher_of(base), build_module(base.model, len(Vocabulary.of(Z6)), seed=5))


def as_teacher(trained, spec, module):
    return replace(trained, spec=spec, model=as_bridge(module))


def begun(spec, teacher):
    layers = spec.distill.layers or (0, 1, 2)
    states = diagonal(teacher, problems_of(spec, Z6), layers, 3)
    return Learner.begin(spec, Z6, CPU, TeacherStates(layers, states, ""))


@pytest.mark.parametrize(
    ("n_steps", "n_layers", "steps"),
    [
        (5, 4, (1, 2, 3, 5)),
        (5, 5, (1, 2, 3, 4, 5)),
        (2, 4, (1, 1, 1, 2)),
        (1, 3, (1, 1, 1)),
        (5, 1, (5,)),
        (5, 2, (1, 5)),
    ],
)
def test_layers_climb_the_diagonal(n_steps, n_layers, steps):
    assert steps_of_layers(n_steps, n_layers) == steps


@pytest.mark.parametrize(
    ("student", "teacher", "off"),
    [
        ([1.0, -1.0, 1.0, -1.0], [1.0, -1.0, 1.0, -1.0], 0.0),
        ([7.0, 3.0, 7.0, 3.0], [1.0, -1.0, 1.0, -1.0], 0.0),
        ([1.0, 1.0, -1.0, -1.0], [1.0, -1.0, 1.0, -1.0], 2.0),
        ([-1.0, 1.0, -1.0, 1.0], [1.0, -1.0, 1.0, -1.0], 4.0),
    ],
    ids=["equal", "another size and mean", "uncorrelated", "opposite"],
)
def test_distances_worked_out_by_hand(student, teacher, off):
    """Twice one minus the correlation."""
    states = [torch.tensor(one)[None, None] for one in (student, teacher)]
    assert distance(states[0], normalized(states[1])).item() == pytest.approx(off, abs=1e-4)


def test_no_gradient_reaches_the_teacher():
    student, teacher = (torch.randn(2, 3, 4, requires_grad=True) for _ in range(2))
    distance(student, normalized(teacher)).backward()
    assert student.grad is not None
    assert teacher.grad is None


def test_the_teacher_is_read_where_it_predicts_the_total_of_the_layers_step(teacher, spec):
    """Against the hooked model, with places found by their symbol: the j-th `=` of the text predicts total j."""
    problems = problems_of(spec, Z6)[:12]
    assert len({problem.k for problem in problems}) > 2
    found = diagonal(teacher, problems, (0, 2), 3)
    for row, problem in enumerate(problems):
        text = render(Z6, problem, "cot").text
        signs = [place for place, symbol in enumerate(text) if symbol == "="]
        _, cache = teacher.model.run_with_cache(torch.tensor([teacher.vocabulary.encode(text)]))
        for column, (layer, step) in enumerate([(0, 1), (2, problem.k - 1)]):
            state = cache[f"blocks.{layer}.hook_resid_post"][0, signs[step - 1]]
            torch.testing.assert_close(found[row, column], normalized(state), atol=1e-5, rtol=1e-4)


def test_the_student_is_read_where_it_predicts_its_answer(spec, teacher):
    """Against the hooked model, in every layer; the last block computes its states at scored places alone."""
    learner = begun(spec, teacher)
    batch = PackedBatch.of(learner.data, np.arange(20))
    logits, states = packed_states(learner.module, batch, (2, 0, 1))
    rows = batch.sequence[batch.answer].tolist()
    assert sorted(rows) == list(range(20))
    problems = problems_of(spec, Z6)
    hooked = as_bridge(learner.module)
    padded = collate([render(Z6, problems[row], "direct") for row in rows], teacher.vocabulary)
    _, cache = hooked.run_with_cache(padded.tokens)
    at = padded.where("prompt_end")
    for column, layer in enumerate((2, 0, 1)):
        expected = cache[f"blocks.{layer}.hook_resid_post"][torch.arange(20), at]
        torch.testing.assert_close(states[:, column], expected, atol=1e-5, rtol=1e-4)
    assert len(logits) == len(batch.targets)


def test_a_student_that_is_its_teacher_is_at_no_distance(trained, spec, base):
    """Without attention and positions a state follows from the symbol alone, and `>` is made to look like `=`."""
    module = build_module(base.model, len(Vocabulary.of(Z6)), seed=5)
    sign, end = (Vocabulary.of(Z6).token(symbol) for symbol in "=>")
    with torch.no_grad():
        module.pos.weight.zero_()
        for layer in module.layers:
            layer.attn.o.weight.zero_()
        module.tok_embed.weight[end] = module.tok_embed.weight[sign]
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    learner = begun(spec, as_teacher(trained, teacher_of(base), module))
    learner.module.load_state_dict(state)
    assert learner.update(0).distance == pytest.approx(0, abs=1e-10)
    learner.module.load_state_dict(state)
    with torch.no_grad():
        learner.module.tok_embed.weight[end] += torch.randn(16, generator=torch.Generator().manual_seed(0))
    assert learner.update(0).distance > 0.1


def test_the_gradient_is_that_of_the_loss_and_so_many_times_the_distance(spec, teacher):
    free = spec.optimizer.model_copy(update={"clip": 1e9})
    spec = spec.model_copy(
        update={"distill": spec.distill.model_copy(update={"weight": 0.25, "layers": (1,)}), "optimizer": free}
    )
    learner, other = (begun(spec, teacher) for _ in range(2))
    batch = PackedBatch.of(learner.data, learner._rows(0, BEGINNING))
    logits, states = packed_states(other.module, batch, (1,))
    off = distance(states, other.teacher.states[batch.sequence[batch.answer]])
    loss = scored_loss(logits, batch)
    update = learner.update(0)
    assert (update.loss, update.distance) == pytest.approx((loss.item(), off.item()), rel=1e-6)
    (loss + 0.25 * off).backward()
    for one, same in zip(learner.module.parameters(), other.module.parameters(), strict=True):
        torch.testing.assert_close(one.grad, same.grad, atol=1e-7, rtol=1e-4)


def test_formats_that_write_the_totals_are_not_compared(spec, teacher):
    """Their loss counts, and the states of the others alone are drawn."""
    mixed = spec.model_copy(update={"mix": (Format(regime="cot", share=0.5), Format(regime="direct", share=0.5))})
    learner = begun(mixed, teacher)
    rows = learner._written_rows(learner._rows(0, BEGINNING), mixed.mix)
    batch = PackedBatch.of(learner.data, rows)
    _, states = packed_states(learner.module, batch, (0, 1, 2))
    of = batch.sequence[batch.answer]
    direct = of >= len(learner.k)
    assert 0 < int(direct.sum()) < len(of)
    expected = distance(states[direct], learner.teacher.states[of[direct] - len(learner.k)])
    assert learner.update(0).distance == pytest.approx(expected.item(), rel=1e-6)


def test_the_control_gives_each_problem_the_states_of_another_of_its_length(spec):
    problems = problems_of(spec, Z6)
    other = others_of_the_length(spec, problems)
    assert sorted(other) == list(range(len(problems)))
    assert all(problems[one].k == problem.k for one, problem in zip(other, problems, strict=True))
    assert not (other == np.arange(len(problems))).any()
    control = control_of(spec)
    assert control.distill == spec.distill.model_copy(update={"shuffled": True})
    assert control_of(control) == control
    assert with_controls([spec]) == (teacher_of(spec), spec, control)
    assert teachers_of(spec.model_copy(update={"seed": 1})) == ()


@pytest.fixture(scope="module")
def trained_pair(base, spec, tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    (teacher,) = teachers_of(spec)
    return root, train(teacher, directory=root / teacher.slug, device="cpu", threads=1)


def test_the_record_names_the_teachers_weights_and_the_log_the_distance(trained_pair, spec):
    root, teacher = trained_pair
    runs = [train(one, directory=root / one.slug, device="cpu", threads=1) for one in (spec, control_of(spec))]
    assert [run.metadata["teacher"] for run in runs] == [teacher.weight_hash] * 2
    logged = [read_metrics(run.directory / METRICS_FILE)[-1]["distance"] for run in runs]
    assert logged[0] < logged[1]
    states = [teacher_states(run.spec, Z6, run.directory, CPU).states for run in runs]
    assert torch.equal(states[1], states[0][torch.from_numpy(others_of_the_length(spec, problems_of(spec, Z6)))])


def test_a_run_does_not_go_on_without_its_teacher_or_with_another(trained_pair, spec, tmp_path):
    root, teacher = trained_pair
    shutil.copytree(root / teacher.spec.slug, tmp_path / teacher.spec.slug)

    def kill(event):
        if event.step == 20:
            raise KeyboardInterrupt

    where = {"directory": tmp_path / spec.slug, "device": "cpu", "threads": 1}
    with pytest.raises(KeyboardInterrupt):
        train(spec, **where, checkpoint_every=10, progress=kill)
    shutil.move(tmp_path / teacher.spec.slug, tmp_path / "kept")
    with pytest.raises(CheckpointError, match="distill.teacher of .* no finished run in"):
        train(spec, **where)
    longer = teacher.spec.model_copy(update={"optimizer": spec.optimizer.model_copy(update={"steps": 3})})
    named = spec.model_copy(update={"distill": Distill(teacher="mine")})
    train(longer, directory=tmp_path / "mine", device="cpu", threads=1)
    with pytest.raises(KeyboardInterrupt):
        train(named, directory=tmp_path / "named", device="cpu", threads=1, checkpoint_every=10, progress=kill)
    shutil.rmtree(tmp_path / "mine")
    shutil.copytree(tmp_path / "kept", tmp_path / "mine")
    with pytest.raises(CheckpointError, match="whose teacher is no longer the same"):
        train(named, directory=tmp_path / "named", device="cpu", threads=1)


@pytest.mark.parametrize(
    ("there", "said"),
    [
        ({"regime": "direct"}, "its regime 'direct' writes no totals; those that do: cot, totals"),
        ({"task": "parity"}, "it was trained on task 'parity', and this run is of 'z6'"),
        ({"model": {"d_model": 8}}, "its d_model is 8, and this run's is 16: they must be equal"),
        ({"model": {"n_layers": 1}}, "it has 1 layers, and this run 3: give it as many or more"),
        ({"k_max": 3, "model": {"n_ctx": 30}}, "its n_ctx is 30, and a trace of 5 operands takes up to 38 tokens"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_teacher_that_cannot_teach_is_refused(base, there, said, tmp_path):
    model = base.model.model_copy(update=there.get("model", {}))
    few = base.optimizer.model_copy(update={"steps": 1})
    teacher = base.model_copy(update={"regime": "cot", "optimizer": few} | there | {"model": model})
    train(teacher, directory=tmp_path / teacher.slug, device="cpu", threads=1)
    student = base.model_copy(update={"distill": Distill(teacher=teacher.slug)})
    with pytest.raises(CheckpointError, match=f"'{teacher.slug}' cannot teach {student.slug}: {said}"):
        train(student, directory=tmp_path / student.slug, device="cpu", threads=1)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"distill": {"teacher": "a/b"}}, "teacher is the slug of a run beside this one"),
        ({"distill": {"teacher": "a", "layers": (0, 4)}}, r"distill.layers has \[4\]; the model has layers 0 to 3"),
        ({"distill": {"teacher": "a", "layers": (1, 1)}}, "names a layer twice"),
        ({"distill": {"teacher": "a", "weight": 0.0}}, "greater than 0"),
        ({"distill": {"teacher": "a"}, "regime": "cot"}, r"every regime that is shown \(cot\) writes the totals"),
    ],
    ids=str,
)
def test_specs_that_cannot_be_are_refused(fields, said):
    with pytest.raises(ValueError, match=said):
        RunSpec.model_validate({"task": "z6", "regime": "direct"} | fields, strict=False)


def test_a_learner_is_given_the_states_that_its_spec_asks_for(spec, base):
    with pytest.raises(ValueError, match="has a teacher in its spec: give"):
        Learner.begin(spec, Z6, CPU)
    with pytest.raises(ValueError, match="has no teacher in its spec"):
        Learner.begin(base, Z6, CPU, TeacherStates((0,), torch.zeros(100, 1, 16), ""))
