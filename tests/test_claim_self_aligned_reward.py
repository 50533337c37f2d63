"""The claim on self-alignment: the toy's exact values, its texts, a small run, and the whole of it (slow)."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from guerdon.claims.self_aligned_reward import TEXTS, Size, alignment, climb, quick, run, solutions
from guerdon.core.arithmetic import word_problems
from guerdon.rewards.text.final_answer import verify_answer

SIZE = replace(Size(), updates=60)


def test_the_toys_exact_values() -> None:
    named = torch.tensor([[1, 1, 1], [1, 1, 1], [1, 1, 0], [0, 0, 0], [0, 0, 0], [1, 0, 0]]).bool()
    filled = torch.tensor([[0] * 6, [1] * 6, [1] + [0] * 5, [1] * 6, [0] * 6, [0] * 6]).bool()
    values, entropy = alignment(named, filled)
    # three entities; with six fillers; two and something off the topic; off the topic; nothing; one alone
    assert values.tolist() == pytest.approx([0.9667, 0.6781, 0.8964, 0, 0, 0.9667], abs=1e-4)
    assert entropy[0] == pytest.approx(-0.5108, abs=1e-4) and entropy[3] == pytest.approx(-0.6931, abs=1e-4)


def test_self_alignment_shortens_and_the_verifier_alone_does_not() -> None:
    alone, aligned = climb("verifier", False, SIZE, 1), climb("with self-alignment", False, SIZE, 1)
    assert aligned["length"] < alone["length"] - 1 and aligned["accuracy"] > alone["accuracy"] - 0.02


def test_texts_are_what_they_are_called() -> None:
    problems = word_problems(8, 3)
    told = solutions(problems)
    assert tuple(told) == TEXTS
    for place, problem in enumerate(problems):
        assert verify_answer(told["right"][place], str(problem.answer)).correct
        assert verify_answer(told["padded"][place], str(problem.answer)).correct
        assert not verify_answer(told["one slip"][place], str(problem.answer)).correct
        assert len(told["padded"][place]) > len(told["right"][place])


def test_a_small_run_has_every_arm() -> None:
    result = quick(seeds=(1, 2, 3))
    assert len(result.arms) == 10 and len(result.checks) == 12 and result.seeds == [1, 2, 3]
    assert result.to_json()["verdict"] in ("holds", "fails", "inconclusive")
    assert len(result.sections) == 3


@pytest.mark.slow
def test_full_claim() -> None:
    """Every check passes but one, which these three seeds leave open."""
    found = {check.name: check.outcome for check in run((11, 12, 13)).checks}
    assert found.pop("and more than by entropy minimisation") != "failed"
    assert set(found.values()) == {"passed"}, found
