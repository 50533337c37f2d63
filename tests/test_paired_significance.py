"""The exact sign test is McNemar's, and Holm's adjustment is the textbook's."""

from __future__ import annotations

import math
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guerdon.core.errors import GuerdonError
from guerdon.metrics.paired_significance import holm, sign_test


def test_mcnemars_exact_test() -> None:
    first = [1] * 9 + [0] * 2 + [1] * 5
    second = [0] * 9 + [1] * 2 + [1] * 5
    found = sign_test(first, second)
    assert (found.better, found.worse, found.equal) == (9, 2, 5)
    assert found.p == pytest.approx(2 * sum(comb(11, k) for k in range(3)) / 2**11)


def test_missing_rows_are_left_out_and_equal_models_are_equal() -> None:
    found = sign_test([1, math.nan, 0], [0, 1, math.nan])
    assert (found.better, found.worse, found.equal) == (1, 0, 0) and found.p == 1
    assert sign_test([0.5, 1], [0.5, 1]).p == 1


def test_under_the_null_small_p_values_are_rare() -> None:
    rng = np.random.default_rng(0)
    p = [sign_test(rng.random(60), rng.random(60)).p for _ in range(400)]
    assert np.mean(np.array(p) <= 0.05) <= 0.07  # exact, hence conservative


def test_shapes() -> None:
    with pytest.raises(GuerdonError, match="pairs rows"):
        sign_test([1, 2], [1])


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, math.nan, 0.2])[::2] == pytest.approx([0.5, 0.4]) and math.isnan(holm([0.5, math.nan])[1])
    assert holm([]) == []
    with pytest.raises(GuerdonError, match=r"\[0, 1\]"):
        holm([1.5])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_adjusted_values_keep_the_order_and_are_never_smaller(p: list[float]) -> None:
    adjusted = holm(p)
    assert all(a >= b for a, b in zip(adjusted, p)) and max(adjusted) <= 1
    ranked = [adjusted[place] for place in np.argsort(p, kind="stable")]
    assert ranked == sorted(ranked)
