"""Coordinates are functions of the state that the group itself respects, and only those that a task has."""

from math import gcd

import numpy as np
import pytest

from cotinterp.mechanism.probing.coordinates import Coordinate, coordinates, halves
from cotinterp.tasks import get_task
from cotinterp.tasks.groups import Group, is_even


def test_which_tasks_have_which() -> None:
    def names(task: str, **options: int) -> list[str]:
        return list(coordinates(get_task(task), **options))

    assert names("z6") == ["value", "parity", "fourier 1", "fourier 2"]
    assert names("s3") == ["value", "sign"]
    assert names("s5") == ["value", "sign"]
    assert names("a5") == names("a4xz5") == names("parity") == ["value"]
    assert names("digit-sum") == ["value", "parity", "units", "tens"]
    assert names("affine-mod10") == ["value", "parity"]
    assert names("affine-mod10", order=10)[2:] == ["fourier 1", "fourier 2", "fourier 3", "fourier 4"]
    assert len(names("z60")) == 2 + 29
    with pytest.raises(ValueError, match="10 states, which are not the residues modulo 12"):
        names("affine-mod10", order=12)


def test_by_hand() -> None:
    decimal = coordinates(get_task("digit-sum"))
    assert [decimal[name].of(np.array([7, 10, 38])).tolist() for name in ("parity", "units", "tens")] == [
        [1, 0, 0],
        [7, 0, 8],
        [0, 1, 3],
    ]
    permutations = get_task("s3").elements
    assert coordinates(get_task("s3"))["sign"].table.tolist() == [int(not is_even(p)) for p in permutations]
    assert coordinates(get_task("z60"))["parity"].table.tolist() == [state % 2 for state in range(60)]
    assert Coordinate("value", np.arange(3)).named("s_2") == "s_2"
    assert decimal["units"].named("s_2") == "units of s_2"


@pytest.mark.parametrize("name", ["z6", "s3", "s5", "z60"])
def test_halves_are_homomorphisms(name: str) -> None:
    task = get_task(name)
    assert isinstance(task, Group)
    (half,) = halves(task.table)
    assert half.sum() == len(half) / 2
    assert (half[task.table] == half[:, None] ^ half).all()


def test_four_group_has_three_halves() -> None:
    table = np.arange(4)[:, None] ^ np.arange(4)
    assert sorted(half.tolist() for half in halves(table)) == [[0, 0, 1, 1], [0, 1, 0, 1], [0, 1, 1, 0]]


@pytest.mark.parametrize("name", ["z6", "z60"])
def test_fourier_is_the_angle_of_the_state(name: str) -> None:
    task = get_task(name)
    n = task.n_states
    for coordinate in coordinates(task).values():
        if coordinate.circle is None:
            continue
        frequency = int(coordinate.name.split()[1])
        states = np.arange(n)
        assert len(coordinate.circle) == n // gcd(frequency, n)
        angle = 2 * np.pi * frequency * states / n
        np.testing.assert_allclose(
            coordinate.circle[coordinate.of(states)], np.c_[np.cos(angle), np.sin(angle)], atol=1e-9
        )
        assert len(np.unique(coordinate.circle.round(9), axis=0)) == len(coordinate.circle)
