"""GaLore: what it is at full rank, and that its steps stay in the subspace of the gradient."""

from __future__ import annotations

import torch

from eckart.optim.galore import GaLore


def stepped(weight: torch.Tensor, grads: list[torch.Tensor], **options: object) -> list[torch.Tensor]:
    """Where W is after each step along the given gradients."""
    parameter = torch.nn.Parameter(weight.clone())
    optimizer = GaLore([parameter], **options)  # type: ignore[arg-type]
    places = []
    for grad in grads:
        parameter.grad = grad.clone()
        optimizer.step()
        places.append(parameter.detach().clone())
    return places


def test_at_full_rank_it_is_adam_in_the_basis_of_the_first_gradient() -> None:
    torch.manual_seed(0)
    weight = torch.randn(5, 9, dtype=torch.float64)
    grads = [torch.randn(5, 9, dtype=torch.float64) for _ in range(6)]
    basis = torch.linalg.svd(grads[0]).U
    rotated = torch.nn.Parameter(basis.T @ weight)
    adam = torch.optim.Adam([rotated], lr=0.01)
    for place, grad in zip(stepped(weight, grads, lr=0.01, rank=7, scale=1.0), grads, strict=True):
        rotated.grad = basis.T @ grad
        adam.step()
        torch.testing.assert_close(basis @ rotated.detach(), place, rtol=1e-9, atol=1e-12)


def test_a_step_has_the_rank_and_the_space_of_the_subspace() -> None:
    torch.manual_seed(1)
    for m, n in ((12, 7), (7, 12)):
        weight, grad = torch.randn(m, n), torch.randn(m, n)
        change = stepped(weight, [grad], rank=3, lr=0.1)[0] - weight
        u, _, vt = torch.linalg.svd(grad, full_matrices=False)
        inside = change @ vt[:3].T @ vt[:3] if m > n else u[:, :3] @ u[:, :3].T @ change
        torch.testing.assert_close(inside, change, rtol=1e-4, atol=1e-6)


def test_a_subspace_is_looked_for_again_and_a_bad_gradient_leaves_it() -> None:
    torch.manual_seed(2)
    parameter = torch.nn.Parameter(torch.randn(6, 6))
    optimizer = GaLore([parameter], rank=2, every=2)

    def basis(grad: torch.Tensor) -> torch.Tensor:
        parameter.grad = grad
        optimizer.step()
        return optimizer.state[parameter]["matrix0"]["basis"].clone()

    first, same = basis(torch.randn(6, 6)), basis(torch.randn(6, 6))
    torch.testing.assert_close(first, same, rtol=0, atol=0)
    second = basis(torch.randn(6, 6))
    assert not torch.allclose(first, second)
    basis(torch.randn(6, 6))
    torch.testing.assert_close(basis(torch.zeros(6, 6)), second, rtol=0, atol=0)
