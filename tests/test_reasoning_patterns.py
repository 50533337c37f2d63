"""Pattern rewards, the region that is read, and low scores topped up by patterns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guerdon.core.errors import GuerdonError
from guerdon.core.identity import identity
from guerdon.core.outcome import Failed
from guerdon.core.reward import reward
from guerdon.core.scorer import Scorer
from guerdon.rewards.compose import gate
from guerdon.rewards.text.answer_tags import answer_format
from guerdon.rewards.text.reasoning_patterns import (
    CHAT_PHRASES,
    MATH_PHRASES,
    CalibratedReward,
    PhrasePatternReward,
    frequent_phrases,
)
from guerdon.rewards.text.regions import ReadingRegion, region_text

TEXT = "First, I need to check. Therefore it is \\boxed{4}"


def test_the_lists_have_their_sizes() -> None:
    assert len(set(MATH_PHRASES)) == 40 and len(set(CHAT_PHRASES)) == 53


def test_three_phrases_are_worth_three_weights() -> None:
    assert PhrasePatternReward()(["q"], [TEXT]) == [pytest.approx(0.075)]
    assert PhrasePatternReward(weight=1 / 20).score(TEXT) == pytest.approx(0.15)
    assert PhrasePatternReward().hits(TEXT) == ["i need to", "first,", "therefore"]


def test_a_phrase_counts_once_and_the_sum_is_capped() -> None:
    once = PhrasePatternReward(repetition=None)
    assert once.score("Wait. Wait. Wait. #### 4") == pytest.approx(1 / 40)
    every = " ".join(MATH_PHRASES) + "\n#### 4"
    assert once.score(every) == 1 and PhrasePatternReward(weight=1 / 20, repetition=None).score(every) == 1


def test_without_an_answer_nothing_is_paid() -> None:
    assert PhrasePatternReward().score("First, I need to check. Therefore") == 0
    assert PhrasePatternReward(answered=None).score("First, I need to check. Therefore") == pytest.approx(0.075)


def test_substrings_fool_the_published_match_and_whole_words_do_not() -> None:
    text = "Enthusiasm awaited us whence we came: \\boxed{4}"
    assert PhrasePatternReward().hits(text) == ["wait", "thus", "hence"]
    assert PhrasePatternReward(match="word").hits(text) == []
    curly = "Let\u2019s try. \\boxed{4}"
    assert PhrasePatternReward().hits(curly) == [] and PhrasePatternReward(match="word").hits(curly) == ["let's try"]


def test_repetition_and_self_asked_questions_are_deducted_down_to_zero() -> None:
    block = " ".join(f"wait therefore hence thus {place}" for place in range(10))
    looping = " ".join([block] * 20) + " \\boxed{4}"
    published, corrected = PhrasePatternReward(weight=0.25), PhrasePatternReward(weight=0.25, repetition="positions")
    assert published.score(looping) > 0.9 and corrected.score(looping) < 0.1
    assert PhrasePatternReward(weight=1 / 20).score("User: what? First, wait. \\boxed{4}") == 0
    assert PhrasePatternReward(self_asked=False).score("User: what? First, wait. \\boxed{4}") == pytest.approx(0.05)


def test_regions() -> None:
    whole = "<think>wait, first, 2 + 2</think><answer>therefore 4</answer>"
    assert region_text(whole, "think") == "wait, first, 2 + 2" and region_text(whole, "answer") == "therefore 4"
    assert region_text("wait</think> so <answer>4</answer>", "think") == "wait"
    assert region_text("wait, still <answer>4</answer>", "think") == "wait, still "
    assert region_text("only thought", "think") == "only thought" and region_text("none", "answer") == ""
    assert PhrasePatternReward(region="think", answered=None).hits(whole) == ["wait", "first,"]
    with pytest.raises(GuerdonError, match="did you mean 'think'"):
        region_text("", "thinks")  # type: ignore[arg-type]


def model(values: dict[str, object]):
    @reward(name="rm", on_failure="drop_sample", range=(-1.0, 2.0))
    def rm(prompts, completions, **columns):
        return [values[c] for c in completions]

    return rm


def patterns(values: dict[str, float]):
    @reward(name="patterns", range=(0.0, 1.0))
    def of(prompts, completions, **columns):
        return [values[c] for c in completions]

    return of


def test_calibration_raises_low_scores_only() -> None:
    made = CalibratedReward(
        model({"a": 0.3, "b": 0.5, "c": 0.49, "d": -0.2}), patterns({"a": 0.4, "b": 1.0, "c": 1.0, "d": 0.0})
    )
    logged: dict[str, float] = {}
    found = made(["q"] * 4, list("abcd"), log_metric=logged.__setitem__)
    assert found == [pytest.approx(0.34), 0.5, pytest.approx(0.59), -0.2]
    assert logged["calibrated_rm/raised"] == 0.75
    assert identity(made) != identity(CalibratedReward(made.parts["rm"], made.parts["patterns"], alpha=0.2))


def test_a_failed_part_fails_the_row_alone() -> None:
    made = CalibratedReward(model({"a": Failed("away", "unavailable"), "b": 0.2}), patterns({"a": 1.0, "b": 1.0}))
    found = Scorer(made, max_failure_rate=1.0).score(["q"] * 2, list("ab"))
    assert found.as_list() == [None, pytest.approx(0.3)] and found.failures[0].kind == "unavailable"


def test_the_published_composition() -> None:
    good = "<think>First, I need to check. Therefore</think><answer>4</answer>"
    seen: list[str] = []

    @reward(name="rm", range=(0.0, 1.0))
    def rm(prompts, completions, **columns):
        seen.extend(completions)
        return [0.3] * len(completions)

    aux = PhrasePatternReward(weight=1 / 20, region="think", answered=None)
    whole = gate(answer_format, CalibratedReward(ReadingRegion(rm, "answer"), aux))
    assert whole(["q"] * 2, [good, "therefore 4"]) == [pytest.approx(0.3 + 0.1 * 0.15), 0.0]
    assert seen == ["4"], "the reward model reads the answer, and nothing that is malformed"


@given(st.text(max_size=300))
def test_any_text_has_a_score_in_range(text: str) -> None:
    for reward_ in (
        PhrasePatternReward(answered=None),
        PhrasePatternReward(match="word", repetition="positions", region="think"),
    ):
        assert 0 <= reward_.score(text) <= 1


@pytest.mark.parametrize("unit", ["wait ", "<think>", "</think><answer>", "a", "\\boxed{", "user: ", "1. "])
def test_a_hundred_thousand_characters_have_a_score(unit: str) -> None:
    text = unit * (100_000 // len(unit))
    for region in ("all", "think", "answer"):
        assert 0 <= PhrasePatternReward(region=region, match="word").score(text) <= 1  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [{"phrases": []}, {"phrases": "wait"}, {"weight": 0}, {"cap": -1}, {"match": "words"}, {"region": "thoughts"}],
)
def test_bad_settings(options: dict) -> None:
    with pytest.raises(GuerdonError):
        PhrasePatternReward(**options)


def test_bad_calibrations() -> None:
    with pytest.raises(GuerdonError, match="alpha >= 0"):
        CalibratedReward(model({}), patterns({}), alpha=-1)
    with pytest.raises(GuerdonError, match="both named"):
        CalibratedReward(model({}), model({}))


def test_frequent_phrases_of_a_corpus() -> None:
    texts = ["Let me check. So 4.", "let me check, again 5", "so what"]
    assert frequent_phrases(texts) == [("let me check", 2), ("so", 2)]
    with pytest.raises(GuerdonError, match="from <= to"):
        frequent_phrases(texts, words=(3, 1))
