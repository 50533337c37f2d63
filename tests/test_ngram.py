"""The language model of word counts: it is a distribution, and it samples what it says."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from guerdon.core.errors import GuerdonError
from guerdon.metrics.overoptimisation import sampled_kl
from guerdon.policies.ngram import NgramPolicy

TEXTS = ["a b c", "a b d", "a b d", "a c", "b c"]


def all_texts(words: int = 4) -> list[str]:
    found = [""]
    for _ in range(words):
        found += [f"{text} {word}".strip() for text in list(found) for word in "abcd"]
    return sorted(set(found))


def test_the_probabilities_of_all_texts_sum_to_one() -> None:
    policy = NgramPolicy(TEXTS, max_words=4)
    total = sum(math.exp(policy.log_prob("", text)) for text in all_texts())
    assert total == pytest.approx(1.0, abs=1e-9)


def test_probabilities_by_hand() -> None:
    policy = NgramPolicy(TEXTS)
    # after "a b": once c, twice d; after "b" alone: twice c, twice d.
    assert policy._law("a", "b")[2] == pytest.approx({"c": 0.9 / 3 + 0.1 / 2, "d": 0.9 * 2 / 3 + 0.1 / 2})
    assert policy._law("d", "b")[2] == pytest.approx({"c": 0.5, "d": 0.5})  # never seen: the second word alone
    assert policy.log_prob("", "b a") == -math.inf


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_samples_follow_the_law(temperature: float) -> None:
    policy = NgramPolicy(TEXTS).at(temperature)
    counts = Counter(policy([""] * 4000, 1))
    for text, count in counts.most_common(4):
        assert count / 4000 == pytest.approx(math.exp(policy.log_prob("", text)), abs=0.03)


def test_a_sample_depends_on_its_prompt_and_copy_alone() -> None:
    policy = NgramPolicy(TEXTS)
    together = policy(["a", "b", "a"], 3)
    assert policy(["a", "a"], 3) == [together[0], together[2]] and policy(["b"], 3) == [together[1]]
    assert len({tuple(policy(["a"] * 3, seed)) for seed in range(10)}) > 3


def test_a_colder_policy_and_its_measured_divergence() -> None:
    policy = NgramPolicy(TEXTS)
    kls = []
    for temperature in (1.0, 0.7, 0.4):
        cold = policy.at(temperature)
        texts = cold([""] * 1500, 2)
        own, base = ([one.log_prob("", text) for text in texts] for one in (cold, policy))
        kls.append(float(sampled_kl(own, base).mean()))
    assert kls[0] == 0.0 and 0 < kls[1] < kls[2]
    law = [(math.exp(cold.log_prob("", text)), policy.log_prob("", text)) for text in all_texts()]
    exact = sum(p * (math.log(p) - q) for p, q in law if p > 0)
    assert kls[2] == pytest.approx(exact, abs=0.08)


def test_limits() -> None:
    policy = NgramPolicy(["a a a a a a a a a a"], max_words=3)
    assert all(len(text.split()) <= 3 for text in policy([""] * 20, 0))
    assert np.isfinite(policy.log_prob("", "a a a"))
    for make in (lambda: NgramPolicy([]), lambda: NgramPolicy(TEXTS, temperature=0)):
        with pytest.raises(GuerdonError):
            make()
