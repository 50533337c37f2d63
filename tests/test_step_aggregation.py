"""The eight reducers of step scores, what saturates them, and what is missing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guerdon.core.errors import GuerdonError
from guerdon.metrics.step_aggregation import REDUCERS, StepAggregator, aggregate_steps


@pytest.mark.parametrize(
    "how, value",
    [
        ("min", 0.5), ("max", 0.9), ("prod", 0.36), ("geometric_mean", 0.7114), ("mean", 0.7333), ("last", 0.8),
        ("mean_logit", 0.7675), ("mean_odd", 4.6667),
    ],
)  # fmt: skip
def test_three_steps(how: str, value: float) -> None:
    assert aggregate_steps([0.9, 0.5, 0.8], how) == pytest.approx(value, abs=5e-5)  # type: ignore[arg-type]
    assert aggregate_steps([0.9, 0.5, 0.8], how, log=True) == pytest.approx(math.log(value), abs=1e-4)  # type: ignore[arg-type]


def test_the_list_of_reducers_is_complete() -> None:
    assert len(REDUCERS) == 8
    with pytest.raises(GuerdonError, match="did you mean 'prod'"):
        StepAggregator("product")  # type: ignore[arg-type]


@given(st.floats(0.01, 0.99), st.integers(1, 8))
def test_equal_steps(p: float, count: int) -> None:
    for how in REDUCERS:
        expected = {"prod": p**count, "mean_odd": p / (1 - p)}.get(how, p)
        assert aggregate_steps([p] * count, how) == pytest.approx(expected, rel=1e-9)


def test_saturated_steps_stay_finite_and_ordered() -> None:
    sure, less = aggregate_steps([1.0, 1.0], "mean_logit"), aggregate_steps([1.0, 0.9], "mean_logit")
    assert 0.999 < sure < 1 and less < sure
    assert math.isfinite(aggregate_steps([1.0, 0.5], "mean_odd"))
    assert aggregate_steps([0.0, 1.0], "mean_logit") == pytest.approx(0.5)
    assert aggregate_steps([0.0, 1.0], "prod") == 0.0 and aggregate_steps([0.0, 1.0], "geometric_mean") == 0.0
    assert aggregate_steps([0.0, 1.0], "prod", log=True) == -math.inf


def test_the_logarithm_tells_long_products_apart() -> None:
    long, longer = [0.001] * 200, [0.001] * 201
    assert aggregate_steps(long, "prod") == aggregate_steps(longer, "prod") == 0.0
    assert aggregate_steps(long, "prod", log=True) > aggregate_steps(longer, "prod", log=True)


def test_what_is_missing_is_no_number() -> None:
    found = StepAggregator("mean")([[0.5, 0.7], [], [0.5, math.nan]])
    assert found[0] == pytest.approx(0.6) and np.isnan(found[1:]).all()
    assert StepAggregator("mean", empty=0.5)([[]]).tolist() == [0.5]


@pytest.mark.parametrize("steps, eps", [([1.2], 1e-6), ([-0.1], 1e-6), ([[0.5]], 1e-6), ([0.5], 0.5)])
def test_what_cannot_be_reduced(steps: list[float], eps: float) -> None:
    with pytest.raises(GuerdonError):
        aggregate_steps(steps, "mean", eps=eps)
