"""The claim on exemplars: the scores' resolution, the policy's gradient, a small run, and the whole of it (slow)."""

from __future__ import annotations

import numpy as np
import pytest

from guerdon.claims.extrans import QUALITY, SCORES, Size, chances, climb, compared, quick, run, sources

SIZE = Size(steps=60, held=200)


def test_scores() -> None:
    seen = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
    assert compared(0.0)(seen).tolist() == [1, 2, 3, 4, 5]
    assert SCORES["5-point score"](np.array([0.0, 1.0, 3.0])).tolist() == [5, 5, 5], "it is nearly full to begin with"
    assert SCORES["too strong exemplar"](seen).tolist() == [1] * 5


def test_policy_and_sources() -> None:
    features = sources(3, SIZE, np.random.default_rng(0))
    assert features.shape == (3, 16, QUALITY + 1) and features[..., QUALITY].mean() == 0.5
    assert chances(features, np.zeros(QUALITY + 1)) == pytest.approx(1 / 16)


def test_an_exemplar_out_of_reach_teaches_nothing() -> None:
    near, strong = (climb(SCORES[name], SIZE, 1) for name in ("near exemplar", "too strong exemplar"))
    assert near["gain"] > 0.2 and abs(strong["gain"]) < 0.05 and strong["no spread"] == 1


def test_a_small_run_has_every_arm() -> None:
    result = quick(seeds=(1, 2, 3))
    assert len(result.arms) == 9 and len(result.checks) == 10 and result.seeds == [1, 2, 3]
    assert result.to_json()["verdict"] in ("holds", "fails", "inconclusive")


@pytest.mark.slow
def test_full_claim() -> None:
    assert run((11, 12, 13)).verdict == "holds"
