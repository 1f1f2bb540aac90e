"""Labels as partitions of the rows: renamed labels are one fit, and every class gets its own column back."""

import torch

from cotinterp.mechanism.probing.solver import Partitions


def test_by_hand() -> None:
    # The second set renames the classes of the first (2 -> 1, 0 -> 3); the third joins two of them.
    labels = torch.tensor([[2, 0, 2, 0, 1], [1, 3, 1, 3, 0], [2, 0, 2, 0, 0]])
    found = Partitions.of(labels, 4)
    assert found.codes.tolist() == [[0, 1, 0, 1, 2], [0, 1, 0, 1, 1]]
    assert found.same.tolist() == [0, 0, 1]
    assert found.sizes.tolist() == [3, 2]
    assert found.n_classes == 3
    # Two places, the first with rows 0 to 2: of class 0 two and none, of class 1 one and one, of class 2 one later.
    counts = found.counts(torch.tensor([0, 0, 0, 1, 1]), 2, 3)
    assert counts.tolist() == [[[2, 0], [1, 1], [0, 1]], [[2, 0], [1, 2], [0, 0]]]


def test_columns_return_to_their_classes() -> None:
    labels = torch.tensor([[2, 0, 2, 0, 1], [1, 3, 1, 3, 0]])
    found = Partitions.of(labels, 4)
    weight, bias = found.expanded(torch.tensor([[[10.0, 20.0, 30.0]]]), torch.tensor([[1.0, 2.0, 3.0]]))
    assert weight.tolist() == [[[20.0, 30.0, 10.0, 0.0]], [[30.0, 10.0, 0.0, 20.0]]]
    assert bias.tolist() == [[2.0, 3.0, 1.0, -torch.inf], [3.0, 1.0, -torch.inf, 2.0]]


def test_random_labels_agree_row_by_row() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 5, (6, 40), generator=generator)
    labels[4] = torch.randperm(5, generator=generator)[labels[1]]
    found = Partitions.of(labels, 7)
    assert found.same.tolist() == [0, 1, 2, 3, 1, 4]
    for row, own, column in zip(labels, found.same, found.column, strict=True):
        assert (column[row] == found.codes[own]).all()
