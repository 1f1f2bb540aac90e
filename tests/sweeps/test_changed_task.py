"""A task in a file is what it computes: one run however its path is typed, another run once its `step` is changed."""

import json
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from cotinterp.depth.compute import accuracy_against_compute
from cotinterp.depth.frontier import depth_frontier
from cotinterp.depth.grid import matched_controls
from cotinterp.models.weights import CheckpointError
from cotinterp.report.simulator import simulator_html
from cotinterp.sweeps.grid import Grid, parse_grid
from cotinterp.sweeps.replication import Planned, gather
from cotinterp.sweeps.single_run import RunJob, mark_root, run_status, train_and_evaluate
from cotinterp.sweeps.sweep import run_sweep, sweep_status, train_all
from cotinterp.sweeps.table import read_sweep_table, sweep_table, write_sweep_table
from cotinterp.tasks import get_task
from cotinterp.training.checkpoints import load_run
from cotinterp.training.loop import train
from cotinterp.training.spec import RunSpec
from cotinterp.training.spec_file import check_same_spec, task_of
from tests.sweeps.tiny import PROBLEMS, grid_of, tiny

OWN = """
from cotinterp.tasks import FoldTask
class Own(FoldTask):
    name, operands, commutative = "own", "012345", True
    def step(self, total, operand):
        return (total + operand + {add}) % 6
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Writes the file own.py into the working directory, with another `step` for each number."""
    monkeypatch.chdir(tmp_path)

    def write(add=0, name="own.py"):
        (tmp_path / name).write_text(OWN.format(add=add))
        return f"{name}:Own"

    return write


def one(task, **fields):
    return tiny(task=task, steps=3, **fields)


def swept(*specs, root):
    with ThreadPoolExecutor(1) as thread:
        return run_sweep(grid_of(*specs), root, thread)


def test_one_file_is_one_task_however_its_path_is_typed(own, tmp_path):
    task = own()
    specs = [one(ref) for ref in (task, f"./{task}", f"{tmp_path}/{task}", f"{tmp_path}/../{tmp_path.name}/{task}")]
    assert len({spec.slug for spec in specs}) == len(set(specs)) == len(grid_of(*specs).specs) == 1
    assert [spec.task for spec in specs][:2] == ["own.py:Own", "./own.py:Own"]
    train(specs[0], directory=tmp_path / "runs" / specs[0].slug, threads=1)
    for spec in specs:
        check_same_spec(tmp_path / "runs" / spec.slug, spec)
    assert [outcome.status for outcome in train_all(specs[1:], root=tmp_path / "runs", jobs=0)] == ["present"] * 3


def test_a_changed_step_is_another_run_and_the_old_one_says_so(own, tmp_path):
    before = one(own(0))
    assert [outcome.status for outcome in swept(before, root=tmp_path / "runs")] == ["trained"]
    own(1)
    with pytest.raises(CheckpointError, match="task 'own' is not the one that .* was trained on, or is to be"):
        task_of(before)
    after = one("own.py:Own")
    assert after != before
    assert after.slug[:-8] == before.slug[:-8]
    assert after.slug != before.slug
    (status,) = sweep_status(grid_of(after), tmp_path / "runs").runs
    assert status.status == "absent"
    assert status.error.startswith(f"{before.slug} is a run of task 'own' as it was when that was trained")
    table = sweep_table(grid_of(after), tmp_path / "runs")
    assert (table["n"] == 0).all()
    assert "The task has changed since" in table["error"].iloc[0]
    with pytest.raises(CheckpointError, match=f"task 'own' is not the one that .*{before.slug} was trained on"):
        load_run(tmp_path / "runs" / before.slug, task="own.py:Own")
    assert [outcome.status for outcome in swept(after, root=tmp_path / "runs")] == ["trained"]
    assert run_status(after, (tmp_path / "runs").resolve(), PROBLEMS).status == "finished"
    own(0)
    assert [outcome.status for outcome in swept(before, root=tmp_path / "runs")] == ["present"]


def test_a_file_that_is_changed_under_a_sweep_fails_its_runs(own, tmp_path):
    before = one(own(0))
    own(1)
    with pytest.raises(CheckpointError, match="is not the one that .* was trained on, or is to be"):
        swept(before, root=tmp_path / "runs")
    job = RunJob(before, tmp_path / "runs", mark_root(tmp_path / "runs"), tmp_path, PROBLEMS)
    with pytest.raises(CheckpointError, match="is not the one that .* was trained on, or is to be"):
        train_and_evaluate(job)


def test_two_tasks_of_one_name_are_not_pooled(own, tmp_path):
    specs = one(own(0)), one(own(1, "other.py"))
    with pytest.raises(ValueError, match="grid 'two' has two different tasks of the name 'own'"):
        Grid("two", specs)
    block = {"task": [spec.task for spec in specs], "regime": "direct", "k_max": 3}
    with pytest.raises(ValueError, match="grid 'grid' has two different tasks of the name 'own'"):
        parse_grid({"name": "grid", "runs": [block]})
    with pytest.raises(ValueError, match="the plan has two different tasks of the name 'own'"):
        gather([Planned(spec, spec.task) for spec in specs], root=tmp_path)


def test_a_table_says_what_its_tasks_were_and_is_held_to_it(own, tmp_path):
    spec = one(own(0), k_max=4, model=tiny().model.model_copy(update={"n_ctx": 40}))
    with ThreadPoolExecutor(1) as thread:
        run_sweep(grid := Grid("own", (spec,), 30), tmp_path / "runs", thread)
    table = sweep_table(grid, tmp_path / "runs")
    assert set(table["definition"]) == {spec.definition}
    path = write_sweep_table(table, tmp_path / "table.csv")
    assert set(read_sweep_table(path)["definition"]) == {spec.definition}
    now = {"own": get_task("own.py:Own")}
    accuracy_against_compute(table, tasks=now)
    changed = {"own": get_task(own(1))}
    for ask in (
        lambda: accuracy_against_compute(table, tasks=changed),
        lambda: simulator_html(table, tasks=changed),
        lambda: matched_controls(table, changed["own"]),
    ):
        with pytest.raises(ValueError, match="the sweep table has task 'own' by another definition"):
            ask()
    pooled = table.assign(slug="another", definition="0123456789abcdef")
    with pytest.raises(ValueError, match="the sweep table has two different tasks of the name 'own'"):
        depth_frontier(type(table)(table.to_dict("list")).merge(pooled, how="outer"))


def test_a_table_from_before_there_were_definitions_is_read(own, tmp_path):
    spec = one(own(0))
    (tmp_path / "runs").mkdir()
    table = sweep_table(grid_of(spec), tmp_path / "runs")
    table.drop(columns="definition").to_csv(tmp_path / "old.csv", index=False)
    assert set(read_sweep_table(tmp_path / "old.csv")["definition"]) == {""}


def test_a_task_of_the_package_is_held_to_what_the_run_recorded(own, tmp_path, monkeypatch):
    """Its slug does not say what it computed; the weights do."""
    spec = one("z6")
    assert [outcome.status for outcome in swept(spec, root=tmp_path / "runs")] == ["trained"]
    z6 = type(get_task("z6"))
    monkeypatch.setattr(z6, "step", lambda self, total, operand: (total + operand + 1) % 6)
    status = run_status(spec, (tmp_path / "runs").resolve(), PROBLEMS)
    assert status.status == "failed"
    assert status.error.startswith("CheckpointError: task 'z6' is not the one that " + spec.slug)
    assert [outcome.status for outcome in swept(spec, root=tmp_path / "runs")] == ["failed"]
    (outcome,) = train_all([spec], root=tmp_path / "runs", jobs=0)
    assert (outcome.status, "is not the one" in outcome.error) == ("failed", True)


def test_a_run_that_starts_from_one_of_the_task_as_it_was_is_refused(own, tmp_path):
    first = one(own(0))
    train(first, directory=tmp_path / "runs" / first.slug, threads=1)
    again = one(f"{tmp_path}/own.py:Own", start_from=first.slug)
    train(again, directory=tmp_path / "runs" / again.slug, threads=1)
    own(1)
    changed = one("own.py:Own", start_from=first.slug)
    with pytest.raises(CheckpointError, match="task 'own' is not the one that .* was trained on"):
        train(changed, directory=tmp_path / "runs" / changed.slug, threads=1)


def test_specs_of_the_tasks_of_the_package_are_what_they_were():
    spec = RunSpec(task="digit-sum", regime="cot")
    assert "definition" not in spec.model_dump()
    assert "definition" not in spec.model_dump_json()
    assert spec.slug == "digit-sum-cot-L4-s0-4acad2e0"


def test_a_spec_of_another_task_takes_that_ones_definition(own):
    spec = one(own(0))
    assert spec.model_copy(update={"task": "s3"}) == one("s3")
    assert one("s3").model_copy(update={"task": "own.py:Own"}) == spec
    assert RunSpec.model_validate_json(spec.model_dump_json()) == spec
    assert json.loads(spec.model_dump_json())["definition"] == spec.definition
    assert os.path.exists(spec.task.split(":")[0])


def test_a_run_whose_beginning_was_trained_anew_says_so(tmp_path):
    first, root = one("z6"), (tmp_path / "runs").resolve()
    train(first, directory=root / first.slug, threads=1)
    after = one("s3", start_from=first.slug)
    train(after, directory=root / after.slug, threads=1)
    assert run_status(after, root, PROBLEMS).status == "unfinished"
    other = one("z6", seed=1)
    train(other, directory=root / other.slug, threads=1)
    (root / other.slug / "model.safetensors").replace(root / first.slug / "model.safetensors")
    status = run_status(after, root, PROBLEMS)
    assert status.status == "failed"
    assert f"was begun with other weights than {first.slug} has now" in status.error
