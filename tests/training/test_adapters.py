"""A run that trains an adapter alone: on the one loop, resumed bit for bit, and stored merged."""

import shutil

import pytest
import torch

from cotinterp.models.spec import Adapter
from cotinterp.models.weights import CheckpointError, base_weights, named_weights, read_weights, weight_hash
from cotinterp.tasks import get_task
from cotinterp.training.checkpoints import MODEL_FILE, STATE_FILE, load_run
from cotinterp.training.learner import Learner, carry_over, response_loss
from cotinterp.training.loop import train
from cotinterp.training.packing import PackedBatch, packed_loss
from cotinterp.training.spec import Format

CPU = torch.device("cpu")
ADAPTER = Adapter(rank=2, alpha=4.0, targets=("q", "v", "in", "out"))


@pytest.fixture
def adapted(tiny, trained):
    """The tiny cot run, taught to answer at once or with the trace by an adapter."""
    mix = (Format(regime="direct-mode", share=0.5), Format(regime="cot", share=0.5))
    optimizer = tiny.optimizer.model_copy(update={"steps": 12})
    changes = {"regime": "direct-mode", "mix": mix, "optimizer": optimizer, "start_from": trained.spec.slug}
    changes |= {"snapshots": (0, 6)}
    return tiny.model_copy(update=changes | {"adapter": ADAPTER})


def begun(spec, root):
    task = get_task(spec.task)
    learner = Learner.begin(spec, task, CPU)
    carry_over(learner.module, spec, task, root / spec.slug)
    return learner


def test_the_loss_without_padding_is_that_of_the_adapted_module(adapted, root):
    learner = begun(adapted, root)
    with torch.no_grad():
        for name, parameter in learner.module.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3, generator=torch.Generator().manual_seed(2))
    learned = [parameter for parameter in learner.module.parameters() if parameter.requires_grad]
    rows = torch.arange(8).numpy()
    padded, packed = (
        response_loss(learner.module, learner.data.rows(rows)),
        packed_loss(learner.module, PackedBatch.of(learner.data, rows)),
    )
    torch.testing.assert_close(packed, padded, atol=1e-5, rtol=0.0)
    for one, other in zip(*(torch.autograd.grad(loss, learned) for loss in (padded, packed)), strict=True):
        torch.testing.assert_close(other, one, atol=1e-5, rtol=1e-4)


def test_training_changes_the_adapter_and_nothing_of_the_frozen_model(adapted, root, trained):
    learner = begun(adapted, root)
    given = {name: tensor.clone() for name, tensor in named_weights(trained.model).items()}
    before = [parameter.detach().clone() for parameter in learner.module.parameters()]
    for step in range(4):
        learner.update(step)
    found = base_weights(learner.module)
    assert given.keys() == found.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in given.items())
    moved = [not torch.equal(a, b) for a, b in zip(before, learner.module.parameters(), strict=True)]
    assert moved == [parameter.requires_grad for parameter in learner.module.parameters()]
    assert sum(moved) == 2 * len(ADAPTER.targets)


class Killed(Exception):
    pass


def test_killed_and_resumed_is_uninterrupted_and_the_record_says_what_was_trained(adapted, root, trained):
    """The frozen model is in the state: its run may be gone when the killed one goes on."""
    whole = train(adapted, directory=root / adapted.slug, device="cpu", threads=1)

    def kill(event):
        if event.step == 8:
            raise Killed

    again = root / "again"
    with pytest.raises(Killed):
        train(adapted, directory=again, device="cpu", threads=1, checkpoint_every=5, progress=kill)
    state = read_weights(again / STATE_FILE)
    assert "merged" not in state.metadata["adapter"]
    shutil.move(root / trained.spec.slug, root.parent / "elsewhere")
    resumed = train(adapted, directory=again, device="cpu", threads=1, checkpoint_every=5)
    assert resumed.weight_hash == whole.weight_hash != trained.weight_hash
    assert weight_hash(load_run(again).model) == whole.weight_hash
    snapshots = {step: load_run(again, step=step) for step in (0, 6)}
    assert snapshots[0].weight_hash == trained.weight_hash
    assert snapshots[6].weight_hash == load_run(whole.directory, step=6).weight_hash != whole.weight_hash
    assert snapshots[6].metadata["adapter"] == whole.metadata["adapter"]
    trained_values = ADAPTER.n_parameters(adapted.model, len(whole.vocabulary))
    frozen = adapted.model.n_parameters(len(whole.vocabulary))
    said = f"{ADAPTER.words}, {trained_values:,} values trained beside {frozen:,} frozen, merged"
    assert whole.metadata["adapter"] == resumed.metadata["adapter"] == said
    assert said in whole._repr_html_()
    assert whole.metadata["start"] == trained.weight_hash
    assert "adapter" not in read_weights(root.parent / "elsewhere" / MODEL_FILE).metadata
    kept = [n for n, t in named_weights(whole.model).items() if torch.equal(t, named_weights(trained.model)[n])]
    assert len(kept) == len(named_weights(whole.model)) - len(ADAPTER.targets)


def test_symbols_and_places_that_would_stay_random_are_refused(adapted, root, trained):
    model = adapted.model.model_copy(update={"n_ctx": 32})
    wider = adapted.model_copy(update={"task": "digit-sum", "regime": "cot", "mix": (), "model": model})
    both = ADAPTER.model_copy(update={"full": ("embed", "unembed")})
    for adapter, said in ((ADAPTER, r"has no symbols \['\+', '6', '7', '8', '9'\]"), (both, "n_ctx 24, not for 32")):
        with pytest.raises(CheckpointError, match=said):
            begun(wider.model_copy(update={"adapter": adapter}), root)
    shorter = wider.model_copy(update={"regime": "direct", "model": adapted.model, "adapter": both})
    assert begun(shorter, root).module.head.weight.requires_grad
