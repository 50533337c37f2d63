from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from guerdon.objectives.subspace import keep_norm_loss, orthogonality_loss


def split(out: int, inp: int, rank: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    weight = torch.randn(out, inp, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    u, _, v = torch.linalg.svd(weight, full_matrices=False)
    return u[:, :-rank], u[:, -rank:], v[:-rank], v[-rank:]


@pytest.mark.parametrize("kind", ["omniaid", "effort"])
@pytest.mark.parametrize(("out", "inp"), [(6, 6), (8, 5), (5, 8)])
def test_singular_vectors_start_without_loss(kind: str, out: int, inp: int) -> None:
    u_main, u_res, v_main, v_res = split(out, inp, rank=2)
    u_res.requires_grad_()
    loss = orthogonality_loss(u_main, u_res, v_main, v_res, kind)  # type: ignore[arg-type]
    assert loss.item() == pytest.approx(0.0, abs=1e-12)
    assert torch.isfinite(torch.autograd.grad(loss, u_res)[0]).all()


@pytest.mark.parametrize("kind", ["omniaid", "effort"])
def test_gradient_is_finite_at_exact_orthogonality(kind: str) -> None:
    eye = torch.eye(3)
    u_res = eye[:, 2:].clone().requires_grad_()
    loss = orthogonality_loss(eye[:, :2], u_res, eye[:2], eye[2:], kind)  # type: ignore[arg-type]
    assert loss.item() == 0.0
    assert torch.isfinite(torch.autograd.grad(loss, u_res)[0]).all()


def test_omniaid_by_hand() -> None:
    # The residual lies at 60 degrees to the main direction on the left and along it on the right.
    u_main, v_main = torch.tensor([[2.0], [0.0]]), torch.tensor([[0.0, 5.0]])
    u_res, v_res = torch.tensor([[0.5], [math.sqrt(0.75)]]), torch.tensor([[0.0, -3.0]])
    assert orthogonality_loss(u_main, u_res, v_main, v_res).item() == pytest.approx(0.5 + 1.0)


def test_omniaid_norm_is_not_squared() -> None:
    # Two equal overlaps of 0.5 on each side: a Frobenius norm of sqrt(0.5), not 0.5.
    u_main = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
    u_res = torch.tensor([[0.5], [0.5], [0.5], [0.5]])
    loss = orthogonality_loss(u_main, u_res, u_main.T, u_res.T)
    assert loss.item() == pytest.approx(2 * math.sqrt(0.5))


def test_omniaid_ignores_length_and_effort_does_not() -> None:
    u_main, u_res, v_main, v_res = split(6, 6, rank=2, seed=1)
    u_tilted = u_res + 0.3 * u_main[:, :2]
    for factor in (0.1, 7.0):
        torch.testing.assert_close(
            orthogonality_loss(u_main, factor * u_tilted, v_main, v_res),
            orthogonality_loss(u_main, u_tilted, v_main, v_res),
        )
    assert orthogonality_loss(u_main, 2 * u_res, v_main, v_res).item() == pytest.approx(0.0, abs=1e-12)
    # Two directions of length 2: U^T U - I holds 3 twice.
    effort = orthogonality_loss(u_main, 2 * u_res, v_main, v_res, "effort")
    assert effort.item() == pytest.approx(0.5 * math.sqrt(18))


def test_effort_by_hand() -> None:
    eye = torch.eye(2)
    loss = orthogonality_loss(eye[:, :1], 2 * eye[:, 1:], eye[:1], eye[1:], "effort")
    assert loss.item() == pytest.approx(1.5)


def test_effort_equals_the_published_form_on_square_weights() -> None:
    u_main, u_res, v_main, v_res = split(7, 7, rank=1, seed=2)
    noise = torch.randn(7, 1, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    u_res, v_res = u_res + 0.1 * noise, v_res - 0.2 * noise.T
    u, v, eye = torch.cat([u_main, u_res], 1), torch.cat([v_main, v_res], 0), torch.eye(7, dtype=torch.float64)
    published = 0.5 * torch.linalg.matrix_norm(u @ u.T - eye) + 0.5 * torch.linalg.matrix_norm(v @ v.T - eye)
    torch.testing.assert_close(orthogonality_loss(u_main, u_res, v_main, v_res, "effort"), published)


@pytest.mark.parametrize("kind", ["omniaid", "effort"])
def test_descent_restores_orthogonality(kind: str) -> None:
    u_main, u_res, v_main, v_res = split(6, 6, rank=1, seed=4)
    u = (u_res + 0.5 * u_main[:, :1]).requires_grad_()
    first = orthogonality_loss(u_main, u, v_main, v_res, kind)  # type: ignore[arg-type]
    with torch.no_grad():
        u -= 0.05 * torch.autograd.grad(first, u)[0]
    assert orthogonality_loss(u_main, u, v_main, v_res, kind) < first  # type: ignore[arg-type]


def test_keep_norm() -> None:
    weight = torch.tensor([[3.0, 4.0]], requires_grad=True)
    assert keep_norm_loss(weight, 20.0).item() == 5.0
    assert keep_norm_loss(weight, torch.tensor(31.0)).item() == 6.0
    assert keep_norm_loss(weight, torch.tensor([[0.0, 5.0]])).item() == 0.0
    assert torch.autograd.grad(keep_norm_loss(weight, 20.0), weight)[0].tolist() == [[6.0, 8.0]]
    assert torch.autograd.grad(keep_norm_loss(weight, 31.0), weight)[0].tolist() == [[-6.0, -8.0]]


def test_half_precision_is_computed_in_float32() -> None:
    half = [part.bfloat16() for part in split(6, 6, rank=2)]
    assert orthogonality_loss(*half).dtype == torch.float32
    assert keep_norm_loss(torch.ones(2, 2, dtype=torch.bfloat16), 4.0).dtype == torch.float32


def test_errors() -> None:
    u_main, u_res, v_main, v_res = split(6, 5, rank=2)
    with pytest.raises(ValueError, match=r"expected u \[out, r\]"):
        orthogonality_loss(u_main.T, u_res, v_main, v_res)
    with pytest.raises(ValueError, match=r"expected u \[out, r\]"):
        orthogonality_loss(u_main, u_res[:, :1], v_main, v_res)
    with pytest.raises(ValueError, match="'omniaid' or 'effort'"):
        orthogonality_loss(u_main, u_res, v_main, v_res, "lora")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="initial must be a number or have the weight's shape"):
        keep_norm_loss(torch.ones(2, 3), torch.ones(3, 2))
