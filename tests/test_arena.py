from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from guerdon.core.errors import GuerdonError
from guerdon.metrics.arena import bradley_terry, win_rate


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def biased_judge(gap: np.ndarray, bias: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes of a candidate `gap` logits better, by a judge that adds `bias` logits to slot 1."""
    rng = np.random.default_rng(seed)
    as_first = rng.random(gap.size) < 1 / (1 + np.exp(-(gap + bias)))
    as_second = rng.random(gap.size) >= 1 / (1 + np.exp(-(-gap + bias)))
    return as_first.astype(float), as_second.astype(float)


def test_check_c_one_order_is_biased_and_both_orders_are_not() -> None:
    as_first, as_second = biased_judge(np.zeros(20_000), 0.405, seed=0)
    found = win_rate(as_first, as_second, resamples=300)
    assert sigmoid(0.405) == pytest.approx(0.60, abs=1e-3)
    assert found.shown_first == pytest.approx(0.60, abs=0.01)
    assert found.shown_second == pytest.approx(0.40, abs=0.01)
    assert found.win_rate.value == pytest.approx(0.50, abs=0.01)
    assert found.win_rate.low < 0.5 < found.win_rate.high
    assert found.slot_bias.value == pytest.approx(0.10, abs=0.01) and found.slot_bias.low > 0.08
    assert found.consistency == pytest.approx(2 * 0.6 * 0.4, abs=0.01)


def test_check_c_holds_at_any_bias_and_a_better_candidate_still_wins() -> None:
    for bias in (-3.0, 0.0, 2.0):
        equal = win_rate(*biased_judge(np.zeros(20_000), bias, seed=1), resamples=50)
        better = win_rate(*biased_judge(np.full(20_000, 1.0), bias, seed=2), resamples=50)
        assert equal.win_rate.value == pytest.approx(0.5, abs=0.01)
        assert better.win_rate.low > 0.52


def test_win_rate_by_hand() -> None:
    nan = math.nan
    #             won  lost  slot 1  slot 2  tie+win  ties  failed
    as_first = [1.0, 0.0, 1.0, 0.0, 0.5, 0.5, nan]
    as_second = [1.0, 0.0, 0.0, 1.0, 1.0, 0.5, 1.0]
    found = win_rate(as_first, as_second)
    assert found.win_rate.value == pytest.approx((1 + 0 + 0.5 * 4) / 6)
    assert found.consistency == pytest.approx(2 / 6)
    # Share for slot 1: .5, .5, 1, 0, .25, .5
    assert found.slot_bias.value == pytest.approx(2.75 / 6 - 0.5)
    assert found.tie_rate == pytest.approx(3 / 12)
    assert (found.pairs, found.incomplete) == (6, 1)


def test_win_rate_refuses_what_is_not_a_verdict() -> None:
    with pytest.raises(GuerdonError, match="0.7 at index 1"):
        win_rate([1.0, 0.7], [1.0, 1.0])
    with pytest.raises(GuerdonError, match="none of the 2 pairs has a verdict in both orders"):
        win_rate([1.0, math.nan], [math.nan, 0.0])
    with pytest.raises(GuerdonError, match="differ in length"):
        win_rate([1.0], [1.0, 0.0])


def test_two_players_have_the_logit_of_the_win_share() -> None:
    first, second, outcome = ["m"] * 4 + ["real"] * 4, ["real"] * 4 + ["m"] * 4, [1, 1, 1, 0, 0, 0, 0, 1]
    found = bradley_terry(first, second, outcome, reference="real", prior_deviation=math.inf, resamples=20)
    assert found.ratings["m"].value == pytest.approx(math.log(3), rel=1e-6)
    assert found.slot.value == pytest.approx(0.0, abs=1e-6)
    assert found.probability("m", "real") == pytest.approx(0.75)
    # Every win of slot 1 only: no difference in strength, slot effect logit(3/4) (half a win each from ties).
    slots = bradley_terry(first, second, [1, 1, 0.5, 0.5] * 2, reference="real", prior_deviation=math.inf, resamples=20)
    assert slots.ratings["m"].value == pytest.approx(0.0, abs=1e-6)
    assert slots.slot.value == pytest.approx(math.log(3), rel=1e-6)
    weak = bradley_terry(first * 50, second * 50, outcome * 50, reference="real", resamples=20)
    assert weak.ratings["m"].value == pytest.approx(math.log(3), abs=1e-3)


def test_known_strengths_and_slot_effect_are_recovered() -> None:
    truth = {"real": 0.0, "a": -0.5, "b": -1.2, "c": 0.4}
    rng = np.random.default_rng(0)
    first, second, outcome, prompts = [], [], [], []
    for prompt in range(400):
        for i, j in itertools.permutations(truth, 2):
            first.append(i)
            second.append(j)
            outcome.append(float(rng.random() < sigmoid(truth[i] - truth[j] + 0.405)))
            prompts.append(prompt)
    found = bradley_terry(first, second, outcome, reference="real", groups=prompts, resamples=200)
    for player, strength in truth.items():
        assert found.ratings[player].value == pytest.approx(strength, abs=0.15)
        assert found.ratings[player].low <= strength + 0.05 and found.ratings[player].high >= strength - 0.05
    assert found.slot.low < 0.405 < found.slot.high
    assert found.ratings["real"].value == 0.0
    # Any reference gives the same differences.
    other = bradley_terry(first, second, outcome, reference="b", groups=prompts, resamples=5)
    assert other.ratings["c"].value == pytest.approx(found.ratings["c"].value - found.ratings["b"].value, abs=2e-3)
    # Ignoring the slot of a one-order arena turns the slot effect into strength.
    one = [n for n in range(len(first)) if (first[n], second[n]) == ("c", "real")]
    naive = bradley_terry(
        [first[n] for n in one], [second[n] for n in one], [outcome[n] for n in one], reference="real", slot=False
    )
    assert naive.ratings["c"].value > 0.4 + 0.2


def test_agrees_with_logistic_regression() -> None:
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(3)
    pairs = [tuple(rng.permutation(["a", "b", "c"])[:2]) for _ in range(120)]
    outcome = rng.integers(0, 2, size=120)
    design = np.array([[(i == p) - (j == p) for p in ("b", "c")] + [1] for i, j in pairs], dtype=float)
    fitted = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10, max_iter=1000).fit(design, outcome).coef_[0]
    found = bradley_terry(
        [str(i) for i, _ in pairs], [str(j) for _, j in pairs], outcome, reference="a", prior_deviation=math.inf
    )
    values = [found.ratings["b"].value, found.ratings["c"].value, found.slot.value]
    assert values == pytest.approx(fitted.tolist(), abs=1e-4)


def test_one_sided_data_stay_finite_with_the_prior_and_are_named_without() -> None:
    first, second, outcome = ["m", "real"] * 20, ["real", "m"] * 20, [0.0, 1.0] * 20
    found = bradley_terry(first, second, outcome, reference="real", resamples=20)
    assert -15 < found.ratings["m"].value < -3
    with pytest.raises(GuerdonError, match="no maximum: m won or lost everything"):
        bradley_terry(first, second, outcome, reference="real", prior_deviation=math.inf)


def test_designs_that_cannot_answer_are_refused() -> None:
    with pytest.raises(GuerdonError, match="slot effect cannot be told from strength"):
        bradley_terry(["m"] * 4, ["real"] * 4, [1, 0, 1, 1], reference="real")
    with pytest.raises(GuerdonError, match="4 players are not linked"):
        bradley_terry(["a", "b", "c", "d"], ["b", "a", "d", "c"], [1, 0, 1, 0], reference="a")
    with pytest.raises(GuerdonError, match="not linked"):
        bradley_terry(["a", "b"], ["b", "a"], [math.nan, math.nan], reference="a")
    with pytest.raises(GuerdonError, match="'real' is in no pair; players: a, b"):
        bradley_terry(["a"], ["b"], [1], reference="real")
    with pytest.raises(GuerdonError, match="cannot meet itself"):
        bradley_terry(["a", "a"], ["b", "a"], [1, 1], reference="a")


def test_failed_verdicts_are_left_out() -> None:
    first, second, outcome = ["m"] * 4 + ["real"] * 4, ["real"] * 4 + ["m"] * 4, [1, 1, 1, 0, 0, 0, 0, 1]
    clean = bradley_terry(first, second, outcome, reference="real", resamples=20)
    holed = bradley_terry([*first, "m"], [*second, "real"], [*outcome, math.nan], reference="real", resamples=20)
    assert holed.verdicts == 8 and holed.ratings["m"].value == clean.ratings["m"].value
