"""Drift meters: what a picture looks like to a ruler, never to a judge.

A policy that climbs a detector may please it by sharpening, adding grain, darkening or bleaching its pictures. Each
meter below is one plain statistic per image; none is a reward, so a move in any of them while the reward rises is a
warning. All meters take images ``[N, 3, H, W]`` (torch tensor or numpy array, RGB, values in [0, 1]) and return a
float32 ``[N]`` tensor on the CPU; the value of an image does not depend on the images beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from guerdon.core.errors import GuerdonError

__all__ = [
    "METERS",
    "checked_images",
    "colour_entropy",
    "dark_share",
    "drift",
    "edge_density",
    "gradients",
    "luminance",
    "noise",
    "saturation",
    "sharpness",
]

_RANGE_SLACK = 1e-3  # decoders overshoot [0, 1] by rounding; anything beyond this is a scale mistake (0..255 or -1..1)
_CHUNK = 16


def checked_images(images: Tensor | np.ndarray) -> Tensor:
    """Images as float32 ``[N, 3, H, W]`` on the CPU, refused when their shape, scale or a value cannot be right.

    Raises GuerdonError for another shape, a side under 3 pixels, a NaN or infinity, or values outside [0, 1].
    """
    tensor = torch.as_tensor(images).detach()
    if tensor.ndim != 4 or tensor.shape[1] != 3:
        raise GuerdonError(f"images must have shape [N, 3, H, W] (RGB, channels first); got {list(tensor.shape)}")
    if min(tensor.shape[2:]) < 3:
        raise GuerdonError(f"images must be at least 3 pixels high and wide; got {tensor.shape[2]}x{tensor.shape[3]}")
    if not tensor.is_floating_point():
        raise GuerdonError(f"images must be floats in [0, 1]; got dtype {tensor.dtype} (divide 8-bit images by 255)")
    tensor = tensor.to(device="cpu", dtype=torch.float32)
    if tensor.shape[0] == 0:
        return tensor
    finite = torch.isfinite(tensor).flatten(1).all(1)
    if not bool(finite.all()):
        raise GuerdonError(f"image {int((~finite).nonzero()[0])} holds a NaN or an infinity")
    low, high = float(tensor.min()), float(tensor.max())
    if low < -_RANGE_SLACK or high > 1 + _RANGE_SLACK:
        raise GuerdonError(f"image values must lie in [0, 1]; got [{low:.3g}, {high:.3g}]")
    return tensor.clamp(0.0, 1.0)


def luminance(images: Tensor) -> Tensor:
    """Luma Y = 0.299 R + 0.587 G + 0.114 B: ``[N, 3, H, W]`` -> ``[N, 1, H, W]`` in [0, 1] (ITU-R BT.601)."""
    return (images * images.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)


def gradients(channel: Tensor) -> tuple[Tensor, Tensor]:
    """Sobel derivatives (d/dx, d/dy) of ``[N, 1, H, W]``, per pixel, on the interior ``[N, 1, H-2, W-2]``.

    The kernels are divided by 8, so a ramp that rises by 0.1 a pixel has derivative 0.1.
    Source: Sobel and Feldman 1968 (Duda and Hart 1973, p. 271).
    """
    kernel = channel.new_tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 8.0
    both = F.conv2d(channel, torch.stack([kernel, kernel.T]).unsqueeze(1))
    return both[:, :1], both[:, 1:]


def edge_density(images: Tensor | np.ndarray, *, threshold: float = 0.1) -> Tensor:
    """Share of interior pixels whose luminance gradient exceeds ``threshold`` (luminance per pixel), in [0, 1].

    ``[N, 3, H, W]`` -> ``[N]``. Source: Sobel magnitude as in `gradients`; the threshold 0.1 is our choice
    (UNVERIFIED).
    """
    horizontal, vertical = gradients(luminance(checked_images(images)))
    return (torch.hypot(horizontal, vertical) > threshold).float().flatten(1).mean(1)


def colour_entropy(images: Tensor | np.ndarray, *, bins: int = 8) -> Tensor:
    """Shannon entropy of the joint RGB histogram with ``bins`` bins a channel, in bits: [0, 3 log2(bins)].

    ``[N, 3, H, W]`` -> ``[N]``. One flat colour gives 0; an even use of all cells gives 9 bits for 8 bins.
    Source: Shannon 1948 (plug-in estimate, biased low when pixels are few); 8 bins is our choice (UNVERIFIED).
    """
    checked = checked_images(images)
    if bins < 2:
        raise GuerdonError(f"colour_entropy needs at least 2 bins a channel; got {bins}")
    cell = (checked * bins).long().clamp_(max=bins - 1)
    code = ((cell[:, 0] * bins + cell[:, 1]) * bins + cell[:, 2]).flatten(1)
    counts = torch.zeros(len(checked), bins**3).scatter_add_(1, code, torch.ones_like(code, dtype=torch.float32))
    share = counts / code.shape[1]
    return torch.special.entr(share).sum(1) / math.log(2.0)


def saturation(images: Tensor | np.ndarray) -> Tensor:
    """Mean HSV saturation (max - min) / max over the pixels, black counting as 0, in [0, 1].

    ``[N, 3, H, W]`` -> ``[N]``. Source: Smith 1978, "Color gamut transform pairs" (hexcone model).
    """
    checked = checked_images(images)
    high, low = checked.amax(1), checked.amin(1)
    return torch.where(high > 0, (high - low) / high.clamp_min(1e-8), 0.0).flatten(1).mean(1)


def dark_share(images: Tensor | np.ndarray, *, threshold: float = 0.1) -> Tensor:
    """Share of pixels with luminance below ``threshold``, in [0, 1]: ``[N, 3, H, W]`` -> ``[N]``.

    The threshold 0.1 is our choice (UNVERIFIED).
    """
    return (luminance(checked_images(images)) < threshold).float().flatten(1).mean(1)


def sharpness(images: Tensor | np.ndarray) -> Tensor:
    """Population variance of the 4-neighbour Laplacian of the luminance, in luminance^2, >= 0.

    ``[N, 3, H, W]`` -> ``[N]``; interior pixels only. Noise raises it as well as detail: read it beside `noise`.
    Source: Pech-Pacheco et al. 2000, "Diatom autofocusing in brightfield microscopy" (LAPV).
    """
    grey = luminance(checked_images(images))
    kernel = grey.new_tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])
    response = F.conv2d(grey, kernel.view(1, 1, 3, 3)).flatten(1)
    return (response - response.mean(1, keepdim=True)).square().mean(1)


def noise(images: Tensor | np.ndarray) -> Tensor:
    """Robust estimate of the standard deviation of pixel noise in the luminance, >= 0: ``[N, 3, H, W]`` -> ``[N]``.

    High-pass with the Laplacian-difference mask [[1,-2,1],[-2,4,-2],[1,-2,1]] (norm 6, blind to ramps), then
    1.4826 * median |r - median r| / 6. Independent noise of deviation s in each of R, G, B reads 0.668 s.
    Source: mask from Immerkaer 1996, "Fast noise variance estimation"; median absolute deviation in place of the mean
    from Donoho and Johnstone 1994, section 4.2 (dense texture still raises it).
    """
    grey = luminance(checked_images(images))
    side = grey.new_tensor([1.0, -2.0, 1.0])
    response = F.conv2d(grey, torch.outer(side, side).view(1, 1, 3, 3)).flatten(1)
    centred = response - response.median(1, keepdim=True).values
    return 1.4826 * centred.abs().median(1).values / 6.0


METERS: dict[str, Callable[[Tensor], Tensor]] = {
    "edge_density": edge_density,
    "colour_entropy": colour_entropy,
    "saturation": saturation,
    "dark_share": dark_share,
    "sharpness": sharpness,
    "noise": noise,
}


def drift(images: Tensor | np.ndarray) -> dict[str, Tensor]:
    """Every meter of `METERS` for every image: ``[N, 3, H, W]`` in [0, 1] -> name -> float32 ``[N]``."""
    checked = checked_images(images)
    chunks = checked.split(_CHUNK) if len(checked) else (checked,)
    return {name: torch.cat([meter(chunk) for chunk in chunks]) for name, meter in METERS.items()}
