from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from guerdon.core.errors import GuerdonError
from guerdon.core.images import as_tensor, to_pil
from guerdon.models.detectors.corruptions import augment, blur, corrupt, jpeg, noise, ringing


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def smooth_images(n: int, size: int = 32) -> torch.Tensor:
    raw = torch.rand(n, 3, size + 8, size + 8, generator=generator(7))
    pooled = torch.nn.functional.avg_pool2d(raw, 9, 1)
    return ((pooled - 0.5) * 4 + 0.5).clamp(0, 1)


def laplacian_energy(images: torch.Tensor) -> torch.Tensor:
    second = images[..., 2:, 1:-1] + images[..., :-2, 1:-1] + images[..., 1:-1, 2:] + images[..., 1:-1, :-2]
    return (second - 4 * images[..., 1:-1, 1:-1]).square().mean((1, 2, 3))


def test_noise_has_the_given_sigma_for_each_image() -> None:
    grey = torch.full((2, 3, 64, 64), 0.5)
    result = noise(grey, torch.tensor([0.02, 0.1]), generator())
    assert (result - grey).std((1, 2, 3)).tolist() == pytest.approx([0.02, 0.1], rel=0.03)


def test_blur_matches_scipy_and_is_the_samples_own() -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    images = torch.rand(3, 3, 20, 24, generator=generator())
    result = blur(images, torch.tensor([0.0, 0.8, 2.0]))
    assert torch.allclose(result[0], images[0], atol=1e-6)
    for row, sigma in ((1, 0.8), (2, 2.0)):
        # scipy's radius is int(truncate * sigma + 0.5); ours is ceil(3 sigma).
        radius = int(np.ceil(3 * sigma))
        expected = ndimage.gaussian_filter(images[row].numpy(), (0, sigma, sigma), mode="nearest", radius=radius)
        assert np.allclose(result[row].numpy(), expected, atol=1e-5)
    assert torch.allclose(blur(images[1:2], 0.8), result[1:2], atol=1e-6)


@pytest.mark.parametrize("quality", [10, 50, 90])
def test_jpeg_leaves_what_a_real_codec_leaves(quality: int) -> None:
    images = smooth_images(1, 48)
    buffer = io.BytesIO()
    to_pil(images)[0].save(buffer, format="JPEG", quality=quality, subsampling=0)
    real = as_tensor([Image.open(buffer).convert("RGB")])
    ours = jpeg(images, quality)
    damage = (real - images).abs().mean()
    assert (ours - real).abs().mean() < 0.25 * damage + 0.004
    assert (ours - images).abs().mean() == pytest.approx(float(damage), rel=0.25, abs=0.004)


def test_jpeg_is_idempotent_and_takes_odd_sizes() -> None:
    images = smooth_images(2, 24)
    once = jpeg(images, torch.tensor([20.0, 80.0]))
    assert (jpeg(once, torch.tensor([20.0, 80.0])) - once).abs().mean() < 0.01
    assert jpeg(torch.rand(1, 3, 13, 21), 30).shape == (1, 3, 13, 21)
    with pytest.raises(GuerdonError, match=r"\[1, 100\]"):
        jpeg(images, 0.5)


def test_ringing_overshoots_beside_an_edge() -> None:
    edge = torch.zeros(1, 3, 32, 32)
    edge[..., 16:] = 0.5
    edge = edge + 0.25
    result = ringing(edge, 0.4)
    assert result.max() > 0.77 and result.min() < 0.23
    assert torch.allclose(ringing(edge, 1.0), edge, atol=1e-5)


def test_corrupt_is_deterministic_covers_every_kind_and_stays_in_range() -> None:
    images = smooth_images(64)
    first, second = corrupt(images, generator(1)), corrupt(images, generator(1))
    assert torch.equal(first, second)
    assert not torch.equal(first, corrupt(images, generator(2)))
    assert first.min() >= 0 and first.max() <= 1
    assert ((first - images).abs().mean((1, 2, 3)) > 1e-4).all()
    rougher = laplacian_energy(first) > 1.5 * laplacian_energy(images)
    smoother = laplacian_energy(first) < 0.9 * laplacian_energy(images)
    assert rougher.any() and smoother.any()


def test_corrupt_kinds_and_ranges_are_obeyed() -> None:
    images = smooth_images(16)
    only_blur = corrupt(images, generator(), kinds=("blur",))
    assert (laplacian_energy(only_blur) < laplacian_energy(images)).all()
    faint = corrupt(images, generator(), kinds=("noise",), ranges={"noise": (0.001, 0.002)})
    assert (faint - images).abs().max() < 0.02
    with pytest.raises(GuerdonError, match="unknown corruption 'blurr'; did you mean 'blur'"):
        corrupt(images, kinds=("blurr",))
    with pytest.raises(GuerdonError, match="unknown corruption 'rain'"):
        corrupt(images, ranges={"rain": (0, 1)})
    with pytest.raises(GuerdonError, match="at least one kind"):
        corrupt(images, kinds=())
    with pytest.raises(GuerdonError, match=r"one per image \(16\)"):
        noise(images, torch.zeros(3))


def test_augment_touches_about_the_given_share_and_keeps_the_input() -> None:
    images = smooth_images(400, 16)
    before = images.clone()
    result = augment(images, generator(), probability=0.5, flip=False)
    assert torch.equal(images, before)
    changed = ((result - images).abs().amax((1, 2, 3)) > 1e-6).float().mean()
    assert 0.68 < changed < 0.82  # 1 - 0.5 * 0.5
    untouched = augment(images, generator(), probability=0.0, flip=False)
    assert torch.allclose(untouched, images, atol=1e-6)
    mirrored = augment(images, generator(), probability=0.0)
    same = (mirrored - images).abs().amax((1, 2, 3)) < 1e-5
    flipped = (mirrored - images.flip(-1)).abs().amax((1, 2, 3)) < 1e-5
    assert (same | flipped).all() and 0.4 < flipped.float().mean() < 0.6


def test_nothing_in_gives_nothing_out() -> None:
    empty = torch.zeros(0, 3, 16, 16)
    assert corrupt(empty, generator()).shape == empty.shape
    assert augment(empty, generator()).shape == empty.shape
