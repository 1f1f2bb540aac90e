"""A block of fits: what is done is taken down once and no longer disturbs, or is disturbed by, what goes on."""

import torch

from cotinterp.mechanism.probing.lbfgs import RunningFits
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
