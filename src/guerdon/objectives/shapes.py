"""Shape checks and per-sample broadcasting shared by the objectives."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Reduce = Literal["mean", "sum"]


def at_least_float32(x: Tensor) -> Tensor:
    """Half-precision and integer tensors as float32; float32 and float64 unchanged."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def check_same_shape(**tensors: Tensor) -> None:
    """Raise ValueError naming the tensors unless all have the same shape."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        raise ValueError(f"shapes must be equal, got {listed}")


def check_not_empty(**tensors: Tensor) -> None:
    """Raise ValueError naming a tensor without elements: its mean would be nan."""
    for name, tensor in tensors.items():
        if tensor.numel() == 0:
            raise ValueError(f"{name} is empty")


def per_sample(value: float | Tensor, like: Tensor, name: str) -> Tensor:
    """One number for each sample, shaped [B, 1, ..., 1] so that it broadcasts against `like`.

    Args:
        value: a number, a 0-d tensor, a tensor [B], or one already shaped [B, 1, ..., 1].
        like: tensor [B, ...]; gives batch size, dimensions, device and dtype (float32 for half precision),
            so that a float64 time grid does not turn a float32 sampler into a float64 one.
        name: the argument's name, for the error.
    Raises:
        ValueError: `like` has no batch dimension, or `value` has another shape.
    """
    if like.dim() == 0:
        raise ValueError(f"a batch dimension is needed to broadcast {name}, got a 0-d tensor")
    batch, target = like.shape[0], (like.shape[0],) + (1,) * (like.dim() - 1)
    dtype = at_least_float32(like).dtype
    number = value if isinstance(value, Tensor) else torch.tensor(float(value), dtype=dtype)
    number = number.to(like.device, dtype)
    if number.dim() == 0:
        return number.expand(target)
    if tuple(number.shape) == (batch,) or tuple(number.shape) == target:
        return number.reshape(target)
    raise ValueError(
        f"{name} must be a number, a tensor [{batch}] or a tensor {list(target)}, got {list(number.shape)}"
    )


def over_sample_dims(x: Tensor, reduce: Reduce) -> Tensor:
    """Reduce every dimension but the first: [B, ...] -> [B]. A [B] tensor is returned as it is."""
    if reduce not in ("mean", "sum"):
        raise ValueError(f"reduce must be 'mean' or 'sum', got {reduce!r}")
    if x.dim() == 0:
        raise ValueError("a batch dimension is needed, got a 0-d tensor")
    flat = x.reshape(x.shape[0], -1) if x.dim() > 1 else x.unsqueeze(1)
    return flat.mean(dim=1) if reduce == "mean" else flat.sum(dim=1)
