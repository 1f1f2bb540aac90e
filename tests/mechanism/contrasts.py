"""Contrasts that a random model tells apart: the answer is what the change raises most, the foil what it lowers."""

import torch

from cotinterp.mechanism.contrast import Contrast


def told_apart(model, clean, corrupted, at):
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
