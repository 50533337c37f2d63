from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from guerdon.core.errors import GuerdonError
from guerdon.models.detectors.small import (
    FAMILIES,
    GradientStatsMLP,
    LogSpectrumMLP,
    PatchCNN,
    SmallCNN,
    StatisticsMLP,
    WaveletStatsMLP,
    family_of,
    load_detector,
    make_detector,
    opponent_colours,
    p_real,
    save_detector,
)


def images(n: int, size: tuple[int, int] = (32, 32), seed: int = 0) -> torch.Tensor:
    return torch.rand(n, 3, *size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", [(32, 32), (40, 24), (17, 33)])
def test_logits_have_two_columns_and_a_finite_gradient(family: str, size: tuple[int, int]) -> None:
    model = make_detector(family, seed=0)
    pictures = images(3, size).requires_grad_()
    logits = model(pictures)
    assert logits.shape == (3, 2) and logits.dtype == torch.float32
    logits.square().sum().backward()
    assert pictures.grad is not None and torch.isfinite(pictures.grad).all()
    for flat in (torch.zeros(1, 3, *size), torch.ones(1, 3, *size)):
        assert torch.isfinite(model(flat)).all()


@settings(max_examples=8, deadline=None)
@given(
    family=st.sampled_from(sorted(FAMILIES)),
    seed=st.integers(0, 1000),
    cuts=st.lists(st.integers(1, 5), min_size=1, max_size=4),
)
def test_a_score_belongs_to_the_sample(family: str, seed: int, cuts: list[int]) -> None:
    model = make_detector(family, seed=seed)
    pictures = images(sum(cuts), seed=seed)
    order = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(seed))
    whole = p_real(model, pictures)
    parts = torch.cat([p_real(model, part) for part in pictures[order].split(cuts)])
    assert torch.allclose(parts, whole[order], atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_training_mode_scores_as_evaluation_mode(family: str) -> None:
    model, pictures = make_detector(family, seed=1), images(4)
    assert torch.equal(model.train()(pictures), model.eval()(pictures))


def test_opponent_colours_of_grey_are_luminance_and_zeros() -> None:
    grey = torch.full((1, 3, 2, 2), 0.3)
    result = opponent_colours(grey)
    assert torch.allclose(result[:, 0], torch.tensor(0.3)) and torch.allclose(
        result[:, 1:], torch.tensor(0.0), atol=1e-7
    )
    red = opponent_colours(torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)).flatten()
    assert red.tolist() == pytest.approx([0.299, -0.299, 0.701])


def test_patch_logits_are_local() -> None:
    model = PatchCNN().eval()
    pictures = images(1)
    changed = pictures.clone()
    changed[..., 20:, 20:] = 0.5
    before, after = model.patch_logits(pictures), model.patch_logits(changed)
    # Patch (0, 0) sees pixels 0 to 8 only; the last one sees the changed corner.
    assert torch.allclose(before[0, 0, 0], after[0, 0, 0], atol=1e-6)
    assert not torch.allclose(before[0, -1, -1], after[0, -1, -1], atol=1e-4)
    assert torch.allclose(model(pictures), before.mean((1, 2)), atol=1e-6)


def test_spectrum_puts_a_wave_into_its_radial_bin() -> None:
    model = LogSpectrumMLP()
    x = torch.arange(32) / 32

    def loudest(cycles: int) -> int:
        wave = (0.5 + 0.3 * torch.cos(2 * torch.pi * cycles * x)).expand(1, 3, 32, 32)
        return int(model.statistics(wave)[0, : model.radial_bins].argmax())

    # Radius of 4 and 12 cycles in 32 pixels, as a share of the diagonal Nyquist frequency, times 14 bins.
    assert loudest(4) == int(4 / 32 / 0.5**0.5 * 14)
    assert loudest(12) == int(12 / 32 / 0.5**0.5 * 14)


@pytest.mark.parametrize("kind", [GradientStatsMLP, LogSpectrumMLP, WaveletStatsMLP])
def test_statistics_ignore_a_mirror_less_than_noise(kind: type[StatisticsMLP]) -> None:
    model = kind()
    smooth = torch.nn.functional.avg_pool2d(images(8, (36, 36)), 5, 1)
    model.calibrate(torch.cat([smooth, images(8, (32, 32), seed=1)]))

    def distance(other: torch.Tensor) -> float:
        return float(((model.statistics(other) - model.statistics(smooth)) * model.scale).norm())

    noisy = (smooth + 0.1 * torch.randn(smooth.shape, generator=torch.Generator().manual_seed(2))).clamp(0, 1)
    assert distance(smooth.flip(-1)) < distance(noisy)


def test_calibration_standardises_once_and_is_saved() -> None:
    model = GradientStatsMLP()
    pictures = images(64)
    assert not model.calibrated
    model.calibrate(pictures)
    assert model.calibrated
    scaled = (model.statistics(pictures) - model.shift) * model.scale
    assert scaled.mean(0).abs().max() < 1e-2
    spread = scaled.std(0, unbiased=False)
    assert spread.max() < 1.01 and spread.median() > 0.99
    before = model.scale.clone()
    model(images(4, seed=9))
    assert torch.equal(model.scale, before)


def test_small_images_and_wrong_shapes_are_named() -> None:
    with pytest.raises(GuerdonError, match=r"at least 16x16 pixels, got \[8, 8\]"):
        WaveletStatsMLP()(torch.zeros(1, 3, 8, 8))
    with pytest.raises(GuerdonError, match=r"\[N, 3, H, W\], got \[3, 32, 32\]"):
        SmallCNN()(torch.zeros(3, 32, 32))


def test_seed_decides_the_weights_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, second = make_detector("cnn", seed=3), make_detector("cnn", seed=3)
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    with pytest.raises(GuerdonError, match="did you mean 'spectrum'"):
        make_detector("spectrun")


@pytest.mark.parametrize("family", FAMILIES)
def test_save_and_load_give_the_same_scores(family: str, tmp_path) -> None:
    model, pictures = make_detector(family, seed=2), images(8)
    if isinstance(model, StatisticsMLP):
        model.calibrate(pictures)
    loaded = load_detector(save_detector(model, tmp_path / family))
    assert type(loaded) is type(model) and not loaded.training and family_of(loaded) == family
    assert torch.equal(p_real(loaded, pictures), p_real(model, pictures))


def test_loading_names_the_key_that_does_not_fit(tmp_path) -> None:
    folder = save_detector(make_detector("cnn", seed=0, width=16), tmp_path)
    weights = load_file(folder / "detector.safetensors")

    missing = dict(weights)
    del missing["head.bias"]
    save_file(missing, folder / "detector.safetensors")
    with pytest.raises(GuerdonError, match="weight 'head.bias' is missing"):
        load_detector(folder)

    save_file(weights | {"head.biass": torch.zeros(2)}, folder / "detector.safetensors")
    with pytest.raises(GuerdonError, match="'head.biass'; did you mean 'head.bias'"):
        load_detector(folder)

    save_file(weights, folder / "detector.safetensors")
    (folder / "detector.json").write_text(json.dumps({"family": "cnn", "config": {"width": 32}}))
    with pytest.raises(GuerdonError, match="'conv1.weight' has shape"):
        load_detector(folder)

    (folder / "detector.json").write_text("{")
    with pytest.raises(GuerdonError, match="detector.json: not a detector configuration"):
        load_detector(folder)
    (folder / "detector.safetensors").write_bytes(b"no")
    (folder / "detector.json").write_text(json.dumps({"family": "cnn", "config": {"width": 16}}))
    with pytest.raises(GuerdonError, match="not a safetensors file"):
        load_detector(folder)
    with pytest.raises(GuerdonError, match="'detector.json' is missing"):
        load_detector(tmp_path / "nowhere")
