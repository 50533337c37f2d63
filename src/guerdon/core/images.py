"""Pictures as tensors and back: the one place that knows how image completions may look."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from guerdon.core.errors import GuerdonError

if TYPE_CHECKING:
    import torch
    from PIL import Image


def as_tensor(completions: Any) -> torch.Tensor:
    """Image completions as a float32 tensor [N, 3, H, W] in [0, 1].

    Takes a list of PIL images, a list of uint8 arrays [H, W, 3] (or one array [N, H, W, 3]), a list of float tensors
    [3, H, W], or a float tensor [N, 3, H, W], which passes through unchanged apart from its dtype.

    Raises GuerdonError naming the row for another type or shape, for sizes that differ within the batch, and for a
    float tensor that leaves [0, 1] by more than 1e-3 or is not finite.
    """
    import torch

    if isinstance(completions, torch.Tensor):
        return _checked(completions)
    if isinstance(completions, np.ndarray) and completions.ndim == 4:
        completions = list(completions)
    if not isinstance(completions, Sequence) or isinstance(completions, str | bytes):
        raise GuerdonError(f"image completions must be a list or a tensor [N, 3, H, W], got {_describe(completions)}")
    if not completions:
        return torch.zeros(0, 3, 0, 0)
    rows = [_one(item, row) for row, item in enumerate(completions)]
    for row, image in enumerate(rows):
        if image.shape != rows[0].shape:
            size, first = tuple(image.shape[-2:]), tuple(rows[0].shape[-2:])
            raise GuerdonError(f"image row {row} is {size[0]}x{size[1]}, but row 0 is {first[0]}x{first[1]}")
    return _checked(torch.stack(rows))


def to_pil(images: torch.Tensor) -> list[Image.Image]:
    """A float tensor [N, 3, H, W] in [0, 1] as RGB PIL images, rounded to the nearest of 256 levels."""
    import torch
    from PIL import Image

    checked = _checked(images)
    levels = (checked.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    return [Image.fromarray(array) for array in levels.numpy()]


def _one(item: Any, row: int) -> torch.Tensor:
    import torch
    from PIL import Image

    if isinstance(item, torch.Tensor) and item.is_floating_point() and item.ndim == 3 and item.shape[0] == 3:
        return item.detach().float()
    if isinstance(item, Image.Image):
        item = np.asarray(item.convert("RGB"))
    if isinstance(item, np.ndarray) and item.dtype == np.uint8 and item.ndim == 3 and item.shape[-1] == 3:
        return torch.from_numpy(item.copy()).permute(2, 0, 1).float() / 255
    raise GuerdonError(
        f"image row {row} must be a PIL image, a uint8 array [H, W, 3] or a float tensor [3, H, W], "
        f"got {_describe(item)}"
    )


def _checked(images: torch.Tensor) -> torch.Tensor:
    import torch

    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise GuerdonError(f"image completions must be a float tensor [N, 3, H, W], got {_describe(images)}")
    images = images.to(torch.float32)
    if images.numel():
        flat = images.detach().flatten(1)
        low, high = flat.amin(1), flat.amax(1)
        # Written so that a nan, which compares False with everything, counts as outside.
        outside = torch.nonzero(~((low >= -1e-3) & (high <= 1 + 1e-3)))
        if len(outside):
            row = int(outside[0])
            found = f"[{float(low[row]):.4g}, {float(high[row]):.4g}]"
            raise GuerdonError(f"image row {row} must lie in [0, 1], found {found}")
    return images


def _describe(item: Any) -> str:
    shape, dtype = getattr(item, "shape", None), getattr(item, "dtype", None)
    detail = f" {dtype} {list(shape)}" if isinstance(shape, tuple) else ""
    return f"{type(item).__name__}{detail}"
