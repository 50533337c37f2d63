"""A reward model as a detector: what it reads of a text, thresholds, drift, and the reward with its sign."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from guerdon.core.errors import GuerdonError
from guerdon.core.scorer import Scorer
from guerdon.curation.detection_texts import Writer, continued_by, human_texts, polish
from guerdon.models.scalar.model import ScalarRewardModel
from guerdon.models.scalar.tiny import tiny_backbone
from guerdon.rewards.text import reward_detector
from guerdon.rewards.text.reward_detector import DetectabilityReward, RewardDetector, alignment_drift, opening


class Polish:
    """Likes polished words, and says what it was shown."""

    name = "polish"

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def score(self, conversations: Any, **options: Any) -> torch.Tensor:
        self.seen += conversations
        return torch.tensor([polish(one[-1]["content"]) for one in conversations])


@pytest.fixture(scope="module")
def small() -> ScalarRewardModel:
    backbone, tokenizer = tiny_backbone(human_texts(20, 0), hidden=16, layers=1, heads=2, vocab=500)
    return ScalarRewardModel.on_backbone(backbone, tokenizer=tokenizer)


def test_the_beginning_of_a_text_that_fits(small: ScalarRewardModel) -> None:
    (text,) = human_texts(1, 3)
    tokenizer = small.tokenizer
    assert opening(text, tokenizer, 512) == text
    cut = opening(text, tokenizer, 12)
    assert text.startswith(cut) and len(tokenizer(cut)["input_ids"]) == 12
    assert tokenizer(cut)["input_ids"] == tokenizer(text)["input_ids"][:12]


def test_texts_alone_and_after_their_prompts(small: ScalarRewardModel) -> None:
    texts = human_texts(3, 4)
    found = RewardDetector(small).score(texts)
    direct = small.score([[{"role": "assistant", "content": text}] for text in texts])
    assert found.dtype == np.float64 and found == pytest.approx(direct.numpy(), abs=1e-6)
    judge = Polish()
    RewardDetector(judge, reads="answer").score(["a b"], ["why"])
    assert [turn["role"] for turn in judge.seen[0]] == ["user", "assistant"]
    first, whole = RewardDetector(small, tokens=8).score(texts[:1]), RewardDetector(small, tokens=400).score(texts[:1])
    assert first[0] != whole[0] and first == pytest.approx(
        RewardDetector(small).score([opening(texts[0], small.tokenizer, 8)])
    )


def test_threshold_and_auroc() -> None:
    human = human_texts(80, 5)
    generated = continued_by(Writer("keen", 8), human, 5)
    detector = RewardDetector(Polish())
    threshold = detector.threshold_at_fpr(human, 0.05)
    assert (detector.score(human) > threshold).mean() <= 0.05
    found = detector.auroc(human, generated)
    assert found > 0.75 and detector.auroc(generated, human) == pytest.approx(1 - found)


def test_drift_rises_as_the_policy_climbs() -> None:
    human, prompts = human_texts(100, 6), human_texts(80, 7)
    detector = RewardDetector(Polish())
    drifts = [
        alignment_drift(detector, human, continued_by(Writer("plain", n, 0.0), prompts, 7), resamples=200)
        for n in (1, 3, 9)
    ]
    assert drifts[0].value < drifts[1].value < drifts[2].value
    assert drifts[0].low < 0.5 < drifts[0].high and drifts[1].low > 0.5


def test_the_reward_is_the_score_with_its_sign() -> None:
    texts = human_texts(4, 8)
    scores = RewardDetector(Polish()).score(texts)
    for sign in (-1, 1):
        reward = DetectabilityReward(RewardDetector(Polish()), sign=sign)
        assert reward(prompts=["p"] * 4, completions=texts) == pytest.approx((sign * scores).tolist())
        found = Scorer(reward).score(["p"] * 2, [texts[0], " "])
        assert found.valid.tolist() == [True, False]  # nothing to detect: does not apply
    assert DetectabilityReward(RewardDetector(Polish())).__name__ == "undetected_by_polish"
    message = [{"role": "assistant", "content": texts[0]}]
    assert DetectabilityReward(RewardDetector(Polish()), sign=1)(None, [message]) == pytest.approx([scores[0]])


def test_from_a_saved_reward_model(small: ScalarRewardModel, tmp_path: Path) -> None:
    saved = small.save_pretrained(tmp_path / "model")
    reward = reward_detector.load(saved, sign=1, device="cpu")
    texts = human_texts(2, 9)
    assert reward(None, texts) == pytest.approx(RewardDetector(str(saved)).score(texts).tolist())
    assert reward.identity() != reward_detector.load(saved, sign=1, tokens=64, device="cpu").identity()


def test_refusals() -> None:
    detector = RewardDetector(Polish())
    for call, said in (
        (lambda: RewardDetector(Polish(), reads="words"), "unknown way of reading"),  # type: ignore[arg-type]
        (lambda: detector.score("one text"), "list of texts"),
        (lambda: detector.score(["a", " "]), "text 1 is empty"),
        (lambda: RewardDetector(Polish(), reads="answer").score(["a"]), "needs a prompt"),
        (lambda: DetectabilityReward(detector, sign=0), "sign must be"),  # type: ignore[arg-type]
    ):
        with pytest.raises(GuerdonError, match=said):
            call()
