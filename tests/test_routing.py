"""A reward for each kind of task: who sees what, scales that meet, similarity, and lengths of a group."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from guerdon.core.errors import GuerdonError
from guerdon.core.outcome import Failed
from guerdon.core.reward import reward
from guerdon.core.scorer import Scorer
from guerdon.rewards.routing import Quantiles, RewardRouter, logistic
from guerdon.rewards.text.final_answer import rule_verifier
from guerdon.rewards.text.group_length import GroupLengthPenalty, hybrid_multi_aspect
from guerdon.rewards.text.similarity import EmbeddingSimilarityReward

SEEN: list[list[str]] = []


@reward(name="model")
def model(prompts: Any, completions: Any, **columns: Any) -> list[float | None | Failed]:
    """Ten times the number of words; fails on "bad"."""
    SEEN.append(list(completions))
    return [Failed("no", "down") if text == "bad" else 10.0 * len(text.split()) for text in completions]


@reward(name="right", range=(0.0, 1.0))
def right(prompts: Any, completions: Any, **columns: Any) -> list[float]:
    return [float(text.startswith("yes")) for text in completions]


def router(**more: Any) -> RewardRouter:
    return RewardRouter({"rule": right, "open": model}, calibrators={"open": logistic(10.0, 20.0)}, **more)


def test_each_reward_sees_its_own_rows() -> None:
    SEEN.clear()
    texts = ["yes", "a b", "no", "a b c d"]
    found = router().scores(["p"] * 4, texts, task_type=["rule", "open", "rule", "open"])
    assert SEEN == [["a b", "a b c d"]]
    assert found.values.tolist() == pytest.approx([1.0, 0.5, 0.0, 1 / (1 + np.exp(-2))])
    assert np.isnan(found.parts["open"]).tolist() == [True, False, True, False], (
        "the parts say where a number came from"
    )
    assert router().range == (0.0, 1.0)


def test_a_failure_stays_in_its_row() -> None:
    safe = reward(name="model", on_failure="drop_sample")(model)
    found = RewardRouter({"rule": right, "open": safe}, calibrators={"open": logistic()}).scores(
        ["p"] * 3, ["bad", "yes", "a"], task_type=["open", "rule", "open"]
    )
    assert found.valid.tolist() == [False, True, True] and list(found.failures) == [0]


def test_what_a_router_refuses() -> None:
    with pytest.raises(GuerdonError, match="the reward of 'open' declares no range"):
        RewardRouter({"rule": right, "open": model})
    with pytest.raises(GuerdonError, match="needs the column 'task_type'"):
        router().scores(["p"], ["yes"])
    with pytest.raises(GuerdonError, match="task type 'rul'; did you mean 'rule'"):
        router().scores(["p"], ["yes"], task_type=["rul"])
    with pytest.raises(GuerdonError, match="route of a calibrator 'opn'"):
        RewardRouter({"rule": right}, calibrators={"opn": logistic()})
    with pytest.raises(GuerdonError, match="leaves"):
        RewardRouter({"open": model}, calibrators={"open": lambda scores: scores}).scores(
            ["p"], ["a"], task_type=["open"]
        )
    with pytest.raises(GuerdonError, match="no routes"):
        RewardRouter({})
    assert router(otherwise=right).scores(["p"], ["yes"], task_type=["?"]).values.tolist() == [1.0]


def test_calibrators() -> None:
    assert Quantiles([1.0, 2.0, 3.0, 4.0])(np.array([0.0, 2.0, 2.5, 9.0])).tolist() == [0.0, 0.375, 0.5, 1.0]
    for wrong, said in ((lambda: Quantiles([]), "at least one"), (lambda: logistic(0.0), "above 0")):
        with pytest.raises(GuerdonError, match=said):
            wrong()


def test_similarity() -> None:
    similar = EmbeddingSimilarityReward()
    said = similar(None, ["the red house", "a boat", "", "x"], reference=["the red house", ["a boat", "z"], "y", None])
    assert said[0] == pytest.approx(1.0) and said[1] == pytest.approx(1.0) and said[2] == 0.0 and said[3] is None
    far = EmbeddingSimilarityReward(lambda texts: np.array([[1.0] if text == "a" else [-1.0] for text in texts]))
    assert far(None, ["a"], reference=["b"]) == [0.0], "negative cosines are cut off"
    low = EmbeddingSimilarityReward(far.encoder, floor=None)
    assert low(None, ["a"], reference=["b"]) == [-1.0] and low.range == (-1.0, 1.0)
    with pytest.raises(GuerdonError, match="needs the column 'reference'"):
        similar(None, ["a"])
    assert similar.identity() != low.identity()


def test_lengths_of_a_group() -> None:
    """The card's fact: lengths 10, 20, 30, 40, of which 20 and 40 are right, so that L* = 30."""
    texts = [" ".join(["no"] * 10), "yes " * 20, "no " * 30, "yes " * 40]
    short = GroupLengthPenalty(right, side="short")
    assert short(["p"] * 4, texts) == pytest.approx([-1 / 3, 1 - 1 / 6, 0.0, 1.0])
    sided = GroupLengthPenalty(right)
    assert sided(["p"] * 4, texts) == pytest.approx([-1 / 3, 1 - 1 / 6, 0.0, 1 - 1 / 6])
    assert sided(["p"] * 2, [texts[0], texts[2]]) == [0.0, 0.0], "nobody is right, nobody pays"
    assert sided(["p"] * 2, ["yes", "yes yes"], completion_ids=[[1] * 4, [1] * 4]) == [1.0, 1.0], "tokens where known"
    assert sided.groupwise and sided.range == (-0.5, 1.0)
    found = sided.scores(["p"] * 4, texts)
    assert found.parts["right/length"].tolist() == pytest.approx([-1 / 3, -1 / 6, 0.0, -1 / 6])


def test_the_whole_reward() -> None:
    told = "<think>x</think><answer>{}</answer>"
    texts = [told.format("12"), told.format("13"), told.format("the red house"), "the red house"]
    columns = dict(
        task_type=["verifiable"] * 2 + ["open"] * 2, solution=["12", "12", None, None],
        reference=[None, None, "the red house", "the red house"],
    )  # fmt: skip
    paid = Scorer(hybrid_multi_aspect(p_max=0.0), group_size=2).score(["p", "p", "q", "q"], texts, **columns)
    assert paid.values[0] == 2.0 and paid.values[1] == 1.0 and paid.values[3] == pytest.approx(1.0)
    assert 1.0 < paid.values[2] < 2.0
    assert rule_verifier.__name__ == "rule_verifier"
