"""The cosine of a teacher's rate."""

from __future__ import annotations

import pytest

from guerdon.objectives.teacher_schedule import cosine_rate


def test_it_falls_from_start_to_end() -> None:
    rates = [cosine_rate(step, 10, start=0.3, end=0.05) for step in range(13)]
    assert rates[0] == pytest.approx(0.3) and rates[5] == pytest.approx(0.175) and rates[10] == pytest.approx(0.05)
    assert rates[10:] == [rates[10]] * 3 and all(a > b for a, b in zip(rates[:10], rates[1:11]))


def test_what_it_refuses() -> None:
    with pytest.raises(ValueError, match="step"):
        cosine_rate(-1, 10)
    with pytest.raises(ValueError, match="total"):
        cosine_rate(0, 0)
    with pytest.raises(ValueError, match="rates"):
        cosine_rate(0, 1, start=1.5)
