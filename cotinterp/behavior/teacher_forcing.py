"""How probable a given text is to a model: one pass over the text, every symbol judged given those before it.

Nothing is drawn and nothing is searched for, so the numbers are exact up to the rounding of a pass. The text may be one
that the model would never write; its probability is then small, and what the model does after it says what it makes of
something that it was not trained on.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cotinterp.behavior.decoding import LanguageModel, reading
from cotinterp.behavior.guesses import not_nan
from cotinterp.behavior.native_decoding import trees_for
from cotinterp.models.native.parts import NativeParts, native_parts
from cotinterp.models.native.prefix_tree import read_tree


class ForcedLogits(NamedTuple):
    """What a model expects at each place of some texts, on the CPU, in double precision.

    Attributes:
        rows: Which texts these are.
        logits: Of the symbol at place `given[row] + i`; anything at all beyond the last symbol of a text.
    """

    rows: Int[Tensor, " rows"]
    logits: Float[Tensor, "rows new d_vocab"]


def forced_logits(
    model: LanguageModel,
    tokens: Int[Tensor, "batch pos"],
    given: Int[Tensor, " batch"],
    length: Int[Tensor, " batch"],
    *,
    batch_size: int = 256,
) -> Iterator[ForcedLogits]:
    """Logits of the symbols `given` to `length - 1` of each text, a block of texts at a time, in any order.

    A native model is read from its weights, and what texts begin with in common is read once.

    Args:
        tokens: The texts, on the CPU, padded on the right.
        given: Symbols that are not asked about, at least 1.
        length: Symbols of each text, more than `given`.

    Raises:
        ValueError: A text with nothing to ask about, or a model that gives NaN logits.
    """
    if len(given) and not bool(((given >= 1) & (given < length)).all()):
        raise ValueError("every text needs one given symbol or more, and one more to ask about")
    parts = native_parts(model)
    if parts is not None:
        yield from _read_once(parts, tokens, given, length, batch_size)
        return
    with reading(model) as read:
        for rows in length.argsort(stable=True).split(batch_size) if len(length) else ():
            logits = read(tokens[rows, : int(length[rows].max()) - 1]).cpu().double()
            places = _places(given[rows], length[rows]).clamp(max=logits.shape[1] - 1)
            yield ForcedLogits(rows, logits[torch.arange(len(rows))[:, None], places])


def continuation_log_prob(
    model: LanguageModel,
    tokens: Int[Tensor, "batch pos"],
    given: Int[Tensor, " batch"],
    length: Int[Tensor, " batch"],
    *,
    batch_size: int = 256,
) -> Float[Tensor, " batch"]:
    """Natural log of P(symbols `given` to `length - 1` | those before them); arguments and errors of `forced_logits`.

    At most 0. Whether the model would stop there is part of the question only where the text ends with the stop symbol.
    """
    found = torch.zeros(len(given), dtype=torch.float64)
    for rows, logits in forced_logits(model, tokens, given, length, batch_size=batch_size):
        places = given[rows, None] + torch.arange(logits.shape[1])
        symbols = tokens[rows].gather(1, places.clamp(max=tokens.shape[1] - 1))
        log_p = logits.log_softmax(-1).gather(2, symbols[..., None])[..., 0]
        found[rows] = torch.where(places < length[rows, None], log_p, 0.0).sum(1)
    return found


def _places(given: Int[Tensor, " rows"], length: Int[Tensor, " rows"]) -> Int[Tensor, "rows new"]:
    """The places that predict each asked symbol, the shorter rows going on beyond theirs."""
    return given[:, None] - 1 + torch.arange(int((length - given).max()))


def _read_once(
    parts: NativeParts,
    tokens: Int[Tensor, "batch pos"],
    given: Int[Tensor, " batch"],
    length: Int[Tensor, " batch"],
    batch_size: int,
) -> Iterator[ForcedLogits]:
    with torch.inference_mode():
        for tree in trees_for(parts, tokens, length - 1, given - 1, batch_size=batch_size):
            rows = torch.as_tensor(tree.rows)
            read = read_tree(parts, tree)
            number = read.at_rows(torch.arange(len(read.logits), device=read.logits.device)).cpu()
            places = _places(given[rows], length[rows]).clamp(max=number.shape[1] - 1)
            yield ForcedLogits(rows, not_nan(read.logits).cpu().double()[number.gather(1, places)])
