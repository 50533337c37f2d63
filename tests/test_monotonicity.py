"""Spearman's rho of a proxy's and gold's means over checkpoints."""

from __future__ import annotations

import numpy as np
import pytest

from guerdon.core.errors import GuerdonError
from guerdon.metrics.monotonicity import monotonicity


def test_order_alone_counts() -> None:
    proxy = np.array([[1.0, 3.0], [2.0, 8.0], [9.0, 9.0]])
    found = monotonicity(proxy, np.exp(proxy))
    assert found.rho == pytest.approx(1.0) and found.means[0] == pytest.approx((2.0, (np.e + np.e**3) / 2))
    assert monotonicity(proxy, -proxy).rho == pytest.approx(-1.0)


def test_what_is_missing_is_missing_on_both_sides() -> None:
    proxy = np.array([[1.0, np.nan], [2.0, 0.0], [3.0, 0.0]])
    gold = np.array([[5.0, 100.0], [6.0, 6.0], [7.0, np.nan]])
    assert monotonicity(proxy, gold).means == [(1.0, 5.0), (1.0, 6.0), (3.0, 7.0)]


def test_no_order() -> None:
    assert np.isnan(monotonicity(np.ones((3, 2)), np.arange(6.0).reshape(3, 2)).rho)
    with pytest.raises(GuerdonError, match="checkpoints >= 3"):
        monotonicity(np.ones((2, 2)), np.ones((2, 2)))
    with pytest.raises(GuerdonError, match="no prompt that both"):
        monotonicity(np.full((3, 1), np.nan), np.ones((3, 1)))
