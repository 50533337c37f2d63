"""The watch over self-given labels: it warns of agreement without truth, and stays silent otherwise."""

from __future__ import annotations

import pytest

from guerdon.core.errors import GuerdonError
from guerdon.metrics.majority_vote import Vote
from guerdon.rewards.text.agreement import Elected
from guerdon.trainers.self_reward_monitor import SelfRewardWatch


def labels(share: float, *, same: bool = False, right: bool | None = None) -> list[Elected]:
    return [Elected(k, Vote("1" if same else str(k), share, 0.1, 8), right, right) for k in range(10)]


def test_agreement_without_truth() -> None:
    watch = SelfRewardWatch()
    curve = [(0.5, 0.60), (0.6, 0.62), (0.7, 0.55), (0.8, 0.50), (0.9, 0.40)]
    raised = [watch.measure(step, labels(share), held_out=truth) for step, (share, truth) in enumerate(curve)]
    assert [len(alarms) for alarms in raised] == [0, 0, 0, 1, 1]
    assert raised[3][0].measure.startswith("held_out") and raised[3][0].bound == pytest.approx(0.57)


def test_learning_is_no_collapse() -> None:
    watch = SelfRewardWatch()
    for step in range(10):
        watch.measure(step, labels(0.4 + 0.05 * step, right=step > 4), held_out=0.3 + 0.04 * step)
    assert watch.alarms == [] and watch.rows[-1]["label_accuracy"] == 1.0 and watch.rows[-1]["views_agree"] == 1.0
    # A fall of accuracy alone is another matter than a collapse onto one's own votes.
    flat = SelfRewardWatch()
    for step in range(5):
        flat.measure(step, labels(0.5), held_out=0.6 - 0.1 * step)
    assert flat.alarms == []


def test_one_answer_to_everything() -> None:
    watch = SelfRewardWatch()
    assert watch.measure(0, labels(0.5, same=True)) == []
    (alarm,) = watch.measure(1, labels(0.5, same=True))
    assert alarm.measure == "top_label" and alarm.value == 1.0 and alarm.times == 2
    few = SelfRewardWatch(patience=1)
    assert few.measure(0, labels(0.5, same=True)[:7]) == [] and few.measure(1, []) == []


def test_bounds() -> None:
    with pytest.raises(GuerdonError):
        SelfRewardWatch(rise=0.0)
