from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from guerdon.core.errors import GuerdonError
from guerdon.metrics.diversity import (
    diversity,
    features,
    frechet_distance,
    manifold_scores,
    mean_pairwise_distance,
    mmd2,
)


def test_features_shape_determinism_and_batch_invariance() -> None:
    images = torch.rand(70, 3, 32, 40, generator=torch.Generator().manual_seed(0))
    found = features(images)
    assert found.shape == (70, 288) and found.dtype == torch.float32
    assert torch.equal(found, features(images))
    alone = torch.cat([features(images[i : i + 1]) for i in (0, 3, 69)])
    assert torch.allclose(found[[0, 3, 69]], alone, atol=1e-6)
    assert features(images[:0]).shape == (0, 288)
    assert features(images, grid=2).shape == (70, 14 * 4 + 64)


def test_features_of_flat_colours_by_hand() -> None:
    black, white = torch.zeros(1, 3, 16, 16), torch.ones(1, 3, 16, 16)
    # Colour block: 48 means differ by 1 out of 96 entries; luminance block: all 64 differ by 1; no gradient.
    assert diversity(torch.cat([black, white])) == pytest.approx(math.sqrt(48 / 96 + 1), rel=1e-5)


def test_features_tell_orientation_and_ignore_its_sign() -> None:
    wave = 0.5 + 0.4 * torch.sin(torch.arange(64) * 0.7)
    vertical = wave.expand(1, 3, 64, 64)
    found = features(torch.cat([vertical, vertical.transpose(2, 3), 1 - vertical]))[:, 96 : 96 + 128]
    assert float((found[0] - found[1]).norm()) > 1.0
    assert float((found[0] - found[2]).norm()) < 0.05


def test_features_of_two_sizes_agree() -> None:
    generator = torch.Generator().manual_seed(1)
    small = torch.nn.functional.interpolate(torch.rand(1, 3, 6, 6, generator=generator), (64, 64), mode="bilinear")
    large = torch.nn.functional.interpolate(small, (256, 256), mode="nearest")
    assert torch.allclose(features(small), features(large), atol=1e-5)


def test_mean_pairwise_distance_within_groups() -> None:
    rows = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0], [0.0, 2.0], [0.0, 4.0], [9.0, 9.0]])
    assert mean_pairwise_distance(rows[:2]) == pytest.approx(5.0)
    # Group a: 5; group b: (2 + 2 + 4) / 3; group c has one row and says nothing.
    expected = (5.0 + 8 / 3) / 2
    assert mean_pairwise_distance(rows, list("aabbbc")) == pytest.approx(expected)
    assert mean_pairwise_distance(rows, torch.tensor([0, 0, 1, 1, 1, 2])) == pytest.approx(expected)
    assert math.isnan(mean_pairwise_distance(rows, np.arange(6)))
    with pytest.raises(GuerdonError, match="each of the 6 rows; got 2"):
        mean_pairwise_distance(rows, [0, 1])


def test_diversity_sees_a_collapse() -> None:
    images = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    collapsed = images[:1].expand(8, -1, -1, -1)
    assert diversity(collapsed) == 0.0
    assert diversity(images, [0, 0, 1, 1, 2, 2, 3, 3]) > 0.1


def test_manifold_scores_by_hand() -> None:
    real = torch.tensor([[0.0], [1.0], [2.0], [10.0]])  # k = 1 radii: 1, 1, 1, 8
    fake = torch.tensor([[0.5], [2.5], [100.0]])  # k = 1 radii: 2, 2, 97.5
    scores = manifold_scores(real, fake, k=1)
    # 0.5 is in the balls of 0 and 1; 2.5 in those of 2 and 10 (|10 - 2.5| = 7.5 <= 8); 100 in none.
    assert scores.precision == pytest.approx(2 / 3)
    assert scores.density == pytest.approx((2 + 2 + 0) / 3)
    assert scores.coverage == pytest.approx(1.0)
    # Reals 0, 1, 2 lie within 2 of a fake, and 10 lies within 97.5 of 100.
    assert scores.recall == pytest.approx(1.0)
    assert manifold_scores(real, fake + 1000, k=1).coverage == 0.0


def test_manifold_scores_of_the_same_and_of_a_collapsed_set() -> None:
    generator = torch.Generator().manual_seed(0)
    real = torch.randn(200, 4, generator=generator)
    same = manifold_scores(real, real)
    assert (same.precision, same.recall, same.coverage) == (1.0, 1.0, 1.0)
    assert same.density == pytest.approx(6 / 5, abs=0.2)  # 5 neighbours on average, and the point itself
    collapsed = manifold_scores(real, 0.01 * torch.randn(200, 4, generator=generator))
    assert collapsed.precision == 1.0 and collapsed.recall < 0.05 and collapsed.coverage < 0.3
    with pytest.raises(GuerdonError, match="at least 6 rows; got 5"):
        manifold_scores(real[:5], real)


def test_frechet_distance_by_hand() -> None:
    one = np.array([[-1.0], [1.0]])  # mean 0, unbiased variance 2
    other = np.array([[1.0], [5.0]])  # mean 3, unbiased variance 8
    assert frechet_distance(one, other) == pytest.approx(9 + 2 + 8 - 2 * 4)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-12)


def test_frechet_distance_matches_the_matrix_square_root() -> None:
    from scipy.linalg import sqrtm

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 5)) @ rng.normal(size=(5, 5)), rng.normal(size=(30, 5)) + 1
    s1, s2 = np.cov(x.T), np.cov(y.T)
    expected = np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(s1 + s2 - 2 * np.real(sqrtm(s1 @ s2)))
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(x, y) == pytest.approx(frechet_distance(y, x), rel=1e-9)


def test_mmd2_by_hand() -> None:
    real, fake = np.array([[0.0], [1.0]]), np.array([[0.0], [2.0]])
    near, far = math.exp(-0.5), math.exp(-2.0)
    assert mmd2(real, fake, bandwidth=1.0) == pytest.approx(near + far - 2 * (1 + far + near + near) / 4)
    assert mmd2(np.zeros((3, 2)), np.zeros((3, 2))) == pytest.approx(0.0)
    with pytest.raises(GuerdonError, match="positive"):
        mmd2(real, fake, bandwidth=0.0)


def test_mmd2_is_unbiased_and_sees_a_shift() -> None:
    rng = np.random.default_rng(0)
    null = [mmd2(rng.normal(size=(20, 3)), rng.normal(size=(20, 3)), bandwidth=1.5) for _ in range(200)]
    assert abs(np.mean(null)) < 3 * np.std(null) / math.sqrt(200)
    assert min(null) < 0  # a biased estimate never is
    shifted = mmd2(rng.normal(size=(50, 3)), rng.normal(size=(50, 3)) + 1)
    assert shifted > 5 * np.std(null)


def test_wrong_features_are_refused() -> None:
    good = torch.rand(6, 3)
    with pytest.raises(GuerdonError, match="differ in width: 3 and 2"):
        frechet_distance(good, good[:, :2])
    with pytest.raises(GuerdonError, match=r"shape \[N, d\]"):
        mmd2(good[0], good)
    bad = good.clone()
    bad[4, 1] = math.inf
    with pytest.raises(GuerdonError, match="fake features hold a NaN or an infinity in row 4"):
        frechet_distance(good, bad)
    with pytest.raises(GuerdonError, match="at least 6 pixels"):
        features(torch.rand(1, 3, 5, 9))
