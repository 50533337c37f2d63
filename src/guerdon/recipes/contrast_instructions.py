"""The Trickle-down Impact of Reward (In-)consistency on RLHF (arXiv 2309.16155).

by option: answers varied by ConvexDA before training                                      (augment)
a reward model on the pairs; by option with crossed in-batch negatives beside the loss     (crossed)
contrast pairs mined among the held-out instructions; consistency of the model, of the model with RewardFusion over
the training pairs, and of word overlap, the floor
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from guerdon.core.dialogues import ASKING, embedded_pairs
from guerdon.core.errors import GuerdonError
from guerdon.core.preferences import Pair, text_of
from guerdon.core.runs import RunFolder
from guerdon.curation.contrast import ContrastInstructions, OverlapBaseline, mine_contrast, score_contrasts
from guerdon.curation.convex import ConvexDA, load_synonyms, misspelt, with_synonyms
from guerdon.metrics.consistency import Consistency, consistency
from guerdon.models.embedding import HashingEmbedder, TextEmbedder
from guerdon.models.scalar.model import ScalarRewardModel
from guerdon.objectives.preference import crossed_negatives
from guerdon.recipes._reward_model import (
    Closing,
    Data,
    RewardModelConfig,
    close,
    load_data,
    make_model,
    preset_for,
    train,
)
from guerdon.rewards.fusion import RewardFusion
from guerdon.trainers.dropout_views import View
from guerdon.trainers.pair_batches import PairBatch
from guerdon.trainers.preference import PreferenceConfig

TITLE = "The Trickle-down Impact of Reward (In-)consistency on RLHF"
__all__ = ["CONFIG", "PRESETS", "ContrastConfig", "crossed_loss", "preset_for", "run"]


class ContrastConfig(RewardModelConfig):
    """The defaults are the released scripts': LoRA of rank 8, lr 2e-5, weight decay 0.001, batch 16, one epoch, 512
    tokens, ConvexDA that keeps one variant (the paper). Their LoRA alpha of 32 and dropout of 0.1 are not followed
    (alpha is twice the rank here).

    augment:   "convex": answers varied by ConvexDA. variants, keep: its n and keep. synonyms: a file of them (see
               `load_synonyms`) instead of spelling noise.
    crossed:   weight of `crossed_loss`; ours, the paper has none.
    encoder:   a text encoder's folder or hub id, for ConvexDA, mining and RewardFusion; the paper's is
               sup-simcse-roberta-base. None: hashed character n-grams, for which alike means spelt alike.
    low, high, lexical, contrasts:  of `mine_contrast`; at most so many contrast pairs.
    neighbours, threshold:  of `RewardFusion`, over the training pairs' chosen answers.
    """

    preset: Literal["tiny", "published"] = "published"
    augment: Literal["none", "convex"] = "convex"
    variants: int = Field(5, ge=1)
    keep: Literal["one", "all"] = "one"
    synonyms: str | None = None
    crossed: float = Field(0.0, ge=0)
    encoder: str | None = None
    low: float = Field(0.75, ge=-1, le=1)
    high: float = Field(0.9, ge=-1, le=1)
    lexical: float = Field(0.0, ge=0, le=1)
    contrasts: int = Field(1000, ge=1)
    neighbours: int = Field(5, ge=1)
    threshold: float = Field(0.9, gt=0, le=1)
    lora: int | None = Field(8, ge=1)
    max_length: int | None = Field(512, ge=8)
    training: PreferenceConfig = Field(
        default_factory=lambda: PreferenceConfig(learning_rate=2e-5, batch_size=16, epochs=1, weight_decay=0.001)
    )


CONFIG = ContrastConfig
PRESETS: dict[str, dict[str, Any]] = {
    "published": {},
    "tiny": {
        "augment": "none",
        "crossed": 1.0,
        # Hashed n-grams spread the embedded questions wider than a sentence encoder does.
        "low": 0.4,
        "threshold": 0.75,
        "lora": None,
        "training": PreferenceConfig(learning_rate=2e-3, batch_size=32, epochs=4).model_dump(),
    },
}


def run(config: ContrastConfig, folder: RunFolder, resume: bool = False) -> dict[str, Any]:
    """Augment, train and grade in ``folder``; returns the summary, which is written there too."""
    started = time.monotonic()
    if config.synonyms is not None and config.augment != "convex":
        raise GuerdonError("synonyms are what ConvexDA varies answers with; give augment=convex too")
    data = load_data(config, folder, _embedded)
    embed = HashingEmbedder() if config.encoder is None else TextEmbedder(config.encoder)
    pairs = _augmented(config, data.train, embed)
    model = make_model(config, data.train)
    hooks = {"extra_loss": _hook(config.crossed)} if config.crossed else {}
    train(model, Data(pairs, data.held), config, folder, resume, **hooks)
    mined = mine_contrast(
        data.held, embed, config.low, config.high, config.lexical, limit=config.contrasts, seed=config.seed
    )
    closing = _graded(config, model, data, mined, embed) if len(mined) else Closing(tables=[_none_mined(config, mined)])
    return close("contrast-instructions", TITLE, config, folder, model, data, started, closing)


def crossed_loss(model: ScalarRewardModel, batch: PairBatch, view: View) -> Tensor:
    """`crossed_negatives` of a batch: each pair's instruction and chosen answer against those of the next pair.

    Rows whose instruction or chosen answer equals the next one's, and rows with pictures, are left out; 0 where none is
    left. Two more scorings a row; the rewards of the own answers are those of the pass that the batch has had.
    """
    pairs, count = batch.pairs, len(batch.pairs)
    rows = [(row, (row + 1) % count) for row in range(count)]
    rows = [(row, other) for row, other in rows if _apart(pairs[row], pairs[other])]
    if not rows:
        return view.chosen.sum() * 0.0
    talks = [[*pairs[row].prompt, *pairs[other].chosen] for row, other in rows]
    talks += [[*pairs[other].prompt, *pairs[row].chosen] for row, other in rows]
    across = model(**model.batch([model.encode(one) for one in talks]))
    first, second = (view.chosen[list(places)] for places in zip(*rows))
    table = torch.stack([first, *across.chunk(2), second], dim=1)
    return crossed_negatives(table.view(-1, 2, 2))


def _apart(one: Pair, other: Pair) -> bool:
    if one.images or other.images:
        return False
    return text_of(one.prompt) != text_of(other.prompt) and text_of(one.chosen) != text_of(other.chosen)


def _hook(weight: float) -> Any:
    def extra(model: ScalarRewardModel, batch: PairBatch, view: View) -> tuple[Tensor, Mapping[str, float]]:
        loss = crossed_loss(model, batch, view)
        return weight * loss, {"crossed": float(loss.detach())}

    return extra


def _augmented(config: ContrastConfig, pairs: list[Pair], embed: Any) -> list[Pair]:
    if config.augment == "none":
        return pairs
    vary = misspelt if config.synonyms is None else with_synonyms(load_synonyms(config.synonyms))
    return ConvexDA(vary, embed, config.variants, config.keep, seed=config.seed).augmented(pairs)


def _embedded(seed: int) -> Data:
    """Pairs whose chosen answer is right, so that it belongs to its question and to no other.

    An answer names its thing, so that it can be told right from wrong without the question: a model learns that first,
    and an answer about another thing, right by itself, is what it then falls for.
    """

    def right(pairs: list[Pair]) -> list[Pair]:
        return [pair for pair in pairs if pair.row["quality_chosen"] >= 2]

    return Data(
        right(embedded_pairs(2000, seed, asking=ASKING[:3])), right(embedded_pairs(500, seed + 1, asking=ASKING[3:]))
    )


def _graded(
    config: ContrastConfig, model: ScalarRewardModel, data: Data, mined: ContrastInstructions, embed: Any
) -> Closing:
    index = [pair.conversation("chosen") for pair in data.train if not pair.images]
    fusion = RewardFusion(model, index, embed, config.neighbours, config.threshold)
    judges: dict[str, Any] = {"reward model": model, "with RewardFusion": fusion, "shared words": OverlapBaseline()}
    found: dict[str, Consistency] = {}
    for name, judge in judges.items():
        scores = score_contrasts(judge, mined)
        found[name] = consistency(scores, symmetric=True, groups=mined.groups, seed=config.seed)
    costs = {"with RewardFusion": f"{fusion.cost.factor:.2f}", "shared words": "0.00"}
    rows = [
        [name, str(one.c_res), str(one.c_ins), str(one.joint), f"{one.res_ties:.3f}", f"{one.ins_ties:.3f}",
         costs.get(name, "1.00")]
        for name, one in found.items()
    ]  # fmt: skip
    own = found["reward model"]
    verdicts = [
        {"name": f"held-out {name} consistency", "target": "above 0.5", "value": one.value,
         "holds": True if one.low > 0.5 else False if one.high <= 0.5 else None}
        for name, one in (("response", own.c_res), ("instruction", own.c_ins))
    ]  # fmt: skip
    table = {
        "title": "Consistency on mined contrast pairs",
        "note": f"{len(mined)} pairs of held-out instructions with a cosine in [{config.low:g}, {config.high:g}]; both "
        "sides of each; a tie is not consistent; chance is 0.5, 0.5 and 0.167; a share of "
        f"{fusion.cost.fused / fusion.cost.asked:.2f} of the texts has neighbours. {_told(mined)}",
        "columns": ["judge", "C_res [95%]", "C_ins [95%]", "joint [95%]", "ties", "ties (instruction)",
                    "scorings a text"],
        "rows": rows,
    }  # fmt: skip
    shares = {name: {"c_res": one.c_res.value, "c_ins": one.c_ins.value, "joint": one.joint.value}
              for name, one in found.items()}  # fmt: skip
    return Closing(tables=[table], verdicts=verdicts, figures={"consistency": shares})


def _none_mined(config: ContrastConfig, mined: ContrastInstructions) -> dict[str, Any]:
    note = f"No two held-out instructions have a cosine in [{config.low:g}, {config.high:g}]. {_told(mined)}"
    return {"title": "Consistency on mined contrast pairs", "note": note.strip(), "columns": ["judge"], "rows": []}


def _told(mined: ContrastInstructions) -> str:
    left = ", ".join(f"{count} {reason}" for reason, count in sorted(mined.dropped.items()))
    return f"Left out: {left}." if left else ""
