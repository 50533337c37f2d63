"""Corruptions of images that must not look real to a detector: noise, blur, JPEG, ringing.

RealGen retrained its feature detector because stock detectors call noisy and blurred pictures real, and a policy
finds that out quickly (RealGen V1 README). So corrupted photographs serve as negatives, and mild versions of noise and
blur on BOTH classes keep a detector from judging by them alone. Images are float tensors [N, 3, H, W] in [0, 1]; every
picture gets its own strength; randomness comes from the given generator only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from guerdon.core.errors import GuerdonError, unknown

# Quantisation tables of the JPEG standard (ITU-T T.81, Annex K, tables K.1 and K.2).
_LUMINANCE_TABLE = (
    (16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55), (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62), (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99),
)  # fmt: skip
_CHROMA_TABLE = (
    (17, 18, 24, 47, 99, 99, 99, 99), (18, 21, 26, 66, 99, 99, 99, 99), (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99), (99, 99, 99, 99, 99, 99, 99, 99), (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99), (99, 99, 99, 99, 99, 99, 99, 99),
)  # fmt: skip
_TO_YCBCR = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))

# Strengths drawn uniformly by `corrupt`: noise and blur sigma (intensity units, pixels), JPEG quality, ringing cut-off
# as a share of the Nyquist frequency. UNVERIFIED: the paper does not give its own; these are visible at 32 to 512 px.
RANGES: dict[str, tuple[float, float]] = {
    "noise": (0.03, 0.2),
    "blur": (0.6, 1.8),
    "jpeg": (5.0, 40.0),
    "ringing": (0.35, 0.75),
}


def uniform(count: int, low: float, high: float, generator: torch.Generator | None, device: torch.device) -> Tensor:
    """Uniform draws [count] in [low, high), made on the CPU so that a seed means the same on every device."""
    return (low + (high - low) * torch.rand(count, generator=generator)).to(device)


def _strength(images: Tensor, value: float | Tensor, name: str) -> Tensor:
    strength = torch.as_tensor(value, dtype=torch.float32, device=images.device)
    if strength.ndim > 1 or (strength.ndim == 1 and len(strength) != len(images)):
        raise GuerdonError(f"{name} must be one number or one per image ({len(images)}), got {list(strength.shape)}")
    return strength.expand(len(images))


def noise(images: Tensor, sigma: float | Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Add white Gaussian noise of standard deviation sigma (scalar or [N], intensity units), clipped to [0, 1]."""
    draw = torch.randn(images.shape, generator=generator).to(images)
    return (images + _strength(images, sigma, "sigma").view(-1, 1, 1, 1) * draw).clamp(0.0, 1.0)


def blur(images: Tensor, sigma: float | Tensor) -> Tensor:
    """Gaussian blur of standard deviation sigma pixels (scalar or [N]); 0 returns the picture; edges are replicated."""
    strength = _strength(images, sigma, "sigma").clamp_min(1e-3)
    if len(images) == 0:
        return images
    radius = max(1, math.ceil(3.0 * float(strength.max())))
    offsets = torch.arange(-radius, radius + 1, device=images.device, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (offsets / strength[:, None]).square())
    # Every kernel ends at its own three sigmas, so a picture's blur does not depend on the strongest one of the batch.
    kernel = kernel * (offsets.abs() <= (3.0 * strength[:, None]).ceil())
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(3, dim=0)
    count, _, height, width = images.shape
    x = F.pad(images.float(), (radius,) * 4, mode="replicate").reshape(1, count * 3, height + 2 * radius, -1)
    x = F.conv2d(x, kernel[:, None, :, None], groups=count * 3)
    x = F.conv2d(x, kernel[:, None, None, :], groups=count * 3)
    return x.reshape(count, 3, height, width)


def ringing(images: Tensor, cutoff: float | Tensor) -> Tensor:
    """Cut the spectrum off sharply at a share of the Nyquist frequency (scalar or [N]), which leaves Gibbs ripples."""
    height, width = images.shape[-2:]
    vertical = torch.fft.fftfreq(height, device=images.device)[:, None].abs()
    horizontal = torch.fft.rfftfreq(width, device=images.device)[None, :]
    keep = torch.maximum(vertical, horizontal) <= 0.5 * _strength(images, cutoff, "cutoff").view(-1, 1, 1) + 1e-6
    return torch.fft.irfft2(torch.fft.rfft2(images.float()) * keep[:, None], s=(height, width)).clamp(0.0, 1.0)


def _dct_matrix(device: torch.device) -> Tensor:
    index = torch.arange(8, device=device, dtype=torch.float32)
    matrix = torch.cos(math.pi * (2 * index[None, :] + 1) * index[:, None] / 16.0) * 0.5
    matrix[0] *= math.sqrt(0.5)
    return matrix


def jpeg(images: Tensor, quality: float | Tensor) -> Tensor:
    """What JPEG coding at a quality of 1 to 100 (scalar or [N]) leaves: 8x8 DCT, quantised, decoded, clipped to [0, 1].

    Quality scales the standard tables as libjpeg does. Deviation from a real codec: no chroma subsampling and no
    rounding of the decoded pixels to 8 bits. A last block that is not full is filled by replication.
    """
    level = _strength(images, quality, "quality")
    if len(images) and (float(level.min()) < 1.0 or float(level.max()) > 100.0):
        raise GuerdonError(f"JPEG quality lies in [1, 100], got {float(level.min()):g} to {float(level.max()):g}")
    count, _, height, width = images.shape
    x = F.pad(images.float(), (0, -width % 8, 0, -height % 8), mode="replicate")
    to_ycbcr = torch.tensor(_TO_YCBCR, device=images.device)
    x = torch.einsum("ck,nkhw->nchw", to_ycbcr, x) * 255.0
    x[:, 0] -= 128.0
    rows, columns = x.shape[-2] // 8, x.shape[-1] // 8
    blocks = x.reshape(count, 3, rows, 8, columns, 8).transpose(3, 4)  # [N, channel, row, column, 8, 8]
    dct = _dct_matrix(images.device)
    coefficients = dct @ blocks @ dct.T
    scale = torch.where(level < 50.0, 5000.0 / level, 200.0 - 2.0 * level) / 100.0
    tables = torch.tensor([_LUMINANCE_TABLE, _CHROMA_TABLE, _CHROMA_TABLE], device=images.device, dtype=torch.float32)
    step = torch.floor(tables * scale.view(-1, 1, 1, 1) + 0.5).clamp(1.0, 255.0)[:, :, None, None]
    blocks = dct.T @ (torch.round(coefficients / step) * step) @ dct
    x = blocks.transpose(3, 4).reshape(count, 3, rows * 8, columns * 8)[..., :height, :width].clone()
    x[:, 0] += 128.0
    return (torch.einsum("ck,nkhw->nchw", torch.linalg.inv(to_ycbcr), x) / 255.0).clamp(0.0, 1.0)


def corrupt(
    images: Tensor,
    generator: torch.Generator | None = None,
    *,
    kinds: Sequence[str] = ("noise", "blur", "jpeg", "ringing"),
    ranges: dict[str, tuple[float, float]] | None = None,
) -> Tensor:
    """Give every picture one corruption, its kind and strength drawn at random: negatives made of real photographs.

    `ranges` overrides entries of `RANGES`. Raises GuerdonError for an unknown kind.
    """
    limits = {**RANGES, **(ranges or {})}
    for kind in (*kinds, *limits):
        if kind not in RANGES:
            raise unknown("corruption", kind, RANGES)
    if not kinds:
        raise GuerdonError(f"corrupt needs at least one kind; choices: {', '.join(RANGES)}")
    choice = torch.randint(len(kinds), (len(images),), generator=generator).to(images.device)
    result = images.float().clone()
    for number, kind in enumerate(kinds):
        members = (choice == number).nonzero().squeeze(1)
        if not len(members):
            continue
        strength = uniform(len(members), *limits[kind], generator, images.device)
        part = result[members]
        if kind == "noise":
            part = noise(part, strength, generator)
        elif kind == "blur":
            part = blur(part, strength)
        elif kind == "jpeg":
            part = jpeg(part, strength)
        else:
            part = ringing(part, strength)
        result[members] = part
    return result


def augment(
    images: Tensor,
    generator: torch.Generator | None = None,
    *,
    blur_sigma: float = 0.7,
    noise_sigma: float = 0.03,
    probability: float = 0.5,
    flip: bool = True,
) -> Tensor:
    """Mild random changes for BOTH classes: each picture blurred, then noised, each with the given probability.

    Strengths are uniform between 0 and the given sigma (pixels; intensity units); half of the pictures are mirrored.
    Source: RealGen V2 trains its detectors with flips, Gaussian blur (sigma 0.1 to 2 at 1024 px) and colour jitter.
    Deviation: noise instead of colour jitter, and a smaller blur for small pictures.
    """
    count, device = len(images), images.device
    result = images.float()
    if flip:
        mirrored = (torch.rand(count, generator=generator) < 0.5).to(device).view(-1, 1, 1, 1)
        result = torch.where(mirrored, result.flip(-1), result)
    for kind, most in (("blur", blur_sigma), ("noise", noise_sigma)):
        chosen = (torch.rand(count, generator=generator) < probability).to(device)
        strength = uniform(count, 0.0, most, generator, device) * chosen
        if most > 0.0:
            result = blur(result, strength) if kind == "blur" else noise(result, strength, generator)
    return result
