"""From images in [0, 1] to what a pretrained vision model was trained on: size and channel statistics, in torch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from guerdon.core.errors import GuerdonError

# Channel means and standard deviations published with the models, (mean, std) of red, green, blue.
CLIP_STATISTICS = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
IMAGENET_STATISTICS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

Statistics = tuple[Sequence[float], Sequence[float]]


def resize(images: Tensor, height: int, width: int, mode: str = "bicubic") -> Tensor:
    """Images [N, 3, H, W] to [N, 3, height, width], antialiased as PIL does, clipped to [0, 1]; the aspect may change.

    PIL rounds to 8 bits after resizing and this does not: differences of up to half a grey level.
    """
    if images.shape[-2:] == (height, width):
        return images.float()
    return F.interpolate(images.float(), size=(height, width), mode=mode, antialias=True).clamp(0.0, 1.0)


def shortest_side_crop(images: Tensor, size: int, mode: str = "bicubic") -> Tensor:
    """CLIP's preprocessing: the shorter side to `size`, aspect kept, then the central square [N, 3, size, size]."""
    height, width = images.shape[-2:]
    if min(height, width) == 0:
        raise GuerdonError(f"images have an empty side: {height}x{width}")
    if height <= width:
        images = resize(images, size, max(size, int(size * width / height)), mode)
    else:
        images = resize(images, max(size, int(size * height / width)), size, mode)
    top, left = (images.shape[-2] - size) // 2, (images.shape[-1] - size) // 2
    return images[..., top : top + size, left : left + size]


def normalise(images: Tensor, statistics: Statistics) -> Tensor:
    """(images - mean) / std for each channel, [N, 3, H, W]."""
    mean, std = (torch.tensor(part, dtype=images.dtype, device=images.device).view(3, 1, 1) for part in statistics)
    return (images - mean) / std
