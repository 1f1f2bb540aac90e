"""Training many specs: one failing, one killed on the way, one there already; every one ends as it would alone."""

import json

import pytest

from cotinterp.models.spec import ModelSpec
from cotinterp.sweeps.sweep import train_all, transcript_length
from cotinterp.training.checkpoints import STATE_FILE, load_run
from cotinterp.training.loop import train
from cotinterp.training.spec import OptimizerSpec, RunSpec

pytestmark = pytest.mark.slow

TINY = ModelSpec(n_layers=1, d_model=8, n_heads=2, d_mlp=16, n_ctx=24)


def tiny(regime="direct", seed=0, lr=1e-3):
    optimizer = OptimizerSpec(steps=40, batch_size=4, warmup=5, lr=lr)
    return RunSpec(task="s3", regime=regime, seed=seed, k_max=3, n_train=20, model=TINY, optimizer=optimizer)


PRESENT, FRESH, DIVERGING, KILLED, TAKEN = tiny(), tiny("cot"), tiny(seed=1, lr=1e30), tiny(seed=2), tiny(seed=3)
SPECS = (PRESENT, FRESH, DIVERGING, KILLED, TAKEN, FRESH)


class Interrupted(Exception):
    """Ends a training in its middle."""


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    root = tmp_path_factory.mktemp("sweep")
    train(PRESENT, directory=root / PRESENT.slug, device="cpu", threads=1)
    before = (root / PRESENT.slug / "model.safetensors").stat().st_mtime_ns

    def stop(event):
        if event.step == 25:
            raise Interrupted

    with pytest.raises(Interrupted):
        train(KILLED, directory=root / KILLED.slug, device="cpu", threads=1, checkpoint_every=10, progress=stop)
    train(tiny(seed=4), directory=root / TAKEN.slug, device="cpu", threads=1)
    seen = []
    outcomes = train_all(SPECS, root=root, jobs=1, progress=seen.append)
    assert (root / PRESENT.slug / "model.safetensors").stat().st_mtime_ns == before
    return root, outcomes, seen


def test_one_outcome_for_each_spec_in_their_order(swept):
    root, outcomes, _ = swept
    assert [outcome.spec for outcome in outcomes] == list(SPECS)
    assert [outcome.directory for outcome in outcomes] == [root / spec.slug for spec in SPECS]
    assert [outcome.status for outcome in outcomes] == ["present", "trained", "failed", "trained", "failed", "trained"]
    assert outcomes[1] == outcomes[5]


def test_what_went_wrong_is_told_and_nothing_else_is(swept):
    errors = [outcome.error for outcome in swept[1]]
    assert errors[2].startswith("NonFiniteLossError: ")
    assert "holds another run: seed is 4 there, 3 here" in errors[4]
    assert [errors[place] for place in (0, 1, 3)] == ["", "", ""]


def test_seconds_are_those_of_this_sweep(swept):
    seconds = [outcome.seconds for outcome in swept[1]]
    assert seconds[0] == 0
    assert all(each > 0 for each in seconds[1:])


@pytest.mark.parametrize("spec", [FRESH, KILLED], ids=["fresh", "killed"])
def test_the_weights_are_those_of_a_run_that_was_left_alone(swept, tmp_path, spec):
    alone = train(spec, directory=tmp_path / spec.slug, device="cpu", threads=1)
    assert load_run(swept[0] / spec.slug).weight_hash == alone.weight_hash


def test_a_killed_run_went_on_where_it_was(swept):
    root = swept[0]
    assert not (root / KILLED.slug / STATE_FILE).exists()
    steps = [json.loads(line)["step"] for line in (root / KILLED.slug / "metrics.jsonl").read_text().splitlines()]
    assert steps == [20, 40]


def test_progress_names_every_run_and_ends_with_all_done(swept):
    last = swept[2][-1]
    assert {run.name for run in last} == {spec.slug for spec in SPECS}
    assert {run.state for run in last} == {"done"}
    assert swept[2][0][0].name == PRESENT.slug
    assert swept[2][0][1].name == FRESH.slug, "longest transcripts first"


def test_transcripts_that_show_more_are_longer():
    assert transcript_length(FRESH) > transcript_length(PRESENT)


def test_fewer_jobs_than_none_are_refused(tmp_path):
    with pytest.raises(ValueError, match="got -1"):
        train_all([PRESENT], root=tmp_path, jobs=-1)


def test_a_root_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="is a file"):
        train_all([PRESENT], root=tmp_path / "file")
