"""Linear layers split by singular value decomposition into a frozen main part and small trainable residuals.

Effort adapts a layer by one trainable residual, OmniAID by several gated ones (experts). Sources: Effort
(arXiv 2411.15633), OmniAID (arXiv 2511.08423), both as used by RealGen. Shapes: W [out, in], U [out, k], S [k],
V [k, in] with orthonormal rows (torch.linalg.svd's Vh).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from guerdon.core.errors import GuerdonError
from guerdon.objectives.subspace import keep_norm_loss, orthogonality_loss


def split_weight(weight: Tensor, rank: int) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]:
    """(U, S, V) of the largest and of the `rank` smallest singular values of a weight [out, in], in float32."""
    total = min(weight.shape)
    if not 1 <= rank < total:
        raise GuerdonError(
            f"the residual rank must lie in [1, {total - 1}] for a layer {list(weight.shape)}, got {rank}"
        )
    u, s, v = torch.linalg.svd(weight.detach().float(), full_matrices=False)
    main = total - rank
    return (
        (u[:, :main].contiguous(), s[:main].contiguous(), v[:main].contiguous()),
        (u[:, main:].contiguous(), s[main:].contiguous(), v[main:].contiguous()),
    )


class SVDResidualLinear(nn.Module):
    """y = (W_main + U_res diag(S_res) V_res) x + b, with W_main the frozen part of rank min(out, in) - `rank`.

    Starts as the given layer exactly (to rounding). Only U_residual, S_residual, V_residual are trained.
    Source: Effort; the layer's bias is frozen.
    """

    def __init__(self, linear: nn.Linear, rank: int = 1) -> None:
        super().__init__()
        self.rank = rank
        (u, s, v), (u_residual, s_residual, v_residual) = split_weight(linear.weight, rank)
        self.weight_main: Tensor
        self.U_r: Tensor
        self.V_r: Tensor
        self.weight_original_fnorm: Tensor
        self.register_buffer("weight_main", (u * s) @ v)
        self.register_buffer("U_r", u)
        self.register_buffer("V_r", v)
        self.register_buffer("weight_original_fnorm", linear.weight.detach().float().norm())
        self.U_residual = nn.Parameter(u_residual)
        self.S_residual = nn.Parameter(s_residual)
        self.V_residual = nn.Parameter(v_residual)
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach().clone(), requires_grad=False)

    def weight(self) -> Tensor:
        """The current weight [out, in]."""
        return self.weight_main + (self.U_residual * self.S_residual) @ self.V_residual

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        residual = F.linear(F.linear(x, self.V_residual) * self.S_residual, self.U_residual)
        return F.linear(x, self.weight_main, self.bias) + residual

    def orthogonality(self) -> Tensor:
        """Effort's 0.5 ||U^T U - I|| + 0.5 ||V V^T - I|| of this layer, a scalar; 0 at the start."""
        return orthogonality_loss(self.U_r, self.U_residual, self.V_r, self.V_residual, kind="effort")

    def keep_norm(self) -> Tensor:
        """Effort's | ||W||^2 - ||W_0||^2 | of this layer, a scalar; 0 at the start."""
        return keep_norm_loss(self.weight(), self.weight_original_fnorm.square())


class Gates:
    """The expert weights [B, experts] of the images now in the network, shared by all layers of one model.

    A decision per image, reused in every layer, has to reach the layers past the backbone's own forward; this is how.
    One forward at a time: a model object is not to be shared between threads.
    """

    def __init__(self) -> None:
        self.value: Tensor | None = None


class SVDMoELinear(nn.Module):
    """y = W_main x + sum_e g_e U_e diag(S_e) V_e x + b, every expert starting as the same `rank` smallest triplets.

    With gates that sum to 1 it starts as the given layer exactly; OmniAID's gates sum to 2 (see `omniaid`), so there
    the smallest triplets start doubled. Gates come from the shared `gates`, [B, experts] for x [B, tokens, in].
    Source: OmniAID; computed as one product over all experts instead of a gather for each, which is the same sum.
    """

    def __init__(self, linear: nn.Linear, rank: int, experts: int, gates: Gates) -> None:
        super().__init__()
        self.rank, self.experts, self.gates = rank, experts, gates
        (u, s, v), (u_e, s_e, v_e) = split_weight(linear.weight, rank)
        self.weight_main: Tensor
        self.U_r: Tensor
        self.V_r: Tensor
        self.weight_original_fnorm: Tensor
        self.register_buffer("weight_main", (u * s) @ v)
        self.register_buffer("U_r", u)
        self.register_buffer("V_r", v)
        self.register_buffer("weight_original_fnorm", linear.weight.detach().float().norm())
        self.U_experts = nn.ParameterList([nn.Parameter(u_e.clone()) for _ in range(experts)])
        self.S_experts = nn.ParameterList([nn.Parameter(s_e.clone()) for _ in range(experts)])
        self.V_experts = nn.ParameterList([nn.Parameter(v_e.clone()) for _ in range(experts)])
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach().clone(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, tokens, in] -> [B, tokens, out]. GuerdonError when no gates, or another batch's, are set."""
        gates = self.gates.value
        if gates is None or gates.shape != (x.shape[0], self.experts):
            got = None if gates is None else list(gates.shape)
            raise GuerdonError(f"the expert gates must be [{x.shape[0]}, {self.experts}] for this batch, got {got}")
        u = torch.cat(list(self.U_experts), dim=1)
        s = torch.cat(list(self.S_experts))
        v = torch.cat(list(self.V_experts), dim=0)
        strength = s * gates.to(x.dtype).repeat_interleave(self.rank, dim=1)
        return F.linear(x, self.weight_main, self.bias) + F.linear(F.linear(x, v) * strength[:, None, :], u)

    def orthogonality(self) -> Tensor:
        """OmniAID's ||U_r^T U_e|| + ||V_r V_e^T|| after normalisation, averaged over the experts; 0 at the start."""
        terms = [
            orthogonality_loss(self.U_r, u, self.V_r, v, kind="omniaid")
            for u, v in zip(self.U_experts, self.V_experts, strict=True)
        ]
        return torch.stack(terms).mean()


ATTENTION_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "out_proj")


def attention_linears(vision: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """(attention module, attribute name) of the four projections of every layer of a CLIP vision model."""
    for layer in vision.encoder.layers:  # type: ignore[union-attr]
        for name in ATTENTION_PROJECTIONS:
            yield layer.self_attn, name  # type: ignore[misc]


def square_side(vision: nn.Module) -> int:
    """The side in pixels of the square images that a CLIP vision model takes."""
    size = vision.config.image_size  # type: ignore[union-attr]
    if not isinstance(size, int):
        raise GuerdonError(f"the vision model must take square images, its image_size is {size}")
    return size


def read_weights(source: str | Path, names: tuple[str, ...] = ("model.safetensors",)) -> dict[str, Tensor]:
    """The tensors of a safetensors file, or of the first of `names` found in a local folder or a hub repository.

    Raises GuerdonError when nothing is there or it is of another format: published .pth files are pickles, which can
    run code when opened, so guerdon does not open them.
    """
    path = Path(source)
    if path.is_dir() or (not path.exists() and str(source).count("/") == 1 and not path.suffix):
        path = _found(str(source), names)
    if not path.is_file():
        raise GuerdonError(f"no weights file at '{source}'")
    if path.suffix != ".safetensors":
        raise GuerdonError(
            f"'{path}' is not a .safetensors file; convert pickled checkpoints (.pth, .pt) to safetensors"
        )
    try:
        return load_file(path)
    except SafetensorError as error:
        raise GuerdonError(f"'{path}' is not a safetensors file ({error})") from error


def _found(source: str, names: tuple[str, ...]) -> Path:
    from transformers.utils import cached_file

    for name in names:
        try:
            file = cached_file(source, name, _raise_exceptions_for_missing_entries=False)
        except OSError as error:
            raise GuerdonError(f"cannot read weights from '{source}': {str(error).splitlines()[0]}") from error
        if file is not None:
            return Path(file)
    raise GuerdonError(
        f"'{source}' holds none of {', '.join(names)}; convert its checkpoint to safetensors and pass that file"
    )
