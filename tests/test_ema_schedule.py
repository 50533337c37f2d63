from __future__ import annotations

import pytest

from guerdon.objectives.ema_schedule import ema_decay


@pytest.mark.parametrize(
    ("step", "ceiling", "decay"),
    [
        (0, 0.9, 0.1),
        (8, 0.9, 0.5),
        (79, 0.9, 80 / 89),
        (80, 0.9, 0.9),
        (10_000, 0.9, 0.9),
        (890, 0.99, 0.99),
        (0, 0.0, 0.0),
    ],
)
def test_warm_up_and_ceiling(step: int, ceiling: float, decay: float) -> None:
    assert ema_decay(step, ceiling) == pytest.approx(decay, abs=1e-12)


def test_decay_never_falls() -> None:
    decays = [ema_decay(step, 0.99) for step in range(2000)]
    assert decays == sorted(decays)
    assert max(decays) == 0.99


def test_errors() -> None:
    with pytest.raises(ValueError, match="step must be >= 0"):
        ema_decay(-1, 0.9)
    with pytest.raises(ValueError, match=r"max_decay must be in \[0, 1\]"):
        ema_decay(0, 1.5)
