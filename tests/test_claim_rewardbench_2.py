"""RewardBench 2's claim: the made-up worlds are what the docstrings say, and the experiment made small runs through."""

from __future__ import annotations

import numpy as np
import pytest

from guerdon.claims import rewardbench_2 as claim
from guerdon.claims.rewardbench_2 import Size, answers_of, fitted, graded, noisy, picked, tasteful, zoo

SMALL = Size(models=4, shuffled=3, pairs=60, rows=40, drawn=3, prompts=60, answers=8, twins=10, learnt=200)


def truth_of(size: Size) -> np.ndarray:
    rng = np.random.default_rng(0)
    truth = rng.standard_normal(size.features)
    return truth / np.linalg.norm(truth)


def test_a_quarter_of_the_answers_is_right_and_they_lie_near_the_bar() -> None:
    size = Size()
    truth = truth_of(size)
    points, right = answers_of(truth, 20_000, size, np.random.default_rng(1))
    reward = points @ truth
    assert right.mean() == pytest.approx(0.25, abs=0.01) and ((reward > claim.BAR) == right).all()
    assert reward.std() == pytest.approx(1 / size.hardness, rel=0.05)
    other = np.linalg.qr(np.stack([truth, np.eye(size.features)[0]], axis=1))[0][:, 1]
    assert (points @ other).std() == pytest.approx(1, rel=0.05)


def test_the_truth_grades_and_picks_perfectly_and_a_stranger_at_chance() -> None:
    size = Size(prompts=100)
    truth = truth_of(size)
    stranger = np.eye(size.features)[0] - truth[0] * truth
    both = np.stack([truth, stranger])
    pairs, fours = graded(both, truth, 400, size, np.random.default_rng(2))
    assert pairs[0] == fours[0] == 1 and pairs[1] == pytest.approx(0.5, abs=0.08)
    assert fours[1] == pytest.approx(0.25, abs=0.08)
    worth = picked(both, truth, size, np.random.default_rng(3))
    assert worth[0] > 0.98 and worth[1] == pytest.approx(0.25, abs=0.08)


def test_a_zoo_gets_worse_with_its_labels() -> None:
    size = Size(models=3)
    truth = truth_of(size)
    models = zoo(truth, size, np.random.default_rng(4))
    alike = [abs(float(model @ truth)) / np.linalg.norm(model) for model in models]
    assert alike[0] > 0.95 and alike[0] > alike[2] + 0.2


def test_fitted_weights_point_where_the_winners_are() -> None:
    gaps = np.random.default_rng(5).standard_normal((200, 3))
    weights = fitted(gaps, gaps[:, 1] > 0)
    assert weights[1] > 5 * np.abs(weights[[0, 2]]).max()


def test_noise_among_right_answers_moves_calibration_and_nothing_else() -> None:
    quiet, loud = noisy("right", 0.0, Size(), 6), noisy("right", 16.0, Size(), 6)
    assert quiet["ties"] == pytest.approx(1.01) and loud["accuracy"] == 1
    assert loud["preferred"] < 0.05 and noisy("wrong", 16.0, Size(), 6)["preferred"] == 1


def test_taste_costs_calibration_at_equal_accuracy() -> None:
    found = {taste: tasteful(taste, Size(), 7) for taste in ("none", "consistent", "arbitrary")}  # type: ignore[arg-type]
    assert found["none"]["preferred"] > 0.9 and found["arbitrary"]["preferred"] > 0.9
    assert found["consistent"]["preferred"] < 0.8 and found["consistent"]["accuracy"] > 0.95


def test_a_small_experiment_runs_through() -> None:
    result = claim.run((1, 2, 3), size=SMALL)
    assert result.slug == "rewardbench-2" and len(result.checks) == 11
    assert {arm.name for arm in result.arms} >= {"pairs", "one among four", "and a consistent taste"}
    assert result.to_json()["seeds"] == [1, 2, 3] and result.table()


def test_a_broken_control_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models that did learn, passed off as trained on shuffled labels, must fail the claim."""

    def learnt(truth: np.ndarray, size: Size, rng: np.random.Generator) -> np.ndarray:
        return np.stack([truth] * size.shuffled)

    monkeypatch.setattr(claim, "blind", learnt)
    result = claim.run((1, 2, 3), size=SMALL)
    outcome = {check.name: check.outcome for check in result.checks}
    assert outcome["shuffled labels sit at chance"] == "failed" and result.verdict == "fails"


@pytest.mark.slow
def test_the_claim() -> None:
    assert claim.run().verdict == "holds"
