"""Ensembles and routes: weights, nesting, batches, and the same interface as one model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from PIL import Image

from guerdon.core.errors import GuerdonError
from guerdon.core.preferences import Pair
from guerdon.models.scalar.ensemble import EnsembleReward, RoutedReward
from guerdon.models.scalar.model import ScalarRewardModel
from guerdon.models.scalar.tiny import tiny_backbone, tiny_vision_backbone
from guerdon.rewards.model import ModelReward

TEXTS = ["what is a kettle for", "a kettle is for boiling water", "happy to help"]
PICTURE = Image.new("RGB", (32, 32), "red")


def talk(answer: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": "what is a kettle for?"}, {"role": "assistant", "content": answer}]


CONVERSATIONS = [talk("boiling water"), talk("no"), talk("happy to help, boiling water it is")]


class Fixed:
    """Scores an answer from a table; counts what it encoded."""

    def __init__(self, table: dict[str, float], name: str = "fixed") -> None:
        self.table, self.name, self.seen = table, name, 0

    def encode(self, conversation: Any, images: Any = ()) -> str:
        self.seen += 1
        return conversation[-1]["content"]

    def score_encoded(self, encoded: Any, **batching: Any) -> torch.Tensor:
        return torch.tensor([self.table[one] for one in encoded])

    def report_cuts(self, encoded: Any) -> int:
        return len(encoded) and 1

    def score(self, conversations: Any, *, images: Any = None) -> torch.Tensor:
        return self.score_encoded([one[-1]["content"] for one in conversations])

    def identity(self) -> str:
        return f"{self.name}@1#{sorted(self.table.items())}"


def pair(chosen: str, rejected: str) -> Pair:
    return Pair(talk("")[:1], talk(chosen)[1:], talk(rejected)[1:])


GOOD = Fixed({"a": 3.0, "b": 1.0, "c": 0.0}, "good")  # 3 of 3 right, mean margin (2 + 1 + 3) / 3 = 2
POOR = Fixed({"a": 1.0, "b": 2.0, "c": 0.0}, "poor")  # 2 of 3 right, mean margin (-1 + 2 + 1) / 3
WRONG = Fixed({"a": 0.0, "b": 1.0, "c": 2.0}, "wrong")  # none right
VALIDATION = [pair("a", "b"), pair("b", "c"), pair("a", "c")]


def test_weights() -> None:
    mean = EnsembleReward([GOOD, POOR])
    assert mean.weights == (0.5, 0.5) and mean.scores([talk("a"), talk("b")]) == [2.0, 1.5]
    assert EnsembleReward([GOOD, POOR], "accuracy", VALIDATION).weights == pytest.approx((3 / 5, 2 / 5))
    assert EnsembleReward([GOOD, POOR], "confidence", VALIDATION).weights == pytest.approx((6 / 8, 2 / 8))
    assert EnsembleReward([GOOD, WRONG], "confidence", VALIDATION).weights == (1.0, 0.0)
    assert EnsembleReward([GOOD, POOR], [3, 1]).scores([talk("a")]) == [2.5]


@pytest.mark.parametrize(
    "weights, validation, said",
    [
        ("means", None, "did you mean 'mean'"),
        ("accuracy", None, "validation pairs go with"),
        ("mean", VALIDATION, "validation pairs go with"),
        ([1.0], None, "as many weights"),
        ([1.0, -1.0], None, "as many weights"),
        ([0.0, 0.0], None, "as many weights"),
        ("accuracy", [], "at least one pair"),
    ],
)
def test_weights_are_checked(weights: Any, validation: Any, said: str) -> None:
    with pytest.raises(GuerdonError, match=said):
        EnsembleReward([GOOD, POOR], weights, validation)
    with pytest.raises(GuerdonError, match="at least 2"):
        EnsembleReward([GOOD])


def test_the_interface_of_one_model() -> None:
    ensemble = EnsembleReward([GOOD, POOR])
    assert ensemble.compare(talk("a"), talk("c")) and not ensemble.compare(talk("c"), talk("c"))
    assert ensemble.rank([talk("c"), talk("a"), talk("b")]) == [2, 0, 1]
    assert ensemble.score([]).tolist() == []
    assert ensemble.report_cuts([ensemble.encode(talk("a"))]) == 1
    with pytest.raises(GuerdonError, match="single string"):
        ensemble.score("a")
    with pytest.raises(GuerdonError, match="pictures for 1"):
        ensemble.score([talk("a"), talk("b")], images=[()])


def test_real_members_whatever_the_batch() -> None:
    backbones = [tiny_backbone(TEXTS, kind=kind, hidden=32, seed=seed) for seed, kind in enumerate(("qwen3", "llama"))]
    members = [ScalarRewardModel.on_backbone(model, tokenizer=tokenizer) for model, tokenizer in backbones]
    ensemble = EnsembleReward(members)
    wanted = (members[0].score(CONVERSATIONS) + members[1].score(CONVERSATIONS)) / 2
    torch.testing.assert_close(ensemble.score(CONVERSATIONS), wanted, atol=1e-6, rtol=0)
    alone = torch.cat([ensemble.score([one]) for one in CONVERSATIONS])
    torch.testing.assert_close(ensemble.score(CONVERSATIONS[::-1]).flip(0), alone, atol=1e-5, rtol=0)
    # As a reward of TRL's contract, and inside another ensemble.
    asked, made = [one[0]["content"] for one in CONVERSATIONS], [one[1]["content"] for one in CONVERSATIONS]
    assert ModelReward(ensemble)(asked, made) == pytest.approx(wanted.tolist(), abs=1e-5)
    nested = EnsembleReward([ensemble, members[0]])
    torch.testing.assert_close(nested.score(CONVERSATIONS), (wanted + members[0].score(CONVERSATIONS)) / 2)
    assert nested.identity() != ensemble.identity() != EnsembleReward(members, [2, 1]).identity()


def test_routes_by_pictures() -> None:
    text, tokenizer = tiny_backbone(TEXTS, hidden=32)
    seeing, processor = tiny_vision_backbone(TEXTS)
    by_text = ScalarRewardModel.on_backbone(text, tokenizer=tokenizer)
    by_eye = ScalarRewardModel.on_backbone(seeing, processor=processor)
    routed = RoutedReward(by_text, by_eye)
    inside = [{"role": "user", "content": [{"type": "image", "image": PICTURE}, {"type": "text", "text": "what?"}]}]
    inside += talk("a")[1:]
    rows = [CONVERSATIONS[0], CONVERSATIONS[1], inside, CONVERSATIONS[2]]
    images = [(), (PICTURE,), (), ()]
    found = routed.score(rows, images=images)
    assert found[0] == by_text.score(rows[:1])[0] and found[3] == pytest.approx(
        float(by_text.score(rows[3:])[0]), abs=1e-5
    )
    torch.testing.assert_close(found[1:3], by_eye.score(rows[1:3], images=images[1:3]), atol=1e-5, rtol=0)
    plain = by_text.score(rows[1:2])
    assert not torch.isclose(found[1], plain[0])
    assert routed.report_cuts([routed.encode(row) for row in CONVERSATIONS]) == 0
    assert routed.identity() != RoutedReward(by_eye, by_text).identity()
