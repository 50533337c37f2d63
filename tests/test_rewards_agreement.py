"""Agreement rewards: own votes, votes of the other view, votes of a peer."""

from __future__ import annotations

import pytest

from guerdon.core.errors import GuerdonError
from guerdon.core.outcome import Failed
from guerdon.objectives.advantages import group_advantages
from guerdon.rewards.text.agreement import CrossViewReward, MajorityVoteReward, PeerVoteReward, final_text


def boxed(answers: list[str]) -> list[str]:
    return [f"So it is \\boxed{{{answer}}}" if answer else "I do not know." for answer in answers]


def views(first: list[str], second: list[str]) -> dict:
    count = len(first) + len(second)
    return {
        "prompts": ["q"] * len(first) + ["q, told again"] * len(second),
        "completions": boxed(first + second),
        "pair": [7] * count,
        "view": [0] * len(first) + [1] * len(second),
    }


def test_the_cards_example() -> None:
    import torch

    reward = CrossViewReward(reads="boxed", compares="text")
    found = reward(**views(["4", "4", "5", ""], ["5", "5", "4", "5"]))
    assert found == [0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    labels = {one.group: one.vote.label for one in reward.elected}
    assert labels == {(7, 0): "5", (7, 1): "4"} and all(one.agrees is False for one in reward.elected)
    advantages = group_advantages(torch.tensor(found), torch.tensor([0] * 4 + [1] * 4), eps=1e-6, unbiased=True)
    torch.testing.assert_close(advantages[:4], torch.tensor([-0.5, -0.5, 1.5, -0.5]), atol=1e-4, rtol=0)


def test_a_unanimous_group_with_another_label_gets_nothing() -> None:
    found = CrossViewReward()(**views(["4"] * 4, ["5"] * 4))
    assert found == [0.0] * 8


def test_no_answers_no_label() -> None:
    reward = CrossViewReward()
    assert reward(**views(["4", "4"], ["", ""])) == [0.0] * 4
    assert [one.vote.label for one in reward.elected] == ["", "4"]


def test_views_are_matched_by_id_and_not_by_place() -> None:
    rows = [(1, 0, "3"), (2, 1, "8"), (1, 1, "3"), (2, 0, "9"), (1, 0, "4"), (2, 1, "9")]
    reward = CrossViewReward()
    found = reward(
        ["p"] * 6, boxed([row[2] for row in rows]), pair=[row[0] for row in rows], view=[row[1] for row in rows]
    )
    # Pair 1: view 0 says 3, 4; view 1 says 3. Pair 2: view 1 says 8, 9 (a tie: 8 came first); view 0 says 9.
    assert found == [1.0, 0.0, 1.0, 0.0, 0.0, 1.0]


def test_answers_are_equal_by_value() -> None:
    halves = views(["1/2", "0.5", "3"], ["\\frac{1}{2}", "7", "0.50"])
    assert CrossViewReward()(**halves) == [1.0, 1.0, 0.0, 1.0, 0.0, 1.0]
    # By characters the same votes are six parties, and rewards collapse without a word.
    assert CrossViewReward(compares="text")(**halves) == [0.0] * 6


def test_a_lone_view_fails_and_is_no_zero() -> None:
    given = views(["4", "4"], ["4"])
    given["pair"] = [1, 2, 1]
    found = CrossViewReward()(**given)
    assert found[0] == 1.0 and found[2] == 1.0
    assert isinstance(found[1], Failed) and found[1].kind == "incomplete"


def test_columns_are_asked_for_by_name() -> None:
    with pytest.raises(GuerdonError, match="'question'"):
        CrossViewReward(pair_ids="question")(["p"], ["x"], view=[0])
    with pytest.raises(GuerdonError, match="'view'"):
        CrossViewReward()(["p"], ["x"], pair=[0], view=[0, 1])
    with pytest.raises(GuerdonError, match="boxed"):
        MajorityVoteReward(reads="boxd")


def test_own_vote() -> None:
    reward = MajorityVoteReward()
    logged: dict[str, float] = {}
    found = reward(
        ["a", "a", "a", "b", "b"],
        boxed(["2", "1", "2", "", ""]),
        solution=["2"] * 3 + ["5"] * 2,
        log_metric=logged.__setitem__,
    )
    assert found == [1.0, 0.0, 1.0, 0.0, 0.0]
    assert [one.right for one in reward.elected] == [True, False]
    assert logged["majority_vote/vote_share"] == pytest.approx(1 / 3)
    assert logged["majority_vote/label_accuracy"] == 0.5
    # The solution is watched and never paid.
    assert reward(["a"] * 2, boxed(["3", "3"]), solution=["9", "9"]) == [1.0, 1.0]
    # A tie goes to who came first; groups may be told by ids.
    assert reward(["a"] * 4, boxed(["2", "1", "1", "2"])) == [1.0, 0.0, 0.0, 1.0]
    assert reward(["a"] * 4, boxed(["2", "1", "1", "2"]), group_ids=[0, 1, 1, 0]) == [1.0] * 4


def test_conversations_are_prompts_too() -> None:
    asked = [[{"role": "user", "content": text}] for text in ("a", "a", "b")]
    said = [[{"role": "assistant", "content": text}] for text in boxed(["1", "1", "2"])]
    assert MajorityVoteReward()(asked, said) == [1.0, 1.0, 1.0]


def test_a_peer_labels() -> None:
    asked: list[str] = []

    def peer(prompts: list[str]) -> list:
        asked.extend(prompts)
        return [boxed(["6", "6", "5"]) if prompt == "a" else Failed("down", "unavailable") for prompt in prompts]

    found = PeerVoteReward(peer)(["a", "b", "a"], boxed(["5", "5", "6"]))
    assert asked == ["a", "b"] and found[0] == 0.0 and found[2] == 1.0 and isinstance(found[1], Failed)
    with pytest.raises(GuerdonError, match="answered 0 of 1"):
        PeerVoteReward(lambda prompts: [])(["a"], ["x"])


def test_identity_and_reading() -> None:
    assert CrossViewReward().identity() == CrossViewReward().identity()
    assert CrossViewReward().identity() != CrossViewReward(compares="text").identity()
    assert final_text("#### 12") == "12" and final_text("#### 12", "boxed") == "" and final_text("hm") == ""
