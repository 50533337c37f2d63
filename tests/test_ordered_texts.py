"""Training on ordered texts: the loss is the objective's, the anchor holds, and a resumed run is the same run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from guerdon.core.errors import GuerdonError
from guerdon.core.preferences import Pair
from guerdon.core.runs import RunFolder
from guerdon.curation.detection_texts import human_pairs
from guerdon.models.scalar.model import ScalarRewardModel
from guerdon.models.scalar.tiny import tiny_backbone
from guerdon.objectives.ordered_preference import ordered_preference
from guerdon.trainers.ordered_texts import MIXED, OrderedTexts, ReplayAnchor
from guerdon.trainers.pair_batches import PairBatch
from guerdon.trainers.preference import PreferenceConfig, RewardModelTrainer

TEXTS = ["plain words here", "polished words therefore", "plain words therefore"]


def said(text: str) -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": text}]


def model(seed: int = 0) -> ScalarRewardModel:
    backbone, tokenizer = tiny_backbone(TEXTS, hidden=16, layers=1, heads=2, vocab=400, seed=seed)
    made = ScalarRewardModel.on_backbone(backbone, tokenizer=tokenizer, seed=seed)
    with torch.no_grad():
        for part in made.head.parameters():
            part.mul_(10)  # an untrained model scores everything alike
    return made


def triple(mixed: bool = True, number: int = 0) -> Pair:
    row = {MIXED: f"{TEXTS[2]} {number}"} if mixed else {}
    return Pair([], said(f"{TEXTS[1]} {number}"), said(f"{TEXTS[0]} {number}"), row=row, where=f"row {number}")


def batch_of(judge: ScalarRewardModel, pairs: list[Pair]) -> PairBatch:
    encoded = [judge.encode(pair.conversation(side)) for pair in pairs for side in ("chosen", "rejected")]  # type: ignore[arg-type]
    return PairBatch.of(pairs, encoded)


def scored(judge: ScalarRewardModel, texts: list[str]) -> torch.Tensor:
    return judge(**judge.batch([judge.encode(said(text)) for text in texts]))


class FixedView:
    """What a trainer hands to an objective."""

    def __init__(self, judge: ScalarRewardModel, pairs: list[Pair]) -> None:
        self.chosen = scored(judge, [pair.chosen[0]["content"] for pair in pairs])
        self.rejected = scored(judge, [pair.rejected[0]["content"] for pair in pairs])


def test_the_loss_of_a_batch_is_the_objectives() -> None:
    judge = model().eval()
    pairs = [triple(number=0), triple(number=1), triple(mixed=False, number=2)]
    view = FixedView(judge, pairs)
    loss = OrderedTexts(judge)(lambda: view, batch_of(judge, pairs))  # type: ignore[arg-type, return-value]
    mixed = scored(judge, [str(pair.row[MIXED]) for pair in pairs[:2]])
    table = torch.stack([view.chosen[:2], mixed, view.rejected[:2]], dim=1)
    alone = torch.stack([view.chosen[2:], view.rejected[2:]], dim=1)
    expected = ordered_preference(table, reduce="none").sum()
    expected = expected + ordered_preference(alone, pairs=[(0, 1)], weights=[1 / 3], reduce="none").sum()
    assert loss.item() == pytest.approx(expected.item() / 3, abs=1e-6)


def test_the_anchor_is_the_squared_change_of_what_it_draws() -> None:
    judge = model().eval()
    anchor = ReplayAnchor(judge, [said(text) for text in TEXTS], coefficient=0.5, count=2)
    assert anchor.drift(judge) == pytest.approx(0.0, abs=1e-6)
    assert anchor(judge)[0].item() == pytest.approx(0.0, abs=1e-9)
    with torch.no_grad():
        judge.head.layers[0].bias.add_(0.3)
    loss, told = anchor(judge)
    assert loss.item() == pytest.approx(0.5 * 2 * 0.09, abs=1e-5) and told["replay"] == pytest.approx(loss.item())
    assert anchor.drift(judge) == pytest.approx(0.3, abs=1e-5)
    loss.backward()
    assert judge.head.layers[0].bias.grad.item() == pytest.approx(0.5 * 2 * 2 * 0.3, abs=1e-4)
    torch.manual_seed(3)
    one = anchor(judge)[0].item()
    torch.manual_seed(3)
    assert anchor(judge)[0].item() == one  # torch's state alone says what is replayed


def test_a_strong_anchor_holds_the_scores_and_the_order_is_learnt_anyway() -> None:
    pairs = [triple(number=number) for number in range(8)]
    settings = PreferenceConfig(steps=20, batch_size=4, learning_rate=5e-3)
    drifts, gaps = {}, {}
    for coefficient in (0.0, 0.5):
        judge = model()
        talks = [pair.conversation(side) for pair in human_pairs(6, 0) for side in ("chosen", "rejected")]  # type: ignore[arg-type]
        anchor = ReplayAnchor(judge, talks, coefficient=coefficient, count=8)
        RewardModelTrainer(judge, pairs, settings, objective=OrderedTexts(judge, anchor=anchor)).train()
        drifts[coefficient] = anchor.drift(judge)
        scores = judge.score([said(text) for text in (TEXTS[1], TEXTS[0])])
        gaps[coefficient] = float(scores[0] - scores[1])
    assert drifts[0.5] < 0.5 * drifts[0.0] and min(gaps.values()) > 0.1


def test_the_anchor_is_an_extra_loss_of_any_training() -> None:
    judge = model()
    anchor = ReplayAnchor(judge, [said(text) for text in TEXTS], count=2)
    history = RewardModelTrainer(
        judge, [triple(number=n) for n in range(4)], PreferenceConfig(steps=3, batch_size=4, learning_rate=1e-3),
        extra_loss=anchor,
    ).train()  # fmt: skip
    assert history[0]["replay"] == pytest.approx(0.0, abs=1e-9) and history[-1]["replay"] > 0


def test_a_resumed_run_is_the_same_run(tmp_path: Path) -> None:
    pairs = [triple(number=number) for number in range(6)]
    settings = {"steps": 6, "batch_size": 2, "learning_rate": 3e-3, "checkpoint_every": 2, "seed": 5}
    finals = []
    for name, stops in (("whole", [6]), ("halves", [4, 6])):
        for stop in stops:
            judge = model()
            talks = [said(text) for text in TEXTS]
            objective = OrderedTexts(judge, anchor=ReplayAnchor(judge, talks, count=2))
            folder = RunFolder.open(tmp_path / name, {"seed": 5}, resume=True)
            trainer = RewardModelTrainer(judge, pairs, PreferenceConfig(**settings), folder, objective=objective)
            trainer._restore()
            while trainer.step < stop:
                trainer.train_step()
            trainer._save_checkpoint()
        finals.append(judge.score([said(text) for text in TEXTS]))
    assert torch.equal(*finals)


def test_refusals() -> None:
    with pytest.raises(GuerdonError, match="needs texts"):
        ReplayAnchor(model(), [])
    with pytest.raises(GuerdonError, match="three weights"):
        OrderedTexts(model(), weights=(1.0, 1.0))
