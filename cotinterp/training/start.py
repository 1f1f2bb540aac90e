"""Beginning from another run's weights instead of random ones."""

from pathlib import Path

import torch
from torch import Tensor, nn

from cotinterp.models.weights import CheckpointError, named_weights
from cotinterp.tasks import Task
from cotinterp.training.checkpoints import Run, is_finished, load_run
from cotinterp.training.spec import RunSpec
from cotinterp.training.spec_file import SPEC_FILE, read_json
from cotinterp.transcripts.vocabulary import Vocabulary

BY_SYMBOL = ("embed.weight", "unembed.weight")
BY_POSITION = ("pos_embed.weight",)


def carry_over(module: nn.Module, spec: RunSpec, task: Task, directory: Path) -> str:
    """Gives a freshly initialized `module` the weights of the run that `spec.start_from` names beside `directory`.

    Embeddings and unembeddings go by symbol and position vectors by place: what the earlier run never had (a symbol
    of the new task, a place beyond its context) keeps its random values. All else must have the same shape. The
    optimizer and the learning rate begin anew.

    Returns:
        Hash of the weights that were carried over, for the record of the run.

    Raises:
        CheckpointError: That run is missing, unfinished or damaged, or its model has another shape.
    """
    start = _start_run(spec, task, directory)
    given, here = named_weights(start.model), named_weights(module)
    wrong = [f"has no {name!r}" for name in here if name not in given]
    wrong += [f"has {name!r}, which the new model has not" for name in given if name not in here]
    wrong += [
        f"has {tuple(given[name].shape)} for {name!r}, the new model {tuple(here[name].shape)}"
        for name in here
        if name in given and not _fits(name, given[name], here[name])
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise CheckpointError(
            f"start_from {spec.start_from!r} does not fit model of {spec.slug}: it {'; '.join(wrong[:3])}{more}. Only "
            "the symbols and n_ctx may differ: give both runs the same model"
        )
    old, new = _shared_symbols(start.vocabulary, Vocabulary.of(task))
    with torch.no_grad():
        for name, tensor in here.items():
            if name in BY_SYMBOL:
                tensor[new] = given[name][old].to(tensor.device)
            else:
                rows = min(len(tensor), len(given[name]))
                tensor[:rows] = given[name][:rows].to(tensor.device)
    return start.weight_hash


def _start_run(spec: RunSpec, task: Task, directory: Path) -> Run:
    beside = directory.parent / str(spec.start_from)
    if not is_finished(beside):
        raise CheckpointError(
            f"{spec.slug} is to start from {spec.start_from!r}, and there is no finished run in {beside}; train that "
            "one first, in a directory of that name beside this one"
        )
    same = read_json(beside / SPEC_FILE).get("task") == spec.task
    return load_run(beside, task=task if same else None)


def _fits(name: str, given: Tensor, here: Tensor) -> bool:
    by_row = name in BY_SYMBOL or name in BY_POSITION
    return given.shape[1:] == here.shape[1:] if by_row else given.shape == here.shape


def _shared_symbols(old: Vocabulary, new: Vocabulary) -> tuple[list[int], list[int]]:
    """Tokens of the symbols that both have, in the one and in the other."""
    both = [symbol for symbol in new.symbols if symbol in old.symbols]
    return old.encode(both), new.encode(both)
