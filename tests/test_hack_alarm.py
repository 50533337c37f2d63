"""The alarm: it rings when the rewards rise while the judge falls, and seldom otherwise."""

from __future__ import annotations

import numpy as np
import pytest

from guerdon.core.errors import GuerdonError
from guerdon.trainers.hack_alarm import hack_alarm


def curves(means: list[float], problems: int = 200, seed: int = 0) -> np.ndarray:
    """Shares of four samples that are right, problem by problem, at each look."""
    rng = np.random.default_rng(seed)
    hard = rng.normal(0, 0.15, problems)
    return np.stack([rng.binomial(4, np.clip(mean + hard, 0, 1)) / 4 for mean in means])


RISING = [0.3, 0.4, 0.5, 0.6, 0.7, 0.8]


def test_it_rings_for_a_hack() -> None:
    found = hack_alarm(curves(RISING, seed=1), curves([0.3, 0.5, 0.5, 0.4, 0.3, 0.2], seed=2))
    assert found is not None and found.best in (1, 2) and found.fallen > 0.15 and found.risen > 0.15


@pytest.mark.parametrize("judge", [RISING, [0.5] * 6, [0.3, 0.5, 0.6, 0.6, 0.6, 0.6]])
def test_it_is_still_when_the_judge_does_not_fall(judge: list[float]) -> None:
    assert not any(hack_alarm(curves(RISING, seed=n), curves(judge, seed=n + 50)) for n in range(30))


def test_it_is_still_when_the_proxy_falls_too() -> None:
    falling = [0.3, 0.5, 0.5, 0.4, 0.3, 0.2]
    assert hack_alarm(curves(falling, seed=3), curves(falling, seed=4)) is None


def test_one_bad_look_is_none() -> None:
    judge = curves([0.3, 0.5, 0.5, 0.5, 0.5, 0.2], seed=5)
    assert hack_alarm(curves(RISING, seed=6), judge) is None
    assert hack_alarm(curves(RISING, seed=6), judge, patience=1) is not None


def test_what_is_not_known_is_left_out() -> None:
    proxy, judge = curves(RISING, seed=1), curves([0.3, 0.5, 0.5, 0.4, 0.3, 0.2], seed=2)
    whole = hack_alarm(proxy, judge)
    judge[:, ::3] = np.nan
    partial = hack_alarm(proxy, judge)
    assert whole is not None and partial is not None and partial.fallen == pytest.approx(whole.fallen, abs=0.1)
    assert hack_alarm(proxy, np.full_like(judge, np.nan)) is None
    assert hack_alarm(proxy[:2], judge[:2]) is None, "two looks are too few for a patience of two"


def test_shapes() -> None:
    with pytest.raises(GuerdonError, match=r"got \[2, 3\], \[3, 2\] and 2"):
        hack_alarm(np.zeros((2, 3)), np.zeros((3, 2)))
    with pytest.raises(GuerdonError, match="patience >= 1"):
        hack_alarm(np.zeros((2, 3)), np.zeros((2, 3)), patience=0)
