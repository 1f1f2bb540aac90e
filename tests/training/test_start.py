"""A run that begins with the weights of another: what is carried over, what is not, and what is refused."""

import shutil

import pytest
import torch

from cotinterp.models.spec import ModelSpec
from cotinterp.models.weights import CheckpointError, named_weights, read_metadata, weight_hash
from cotinterp.tasks import get_task
from cotinterp.training.checkpoints import MODEL_FILE, load_run
from cotinterp.training.learner import Learner, carry_over
from cotinterp.training.loop import train
from cotinterp.training.spec_file import SPEC_FILE
from cotinterp.transcripts.vocabulary import Vocabulary

CPU = torch.device("cpu")


@pytest.fixture
def after(tiny, trained):
    """Parity in a shorter context, from the tiny run on z6."""
    model = tiny.model.model_copy(update={"n_ctx": 22})
    optimizer = tiny.optimizer.model_copy(update={"steps": 12})
    changes = {"task": "parity", "model": model, "optimizer": optimizer, "start_from": trained.spec.slug, "seed": 7}
    return tiny.model_copy(update=changes)


def begun(spec):
    return Learner.begin(spec, get_task(spec.task), CPU).module


def test_weights_go_by_name_embeddings_by_symbol_and_positions_by_place(after, root, trained):
    task, module = get_task("parity"), begun(after)
    fresh = {name: tensor.clone() for name, tensor in named_weights(module).items()}
    assert carry_over(module, after, task, root / after.slug) == trained.weight_hash
    given, found = named_weights(trained.model), named_weights(module)
    old, new = trained.vocabulary, Vocabulary.of(task)
    for name in ("embed.weight", "unembed.weight"):
        for symbol in new.symbols:
            expected = given[name][old.token(symbol)] if symbol in old.symbols else fresh[name][new.token(symbol)]
            assert torch.equal(found[name][new.token(symbol)], expected), (name, symbol)
    assert torch.equal(found["pos_embed.weight"], given["pos_embed.weight"][:22])
    others = [name for name in found if not name.endswith("embed.weight")]
    assert len(others) == len(found) - 3
    assert all(torch.equal(found[name], given[name]) for name in others)
    assert any(not torch.equal(found[name], fresh[name]) for name in others)


def test_symbols_and_places_that_the_earlier_run_never_had_stay_as_they_were_drawn(after, root):
    wider = after.model_copy(update={"task": "digit-sum", "model": after.model.model_copy(update={"n_ctx": 40})})
    module, drawn = begun(wider), named_weights(begun(wider))
    carry_over(module, wider, get_task("digit-sum"), root / wider.slug)
    found, nine = named_weights(module), Vocabulary.of(get_task("digit-sum")).token("9")
    assert torch.equal(found["pos_embed.weight"][24:], drawn["pos_embed.weight"][24:])
    assert not torch.equal(found["pos_embed.weight"][:24], drawn["pos_embed.weight"][:24])
    assert torch.equal(found["embed.weight"][nine], drawn["embed.weight"][nine])


def test_training_goes_on_from_there_is_recorded_and_resumes_bit_for_bit(after, root, trained):
    """The start is read once: it may be gone when a killed run goes on."""
    whole = train(after, directory=root / after.slug, device="cpu", threads=1)
    assert whole.metadata["start"] == trained.weight_hash
    assert whole.spec.start_from == trained.spec.slug
    scratch = train(after.model_copy(update={"start_from": None}), directory=root / "scratch", device="cpu", threads=1)
    assert "start" not in scratch.metadata
    assert scratch.weight_hash != whole.weight_hash

    class Killed(Exception):
        pass

    def kill(event):
        if event.step == 8:
            raise Killed

    again = root / "again"
    with pytest.raises(Killed):
        train(after, directory=again, device="cpu", threads=1, checkpoint_every=5, progress=kill)
    shutil.move(root / trained.spec.slug, root.parent / "elsewhere")
    resumed = train(after, directory=again, device="cpu", threads=1, checkpoint_every=5)
    assert resumed.weight_hash == whole.weight_hash
    assert resumed.metadata["start"] == trained.weight_hash
    assert weight_hash(load_run(again).model) == whole.weight_hash


def test_a_run_from_random_weights_says_nothing_of_a_start(trained):
    assert "start" not in read_metadata(trained.directory / MODEL_FILE)
    assert "start_from" not in (trained.directory / SPEC_FILE).read_text()


def test_a_missing_or_unfinished_start_is_refused_before_training(after, root, trained):
    absent = after.model_copy(update={"start_from": "z6-cot-L1-s0-00000000"})
    with pytest.raises(CheckpointError, match=r"no finished run in .*z6-cot-L1-s0-00000000; train that one first"):
        train(absent, directory=root / absent.slug, device="cpu")
    (root / trained.spec.slug / MODEL_FILE).unlink()
    with pytest.raises(CheckpointError, match="no finished run"):
        carry_over(begun(after), after, get_task("parity"), root / after.slug)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"n_layers": 2}, r"it has no 'blocks.1.ln1.weight'"),
        ({"d_mlp": 48}, r"it has \(32, 16\) for 'blocks.0.mlp.in.weight', the new model \(48, 16\)"),
        ({"d_model": 8}, r"it has \(16, 16\) for 'embed.weight', the new model \(12, 8\)"),
        ({"positions": "rotary"}, "it has 'pos_embed.weight', which the new model has not"),
    ],
    ids=str,
)
def test_a_model_of_another_shape_is_refused(after, root, change, said):
    spec = after.model_copy(update={"model": ModelSpec(**(after.model.model_dump() | change))})
    with pytest.raises(CheckpointError, match=said):
        carry_over(begun(spec), spec, get_task("parity"), root / spec.slug)
