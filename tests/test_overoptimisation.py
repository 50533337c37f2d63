"""Best-of-n without drawing: against every subset, the closed form, ties; the downturn and the fitted forms."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guerdon.core.errors import GuerdonError
from guerdon.metrics.overoptimisation import (
    best_of_n_kl,
    best_of_n_values,
    best_of_n_weights,
    downturn,
    fit_gain,
    sampled_kl,
)


def by_subsets(scores: np.ndarray, values: np.ndarray, n: int) -> float:
    """Every n of the answers in turn; among equal best ones each with equal probability."""
    found = []
    for chosen in combinations(range(len(scores)), n):
        rows = list(chosen)
        best = [row for row in rows if scores[row] == scores[rows].max()]
        found.append(values[best].mean())
    return float(np.mean(found))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(-9, 9)), min_size=1, max_size=7))
def test_equals_the_mean_over_all_subsets(rows: list[tuple[int, int]]) -> None:
    scores, values = np.array(rows, dtype=float).T
    ns = range(1, len(rows) + 1)
    found = best_of_n_values(scores, values, ns)
    assert found == pytest.approx([by_subsets(scores, values, n) for n in ns])


def test_weights_are_a_distribution_and_exact_for_many_answers() -> None:
    for n in (1, 2, 7, 400):
        weights = best_of_n_weights(400, n)
        assert weights.sum() == pytest.approx(1.0, abs=1e-12) and (weights >= 0).all()
        exact = [math.comb(i, n - 1) / math.comb(400, n) for i in range(400)]
        assert weights == pytest.approx(exact, rel=1e-9, abs=1e-300)


def test_the_best_of_uniform_numbers() -> None:
    """Of n uniform numbers the best is n / (n + 1) in expectation, and so it is from any N of them."""
    rng = np.random.default_rng(0)
    found = np.mean([best_of_n_values(row, row, [1, 2, 8]) for row in rng.random((2000, 16))], axis=0)
    assert found == pytest.approx([1 / 2, 2 / 3, 8 / 9], abs=0.015)


def test_unbiased_for_a_noisy_proxy() -> None:
    """A proxy of correlation rho carries gold to rho times the proxy's own expected maximum (both Gaussian)."""
    rng = np.random.default_rng(1)
    rho, ns = 0.6, [1, 4, 16]
    gold = rng.standard_normal((2000, 32))
    proxy = rho * gold + math.sqrt(1 - rho**2) * rng.standard_normal((2000, 32))
    found = np.mean([best_of_n_values(p, g, ns) for p, g in zip(proxy, gold)], axis=0)
    assert found == pytest.approx([rho * top for top in (0.0, 1.0294, 1.7660)], abs=0.05)


def test_a_constant_proxy_selects_nothing() -> None:
    values = np.arange(6.0)
    assert best_of_n_values(np.zeros(6), values, [1, 3, 6]) == pytest.approx([2.5, 2.5, 2.5])


def test_kl_of_best_of_n() -> None:
    assert best_of_n_kl(1) == 0.0
    assert best_of_n_kl(4) == pytest.approx(math.log(4) - 0.75)
    # KL of the law of the best of n of 200 equally likely answers, sampled with replacement, to the law itself.
    for n in (2, 16):
        law = np.diff((np.arange(20_001) / 20_000) ** n)
        assert (law * np.log(law * 20_000, where=law > 0, out=np.zeros_like(law))).sum() == pytest.approx(
            best_of_n_kl(n), abs=1e-3
        )


def test_sampled_kl_is_the_divergence_on_average() -> None:
    rng = np.random.default_rng(2)
    own, reference = np.array([0.7, 0.2, 0.1]), np.array([0.3, 0.3, 0.4])
    rows = rng.choice(3, size=40_000, p=own)
    found = sampled_kl(np.log(own)[rows], np.log(reference)[rows])
    assert found.mean() == pytest.approx(float((own * np.log(own / reference)).sum()), abs=0.02)
    assert (found < 0).any()
    with pytest.raises(GuerdonError, match="finite"):
        sampled_kl([0.0, -math.inf], [0.0, 0.0])


def test_a_downturn_is_seen_and_a_flat_or_rising_curve_is_not_one() -> None:
    rng = np.random.default_rng(3)
    noise = rng.standard_normal((300, 5))
    hump = downturn(np.array([0.0, 0.6, 0.8, 0.4, -0.3]) + noise)
    assert hump.peak == 2 and hump.over_optimised is True and hump.drop.value == pytest.approx(1.1, abs=0.25)
    assert downturn(np.array([0.0, 0.5, 1.0, 1.4, 1.7]) + noise).over_optimised is not True
    # The naive drop of a flat curve is above 0, as it takes the highest of five noisy means; this one is centred.
    flat = [downturn(rng.standard_normal((40, 5)), seed=seed) for seed in range(40)]
    assert abs(np.mean([one.drop.value for one in flat])) < 0.08
    assert np.mean([one.over_optimised is True for one in flat]) < 0.15


@pytest.mark.parametrize("form", ["best-of-n", "rl"])
def test_the_fit_finds_the_form_it_was_made_by(form: str) -> None:
    kl = np.linspace(0.0, 12.0, 20)
    d = np.sqrt(kl)
    with np.errstate(divide="ignore", invalid="ignore"):
        gain = d * (1.5 - 0.4 * (d if form == "best-of-n" else np.log(d)))
    gain[0] = 0.0
    found = fit_gain(kl, gain, form=form)  # type: ignore[arg-type]
    assert (found.alpha, found.beta, found.r2) == pytest.approx((1.5, 0.4, 1.0))
    turn = (1.5 / 0.8) ** 2 if form == "best-of-n" else math.exp(1.5 / 0.4 - 1) ** 2
    assert found.peak_kl == pytest.approx(turn)
    assert math.isinf(fit_gain(kl, d).peak_kl) or fit_gain(kl, d).beta < 1e-9


def test_refusals() -> None:
    for call, said in (
        (lambda: best_of_n_kl(0), "n >= 1"),
        (lambda: best_of_n_values([1.0], [1.0], [2]), "best-of-2 needs at least 2 answers"),
        (lambda: best_of_n_values([1.0, math.nan], [1.0, 1.0], [1]), "without nan"),
        (lambda: fit_gain([0.0, 1.0, 2.0], [0.0, 1.0, 2.0]), "three points"),
        (lambda: downturn(np.zeros((1, 3))), "at least 2 prompts"),
    ):
        with pytest.raises(GuerdonError, match=said):
            call()
