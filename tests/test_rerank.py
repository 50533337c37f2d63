"""The re-ranking attack: it finds the cap's weakness, leaves every group's ranking alone, and is not fooled itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guerdon.audits.rerank import RerankAttack, lifted
from guerdon.core.errors import GuerdonError
from guerdon.metrics.average_precision import class_curves, pooled_curves
from guerdon.metrics.detection_matching import match_detections
from guerdon.metrics.detection_sets import Detections, top_per_class, top_per_image
from guerdon.metrics.score_calibration import pooled_ranking
from test_average_precision import toy


def metrics() -> tuple[Detections, dict]:
    """Capped AP, AP-Fixed and AP-Pool of the toy, of any scores."""
    gt, dt = toy()

    def table(score):
        return match_detections(gt, dt.rescored(score), thresholds=[0.5])

    return dt, {
        "AP": lambda score: class_curves(table(score), keep=top_per_image(dt.rescored(score), 2)).ap(),
        "AP-Fixed": lambda score: class_curves(table(score), keep=top_per_class(dt.rescored(score), 10)).ap(),
        "AP-Pool": lambda score: pooled_curves(table(score)).ap(),
    }


def test_the_toy_is_gamed_as_by_hand() -> None:
    dt, named = metrics()
    attack = RerankAttack(dt.score, dt.cls, {"second class first": [0, 1]}, budget=0)
    found = {name: attack.run(metric, name) for name, metric in named.items()}
    assert found["AP"].before == pytest.approx(0.5) and found["AP"].policies["second class first"] == pytest.approx(
        0.752475
    )
    assert found["AP"].gain == pytest.approx(0.252475) and not found["AP"].safe
    assert found["AP-Fixed"].gain == 0 and found["AP-Fixed"].safe
    assert found["AP-Pool"].policies["second class first"] < found["AP-Pool"].before
    assert found["AP"].tier.tolist()[1] > found["AP"].tier.tolist()[0]


def test_the_search_finds_what_no_policy_named() -> None:
    dt, named = metrics()
    found = RerankAttack(dt.score, dt.cls, budget=20).run(named["AP"], "AP")
    # Lifted in part, the class's right box passes the cap of its image and the wrong one does not: better than by hand.
    assert found.after == pytest.approx(1) and found.curve[0] == (1, 0.5) and found.curve[-1][0] == 21
    best = [value for _, value in found.curve]
    assert best == sorted(best)


def test_accuracy_inside_prompts_is_safe_and_a_pooled_ranking_is_not() -> None:
    rng = np.random.default_rng(0)
    group, right = np.repeat(np.arange(12), 6), rng.random(72) < 0.5
    score = rng.normal(right, 1) + 3 * rng.normal(size=12)[group]
    attack = RerankAttack(score, group, budget=40)
    inside = attack.run(lambda s: pooled_ranking(s, right, group).within, "accuracy inside prompts")
    across = attack.run(lambda s: pooled_ranking(s, right, group).across, "accuracy across prompts")
    assert inside.safe and across.gain > 0.05


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(-1e6, 1e6), st.integers(0, 3)), min_size=1, max_size=30),
    st.lists(st.integers(-3, 3), min_size=4, max_size=4),
)
def test_lifting_keeps_the_order_inside_a_tier_and_sorts_tiers(rows: list, tier: list) -> None:
    score, group = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    moved = lifted(score, group, tier)
    level = np.array(tier)[group]
    for a in range(len(rows)):
        same = level == level[a]
        assert (np.sign(moved[same] - moved[a]) == np.sign(score[same] - score[a])).all()
        assert (moved[level > level[a]] > moved[a]).all()


def test_what_is_shown() -> None:
    dt, named = metrics()
    found = RerankAttack(dt.score, dt.cls, {"second class first": [0, 1]}, budget=4).run(named["AP"], "AP")
    told, sheet = found.to_dict(), found.sheet()
    assert told["gain"] == found.gain and told["evaluations"] == 6 and told["safe"] is False
    assert "rose by 0.25" in sheet.lead and [row[0] for row in sheet.tables()[0].rows][1] == "second class first"


def test_errors() -> None:
    with pytest.raises(GuerdonError, match="group 2 has no tier"):
        lifted([0.1], [2], [0, 1])
    with pytest.raises(GuerdonError, match="score 0 is nan"):
        lifted([np.nan], [0], [0])
    with pytest.raises(GuerdonError, match="same"):
        lifted([0.1, 0.2], [0], [0])
    with pytest.raises(GuerdonError, match="AP is nan"):
        RerankAttack(np.array([0.5]), np.array([0]), budget=1).run(lambda score: float("nan"), "AP")
