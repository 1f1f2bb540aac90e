"""A block of fits: what is done is taken down once and no longer disturbs, or is disturbed by, what goes on."""

import torch

from cotinterp.mechanism.probing.lbfgs import MEMORY, Curvature, History, RunningFits
from cotinterp.mechanism.probing.solver import Design


def block() -> tuple[list[torch.Tensor], torch.Tensor, list[torch.Tensor]]:
    """Three designs of different width; the second has labels that its features decide, the others' are random."""
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randn(80, d, generator=generator, dtype=torch.float64) for d in (3, 5, 5)]
    labels = torch.randint(0, 3, (3, 4, 80), generator=generator)
    labels[1] = rows[1][:, :3].argmax(1)
    counts = [torch.nn.functional.one_hot(own, 3).transpose(1, 2) for own in labels]
    return [Design.of(part, torch.float64).rows for part in rows], labels, counts


def test_fits_leave_as_they_converge_and_the_block_shrinks() -> None:
    rows, labels, counts = block()
    fits, sizes = RunningFits(rows, counts, 0.1), []
    while fits.record(1e-8):
        sizes.append(fits.weight.shape[0] * fits.weight.shape[1])
        fits.step()
    assert sizes[0] == 12
    assert sizes[-1] < 12
    assert sizes == sorted(sizes, reverse=True)
    assert len(sizes) == fits.n_steps == int(fits.steps.max())
    assert 0 < int(fits.steps.min()) < fits.n_steps
    # Gradients of the objective at every solution, by autograd on the designs themselves.
    for number, part in enumerate(rows):
        weight, bias = (x.clone().requires_grad_() for x in fits.solution(number, part.shape[1]))
        for one in range(4):
            loss = torch.nn.functional.cross_entropy(part @ weight[one] + bias[one], labels[number, one])
            (loss + 0.1 / 80 / 2 * weight[one].square().sum()).backward()
        norms = torch.stack([weight.grad.flatten(1).norm(dim=1), bias.grad.norm(dim=1)]).norm(dim=0)
        assert (norms <= 1.01e-8).all()
        torch.testing.assert_close(norms, fits.norms[number], atol=1e-11, rtol=0)


def test_axes_that_a_design_lacks_stay_without_weight() -> None:
    rows, _, counts = block()
    fits = RunningFits(rows, counts, 0.1)
    for _ in range(10):
        fits.step()
    assert fits.weight[0, ..., :2].abs().max() == 0
    assert fits.weight[0, ..., 2:].abs().min() > 0


def test_memory_estimate_grows_with_what_it_counts() -> None:
    sizes = {"sets": 3, "n": 100, "axes": 20, "n_classes": 6}
    base = RunningFits.n_bytes(**sizes, itemsize=4)
    assert RunningFits.n_bytes(**sizes, itemsize=8) == 2 * base
    for name in sizes:
        assert RunningFits.n_bytes(**{**sizes, name: 2 * sizes[name]}, itemsize=4) > 1.2 * base


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
