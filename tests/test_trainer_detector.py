from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from guerdon.core.errors import GuerdonError
from guerdon.models.detectors.corruptions import blur, noise
from guerdon.models.detectors.small import FAMILIES, StatisticsMLP, make_detector, p_real
from guerdon.trainers.detector import evaluate_detector, fresh_detector_accuracy, train_detector


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def textures(n: int, seed: int, width: int = 3) -> torch.Tensor:
    """Random coloured textures whose grain is `width` pixels: 3 stands for real, wider for too smooth fakes."""
    raw = torch.randn(n, 3, 32 + width - 1, 32 + width - 1, generator=generator(seed))
    pooled = F.avg_pool2d(raw, width, 1) * width
    return (0.5 + 0.12 * pooled).clamp(0, 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_learns_to_tell_two_textures_apart(family: str) -> None:
    real, fake = textures(96, 0), textures(96, 1, width=5)
    model = make_detector(family, seed=0)
    report = train_detector(model, real, fake, steps=60, batch_size=32, lr=3e-3, generator=generator())
    assert report.balanced_accuracy >= 0.9 and report.auroc >= 0.95
    assert report.real_mean > 0.5 > report.fake_mean
    assert report.steps == 60 and not model.training
    unseen = p_real(model, textures(32, 8)).mean() - p_real(model, textures(32, 9, width=5)).mean()
    assert unseen > 0.4


def test_corrupted_negatives_keep_corruption_from_looking_real() -> None:
    real, fake = textures(96, 0), textures(96, 1, width=5)
    noisy_fake = noise(fake, 0.12, generator(3))
    scores: dict[float, list[float]] = {}
    for share in (0.0, 0.5):
        model = make_detector("spectrum", seed=0)
        options: dict[str, Any] = dict(steps=100, batch_size=48, lr=3e-3, augment_both=False)
        report = train_detector(model, real, fake, corrupt_real_as_fake=share, generator=generator(), **options)
        noisy_real = noise(real, 0.12, generator(4))
        scores[share] = [float(p_real(model, pictures).mean()) for pictures in (noisy_real, noisy_fake)]
        scores[share].append(report.corrupted_mean)
        assert report.real_mean > 0.7 and report.fake_mean < 0.3
    # RealGen's finding: to a detector without them, noise turns a too smooth fake into a photograph.
    assert min(scores[0.0][:2]) > 0.7
    assert max(scores[0.5]) < 0.3


def test_equal_calls_give_equal_weights_whatever_the_global_state() -> None:
    real, fake = textures(24, 0), textures(24, 1, width=5)
    states = []
    for seed in (0, 0, 1):
        torch.manual_seed(len(states))
        model = make_detector("wavelet", seed=0)
        report = train_detector(model, real, fake, steps=5, batch_size=8, generator=generator(seed))
        states.append((report, model.state_dict()))
    assert states[0][0] == states[1][0] != states[2][0]
    assert all(torch.equal(value, states[1][1][key]) for key, value in states[0][1].items())
    assert not torch.equal(states[0][1]["head.weight"], states[2][1]["head.weight"])


def test_a_calibrated_detector_is_not_calibrated_again() -> None:
    real, fake = textures(24, 0), textures(24, 1, width=5)
    model = make_detector("spectrum", seed=0)
    assert isinstance(model, StatisticsMLP)
    train_detector(model, real, fake, steps=2, generator=generator())
    shift = model.shift.clone()
    train_detector(model, fake, real, steps=2, generator=generator(1))
    assert model.calibrated and torch.equal(model.shift, shift)


def test_progress_sees_every_step() -> None:
    seen: list[tuple[int, dict[str, float]]] = []
    train_detector(
        make_detector("spectrum", seed=0),
        textures(16, 0),
        textures(16, 1, width=5),
        steps=4,
        generator=generator(),
        progress=lambda step, row: seen.append((step, row)),
    )
    assert [step for step, _ in seen] == [0, 1, 2, 3]
    assert all(row["loss"] > 0 and 0 <= row["accuracy"] <= 1 for _, row in seen)


def test_a_fresh_detector_finds_a_difference_and_is_at_chance_without_one() -> None:
    real = textures(120, 0)
    options: dict[str, Any] = dict(steps=60, batch_size=32, lr=3e-3)
    far = fresh_detector_accuracy(real, textures(120, 1, width=5), "spectrum", **options)
    near = fresh_detector_accuracy(real, blur(textures(120, 2), 0.45), "spectrum", **options)
    same = fresh_detector_accuracy(real, textures(120, 2), "spectrum", **options)
    assert far > 0.95
    assert 0.35 < same < 0.65
    assert same < near <= far
    assert far == fresh_detector_accuracy(real, textures(120, 1, width=5), "spectrum", **options)


def test_evaluation_of_a_constant_detector_is_chance() -> None:
    model = make_detector("cnn", seed=0)
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.copy_(torch.tensor([1.0, 0.0]))
    report = evaluate_detector(model, textures(8, 0), textures(8, 1), generator=generator())
    assert report.balanced_accuracy == 0.5 and report.auroc == 0.5
    assert report.real_mean == pytest.approx(report.fake_mean) == pytest.approx(0.7310586)
    assert set(report.as_dict()) >= {"balanced_accuracy", "auroc", "real_mean", "fake_mean", "corrupted_mean"}


def test_mistakes_are_named() -> None:
    model, real = make_detector("cnn", seed=0), textures(8, 0)
    with pytest.raises(GuerdonError, match="fake images: need at least 4, got 2"):
        train_detector(model, real, real[:2])
    with pytest.raises(GuerdonError, match=r"differ in size \(\[32, 32\] and \[16, 16\]\)"):
        train_detector(model, real, real[..., :16, :16])
    with pytest.raises(GuerdonError, match=r"corrupt_real_as_fake must lie in \[0, 1\), got 1"):
        train_detector(model, real, real, corrupt_real_as_fake=1.0)
    with pytest.raises(GuerdonError, match="label_smoothing must lie"):
        train_detector(model, real, real, label_smoothing=0.5)
    with pytest.raises(GuerdonError, match=r"must be a tensor \[N, 3, H, W\]"):
        train_detector(model, real[0], real)
