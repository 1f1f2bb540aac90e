"""What an instrument needs of a model: the TransformerLens dialect, whoever built the model."""

from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class HookedModel(Protocol):
    """Any TransformerLens-style model: our own, a user's `TransformerBridge`, a Hugging Face model booted by it.

    `cfg` gives n_layers and n_heads; `hooks(fwd_hooks=[(name, function)])` is a context manager inside of which
    `model(tokens)` returns logits `batch pos d_vocab` and calls `function(activation, hook=...)`.
    """

    @property
    def cfg(self) -> Any:
        """Sizes of the model."""
        ...

    def hooks(self, *args: Any, **kwargs: Any) -> AbstractContextManager[Any]:
        """A context inside of which the given hooks are attached."""
        ...

    def run_with_cache(self, *args: Any, **kwargs: Any) -> Any:
        """Logits and the cached activations."""
        ...

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Logits `batch pos d_vocab` of tokens `batch pos`."""
        ...


def require_eval(model: HookedModel) -> None:
    """ValueError if the model, or any module in it, is in train mode: dropout would make two equal runs differ.

    All modules are asked: a bridge that says eval may hold a Hugging Face model that was set to train behind its back.
    """
    parts = model.modules() if isinstance(model, torch.nn.Module) else (model,)
    if any(getattr(part, "training", False) for part in parts):
        raise ValueError(
            "the model is in train mode, or a part of it, in which two runs may differ although nothing was edited. "
            "Call model.eval() first (TransformerLens's native bridges start in train mode)."
        )


def is_causal(model: HookedModel) -> bool:
    """Whether no position can look at a later one. A model that does not say is taken to be causal."""
    return bool(getattr(model.cfg, "attention_dir", "causal") == "causal")


def weight(model: HookedModel, name: str) -> Tensor:
    """The weight `name` ("W_O", "W_U") of a TransformerLens-style model, detached.

    ValueError if the model offers no such accessor: without it the parts of the residual stream cannot be named.
    """
    found = getattr(model, name, None)
    if not isinstance(found, Tensor):
        raise ValueError(
            f"the model ({type(model).__name__}) offers no {name}. Attribution needs the TransformerLens accessors "
            "W_O and W_U; wrap the model in a TransformerBridge of an architecture that has them."
        )
    return found.detach()
