from __future__ import annotations

import pytest
import torch

from guerdon.core.errors import GuerdonError
from guerdon.trainers.watch import HackingWatch


def _watch(levels: list[float], spread: list[float], patience: int | None = 2) -> HackingWatch:
    """A policy whose pictures have, one measurement after the other, these mean levels and this spread."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(8, 3, 16, 16, generator=generator) - 0.5
    pictures = iter([(level + width * noise).clamp(0, 1) for level, width in zip(levels, spread, strict=True)])
    return HackingWatch(
        draw=lambda: next(pictures), groups=[0] * 4 + [1] * 4, roles={"mean": "validation", "other": "held-out"},
        judges={"mean": lambda x: x.mean((1, 2, 3)), "other": lambda x: 1 - x.mean((1, 2, 3))}, patience=patience,
    )  # fmt: skip


def test_it_keeps_the_best_validation_score_and_stops_after_the_cliff() -> None:
    watch = _watch([0.3, 0.5, 0.45, 0.4], [0.5] * 4)
    stops = []
    for step in range(4):
        watch.measure(step)
        stops.append(watch.exhausted())
    assert watch.best()["step"] == 1 and stops == [False, False, False, True]


def test_the_held_out_judge_decides_nothing() -> None:
    watch = _watch([0.3, 0.5, 0.45], [0.5] * 3)
    assert watch.measure(0)["judge/other/held-out"] == pytest.approx(0.7, abs=0.02)
    for step in (1, 2):
        watch.measure(step)
    chosen = watch.best()["step"]
    for row in watch.rows:
        row["judge/other/held-out"] = 100.0 * row["step"]
    assert watch.best()["step"] == chosen == 1


def test_a_checkpoint_that_lost_diversity_is_not_eligible() -> None:
    watch = _watch([0.3, 0.6, 0.4], [0.5, 0.05, 0.5])
    for step in range(3):
        watch.measure(step)
    assert not watch.eligible(watch.rows[1])
    assert watch.best()["step"] == 2


def test_without_patience_it_never_stops() -> None:
    watch = _watch([0.5, 0.4, 0.3, 0.2], [0.5] * 4, patience=None)
    for step in range(4):
        watch.measure(step)
        assert not watch.exhausted()


def test_a_figure_that_cannot_be_measured_forbids_nothing() -> None:
    watch = _watch([0.3, 0.5], [0.5] * 2)
    watch.groups = list(range(8))
    for step in range(2):
        watch.measure(step)
    assert watch.rows[0]["diversity"] != watch.rows[0]["diversity"]
    assert watch.best()["step"] == 1


def test_a_judge_without_a_role_is_an_error() -> None:
    with pytest.raises(GuerdonError, match="'mean' has no role"):
        HackingWatch(lambda: torch.zeros(1), [0], {"mean": lambda x: x}, {})
