"""ReMoDetect: Reward Models Recognize Aligned LLM's Generations (arXiv 2405.17382).

begin with a reward model (or train one on preferences): it scores aligned models' texts above people's already
mixed text of a human one: half of its sentences in a language model's words                 (MixtureAugment)
go on training so that generated > mixed > human, held to its old scores on replayed preferences:
    L = (1/3) sum_(i,j) w_ij [ -log sigmoid(r_i - r_j) + beta (r_i^2 + r_j^2) / 2 ] + c sum_z (r(z) - r_0(z))^2
    (OrderedTexts, ReplayAnchor)
split and grade by human text; every generating model by itself, those not trained on, too
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import Field

from guerdon.benchmarks.text_pairs import TextPair, load_text_pairs, split_by_human, write_pair_files
from guerdon.core.errors import GuerdonError, unknown
from guerdon.core.outcome import Failed
from guerdon.core.preferences import Pair, load_pairs, split_by_prompt
from guerdon.core.progress import progress
from guerdon.core.runs import RunFolder
from guerdon.curation.detection_texts import embedded_files, human_pairs
from guerdon.curation.mixture import ChatRewriter, MixtureAugment, normalised
from guerdon.models.scalar.model import ScalarRewardModel
from guerdon.objectives.ordered_preference import LOGIT_L2, WEIGHTS
from guerdon.objectives.replay_anchor import COEFFICIENT
from guerdon.recipes._detection_grade import DetectionClosing
from guerdon.recipes._judges import chat_of
from guerdon.recipes._reward_model import Data, RewardModelConfig, close, device, make_model, preset_for, train
from guerdon.rewards.text.reward_detector import TOKENS, opening
from guerdon.trainers.ordered_texts import MIXED, OrderedTexts, ReplayAnchor
from guerdon.trainers.preference import PreferenceConfig, RewardModelTrainer

TITLE = "ReMoDetect: Reward Models Recognize Aligned LLM's Generations"
PREFERENCES, MIXING = "preferences", "mixing"
__all__ = ["CONFIG", "PRESETS", "ReMoDetectConfig", "preset_for", "run"]


class ReMoDetectConfig(RewardModelConfig):
    """The defaults are the released script's: lr 2e-5, weight decay 0.01, batch 1, one epoch, warm-up over a tenth,
    cosine, 512 tokens, a fifth of the human texts held out.

    data, validation: human and generated texts (`load_text_pairs`); without ``validation`` the share ``held_out`` of
    the human texts is kept. model: the reward model to begin with (published, or of an earlier run). new_head: it is
    only a backbone, and gets a head that is trained on ``preferences`` first. preferences: pairs that the reward model
    was trained on, to be replayed; without ``model`` None means embedded ones. base: the training on them.

    generators:      train on texts of these models only and test on all; []: all. normalise: quotes and spaces of one
                     kind on both sides, so that a data set's habits are not learnt for a model's.
    fraction, rewriter:  of the mixed texts; rewriter "MODEL@URL", a folder or a hub id paraphrases. None: sentences of
                     the generated text take their place.
    weights, logit_l2, replay, replayed:  of the loss; replayed texts a step. replay=0: none.
    """

    preset: Literal["tiny", "published"] = "published"
    new_head: bool = False
    preferences: str | None = None
    generators: list[str] = Field(default_factory=list)
    normalise: bool = True
    fraction: float = Field(0.5, gt=0, le=1)
    rewriter: str | None = None
    weights: tuple[float, float, float] = WEIGHTS
    logit_l2: float = Field(LOGIT_L2, ge=0)
    replay: float = Field(COEFFICIENT, ge=0)
    replayed: int = Field(1, ge=1)
    held_out: float = Field(0.2, gt=0, lt=1)
    max_length: int | None = Field(TOKENS, ge=8)
    base: PreferenceConfig = Field(
        default_factory=lambda: PreferenceConfig(learning_rate=5e-6, batch_size=32, epochs=1)
    )
    training: PreferenceConfig = Field(
        default_factory=lambda: PreferenceConfig(
            learning_rate=2e-5, weight_decay=0.01, batch_size=1, epochs=1, warmup=0.1, schedule="cosine"
        )
    )


CONFIG = ReMoDetectConfig
_SMALL = {"batch_size": 16, "schedule": "cosine", "warmup": 0.1, "weight_decay": 0.01}
PRESETS: dict[str, dict[str, Any]] = {
    "published": {},
    "tiny": {
        "held_out": 0.3,
        "base": PreferenceConfig(learning_rate=2e-3, batch_size=32, epochs=3).model_dump(),
        "training": PreferenceConfig(learning_rate=5e-4, epochs=3, **_SMALL).model_dump(),
    },
}


@dataclass
class Texts:
    """Pairs of texts to train on and to grade by, which share no human text."""

    train: list[TextPair]
    held: list[TextPair]


def run(config: ReMoDetectConfig, folder: RunFolder, resume: bool = False) -> dict[str, Any]:
    """Train and grade in ``folder``; returns the summary, which is written there too."""
    started = time.monotonic()
    preferences = _preferences(config, folder)
    texts = _texts(config, folder)
    model = _begin(config, preferences, texts, folder, resume)
    texts = Texts(*(_cut(part, model, config) for part in (texts.train, texts.held)))
    texts, failed = _mixed(config, texts, folder)
    write_pair_files(texts.held, folder.path / "held_out")
    anchor = None
    if config.replay:
        replayed = [pair.conversation(side) for pair in preferences.train for side in ("chosen", "rejected")]  # type: ignore[arg-type]
        anchor = ReplayAnchor(
            model, replayed, coefficient=config.replay, count=config.replayed, progress="scoring what is replayed"
        )
    grading = DetectionClosing(texts.held, preferences.held, config.seed)
    grading.look("before", model)
    data = Data([_pair(one) for one in texts.train], [_pair(one) for one in texts.held])
    objective = OrderedTexts(model, weights=config.weights, logit_l2=config.logit_l2, anchor=anchor)
    train(model, data, config, folder, resume, objective=objective)
    grading.look("after", model)
    drift = anchor.drift(model) if anchor is not None else None
    closing = grading.closing(trained_on={one.generator for one in texts.train}, unmixed=failed, drift=drift)
    return close("remodetect", TITLE, config, folder, model, data, started, closing)


def _preferences(config: ReMoDetectConfig, folder: RunFolder) -> Data:
    """Pairs to replay (and to train a new reward model on), and others to see what of it is lost."""
    if config.preferences is not None:
        pairs = load_pairs(config.preferences, skip_bad_rows=config.skip_bad_rows, out=folder.path)
        return Data(*split_by_prompt(pairs, 0.1, seed=config.seed))
    if config.model is None:
        return Data(human_pairs(700, config.seed), human_pairs(300, config.seed + 1))
    if config.new_head or config.replay:
        need = "train a new head on" if config.new_head else "replay"
        raise GuerdonError(f"there are no preferences to {need}: give preferences=FILE, or replay=0 and a reward model")
    return Data([], [])


def _texts(config: ReMoDetectConfig, folder: RunFolder) -> Texts:
    if config.data is None:
        found = [
            TextPair(human, generated, name.split("_")[0], name.split("_")[1], where=f"embedded:{row}")
            for name, sides in embedded_files(300, config.seed).items()
            for row, (human, generated) in enumerate(zip(sides["original"], sides["sampled"], strict=True))
        ]
        chosen = config.generators or ["writer-a"]  # the others are what it has not seen
    else:
        options: dict[str, Any] = dict(skip_bad_rows=config.skip_bad_rows, columns=config.columns, seed=config.seed)
        found = load_text_pairs(config.data, limit=config.limit, out=folder.path, **options)
        chosen = config.generators
    if config.data is not None and config.validation is not None:
        parts = found, load_text_pairs(config.validation, **options)
        seen = {pair.key for pair in found}
        twice = next((pair for pair in parts[1] if pair.key in seen), None)
        if twice is not None:
            raise GuerdonError(f"{twice.where}: this human text is among the training texts, too; keep sides apart")
    else:
        parts = split_by_human(found, config.held_out, seed=config.seed)
    named = {pair.generator for pair in found}
    for name in chosen:
        if name not in named:
            raise unknown("generator", name, named)
    train, held = parts
    return Texts([pair for pair in train if not chosen or pair.generator in chosen], list(held))


def _begin(
    config: ReMoDetectConfig, preferences: Data, texts: Texts, folder: RunFolder, resume: bool
) -> ScalarRewardModel:
    """The reward model to go on with; where there is none yet, one trained on the preferences."""
    if config.model is not None and not config.new_head:
        if config.lora is not None:
            raise GuerdonError("lora goes with new_head=true: a reward model's own weights are trained on here")
        return ScalarRewardModel.from_pretrained(
            config.model, device=device(), trust_remote_code=config.trust_remote_code, max_length=config.max_length
        )
    shown = [_pair(pair) for pair in texts.train]
    model = make_model(config, [*preferences.train, *shown])
    settings = config.base.model_copy(update={"seed": config.seed})
    RewardModelTrainer(model, preferences.train, settings, folder, preferences.held, stage=PREFERENCES).train(resume)
    return model


def _cut(pairs: Sequence[TextPair], model: ScalarRewardModel, config: ReMoDetectConfig) -> list[TextPair]:
    """The pairs as the detector reads them: normalised, and no longer than its first tokens, room for a chat template
    left."""

    tokens = model.max_length - _frame(model)

    def made(text: str) -> str:
        return opening(normalised(text) if config.normalise else text, model.tokenizer, tokens)

    return [replace(one, human=made(one.human), generated=made(one.generated)) for one in pairs]


def _frame(model: ScalarRewardModel) -> int:
    """Tokens that the chat template puts around a text, with those that the tokenizer adds anyway counted once."""
    word = "word"
    return max(0, len(model.encode([{"role": "assistant", "content": word}])) - len(model.tokenizer(word)["input_ids"]))


def _mixed(config: ReMoDetectConfig, texts: Texts, folder: RunFolder) -> tuple[Texts, dict[str, int]]:
    """The pairs with their mixed texts, made once a run, and why some have none."""
    if not folder.stage_done(MIXING):
        rewriter = ChatRewriter(chat_of(config.rewriter)) if config.rewriter is not None else None
        mix = MixtureAugment(rewriter, fraction=config.fraction, seed=config.seed)
        found: list[str | None] = []
        reasons: Counter[str] = Counter()
        for pair in progress([*texts.train, *texts.held], "mixing texts"):
            made = mix(pair.human, pair.generated) if pair.mixed is None else None
            if isinstance(made, Failed):
                reasons[made.kind] += 1
            found.append(pair.mixed if made is None else None if isinstance(made, Failed) else made.text)
        folder.mark_done(MIXING, {"texts": found, "failed": dict(reasons)})
    kept = folder.stage_result(MIXING)
    pairs = [*texts.train, *texts.held]
    if len(kept["texts"]) != len(pairs):
        raise GuerdonError(f"{folder.path}: the mixed texts were made of other data; use a new folder")
    made_of = [replace(pair, mixed=text) for pair, text in zip(pairs, kept["texts"], strict=True)]
    return Texts(made_of[: len(texts.train)], made_of[len(texts.train) :]), kept["failed"]


def _pair(pair: TextPair) -> Pair:
    """As the trainer takes it: the generated text is the answer that is to score higher."""
    generated, human = ([{"role": "assistant", "content": text}] for text in (pair.generated, pair.human))
    row = {"generator": pair.generator, "domain": pair.domain} | ({MIXED: pair.mixed} if pair.mixed else {})
    return Pair([], generated, human, row=row, where=pair.where)
