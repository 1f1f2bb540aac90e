"""The approximate inverse Hessian: exact where that can be, positive and without a say where nothing can differ."""

import torch

from cotinterp.mechanism.probing.lbfgs import Curvature

N, AXES, CLASSES = 200, 30, 5
PENALTY = torch.cat([torch.full((AXES,), 0.01, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)])


def rows() -> torch.Tensor:
    """Principal axes of steeply falling variance, and the bias."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(N, AXES + 1, generator=generator, dtype=torch.float64))[0]
    basis = torch.linalg.qr(torch.cat([torch.ones(N, 1), basis[:, 1:]], dim=1).double())[0][:, 1:]
    scaled = basis * N**0.5 * torch.logspace(-2, 0, AXES, dtype=torch.float64)
    return torch.cat([scaled, torch.ones(N, 1, dtype=torch.float64)], dim=1).T[None]


def hessian(rows_t: torch.Tensor, probability: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
    """Of the mean cross-entropy and the penalty, times a vector."""
    along = vector @ rows_t[0]
    turned = probability * (along - (probability * along).sum(0))
    return turned @ rows_t[0].T / N + PENALTY * vector


def zero_sum(seed: int, classes: int = CLASSES) -> torch.Tensor:
    drawn = torch.randn(classes, AXES + 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return drawn - drawn.mean(0)


def test_exact_at_the_start() -> None:
    rows_t, mass = rows(), torch.full((1, 1, 1, N), 1 / N, dtype=torch.float64)
    present = torch.ones(1, 1, CLASSES, dtype=torch.bool)
    found = Curvature.at_start(rows_t, mass, PENALTY, present)
    uniform = torch.full((CLASSES, N), 1 / CLASSES, dtype=torch.float64)
    vector = zero_sum(1)
    back = hessian(rows_t, uniform, found.times(vector[None, None])[0, 0])
    torch.testing.assert_close(back, vector, atol=1e-3, rtol=1e-3)


def at_random() -> tuple[torch.Tensor, torch.Tensor, Curvature]:
    rows_t, mass = rows(), torch.full((1, 1, 1, N), 1 / N, dtype=torch.float64)
    probability = (2 * zero_sum(2) @ rows_t[0]).softmax(0)
    # A sixth class is absent: no row has it.
    probability = torch.cat([probability, torch.zeros(1, N)])
    present = torch.tensor([True] * CLASSES + [False])[None, None]
    return rows_t, probability, Curvature.of(rows_t, probability[None, None], mass, PENALTY, present)


def test_steps_add_up_to_zero_over_classes_and_leave_absent_ones_alone() -> None:
    _, _, found = at_random()
    step = found.times(torch.cat([zero_sum(3), torch.zeros(1, AXES + 1)])[None, None])[0, 0]
    assert step.sum(0).abs().max() < 1e-9
    assert step[-1].abs().max() == 0


def test_symmetric_positive_and_much_nearer_to_the_hessian_than_none() -> None:
    rows_t, probability, found = at_random()
    basis = [torch.cat([zero_sum(seed), torch.zeros(1, AXES + 1)]) for seed in range(200)]
    seen = [found.times(one[None, None])[0, 0] for one in basis]
    assert abs(float((seen[0] * basis[1]).sum() - (seen[1] * basis[0]).sum())) < 1e-9
    assert all(float((one * other).sum()) > 0 for one, other in zip(basis, seen, strict=True))
    # Eigenvalues of the Hessian before and after, on an orthonormal basis of all vectors that add up to zero.
    space = torch.linalg.qr(torch.stack([one.flatten() for one in basis], dim=1))[0].T[: (CLASSES - 1) * (AXES + 1)]
    shaped = [one.view(CLASSES + 1, AXES + 1) for one in space]
    curved = torch.stack([space @ hessian(rows_t, probability, one).flatten() for one in shaped])
    inverse = torch.stack([space @ found.times(one[None, None]).flatten() for one in shaped])
    plain, turned = torch.linalg.eigvals(curved).real, torch.linalg.eigvals(inverse @ curved).real
    assert plain.min() > 0
    assert turned.min() > 0
    assert turned.max() / turned.min() < 0.3 * plain.max() / plain.min()
