"""What an instrument needs of a model: the TransformerLens dialect, whoever built the model."""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from os import PathLike
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from cotinterp.models.adapters import adapted_layers, unmerged
from cotinterp.models.build import THOUGHT, has_thoughts

TokensLike = Int[Tensor, "batch pos"] | Int[np.ndarray, "batch pos"] | Sequence[Sequence[int]]
"""Token ids of several examples, all of one length: a tensor, or what becomes one (`token_ids`)."""


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


def require_model(model: HookedModel) -> None:
    """What every instrument asks of a model before it runs. ValueError that says what was given and what to do where

    - it is no TransformerLens-style model (`require_hooked`);
    - it has an encoder beside its decoder: `model(tokens)` then reads two texts, and a position belongs to either;
    - a layer of it has an adapter that is not merged: its accessors would name other weights than it multiplies by;
    - it, or any module in it, is in train mode: dropout would make two equal runs differ. All modules are asked: a
      bridge that says eval may hold a Hugging Face model that was set to train behind its back.
    """
    require_hooked(model)
    config = getattr(getattr(model, "original_model", None), "config", None)
    if getattr(config, "is_encoder_decoder", False):
        raise ValueError(
            f"model: an encoder-decoder was given ({type(config).__name__}). Wanted is a model with one stack of "
            "blocks that reads one text, such as a decoder-only language model."
        )
    if isinstance(model, torch.nn.Module) and (layers := adapted_layers(model)):
        raise ValueError(f"model: {unmerged(layers)}.")
    parts = model.modules() if isinstance(model, torch.nn.Module) else (model,)
    if any(getattr(part, "training", False) for part in parts):
        raise ValueError(
            "model: it is in train mode, or a part of it, in which two runs may differ although nothing was edited. "
            "Call model.eval() first (TransformerLens's native bridges start in train mode)."
        )


def require_hooked(model: HookedModel) -> None:
    """ValueError for a Hugging Face model as it comes, a plain module, a name or a path in place of a hooked model."""
    missing = [name for name in ("cfg", "hooks", "run_with_cache") if not hasattr(model, name)]
    if missing or not callable(model):
        advice = (
            "load or build it first, e.g. cotinterp.load_run(slug).model"
            if isinstance(model, str | PathLike)
            else "wrap a Hugging Face model with TransformerBridge.boot_transformers(name, hf_model=model).eval(), a "
            "module of this package with as_bridge(module)"
        )
        what = repr(model) if isinstance(model, str | PathLike) else f"a {type(model).__name__}"
        raise ValueError(
            f"model: {what} was given, which has no {', '.join(missing) or '__call__'}. Wanted is a "
            f"TransformerLens-style model: {advice}."
        )


def require_causal(model: HookedModel, why: str) -> None:
    """ValueError for a model in which a position can look at later ones; `why`: what that would spoil."""
    if not is_causal(model):
        raise ValueError(
            f"model: it is not causal (attention_dir {model.cfg.attention_dir!r}): {why}. Wanted is a causal model."
        )


def token_ids(given: TokensLike | Any, name: str = "tokens") -> Int[Tensor, "batch pos"]:
    """`given` as token ids `batch pos` (int64): a tensor, an array, or a list of rows of one length.

    ValueError that names the field for anything else: floats, a mask, one row without a batch, nothing at all.
    """
    wanted = "Wanted are token ids of shape (batch, position), such as torch.tensor([[1, 5, 2], [1, 4, 2]])"
    return _whole_numbers(given, name, 2, wanted)


def numbers_by_row(given: Any, name: str) -> Int[Tensor, " batch"]:
    """`given` as one whole number a row (int64): positions, answers. ValueError that names the field otherwise."""
    return _whole_numbers(given, name, 1, "Wanted is one whole number for each example, of shape (batch,)")


def _whole_numbers(given: Any, name: str, ndim: int, wanted: str) -> Tensor:
    if not isinstance(given, Tensor):
        try:
            given = torch.as_tensor(np.asarray(given))
        except (TypeError, ValueError, RuntimeError):
            what = f"{given[:40]!r}" if isinstance(given, str) else f"a {type(given).__name__}"
            raise ValueError(
                f"{name}: {what} was given, of which no tensor can be made (rows of unequal length, or text?). "
                f"{wanted}; pad rows to one length on the right, and make token ids of text with model.to_tokens."
            ) from None
    if given.ndim != ndim or not given.numel():
        hint = f"; a single example is {name}[None]" if ndim - given.ndim == 1 else ""
        raise ValueError(f"{name}: shape {tuple(given.shape)} was given{_empty(given)}. {wanted}{hint}.")
    if given.dtype == torch.bool or given.is_floating_point() or given.is_complex():
        raise ValueError(f"{name}: {str(given.dtype).removeprefix('torch.')} was given. {wanted}, as int64.")
    whole: Tensor = given.long()
    return whole


def _empty(given: Tensor) -> str:
    return "" if given.numel() else ", which is empty"


def require_tokens(model: HookedModel, given: TokensLike | Any, name: str = "tokens") -> Int[Tensor, "batch pos"]:
    """`token_ids` that an instrument can read with this model.

    ValueError for ids outside its vocabulary, for more than its context, and for dots where they are continuous
    thoughts: an activation is then computed once for each of them, and what is read or written would be one of many.
    """
    tokens = token_ids(given, name)
    if has_thoughts(model) and bool((tokens[:, 1:] == THOUGHT).any()):
        raise ValueError(
            f"{name}: they hold dots, which this model reads as continuous thoughts (ModelSpec.thoughts), its last "
            "states fed back. Instruments do not follow these. Accuracy, decoding and sampling do; for what is inside, "
            "give tokens without dots, such as the prompt alone, or a model with thoughts = False."
        )
    n_vocab, n_ctx = (int(getattr(model.cfg, size, None) or 0) for size in ("d_vocab", "n_ctx"))
    low, high = (int(end) for end in torch.aminmax(tokens))
    if low < 0 or 0 < n_vocab <= high:
        raise ValueError(
            f"{name}: ids from {low} to {high} were given; the vocabulary of this model has {n_vocab}, 0 to "
            f"{n_vocab - 1}. Are they those of another tokenizer, or padded with a negative number?"
        )
    if getattr(model.cfg, "positional_embedding_type", None) in ("standard", "alibi") and tokens.shape[1] > n_ctx > 0:
        raise ValueError(f"{name}: {tokens.shape[1]} positions were given; this model has n_ctx = {n_ctx}.")
    return tokens


def require_finite(model: HookedModel, values: Tensor, what: str) -> None:
    """ValueError where `values` (logits, an activation) hold NaN or infinity: with the weights that do, if any.

    Minus infinity is let through: some models give it as the logit of entries of the vocabulary that do not exist.
    """
    if bool((values < torch.inf).all()):
        return
    require_finite_weights(model)
    dtype = str(values.dtype).removeprefix("torch.")
    raise ValueError(
        f"{what} hold NaN or infinity although every weight is finite: a value that was written does, or the numbers "
        f"outgrow {dtype}. Run the model in float32, model.float()."
    )


def require_finite_weights(model: HookedModel) -> None:
    """ValueError that names a weight that holds NaN or infinity."""
    named = model.named_parameters() if isinstance(model, torch.nn.Module) else ()
    broken = [name.replace("_original_component.", "") for name, weight in named if not bool(weight.isfinite().all())]
    if broken:
        more = f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""
        raise ValueError(
            f"model: its weight {broken[0]}{more} holds NaN or infinity. Wanted are finite weights: load it anew."
        )


TOLERANCE = 1e-4
"""How far numbers may be apart that would be equal if nothing were rounded, in units of the largest of them: in single
and double precision. A thousand times the rounding of float32, and far below what any mistake of wiring makes."""
HALF_PRECISION = {torch.float16: 4e-3, torch.bfloat16: 3e-2}
"""The same where a model computes in half precision: four times the distance of two neighboring numbers at 1. Measured
(docs/log.md): up to one such distance in the law of a site, one and a half in a logit."""


def precision(model: HookedModel) -> torch.dtype:
    """The type of number that a model computes in: that of its unembedding, or else of its first floating weight."""
    found = getattr(model, "W_U", None)
    if isinstance(found, Tensor):
        return found.dtype
    weights = model.parameters() if isinstance(model, torch.nn.Module) else ()
    return next((each.dtype for each in weights if each.is_floating_point()), torch.float32)


def tolerance_of(model: HookedModel) -> float:
    """How far apart equal numbers may be in this model's precision, in units of the largest: `TOLERANCE` and above."""
    return HALF_PRECISION.get(precision(model), TOLERANCE)


Item = TypeVar("Item")


def several(given: Iterable[Item], name: str, example: str) -> tuple[Item, ...]:
    """`given` as a tuple. ValueError that names the field for text, whose letters would be taken, and for one thing."""
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise ValueError(f"{name}: {given!r} alone was given. Wanted is a sequence, such as {example}.")
    return tuple(given)


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
