"""Noise around a reward: who shares a draw, what is spared, what is counted, and sweeps over its strength."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from guerdon.core.errors import GuerdonError
from guerdon.core.identity import identity
from guerdon.core.outcome import Failed
from guerdon.core.reward import reward
from guerdon.core.scorer import Scorer
from guerdon.rewards.noise import NoisyReward, noise_sweep
from guerdon.rewards.text.final_answer import rule_verifier

PROMPTS = [f"What is {n} + 1?" for n in range(400) for _ in range(4)]
SAID = [f"The answer is {n + (copy % 2)}." for n in range(400) for copy in range(4)]
WANTED = [str(n + 1) for n in range(400) for _ in range(4)]


def paid(noisy: NoisyReward, step: int | None = None, **columns) -> np.ndarray:
    state = {} if step is None else {"trainer_state": SimpleNamespace(global_step=step)}
    return np.asarray(noisy(PROMPTS, SAID, solution=WANTED, **state, **columns), dtype=float).reshape(-1, 4)


def test_one_draw_a_question_shared_by_its_rollouts() -> None:
    found = paid(NoisyReward(rule_verifier, 0.4, seed=3))
    assert set(map(tuple, found)) == {(0, 1, 0, 1), (1, 0, 1, 0)}
    assert np.mean(found[:, 0]) == pytest.approx(0.4, abs=0.08)


def test_one_draw_a_rollout() -> None:
    found = paid(NoisyReward(rule_verifier, 0.4, unit="rollout", seed=3))
    assert len(set(map(tuple, found))) == 16, "copies of one text are drawn each on its own"


def test_nothing_changes_without_noise_and_everything_with_certainty() -> None:
    assert (paid(NoisyReward(rule_verifier, 0)) == [0, 1, 0, 1]).all()
    assert (paid(NoisyReward(rule_verifier, 1)) == [1, 0, 1, 0]).all()


def test_completions_without_an_answer_are_spared() -> None:
    said = ["no idea", "The answer is 3."]
    spared, struck = NoisyReward(rule_verifier, 1), NoisyReward(rule_verifier, 1, parsed=None)
    assert spared(["q", "q"], said, solution=["4", "4"]) == [0, 1]
    assert struck(["q", "q"], said, solution=["4", "4"]) == [1, 1]


def test_draws_depend_on_the_seed_and_the_step_and_on_nothing_else() -> None:
    noisy = NoisyReward(rule_verifier, 0.4, seed=3)
    first = paid(noisy, step=1)
    assert (paid(noisy, step=1) == first).all() and (paid(noisy, step=2) != first).any()
    assert (paid(NoisyReward(rule_verifier, 0.4, seed=4), step=1) != first).any()
    kept = NoisyReward(rule_verifier, 0.4, seed=3, redraw="never")
    assert (paid(kept, step=1) == paid(kept, step=9)).all()
    alone = noisy(PROMPTS[40:41], SAID[40:41], solution=WANTED[40:41], trainer_state=SimpleNamespace(global_step=1))
    assert alone == [first[10, 0]]


def test_the_book_is_exact() -> None:
    noisy = NoisyReward(rule_verifier, 0.3, kind="fn", seed=1)
    found = paid(noisy)
    assert noisy.rates.samples == 1600 and noisy.rates.false_positives == 0
    assert noisy.rates.false_negatives == pytest.approx(1 - found[:, 1::2].mean())
    assert noisy.rates.changed == pytest.approx(noisy.rates.false_negatives / 2)
    granted = NoisyReward(rule_verifier, 0.3, kind="fp", seed=1)
    assert (
        paid(granted)[:, 0::2].mean() == pytest.approx(granted.rates.false_positives)
        and granted.rates.false_negatives == 0
    )


def test_gaussian_noise_blurs() -> None:
    noisy = NoisyReward(rule_verifier, 0.5, kind="gaussian", unit="rollout")
    found = paid(noisy)
    assert found[:, 0].std() == pytest.approx(0.5, rel=0.15) and found[:, 0].mean() == pytest.approx(0, abs=0.1)
    shared = paid(NoisyReward(rule_verifier, 0.5, kind="gaussian"))
    np.testing.assert_allclose(shared[:, 1] - shared[:, 0], 1), "a group's noise cancels within it"


def test_failures_and_rows_that_do_not_apply_stay_what_they_are() -> None:
    @reward(name="picky", range=(0.0, 1.0), on_failure="drop_sample")
    def picky(prompts, completions, **columns):
        return [None, Failed("no", "unavailable"), 1.0]

    noisy = NoisyReward(picky, 1, parsed=None)
    found = Scorer(noisy, max_failure_rate=1.0).score(["q"] * 3, ["a", "b", "c"])
    assert found.as_list() == [None, None, 0.0] and found.failures[1].kind == "unavailable"
    assert noisy.rates.samples == 1


def test_parts_are_logged_and_identities_tell_noises_apart() -> None:
    logged: dict[str, float] = {}
    paid(NoisyReward(rule_verifier, 1), log_metric=logged.__setitem__)
    assert logged == {"noisy_rule_verifier/rule_verifier": 0.5, "noisy_rule_verifier/struck": 1.0}
    names = {identity(NoisyReward(rule_verifier, p, seed=s)) for p in (0.1, 0.2) for s in (0, 1)}
    assert len(names) == 4


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"p": "FLIP_PROBABILITY"}, "p must be a number"),
        ({"p": None}, "p must be a number"),
        ({"p": 1.5}, "probability"),
        ({"p": 0.1, "kind": "flips"}, "did you mean 'flip'"),
        ({"p": 0.1, "unit": "rollouts"}, "did you mean 'rollout'"),
    ],
)
def test_bad_settings_are_named(options: dict, words: str) -> None:
    with pytest.raises(GuerdonError, match=words):
        NoisyReward(rule_verifier, **options)


def test_a_base_without_a_range_cannot_be_turned_round() -> None:
    @reward(name="open")
    def open_ended(prompts, completions, **columns):
        return [0.0 for _ in completions]

    with pytest.raises(GuerdonError, match="range"):
        NoisyReward(open_ended, 0.1)
    assert len(NoisyReward(open_ended, 0.1, kind="gaussian")(["q"], ["a"])) == 1


def test_a_sweep_trains_once_a_level_and_seed() -> None:
    def train(noisy: NoisyReward, seed: int) -> float:
        return float(np.mean(paid(noisy)[:, 1]))

    points = noise_sweep(train, rule_verifier, (0, 0.5, 1), seeds=(1, 2))
    assert [point.p for point in points] == [0, 0.5, 1] and points[0].outcomes == (1.0, 1.0)
    assert points[1].mean == pytest.approx(0.5, abs=0.08) and points[1].outcomes[0] != points[1].outcomes[1]
    assert points[2].mean == 0
    with pytest.raises(GuerdonError, match="at least one level"):
        noise_sweep(train, rule_verifier, ())
