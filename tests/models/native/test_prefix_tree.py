"""Every distinct prefix is read once, and what is read of it is what each of its sequences says."""

import numpy as np
import pytest
import torch

from cotinterp.models.native.cache import extend
from cotinterp.models.native.parts import forward, native_parts
from cotinterp.models.native.prefix_tree import prefix_trees, read_tree

CLOSE = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture
def sequences():
    """Sequences over three symbols, which often begin alike; some are equal, some a part of others."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(3, size=(40, 11))
    tokens[5], tokens[6, :4], tokens[7, :9] = tokens[4], tokens[4, :4], tokens[4, :9]
    length = rng.integers(1, 12, size=40)
    length[4:8] = 11, 11, 4, 10
    return tokens, length, np.minimum(rng.integers(0, 11, size=40), length - 1)


@pytest.mark.parametrize(("max_rows", "max_nodes"), [(40, 1000), (7, 1000), (40, 25), (1, 1)])
@torch.no_grad()
def test_trees_say_what_whole_sequences_say(native, sequences, max_rows, max_nodes):
    tokens, length, first_read = sequences
    parts = native_parts(native)
    whole, states = forward(parts, torch.from_numpy(tokens))
    seen = []
    for tree in prefix_trees(tokens, length, first_read, max_rows=max_rows, max_nodes=max_nodes):
        assert len(tree.rows) <= max_rows
        assert len(tree.rows) == 1 or len(tree.tokens) <= max_nodes
        reading = read_tree(parts, tree)
        places = reading.at_rows(torch.arange(len(reading.logits)))
        for place, row in enumerate(tree.rows.tolist()):
            read = slice(first_read[row], length[row])
            torch.testing.assert_close(reading.logits[places[place, read]], whole[row, read], **CLOSE)
            nodes = tree.node[place, : length[row]]
            for kv, state in zip(reading.kv, states, strict=True):
                torch.testing.assert_close(kv[nodes, 0], state.k[row, : length[row]], **CLOSE)
                torch.testing.assert_close(kv[nodes, 1], state.v[row, : length[row]], **CLOSE)
        last = torch.from_numpy(length[tree.rows] - 1)
        torch.testing.assert_close(reading.logits_at(last), whole[torch.from_numpy(tree.rows), last], **CLOSE)
        seen += tree.rows.tolist()
    assert sorted(seen) == list(range(40))


def test_a_node_for_each_distinct_prefix_and_logits_where_asked(sequences):
    tokens, length, first_read = sequences
    (tree,) = prefix_trees(tokens, length, first_read, max_rows=40, max_nodes=10_000)
    distinct = {tuple(row[: n + 1]) for row, end in zip(tokens.tolist(), length, strict=True) for n in range(end)}
    asked = {
        tuple(row[: n + 1])
        for row, start, end in zip(tokens.tolist(), first_read, length, strict=True)
        for n in range(start, end)
    }
    assert len(tree.tokens) == len(distinct) < length.sum()
    assert len(asked) <= len(tree.read) < len(distinct)
    assert sum(int(group.own.sum()) for group in tree.groups) == len(distinct)


def test_a_tree_by_hand():
    tokens = np.array([[5, 6, 8], [5, 6, 7], [5, 6, 7]])
    (tree,) = prefix_trees(tokens, np.array([3, 3, 2]), np.array([2, 2, 1]), max_rows=9, max_nodes=9)
    assert tree.rows.tolist() == [2, 1, 0]
    assert (tree.tokens.tolist(), tree.position.tolist()) == ([5, 6, 7, 8], [0, 1, 2, 2])
    assert tree.node.tolist() == [[0, 1, 0], [0, 1, 2], [0, 1, 3]]
    assert tree.read.tolist() == [1, 2, 3]


@torch.no_grad()
def test_a_cache_of_some_rows_goes_on_where_they_were_cut(native, sequences):
    tokens, length, first_read = sequences
    parts = native_parts(native)
    (tree,) = prefix_trees(tokens, length, first_read, max_rows=40, max_nodes=10_000)
    chosen = torch.tensor([30, 2, 2])
    kept = torch.from_numpy(np.maximum(length[tree.rows[chosen]] // 2, 1))
    cache = read_tree(parts, tree).cache(parts, chosen, kept, 12)
    new = torch.tensor([[1], [2], [0]])
    resid, _ = extend(parts, cache, new)
    for row, of_tree in enumerate(chosen.tolist()):
        prefix = torch.from_numpy(tokens[tree.rows[of_tree], : int(kept[row])])
        whole, _ = forward(parts, torch.cat([prefix, new[row]])[None])
        torch.testing.assert_close(parts.logits(resid)[row], whole[0, -1:], **CLOSE)
