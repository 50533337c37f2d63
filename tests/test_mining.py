"""Pairs from verifiers, judges and scores: which samples make one, and what is said of the others."""

from __future__ import annotations

import pytest

from guerdon.core.errors import GuerdonError
from guerdon.core.outcome import Failed
from guerdon.core.preferences import text_of
from guerdon.curation.mining import judge_pairs, largest_margin_pairs, verifier_pairs


def told(pairs) -> list[tuple[str, str]]:
    return [(text_of(pair.chosen), text_of(pair.rejected)) for pair in pairs]


def verify(sample: str, reference: str):
    if sample == "?":
        return None
    return Failed("crashed", "crash") if sample == "!" else sample.endswith(reference)


def test_the_known_answer_against_every_wrong_sample() -> None:
    samples = ["it is 5", "it is 4", "3", " ", "3", "?", "!"]
    found = verifier_pairs("2 + 2?", samples, verify, "4", answer="The answer is 4")
    assert told(found.pairs) == [("The answer is 4", "it is 5"), ("The answer is 4", "3")]
    assert found.left_out == {"empty": 1, "said before": 1, "right, like the answer": 1, "not verified": 2}
    assert found.pairs[0].prompt == [{"role": "user", "content": "2 + 2?"}] and found.pairs[0].row == {
        "source": "verifier"
    }


def test_right_samples_against_wrong_ones() -> None:
    found = verifier_pairs("q", ["a4", "b5", "c4", "d5", "e4"], verify, "4")
    assert told(found.pairs) == [("a4", "b5"), ("c4", "d5")] and found.left_out == {"without a counterpart": 1}
    assert len(verifier_pairs("q", ["a4", "b5", "c4", "d5"], verify, "4", limit=1).pairs) == 1
    assert not verifier_pairs("q", ["a4", "b4"], verify, "4").pairs
    with pytest.raises(GuerdonError, match="True, False or None, got 'yes'"):
        verifier_pairs("q", ["a"], lambda sample, reference: "yes", "4")


def test_a_judge_must_prefer_the_answer_in_both_orders() -> None:
    def judge(prompt, answer_a, answer_b):
        assert text_of(prompt) == "q"
        a, b = text_of(answer_a), text_of(answer_b)
        if "silent" in (a, b):
            return Failed("no reply", "unavailable")
        if "first wins" in (a, b):
            return "a"
        if "equal" in (a, b):
            return None
        return "a" if len(a) > len(b) else "b"

    samples = ["no", "a much longer sample", "first wins", "equal", "silent", "answer"]
    found = judge_pairs("q", "answer", samples, judge)
    assert told(found.pairs) == [("answer", "no")] and found.pairs[0].row == {"source": "judge"}
    assert found.left_out == {
        "better than the answer": 1, "a tie, or judged by its place": 3, "not judged": 1
    }  # fmt: skip
    assert judge_pairs("q", "answer", ["no", "on"], judge, limit=1).left_out == {"beyond the limit": 1}
    with pytest.raises(GuerdonError, match="'a', 'b' or None, got 'first'"):
        judge_pairs("q", "answer", ["no"], lambda *three: "first")


def test_the_widest_gap_of_each_prompt() -> None:
    rated = [("p", ["a", "b", "c"], [1.0, 5.0, 3.0]), ("q", ["d", "e"], [2.0, 2.0]), ("r", ["f"], [9.0]),
             ("s", ["g", "h"], [2.0, 2.5])]  # fmt: skip
    pairs = largest_margin_pairs(rated)
    assert told(pairs) == [("b", "a"), ("h", "g")] and [pair.row["score_gap"] for pair in pairs] == [4.0, 0.5]
    assert all(pair.margin is None for pair in pairs)
    assert told(largest_margin_pairs(rated, minimum=1.0)) == [("b", "a")]
    with pytest.raises(GuerdonError, match="prompt 0: 2 answers need as many finite scores"):
        largest_margin_pairs([("p", ["a", "b"], [1.0, float("nan")])])
