"""Regularisers for weights split by singular value decomposition into a frozen main part and trainable directions.

W = U S V, where U [out, k] holds left singular vectors as columns, V [k, in] right singular vectors as rows
(torch.linalg.svd's U and Vh).
Sources: Effort (arXiv 2411.15633) and OmniAID (arXiv 2511.08423), as used in RealGen's detectors.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from guerdon.objectives.shapes import at_least_float32


def orthogonality_loss(
    u_main: Tensor,
    u_residual: Tensor,
    v_main: Tensor,
    v_residual: Tensor,
    kind: Literal["omniaid", "effort"] = "omniaid",
) -> Tensor:
    """How far the residual directions are from orthogonal to the main ones.

    kind "omniaid": ||U_main^T U_res||_F + ||V_main V_res^T||_F after every singular vector is scaled to unit length
    (unsquared norms).
    kind "effort": 0.5 ||U^T U - I||_F + 0.5 ||V V^T - I||_F with U = [U_main | U_res] and V stacked likewise.

    Effort writes U U^T - I. For the square layers that it adapts both have the same norm; for a rectangular layer U U^T
    cannot reach the identity and the unsquared norm would weaken the gradient, so the side of the singular vectors is
    used here.

    Args:
        u_main [out, r], u_residual [out, k], v_main [r, in], v_residual [k, in].
    Returns:
        Scalar, 0 when orthonormal; its gradient is finite there too, which is where training starts.
    Raises:
        ValueError: shapes do not fit, unknown kind.
    """
    _check_split(u_main, u_residual, v_main, v_residual)
    u_main, u_residual = at_least_float32(u_main), at_least_float32(u_residual)
    v_main, v_residual = at_least_float32(v_main), at_least_float32(v_residual)
    if kind == "omniaid":
        left = F.normalize(u_main, dim=0).T @ F.normalize(u_residual, dim=0)
        right = F.normalize(v_main, dim=1) @ F.normalize(v_residual, dim=1).T
        return torch.linalg.vector_norm(left) + torch.linalg.vector_norm(right)
    if kind == "effort":
        u, v = torch.cat([u_main, u_residual], dim=1), torch.cat([v_main, v_residual], dim=0)
        identity = torch.eye(u.shape[1], dtype=u.dtype, device=u.device)
        return 0.5 * (torch.linalg.vector_norm(u.T @ u - identity) + torch.linalg.vector_norm(v @ v.T - identity))
    raise ValueError(f"kind must be 'omniaid' or 'effort', got {kind!r}")


def keep_norm_loss(weight: Tensor, initial: Tensor | float) -> Tensor:
    """| ||W||_F^2 - ||W_0||_F^2 |, which keeps the residual from growing out of the pretrained weight's energy.

    Args:
        weight: the current weight, main part plus residual [out, in].
        initial: W_0 itself (same shape), or its squared Frobenius norm as a number or 0-d tensor (saves keeping a
            copy). A constant.
    Returns:
        Scalar.
    Raises:
        ValueError: `initial` has another shape.
    Source: Effort (arXiv 2411.15633), weight 1.0 beside the orthogonality loss.
    """
    weight = at_least_float32(weight)
    start = torch.as_tensor(initial, device=weight.device).detach()
    if start.dim() == 0:
        energy = at_least_float32(start)
    elif start.shape == weight.shape:
        energy = (at_least_float32(start) ** 2).sum()
    else:
        raise ValueError(
            f"initial must be a number or have the weight's shape {list(weight.shape)}, got {list(start.shape)}"
        )
    return ((weight**2).sum() - energy).abs()


def _check_split(u_main: Tensor, u_residual: Tensor, v_main: Tensor, v_residual: Tensor) -> None:
    shapes = [tuple(tensor.shape) for tensor in (u_main, u_residual, v_main, v_residual)]
    fits = (
        all(len(shape) == 2 for shape in shapes)
        and shapes[0][0] == shapes[1][0]
        and shapes[2][1] == shapes[3][1]
        and shapes[0][1] == shapes[2][0]
        and shapes[1][1] == shapes[3][0]
    )
    if not fits:
        listed = ", ".join(str(list(shape)) for shape in shapes)
        raise ValueError(f"expected u [out, r], [out, k] and v [r, in], [k, in], got {listed}")
