"""Specs as values: what is refused, hashes and slugs, and the reference pairs."""

import json
import re

import numpy as np
import pytest
from pydantic import ValidationError

from cotinterp.models.spec import Adapter, ModelSpec
from cotinterp.tasks import get_task
from cotinterp.training.spec import Distill, OptimizerSpec, RunSpec, json_hash, reference_directories, reference_specs
from cotinterp.transcripts.problems import solve
from cotinterp.transcripts.render import render

COUNTDOWN = """
from cotinterp.tasks import FoldTask

class Countdown(FoldTask):
    name = "countdown"
    operands = "012"
    commutative = True
    max_k = 4
    def step(self, total, operand):
        return (total - operand) % 3 if {flag} else (total + operand) % 3
"""


def test_the_slug_reads_well_and_hashes_the_whole_spec():
    slug = RunSpec(task="digit-sum", regime="cot").slug
    assert re.fullmatch(r"digit-sum-cot-L4-s0-[0-9a-f]{8}", slug)
    assert RunSpec(task="digit-sum", regime="cot").slug == slug


@pytest.mark.parametrize(
    "change",
    [
        {"regime": "direct"},
        {"k_max": 5},
        {"n_train": 2999},
        {"seed": 1},
        {"precision": "bf16"},
        {"model": ModelSpec(d_mlp=256)},
        {"optimizer": OptimizerSpec(lr=2e-3)},
        {"optimizer": OptimizerSpec(betas=(0.9, 0.95))},
        {"start_from": "z6-cot-L4-s0-01234567"},
        {"start_from": "z6-cot-L4-s0-01234567", "adapter": Adapter()},
        {"regime": "direct", "distill": Distill(teacher="z6-cot-L4-s0-01234567")},
    ],
    ids=str,
)
def test_every_field_is_in_the_slug(change):
    spec = RunSpec(task="digit-sum", regime="cot")
    assert spec.model_copy(update=change).slug != spec.slug


def test_a_number_has_one_spelling():
    by_int = OptimizerSpec(lr=1, clip=2)
    assert by_int == OptimizerSpec(lr=1.0, clip=2.0)
    assert RunSpec(task="z6", regime="cot", optimizer=by_int).slug == (
        RunSpec(task="z6", regime="cot", optimizer=OptimizerSpec(lr=1.0, clip=2.0)).slug
    )


def test_a_spec_survives_json(tiny):
    again = RunSpec.model_validate_json(json.dumps(tiny.model_dump(mode="json")))
    assert again == tiny
    assert again.sha256 == json_hash(json.loads(tiny.model_dump_json()))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"task": "digit-sums"}, r"unknown task 'digit-sums'. Nearest: \['digit-sum'\]"),
        ({"task": "nowhere.py:Task"}, "no task file 'nowhere.py'"),
        ({"regime": "cots"}, "unknown regime 'cots'. Did you mean 'cot'"),
        ({"k_min": 1}, "k_min 1 to k_max 6 is not a range inside the 2 to 12 operands"),
        ({"k_max": 13}, "k_min 2 to k_max 13 is not a range inside the 2 to 12 operands"),
        ({"k_min": 4, "k_max": 3}, "k_min 4 to k_max 3 is not a range"),
        ({"k_max": 7}, "takes up to 66 tokens, model.n_ctx is 64; raise it to 66 or lower k_max"),
        ({"seed": -1}, "greater than or equal to 0"),
        ({"n_train": 10**12}, "less than or equal to"),
        ({"regimes": "cot"}, "Extra inputs are not permitted"),
        ({"n_train": True}, "valid integer"),
        ({"precision": "fp16"}, "'fp32' or 'bf16'"),
        ({"start_from": "../z6-cot-L4-s0-01234567"}, "start_from is the slug of a run beside this one"),
        ({"start_from": ""}, "and no path"),
        ({"adapter": Adapter()}, "an adapter changes a model that is frozen: give start_from"),
        (
            {"adapter": Adapter(), "start_from": "a", "model": ModelSpec(n_layers=1, loops=2)},
            "rounds share their weights: leave out adapter or model.loops",
        ),
        ({"adapter": Adapter(rank=129), "start_from": "a"}, "rank 129 is above 128, the rank of a matrix of the model"),
        ({"regime": "tagging"}, "'tagging' cannot be trained on task 'digit-sum': .* writes '10'"),
        ({"regime": "chain"}, "'chain' cannot be trained on task 'digit-sum': .* use 'direct' or 'totals'"),
        ({"regime": "tagging", "task": "pointers"}, "take another order"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_impossible_runs_are_refused(fields, said):
    with pytest.raises(ValidationError, match=said):
        RunSpec(**{"task": "digit-sum", "regime": "cot"} | fields)


def test_a_spec_that_starts_from_nothing_is_what_it_was_before_it_could():
    """Slugs, hashes and files of all runs from before the field existed stay valid."""
    spec = RunSpec(task="digit-sum", regime="cot")
    assert "start_from" not in spec.model_dump()
    assert "start_from" not in spec.model_dump_json()
    assert "distill" not in spec.model_dump_json()
    assert spec.slug == "digit-sum-cot-L4-s0-4acad2e0"
    assert RunSpec.model_validate(spec.model_dump()) == spec == RunSpec(task="digit-sum", regime="cot", start_from=None)
    moved = spec.model_copy(update={"start_from": spec.slug})
    assert moved.model_dump()["start_from"] == spec.slug
    assert RunSpec.model_validate_json(moved.model_dump_json()) == moved != spec
    adapted = moved.model_copy(update={"adapter": Adapter(targets=("q", "in"))})
    assert "adapter" not in moved.model_dump()
    assert adapted.schedule == "lora8*16:q+in"
    assert RunSpec.model_validate_json(adapted.model_dump_json()) == adapted != moved


@pytest.mark.parametrize(
    "fields",
    [{"lr": 0.0}, {"lr": float("nan")}, {"lr": float("inf")}, {"steps": 0}, {"betas": (0.9, 1.0)}, {"betas": (0.9,)}],
    ids=str,
)
def test_impossible_optimizers_are_refused(fields):
    with pytest.raises(ValidationError, match=next(iter(fields))):
        OptimizerSpec(**fields)


def test_the_reference_transcripts_fit_their_position_table_with_room_to_spare():
    task = get_task("digit-sum")
    (hardest,) = solve(task, np.full((1, 6), 9))
    assert len(render(task, hardest, "cot")) == 56
    RunSpec(task="digit-sum", regime="cot", model=ModelSpec(n_ctx=56))
    with pytest.raises(ValidationError, match="raise it to 56"):
        RunSpec(task="digit-sum", regime="cot", model=ModelSpec(n_ctx=55))


def test_a_task_in_a_file_gives_its_name_to_the_slug(tmp_path):
    file = tmp_path / "countdown.py"
    file.write_text(COUNTDOWN.format(flag=False))
    spec = RunSpec(task=f"{file}:Countdown", regime="cot", k_max=4)
    assert spec.slug.startswith("countdown-cot-L4-s0-")
    assert spec == RunSpec(task=f"{file}:Countdown", regime="cot", k_max=4)


def test_a_broken_task_in_a_file_is_refused(tmp_path):
    file = tmp_path / "countdown.py"
    file.write_text(COUNTDOWN.format(flag=True))
    with pytest.raises(ValidationError, match="says commutative = True, but the order of"):
        RunSpec(task=f"{file}:Countdown", regime="cot", k_max=4)


def test_missing_reference_checkpoints_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="digit-sum-direct.*--from-scratch"):
        reference_directories(tmp_path)


def test_reference_pairs_differ_in_the_regime_alone():
    by_task = {}
    for spec in reference_specs():
        by_task.setdefault(spec.task, []).append(spec)
    for direct, cot in by_task.values():
        assert (direct.regime, cot.regime) == ("direct", "cot")
        assert direct.model_copy(update={"regime": "cot"}) == cot


@pytest.mark.parametrize("name", ["../../x", "a/b", "..", "a\\b", "a\nb"])
def test_the_name_of_a_registered_task_does_not_leave_the_folder_of_the_runs(name):
    """Tasks in files are checked for more than this; one that was made or registered in a program is not."""
    task = type("Hostile", (type(get_task("z6")),), {"name": name})()
    with pytest.raises(ValueError, match="is not a file name"):
        RunSpec.model_validate({"task": "z6", "regime": "cot"}, context={"task": task})
