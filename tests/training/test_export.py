"""A run as a folder for the hub: what goes out comes back bit for bit, and the card says what the files say."""

import contextlib
import json
import re

import pytest
import torch
import yaml
from huggingface_hub import ModelCard

from cotinterp.models.spec import ModelSpec
from cotinterp.models.weights import CheckpointError
from cotinterp.results.shipped import shipped
from cotinterp.training.checkpoints import EVALUATION_FILE, load_run, write_evaluation
from cotinterp.training.export import export_run
from cotinterp.training.loop import train

pytestmark = pytest.mark.slow

SHIPPED = "s3-cot-L4-s0-42df236d"


@pytest.fixture(scope="module")
def reference():
    """A reference model, which has an evaluation."""
    return load_run(shipped("checkpoints") / SHIPPED)


@pytest.fixture(scope="module")
def exported(reference, tmp_path_factory):
    return export_run(reference, tmp_path_factory.mktemp("hub") / "any-name")


def text(run):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(len(run.vocabulary), (3, 11), generator=generator)


def test_what_was_exported_loads_with_the_same_weights_and_logits(reference, exported):
    back = load_run(exported)
    assert (back.weight_hash, back.spec, back.metadata) == (reference.weight_hash, reference.spec, reference.metadata)
    assert torch.equal(back.model(text(reference)), reference.model(text(reference)))
    names = {"model.safetensors", "config.json", "README.md", "spec.json", "metrics.jsonl", "evaluation.json"}
    assert {path.name for path in exported.iterdir()} == names


def test_the_card_has_the_numbers_of_the_evaluation_and_no_others(reference, exported):
    card = ModelCard.load(exported / "README.md")
    rows = json.loads((exported / "evaluation.json").read_text())["accuracy"]
    front = yaml.safe_load((exported / "README.md").read_text().split("---\n")[1])
    assert (front["license"], front["task"], front["regime"]) == ("mit", "s3", "cot")
    assert {"cotinterp", "s3", "cot"} <= set(front["tags"])
    found = [
        (one.dataset_config, one.dataset_split, one.metric_type, one.metric_value) for one in card.data.eval_results
    ]
    assert found == [(f"k={row['k']}", row["split"], "accuracy", row["accuracy"]) for row in rows]
    for row in rows:
        assert f"| {row['split']} | {row['k']} | {row['correct']} | {row['n']} | {row['accuracy']:.3f} |" in card.text
    assert reference.weight_hash in card.text


def code_of(folder):
    """The two ways of loading that the card shows."""
    return re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)


def test_the_code_of_the_card_loads_it_with_and_without_cotinterp(reference, exported):
    ours, lens = code_of(exported)
    names = {}
    with contextlib.chdir(exported):
        exec(ours.replace("path/to/this/folder", str(exported)), names)
        exec(lens, names)
    assert names["run"].weight_hash == reference.weight_hash
    assert torch.equal(names["model"](text(reference)), reference.model(text(reference)))
    assert names["config"]["symbols"] == list(reference.vocabulary.symbols)


@pytest.mark.parametrize(
    "shape", [{"positions": "rotary", "normalization": "RMS"}, {"normalization": None}, {"loops": 2}], ids=str
)
def test_transformer_lens_alone_loads_every_shape_of_model(tiny, shape, tmp_path):
    model = ModelSpec(**(tiny.model.model_dump() | shape))
    spec = tiny.model_copy(update={"model": model})
    run = train(spec, directory=tmp_path / spec.slug, device="cpu", threads=1)
    names = {}
    with contextlib.chdir(export_run(run, tmp_path / "hub")):
        exec(code_of(tmp_path / "hub")[1], names)
    assert torch.equal(names["model"](text(run)), run.model(text(run)))


def test_what_transformer_lens_cannot_build_is_refused_by_name(tiny, tmp_path):
    spec = tiny.model_copy(update={"model": tiny.model.model_copy(update={"positions": "alibi"})})
    run = train(spec, directory=tmp_path / spec.slug, device="cpu", threads=1)
    with pytest.raises(ValueError, match=r"has positions 'alibi', which no config.json .* share .*, load_run takes it"):
        export_run(run, tmp_path / "hub")
    assert not (tmp_path / "hub").exists()


def test_a_model_that_transformer_lens_would_read_as_another_is_not_exported(tiny, tmp_path):
    thinking = tiny.model.model_copy(update={"thoughts": True})
    few = tiny.optimizer.model_copy(update={"steps": 1})
    spec = tiny.model_copy(update={"model": thinking, "regime": "dots", "optimizer": few})
    run = train(spec, directory=tmp_path / spec.slug, device="cpu", threads=1)
    with pytest.raises(ValueError, match="has continuous thoughts: read by TransformerLens alone"):
        export_run(run, tmp_path / "hub")
    assert not (tmp_path / "hub").exists()


def test_a_run_that_was_not_evaluated_has_no_metrics_and_its_license_is_not_ours_to_name(trained, tmp_path):
    front = ModelCard.load(export_run(trained, tmp_path / "hub") / "README.md")
    assert front.data.license == "unknown"
    assert front.data.eval_results is None
    assert "Not measured" in front.text
    assert not (tmp_path / "hub" / EVALUATION_FILE).exists()
    card = ModelCard.load(export_run(trained, tmp_path / "named", license="apache-2.0") / "README.md")
    assert card.data.license == "apache-2.0"


def test_nothing_is_written_over_and_nothing_half(root, trained, tmp_path, monkeypatch):
    run = load_run(trained.spec.slug, root=root)
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="hub is there already"):
        export_run(run, tmp_path / "hub")
    assert [path.name for path in (tmp_path / "hub").iterdir()] == ["mine.txt"]
    monkeypatch.setattr("cotinterp.training.export.model_card", lambda *_, **__: full_disk())
    with pytest.raises(OSError, match="full"):
        export_run(run, tmp_path / "new")
    write_evaluation(run.directory, {"weight_hash": "0" * 64, "accuracy": []})
    with pytest.raises(CheckpointError, match="of other weights than those beside it"):
        export_run(run, tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints", "hub"]


def full_disk():
    raise OSError(28, "the disk is full")
