"""The compact form of L-BFGS against the two loops that define it."""

import torch

from cotinterp.mechanism.probing.lbfgs import MEMORY, Curvature, History

SHAPE = (2, 3, 4, 5)


def diagonal(seed: int) -> Curvature:
    """An initial inverse Hessian that is diagonal, other than 1."""
    inverse = 0.5 + torch.rand(SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    zeros = torch.zeros(*SHAPE[:3], SHAPE[2], dtype=torch.float64)
    rest = torch.stack([torch.zeros_like(inverse), inverse])
    share = torch.zeros(*SHAPE[:3], 1, dtype=torch.float64)
    return Curvature(zeros, share, rest, torch.zeros(2, *SHAPE[:3], 0, 0, dtype=torch.float64))


def pairs(n: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Steps, and changes of the gradient of a quadratic function over them."""
    generator = torch.Generator().manual_seed(1)
    root = torch.randn(*SHAPE[:2], 20, 20, generator=generator, dtype=torch.float64)
    matrix = root @ root.mT + torch.eye(20)
    steps = [torch.randn(SHAPE, generator=generator, dtype=torch.float64) for _ in range(n)]
    return [(step, (matrix @ step.flatten(2)[..., None])[..., 0].view(SHAPE)) for step in steps]


def two_loops(
    pairs: list[tuple[torch.Tensor, torch.Tensor]], curvature: Curvature, gradient: torch.Tensor
) -> torch.Tensor:
    """Nocedal & Wright (2006), algorithm 7.4."""

    def dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a * b).sum((2, 3), keepdim=True)

    vector, coefficients = gradient, []
    for step, change in reversed(pairs):
        coefficients.append(dot(step, vector) / dot(step, change))
        vector = vector - coefficients[-1] * change
    step, change = pairs[-1]
    vector = curvature.times(vector) * dot(step, change) / dot(change, curvature.times(change))
    for (step, change), coefficient in zip(pairs, reversed(coefficients), strict=True):
        vector = vector + step * (coefficient - dot(change, vector) / dot(step, change))
    return -vector


def test_direction_is_that_of_the_two_loops_also_once_steps_are_forgotten() -> None:
    curvature, gradient = diagonal(0), torch.randn(SHAPE, generator=torch.Generator().manual_seed(2)).double()
    history, known = History(gradient), pairs(MEMORY + 4)
    torch.testing.assert_close(history.direction(gradient, curvature.times(gradient)), -curvature.times(gradient))
    for number, (step, change) in enumerate(known, start=1):
        history.add(step, change, curvature.times(change))
        found = history.direction(gradient, curvature.times(gradient))
        torch.testing.assert_close(found, two_loops(known[max(0, number - MEMORY) : number], curvature, gradient))


def test_another_initial_inverse_hessian_and_fewer_label_sets() -> None:
    gradient = torch.randn(SHAPE, generator=torch.Generator().manual_seed(2)).double()
    old, new, known, history = diagonal(0), diagonal(5), pairs(3), History(gradient)
    for step, change in known:
        history.add(step, change, old.times(change))
    history.refresh(new)
    wanted = two_loops(known, new, gradient)
    torch.testing.assert_close(history.direction(gradient, new.times(gradient)), wanted)
    at = torch.tensor([[1]]), torch.tensor([[2, 0]])
    history.select(at)
    torch.testing.assert_close(history.direction(gradient[at], new.times(gradient)[at]), wanted[at])


def test_a_step_without_curvature_is_left_out() -> None:
    gradient = torch.randn(SHAPE, generator=torch.Generator().manual_seed(2)).double()
    curvature, known, history = diagonal(0), pairs(3), History(gradient)
    step, change = known[1]
    for number, (moved, turned) in enumerate(known):
        history.add(moved, -turned if number == 1 else turned, curvature.times(-turned if number == 1 else turned))
    found = history.direction(gradient, curvature.times(gradient))
    torch.testing.assert_close(found, two_loops([known[0], known[2]], curvature, gradient))
    assert not torch.allclose(found, two_loops([known[0], (step, change), known[2]], curvature, gradient))
