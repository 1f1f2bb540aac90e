"""What a blueprint says of its model."""

import pytest
import torch

from cotinterp.models.handmade.blueprint import ALWAYS, Blueprint, Head, Layer, Neuron, unit
from cotinterp.transcripts.vocabulary import Vocabulary

HEAD = Head("copy", (({ALWAYS: 1.0}, unit("token", "b")),), ((unit("position", 1), unit("seen", "b")),))
NEURON = Neuron(unit("seen", "b"), {("logit", "a"): 1.0, ("left over", 1): 2.0})


@pytest.fixture
def blueprint():
    scratch = {"seen": ("a", "b"), "left over": (1,)}
    return Blueprint(Vocabulary(("a", "b", "c")), 2, scratch, (Layer((), ()), Layer((HEAD,), (NEURON,))))


def test_subspaces_divide_the_residual_stream(blueprint):
    names = ("token", "position", "seen", "left over", "logit")
    assert [len(blueprint.basis(name)) for name in names] == [3, 2, 2, 1, 3]
    assert torch.equal(torch.cat([blueprint.basis(name) for name in names]), torch.eye(11))
    assert blueprint.index["seen", "b"] == 6


def test_heads_are_named(blueprint):
    assert blueprint.heads == {"copy": (1, 0)}


def test_what_nobody_reads_is_known(blueprint):
    assert blueprint.unread == ("left over",)


def test_an_unknown_subspace_names_those_there(blueprint):
    with pytest.raises(KeyError, match="no residual subspace 'sene'; this model has token, position, seen, left over"):
        blueprint.basis("sene")
