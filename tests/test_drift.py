from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from guerdon.core.errors import GuerdonError
from guerdon.metrics import drift as meters


def flat(r: float, g: float, b: float, side: int = 8) -> torch.Tensor:
    return torch.tensor([r, g, b], dtype=torch.float32).view(1, 3, 1, 1).expand(1, 3, side, side).contiguous()


def ramp(slope: float, side: int = 9) -> torch.Tensor:
    return (torch.arange(side) * slope).expand(1, 3, side, side).contiguous()


def test_flat_image_reads_zero_on_every_detail_meter() -> None:
    read = meters.drift(flat(0.5, 0.5, 0.5))
    assert {name: float(value) for name, value in read.items()} == pytest.approx(
        {"edge_density": 0, "colour_entropy": 0, "saturation": 0, "dark_share": 0, "sharpness": 0, "noise": 0}, abs=1e-6
    )


def test_ramp_has_its_slope_as_gradient_and_no_curvature() -> None:
    horizontal, vertical = meters.gradients(meters.luminance(ramp(0.1)))
    assert torch.allclose(horizontal, torch.full_like(horizontal, 0.1), atol=1e-6)
    assert torch.allclose(vertical, torch.zeros_like(vertical), atol=1e-6)
    assert float(meters.edge_density(ramp(0.1), threshold=0.099)) == 1.0
    assert float(meters.edge_density(ramp(0.1), threshold=0.101)) == 0.0
    assert float(meters.sharpness(ramp(0.1))) == pytest.approx(0, abs=1e-9)
    assert float(meters.noise(ramp(0.1))) == pytest.approx(0, abs=1e-6)


def test_edge_density_of_a_step_counts_the_two_columns_it_touches() -> None:
    image = torch.zeros(1, 3, 8, 8)
    image[..., 4:] = 1.0  # 6 interior columns, of which columns 3 and 4 see the step
    assert float(meters.edge_density(image)) == pytest.approx(2 / 6)


def test_colour_entropy_by_hand() -> None:
    image = torch.zeros(1, 3, 4, 4)
    image[:, 0, :2] = 1.0
    image[:, 1, :, :2] = 1.0  # four colours, a quarter of the pixels each
    assert float(meters.colour_entropy(image)) == pytest.approx(2.0)
    image[:] = 0.0
    image[:, :, 0, 0] = 1.0  # 1/16 against 15/16
    assert float(meters.colour_entropy(image)) == pytest.approx(-(math.log2(1 / 16) + 15 * math.log2(15 / 16)) / 16)


def test_saturation_and_dark_share_by_hand() -> None:
    assert float(meters.saturation(flat(0.8, 0.4, 0.2))) == pytest.approx(0.75)
    assert float(meters.saturation(flat(0, 0, 0))) == 0.0
    image = flat(0.5, 0.5, 0.5, side=4)
    image[:, :, 0, :3] = 0.05
    assert float(meters.dark_share(image)) == pytest.approx(3 / 16)
    # Luma weighs the channels: pure blue at 0.8 is 0.0912, pure green is 0.4696.
    assert float(meters.dark_share(flat(0, 0, 0.8))) == 1.0
    assert float(meters.dark_share(flat(0, 0.8, 0))) == 0.0


def test_sharpness_of_one_white_pixel() -> None:
    image = torch.zeros(1, 3, 5, 5)
    image[:, :, 2, 2] = 1.0  # 3x3 interior responses: one -4, four +1, four 0; mean 0, variance (16 + 4) / 9
    assert float(meters.sharpness(image)) == pytest.approx(20 / 9, rel=1e-5)


def test_noise_measures_a_known_deviation_and_sharpness_falls_with_blur() -> None:
    generator = torch.Generator().manual_seed(0)
    grey = torch.randn(3, 1, 128, 128, generator=generator).expand(3, 3, 128, 128)
    deviations = torch.tensor([0.01, 0.04, 0.08])
    images = 0.5 + deviations.view(3, 1, 1, 1) * grey.clamp(-4, 4)
    assert torch.allclose(meters.noise(images), deviations, rtol=0.05)
    blurred = torch.nn.functional.avg_pool2d(images, 3, 1)
    assert bool((meters.sharpness(blurred) < meters.sharpness(images) / 5).all())


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 19), st.integers(3, 12), st.integers(3, 12))
def test_a_reading_belongs_to_the_image_not_to_the_batch(seed: int, count: int, height: int, width: int) -> None:
    images = torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(seed))
    together = meters.drift(images)
    for name, values in together.items():
        assert values.shape == (count,) and values.dtype == torch.float32
        alone = torch.stack([meters.METERS[name](images[i : i + 1])[0] for i in range(count)])
        assert torch.allclose(values, alone, atol=1e-6), name


def test_numpy_and_empty_input() -> None:
    images = np.random.default_rng(0).random((2, 3, 6, 6))
    assert torch.equal(meters.drift(images)["noise"], meters.drift(torch.as_tensor(images))["noise"])
    assert all(values.shape == (0,) for values in meters.drift(torch.zeros(0, 3, 6, 6)).values())


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (torch.rand(3, 8, 8), r"shape \[N, 3, H, W\]"),
        (torch.rand(1, 8, 8, 3), r"shape \[N, 3, H, W\]"),
        (torch.rand(1, 3, 2, 8), "at least 3 pixels"),
        (torch.full((1, 3, 8, 8), 200.0), r"lie in \[0, 1\]"),
        (torch.full((1, 3, 8, 8), -1.0), r"lie in \[0, 1\]"),
        (torch.full((1, 3, 8, 8), 9, dtype=torch.uint8), "divide 8-bit"),
        (torch.cat([torch.rand(1, 3, 8, 8), torch.full((1, 3, 8, 8), math.nan)]), "image 1 holds a NaN"),
    ],
)
def test_wrong_images_are_refused(images: torch.Tensor, says: str) -> None:
    with pytest.raises(GuerdonError, match=says):
        meters.drift(images)
