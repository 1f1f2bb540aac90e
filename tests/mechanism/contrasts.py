"""Contrasts that a random model tells apart: the answer is what the change raises most, the foil what it lowers."""

from dataclasses import replace

import torch

from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.patching.runs import PatchingControls

ANY_GAP, BY_HOOKS, UNRELATED = (
    PatchingControls(require_gap=False),
    PatchingControls(by_hooks=True),
    PatchingControls(unrelated_donor=True),
)


def contrast_with_gap(model, clean, corrupted, at):
    """One place per position; every pair has a positive gap."""
    rows = torch.arange(len(clean))
    with torch.no_grad():
        raised = model(clean)[rows, at] - model(corrupted)[rows, at]
    return Contrast.by_position(clean, corrupted, at, raised.argmax(-1), raised.argmin(-1))


def replaced(tokens, positions, *, d_vocab):
    """Other tokens at these positions."""
    changed = tokens.clone()
    changed[:, positions] = (tokens[:, positions] + 1) % d_vocab
    return changed


def asked(clean, at, answer, foil, templates=None, batch=None):
    """The question to the clean side alone: which of two tokens follows `at`. Nothing is corrupted."""
    contrast = Contrast.by_position(clean, clean, at, answer, foil)
    return replace(contrast, templates=templates, batch=batch)


def shown(tokens, batch=None):
    """A contrast for instruments that read no logits: tokens, with roles where a batch gives them."""
    n = len(tokens)
    first = torch.zeros(n, dtype=torch.long)
    return asked(tokens, first, first, first + 1, batch=batch)
