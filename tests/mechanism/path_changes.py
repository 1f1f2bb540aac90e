"""Pairs and measurements that the tests of path patching share."""

import torch

from cotinterp.mechanism.activations import activations
from cotinterp.mechanism.interventions import run_with
from cotinterp.mechanism.metrics import logit_diff
from cotinterp.mechanism.sites import Site
from tests.mechanism.contrasts import contrast_with_gap, replaced

CHANGED, AT = 3, 6
HERE, THERE = f"position {CHANGED}", f"position {AT}"
SENDER = Site("z", 0, 1)


def contrast_of(model, tokens, changed=(CHANGED,)):
    return contrast_with_gap(model, tokens, replaced(tokens, list(changed), d_vocab=13), torch.full((5,), AT))


def uniform(model):
    """Attention that looks everywhere evenly, whatever is written: the model is linear in its embeddings."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".q." in name:
                parameter.zero_()
    return model


def changes(result):
    """What each path changed in the logit difference, by path: one number for each example."""
    return dict(zip(result.paths, result.measured.changes["logit_diff"], strict=True))


def metric(model, contrast, tokens, edits):
    return logit_diff(run_with(model, tokens, edits).double(), contrast.at, contrast.answer, contrast.foil).numpy()


def z_difference(model, contrast, sender=SENDER):
    """Donor minus recipient of a head's z when denoising."""
    return (
        activations(model, contrast.clean, [sender])[sender] - activations(model, contrast.corrupted, [sender])[sender]
    )
