"""The claim about capped AP: its made world is what it says, and the experiment made tiny runs through."""

from __future__ import annotations

import numpy as np
import pytest

from guerdon.claims import lvis_ap
from guerdon.claims.experiment import Arm
from guerdon.claims.lvis_ap import GAMES, SCORES, Size, calibrated, gamed, rooms, scene, unmoved

TINY = Size(images=60, classes=12, rows=200)


def test_rare_classes_are_rare_and_timid() -> None:
    gt, dt, tier = scene(Size(), 5)
    count = np.bincount(gt.cls, minlength=60)
    assert count[tier == 0].sum() > 4 * count[tier == 2].sum() and tier.tolist() == sorted(tier.tolist())
    assert dt.score[dt.cls < 20].mean() > 2 * dt.score[dt.cls >= 40].mean()
    assert np.bincount(dt.image).mean() == pytest.approx(40, abs=1) and np.bincount(gt.image).min() >= 1


def test_rows_follow_the_odds_that_were_distorted() -> None:
    fit, test = rooms(Size(rows=4000), 5)
    assert not np.array_equal(fit.score, test.score) and np.array_equal(fit.cls, test.cls)
    share = np.array([test.right[test.cls == c].mean() for c in range(60)])
    assert share[0] > 0.4 and share[-1] < 0.2 and np.corrcoef(share, np.arange(60))[0, 1] < -0.7


def test_games_and_maps_leave_ap_fixed_alone() -> None:
    games, scores = gamed(TINY, 5), calibrated(TINY, 5)
    assert tuple(games) == GAMES and tuple(scores) == SCORES
    assert len({row["AP-Fixed"] for row in games.values()}) == 1
    kept = {name: row["AP-Fixed"] for name, row in scores.items() if name != "isotonic, ties left"}
    assert len(set(kept.values())) == 1 and scores["isotonic, ties left"]["AP-Fixed"] < kept["raw"]


def test_a_measure_that_moves_fails_its_check() -> None:
    first, second = Arm("a", {"x": [0.5, 0.6]}), Arm("b", {"x": [0.5, 0.6 + 1e-15]})
    assert unmoved("x", "x", first, first).outcome == "passed" and unmoved("x", "x", first, second).outcome == "failed"


def test_tiny() -> None:
    found = lvis_ap.run((1, 2), size=TINY).to_json()
    assert found["slug"] == "lvis-ap" and found["verdict"] in ("inconclusive", "fails")  # two seeds cannot hold
    arms = found["details"]["arms"]
    gains = [a - b for a, b in zip(arms["isotonic a class"]["AP-Pool"], arms["raw"]["AP-Pool"])]
    assert found["effect"] == pytest.approx(sum(gains) / 2)
    again = lvis_ap.run((1,), size=TINY).to_json()["details"]["arms"]
    assert all(again[name][key] == values[key][:1] for name, values in arms.items() for key in values)


@pytest.mark.slow
def test_full_claim() -> None:
    result = lvis_ap.run()
    assert result.verdict == "holds", "\n".join(f"{c.outcome}: {c.name}: {c.detail}" for c in result.checks)
