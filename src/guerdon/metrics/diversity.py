"""Diversity and distance between sets of images, without any learnt network.

`features` turns an image into a fixed vector that no reward was trained on; everything else works on any features
``[N, d]`` (float tensor or numpy array), so Inception, CLIP or DINO features can be put in its place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from guerdon.core.errors import GuerdonError
from guerdon.metrics.drift import checked_images, gradients, luminance

__all__ = [
    "ManifoldScores",
    "diversity",
    "features",
    "frechet_distance",
    "manifold_scores",
    "mean_pairwise_distance",
    "mmd2",
]

_WORKING_SIDE = 64  # larger images are area-averaged first, so that features of two sizes can be compared
_ORIENTATIONS = 8
_LUMINANCE_SIDE = 8
_GRADIENT_FLOOR = 0.02  # luminance per pixel; keeps the orientation of flat, noisy cells near zero
_CHUNK = 64


def _as_features(values: Tensor | np.ndarray, name: str, least: int) -> Tensor:
    tensor = torch.as_tensor(values).detach().to(device="cpu", dtype=torch.float64)
    if tensor.ndim != 2:
        raise GuerdonError(f"{name} features must have shape [N, d]; got {list(tensor.shape)}")
    if len(tensor) < least:
        raise GuerdonError(f"{name} features need at least {least} rows; got {len(tensor)}")
    if not bool(torch.isfinite(tensor).all()):
        bad = int((~torch.isfinite(tensor).all(1)).nonzero()[0])
        raise GuerdonError(f"{name} features hold a NaN or an infinity in row {bad}")
    return tensor


def _pair(real: Tensor | np.ndarray, fake: Tensor | np.ndarray, least: int) -> tuple[Tensor, Tensor]:
    first, second = _as_features(real, "real", least), _as_features(fake, "fake", least)
    if first.shape[1] != second.shape[1]:
        raise GuerdonError(f"real and fake features differ in width: {first.shape[1]} and {second.shape[1]}")
    return first, second


def _distances(first: Tensor, second: Tensor) -> Tensor:
    # The matrix-product form loses the digits that decide whether two near-duplicates are at distance 0.
    return torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist")


def features(images: Tensor | np.ndarray, *, grid: int = 4) -> Tensor:
    """Deterministic image features: ``[N, 3, H, W]`` in [0, 1] -> float32 ``[N, 14 grid^2 + 64]`` (288 for grid 4).

    Three blocks, each scaled so that its squared distance is a mean over its entries:
    colour moments (mean and deviation of R, G, B in each cell of a ``grid`` x ``grid`` partition); a histogram of 8
    unsigned gradient orientations a cell, magnitude-weighted, bins interpolated, divided by its own length plus a
    floor; the luminance averaged down to 8x8. Sides above 64 pixels are area-averaged to 64 first: grain is not
    content.
    Sources: colour moments, Stricker and Orengo 1995; orientation histograms, Dalal and Triggs 2005, section 6 (one
    cell a block). The mix and its weights are our choice (UNVERIFIED): compare numbers only with numbers made by this
    function.
    Raises GuerdonError for images smaller than grid + 2 pixels.
    """
    checked = checked_images(images)
    if grid < 1 or min(checked.shape[2:]) < grid + 2:
        raise GuerdonError(f"features need images of at least {grid + 2} pixels a side for grid={grid} (grid >= 1)")
    if not len(checked):
        return torch.zeros(0, 14 * grid * grid + _LUMINANCE_SIDE**2)
    return torch.cat([_features(chunk, grid) for chunk in checked.split(_CHUNK)])


def _features(images: Tensor, grid: int) -> Tensor:
    height, width = images.shape[2:]
    if max(height, width) > _WORKING_SIDE:
        images = F.adaptive_avg_pool2d(images, (min(height, _WORKING_SIDE), min(width, _WORKING_SIDE)))
    mean = F.adaptive_avg_pool2d(images, grid)
    deviation = (F.adaptive_avg_pool2d(images**2, grid) - mean**2).clamp_min(0.0).sqrt()
    colour = torch.cat([mean, deviation], 1).flatten(1) / math.sqrt(6 * grid * grid)

    grey = luminance(images)
    horizontal, vertical = gradients(grey)
    position = torch.remainder(torch.atan2(vertical, horizontal), math.pi) * (_ORIENTATIONS / math.pi)
    centres = torch.arange(_ORIENTATIONS, dtype=position.dtype).view(1, -1, 1, 1)
    gap = torch.remainder(position - centres, _ORIENTATIONS)
    weight = (1.0 - torch.minimum(gap, _ORIENTATIONS - gap)).clamp_min(0.0)
    histogram = F.adaptive_avg_pool2d(weight * torch.hypot(horizontal, vertical), grid)
    histogram = histogram / (histogram.square().sum(1, keepdim=True) + _GRADIENT_FLOOR**2).sqrt()
    orientation = histogram.flatten(1) / grid

    thumbnail = F.adaptive_avg_pool2d(grey, _LUMINANCE_SIDE).flatten(1) / _LUMINANCE_SIDE
    return torch.cat([colour, orientation, thumbnail], 1)


def mean_pairwise_distance(
    values: Tensor | np.ndarray, group_ids: Tensor | np.ndarray | Sequence[object] | None = None
) -> float:
    """Mean Euclidean distance between two different rows of the same group, averaged over groups; nan without any pair.

    ``values`` [N, d]; ``group_ids`` [N] (the prompt of each row; None = one group). Every group with at least two rows
    weighs the same. Units are those of the features; 0 means that each prompt has one picture left (mode collapse).
    Source: the unbiased estimate of E||x - x'||, the within-prompt diversity used against mode collapse.
    """
    rows = _as_features(values, "image", 0)
    if group_ids is None:
        keys: list[object] = [0] * len(rows)
    elif isinstance(group_ids, (Tensor, np.ndarray)):
        keys = list(group_ids.tolist())
    else:
        keys = list(group_ids)
    if len(keys) != len(rows):
        raise GuerdonError(f"group_ids must name a group for each of the {len(rows)} rows; got {len(keys)}")
    members: dict[object, list[int]] = {}
    for index, key in enumerate(keys):
        members.setdefault(key, []).append(index)
    means = []
    for indices in members.values():
        if len(indices) > 1:
            chosen = rows[indices]
            means.append(float(_distances(chosen, chosen).sum()) / (len(indices) * (len(indices) - 1)))
    return float(np.mean(means)) if means else math.nan


def diversity(images: Tensor | np.ndarray, group_ids: Tensor | np.ndarray | Sequence[object] | None = None) -> float:
    """Mean distance of two images of the same prompt: `mean_pairwise_distance` of `features`, in feature units >= 0."""
    return mean_pairwise_distance(features(images), group_ids)


@dataclass(frozen=True)
class ManifoldScores:
    """k-nearest-neighbour fidelity (precision, density) and variety (recall, coverage) of fake against real.

    All lie in [0, 1] except density, which exceeds 1 where fakes crowd around dense reals.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def manifold_scores(real: Tensor | np.ndarray, fake: Tensor | np.ndarray, *, k: int = 5) -> ManifoldScores:
    """Precision, recall, density and coverage of ``fake`` [M, d] against ``real`` [N, d], with N, M > k.

    Around every real row lies a closed ball reaching its k-th nearest other real row. Precision: share of fakes in some
    ball. Density: mean number of balls around a fake, over k. Coverage: share of balls holding a fake. Recall:
    precision with the roles exchanged.
    Sources: precision and recall, Kynkaanniemi et al. 2019, equations 1-2; density and coverage, Naeem et al. 2020,
    equations 4-5 (closed balls, so that exact copies count).
    """
    if k < 1:
        raise GuerdonError(f"k must be at least 1; got {k}")
    first, second = _pair(real, fake, k + 1)
    # Row i of the sorted self-distances starts with its distance 0 to itself.
    real_radius = _distances(first, first).sort(1).values[:, k]
    fake_radius = _distances(second, second).sort(1).values[:, k]
    between = _distances(first, second)
    in_real_ball = between <= real_radius[:, None]
    in_fake_ball = between <= fake_radius[None, :]
    return ManifoldScores(
        precision=float(in_real_ball.any(0).double().mean()),
        recall=float(in_fake_ball.any(1).double().mean()),
        density=float(in_real_ball.double().sum(0).mean()) / k,
        coverage=float(in_real_ball.any(1).double().mean()),
    )


def frechet_distance(real: Tensor | np.ndarray, fake: Tensor | np.ndarray) -> float:
    """Squared Frechet distance of two Gaussians fitted to ``real`` [N, d] and ``fake`` [M, d], >= 0 (N, M >= 2).

    ||m1 - m2||^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), with unbiased covariances. Biased upwards for few rows: compare equal
    N only. Sources: Dowson and Landau 1982, equation 4; Heusel et al. 2017, equation 6.
    """
    first, second = _pair(real, fake, 2)
    shift = (first.mean(0) - second.mean(0)).square().sum()
    # With rows centred and scaled, S1 = A'A and S2 = B'B, and tr (S1 S2)^(1/2) is the nuclear norm of A B'.
    a = (first - first.mean(0)) / math.sqrt(len(first) - 1)
    b = (second - second.mean(0)) / math.sqrt(len(second) - 1)
    cross = torch.linalg.svdvals(a @ b.T).sum()
    return max(0.0, float(shift + a.square().sum() + b.square().sum() - 2.0 * cross))


def mmd2(real: Tensor | np.ndarray, fake: Tensor | np.ndarray, *, bandwidth: float | None = None) -> float:
    """Unbiased squared maximum mean discrepancy of ``real`` [N, d] and ``fake`` [M, d] (N, M >= 2); may be below 0.

    Kernel exp(-||x - y||^2 / (2 h^2)); h = ``bandwidth``, by default the median distance of the pooled rows, so give
    one fixed h to compare several models. Source: Gretton et al. 2012, equation 3 (estimate) and section 8 (median).
    Raises GuerdonError for h <= 0.
    """
    first, second = _pair(real, fake, 2)
    n, m = len(first), len(second)
    pooled = torch.cat([first, second])
    distances = _distances(pooled, pooled)
    if bandwidth is None:
        upper = distances[torch.triu(torch.ones_like(distances, dtype=torch.bool), 1)]
        # All rows equal: any width gives the same answer, 0.
        bandwidth = float(upper.median()) or float(upper.mean()) or 1.0
    if not bandwidth > 0:
        raise GuerdonError(f"bandwidth must be positive; got {bandwidth}")
    kernel = torch.exp(-distances.square() / (2.0 * bandwidth**2))
    within_real = (kernel[:n, :n].sum() - n) / (n * (n - 1))
    within_fake = (kernel[n:, n:].sum() - m) / (m * (m - 1))
    return float(within_real + within_fake - 2.0 * kernel[:n, n:].mean())
