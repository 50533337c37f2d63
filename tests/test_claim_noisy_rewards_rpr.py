"""The claim on noisy rewards: its two worlds, a small run, and the whole of it (slow)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guerdon.claims.noisy_rewards_rpr import Size, climb, learn, quick, run

SIZE = replace(Size(), updates=60, questions=60, reward_updates=60, groups=8)


def test_turning_every_reward_round_teaches_the_opposite() -> None:
    clean, turned = learn(0.0, "group", SIZE, 1), learn(1.0, "group", SIZE, 1)
    assert clean["held-out P(right)"] > 0.4 and clean["turned"] == 0
    assert turned["held-out P(right)"] < 0.1 and turned["turned"] == 1


def test_units_of_noise_turn_the_same_share() -> None:
    by_group, by_rollout = (learn(0.4, unit, SIZE, 2)["turned"] for unit in ("group", "rollout"))
    assert by_group == pytest.approx(0.4, abs=0.03) and by_rollout == pytest.approx(0.4, abs=0.03)


def test_patterns_alone_overthink_where_they_show_the_reasoning() -> None:
    raw, only = climb("raw", True, SIZE, 1), climb("patterns", True, SIZE, 1)
    assert only["reasoning"] > 3.5 > raw["reasoning"]
    free = climb("patterns", False, SIZE, 1)
    assert free["phrases"] > 3.5 and free["reasoning"] == pytest.approx(2, abs=0.4)


def test_a_small_run_has_every_arm() -> None:
    result = quick(seeds=(1, 2, 3))
    assert len(result.arms) == 13 and len(result.checks) == 10 and result.seeds == [1, 2, 3]
    assert result.to_json()["verdict"] in ("holds", "fails", "inconclusive")
    assert len(result.sections) == 2


@pytest.mark.slow
def test_full_claim() -> None:
    """Every check passes but one, which these three seeds leave open."""
    found = {check.name: check.outcome for check in run((11, 12, 13)).checks}
    assert found.pop("and loses at most five points to p = 0") != "failed"
    assert set(found.values()) == {"passed"}, found
