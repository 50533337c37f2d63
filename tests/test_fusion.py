"""RewardFusion: the formula, who is a neighbour, what it costs, and its use as a reward."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from guerdon.core.dialogues import embedded_pairs
from guerdon.core.errors import GuerdonError
from guerdon.core.outcome import Failed
from guerdon.core.preferences import text_of
from guerdon.models.embedding import HashingEmbedder
from guerdon.models.scalar.ensemble import EnsembleReward
from guerdon.models.scalar.model import ScalarRewardModel
from guerdon.models.scalar.tiny import tiny_backbone
from guerdon.rewards.fusion import RewardFusion, fuse
from guerdon.rewards.model import ModelReward


def test_the_card() -> None:
    found = fuse([2.0], [[1.0, 4.0]], [[0.95, 0.90]])
    assert found[0] == pytest.approx(6.55 / 2.85) and found[0] == pytest.approx(2.29825, abs=1e-5)


def test_five_equal_weights_leave_a_fifth_of_the_variance() -> None:
    noise = np.random.default_rng(0).normal(size=(40_000, 5))
    fused = fuse(noise[:, 0], noise[:, 1:], np.ones((40_000, 4)))
    assert fused.var() == pytest.approx(1 / 5, rel=0.03)


def test_without_neighbours_the_score_stays() -> None:
    assert fuse([1.0, -2.0], np.full((2, 3), 9.0), np.zeros((2, 3))).tolist() == [1.0, -2.0]
    assert fuse([1.0], np.zeros((1, 0)), np.zeros((1, 0))).tolist() == [1.0]
    with pytest.raises(ValueError, match="needs"):
        fuse([1.0], [[1.0]], [[1.0, 2.0]])
    with pytest.raises(ValueError, match=">= 0"):
        fuse([1.0], [[1.0]], [[-1.0]])


ANGLES = {"t": 0.0, "n1": 18.2, "n2": 25.84, "far": 26.0, "other": 90.0, "n3": 5.0}  # cosines .95, .90, .899, 0, .996
VALUES = {"t": 2.0, "n1": 1.0, "n2": 4.0, "far": 100.0, "other": -7.0, "n3": 3.0}


def embed(texts: list[str]) -> np.ndarray:
    angles = np.deg2rad([ANGLES[text.strip()] for text in texts])
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


class Table:
    """A reward model that reads its scores from a table."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def score(self, conversations: list[Any], **options: Any) -> list[float]:
        self.asked += [text_of(one).strip() for one in conversations]
        return [VALUES[text_of(one).strip()] for one in conversations]


def test_neighbours_above_the_threshold_once_each_and_never_oneself() -> None:
    rm = Table()
    fusion = RewardFusion(rm, ["n1", "n2", "n1 ", "far", "t", "n1"], embed)
    near = {list(fusion.index)[place]: similarity for place, similarity in fusion.neighbours(["t"])[0]}
    assert near == {"n1": pytest.approx(0.95, abs=1e-4), "n2": pytest.approx(0.90, abs=1e-4)}
    assert fusion.score(["t", "other"]).tolist() == pytest.approx([2.29825, -7.0], abs=1e-3)
    assert rm.asked == ["t", "other", "n1", "n2"]
    assert (fusion.cost.asked, fusion.cost.scored, fusion.cost.fused, fusion.cost.factor) == (2, 4, 1, 2.0)


def test_k_nearest_only() -> None:
    fusion = RewardFusion(Table(), ["t", "n1", "n2", "n3"], embed, k=1)
    assert [len(near) for near in fusion.neighbours(["t", "n1"])] == [1, 1]
    similarity = np.cos(np.deg2rad(5.0))
    assert fusion.score(["t"]).item() == pytest.approx((2 + similarity * 3) / (1 + similarity))


def test_a_neighbour_of_many_is_scored_once_a_call() -> None:
    rm = Table()
    fusion = RewardFusion(rm, ["n3"], embed)
    fusion.score(["t", "n1", "t"])
    assert rm.asked == ["t", "n1", "t", "n3"] and fusion.cost.fused == 3
    assert fusion.score([]).shape == (0,)


def test_pictures_are_not_fused() -> None:
    class Seeing(Table):
        def score(self, conversations: list[Any], *, images: Any = None, **options: Any) -> list[float]:
            assert images is None or len(images) == len(conversations)
            return super().score(conversations)

    fusion = RewardFusion(Seeing(), ["n3"], embed)
    plain, shown = fusion.score(["t", "t"], images=[(), ("picture",)]).tolist()
    assert shown == 2.0 != plain


@pytest.fixture(scope="module")
def model() -> ScalarRewardModel:
    texts = {text_of(pair.conversation("chosen")) for pair in embedded_pairs(60, 0)}
    backbone, tokenizer = tiny_backbone(texts, hidden=32, layers=1, vocab=400)
    return ScalarRewardModel.on_backbone(backbone, tokenizer=tokenizer, max_length=128, too_long="fail")


def test_as_a_reward_and_in_an_ensemble(model: ScalarRewardModel) -> None:
    pairs = embedded_pairs(60, 0)
    fusion = RewardFusion(model, [pair.conversation("chosen") for pair in pairs], HashingEmbedder(), threshold=0.7)
    asked = [pair.conversation("rejected") for pair in embedded_pairs(8, 1)]
    fused = fusion.score(asked).tolist()
    assert fused != pytest.approx(model.score(asked).tolist()) and fusion.cost.fused > 0
    reward = ModelReward(fusion)
    completions = [text_of(one[-1:]) for one in asked]
    assert reward([one[:-1] for one in asked], completions) == pytest.approx(fused, abs=1e-5)
    found = reward(["What is a map for?"] * 2, ["A map is for finding the way.", "many words " * 200])
    assert isinstance(found[0], float) and isinstance(found[1], Failed)
    both = EnsembleReward([fusion, model]).score(asked)
    assert both.tolist() == pytest.approx(((fusion.score(asked) + model.score(asked)) / 2).tolist(), abs=1e-5)


def test_identity_says_what_is_fused(model: ScalarRewardModel) -> None:
    index = [pair.conversation("chosen") for pair in embedded_pairs(10, 0)]
    first, same = (RewardFusion(model, index, HashingEmbedder()).identity() for _ in range(2))
    assert first == same and first.startswith("fusion@1#")
    assert RewardFusion(model, index[1:], HashingEmbedder()).identity() != first
    assert RewardFusion(model, index, HashingEmbedder(), k=2).identity() != first


@pytest.mark.parametrize(
    "options, says",
    [({"k": 0}, "k of at least 1"), ({"threshold": 0.0}, "threshold"), ({"index": []}, "as its index")],
)
def test_refusals(options: dict[str, Any], says: str) -> None:
    with pytest.raises(GuerdonError, match=says):
        RewardFusion(Table(), **({"index": ["n1"], "embed": embed} | options))
