"""POLAR: Pre-Trained Policy Discriminators are General Reward Models (arXiv 2507.05197).

stage 1, without labels: for a prefix draw two policies of a pool; two samples of one, one of the other
    L = -log sigmoid( r(prefix, A1, A2) - r(prefix, A1, B1) )
stage 2, few ranked answers: the best is the reference, the second is to score above the third
    L = -log sigmoid( r(prompt, best, second) - r(prompt, best, third) )
use: r(prompt, reference, answer) is the reward of a policy (`guerdon.rewards.reference.ReferenceReward`)
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from guerdon.benchmarks.pairs import score_pairs
from guerdon.core.data import load_rows
from guerdon.core.dialogues import ASKING, USES, embedded_policies, embedded_ranked
from guerdon.core.errors import GuerdonError
from guerdon.core.preferences import Pair, text_of
from guerdon.core.runs import RunFolder
from guerdon.curation.triples import PolicyPool, PolicyTripleSampler, Triple
from guerdon.metrics.policy_discrimination import policy_discrimination
from guerdon.models.embedding import HashingEmbedder
from guerdon.models.scalar.reference import PolicyDiscriminator
from guerdon.models.scalar.reference_adapters import EmbeddingSimilarity
from guerdon.models.scalar.tiny import tiny_backbone
from guerdon.recipes._reward_model import (
    Closing,
    Data,
    RewardModelConfig,
    close,
    device,
    load_data,
    preset_for,
    train,
)
from guerdon.trainers.preference import PreferenceConfig, RewardModelTrainer

TITLE = "Pre-Trained Policy Discriminators are General Reward Models"
PRETRAINING = "pretraining"
__all__ = ["CONFIG", "PRESETS", "PolarConfig", "preset_for", "run"]


class PolarConfig(RewardModelConfig):
    """Stage 2's defaults are the paper's for 1.8B parameters: lr 1e-5, batch 320, one epoch, cosine to a tenth, 3%
    warm-up.

    data: rows with prompt, reference (the best answer), chosen (the second) and rejected (the third). pool: folders or
    hub ids of causal language models by name; empty without ``model``: embedded policies; empty with one: no stage 1,
    which a published POLAR needs no more. prefixes: a file whose column "prompt" the pool continues; None: the prompts
    of ``data``. unseen: policies of the pool that are kept for testing only. triples: of stage 1. has_head: the model
    is a POLAR already (published, or of an earlier run), not a language model.
    """

    preset: Literal["tiny", "published"] = "published"
    pool: dict[str, str] = Field(default_factory=dict)
    prefixes: str | None = None
    triples: int = Field(100_000, ge=1)
    unseen: int = Field(4, ge=2)
    has_head: bool = False
    pretraining: PreferenceConfig = Field(
        default_factory=lambda: PreferenceConfig(learning_rate=1.4e-5, batch_size=1940, epochs=1, schedule="cosine")
    )
    training: PreferenceConfig = Field(
        default_factory=lambda: PreferenceConfig(learning_rate=1e-5, batch_size=320, epochs=1, schedule="cosine")
    )
    pooling: Literal["token"] = "token"
    max_length: int | None = 16384


CONFIG = PolarConfig
PRESETS: dict[str, dict[str, Any]] = {
    "published": {},
    "tiny": {
        "triples": 2500,
        "max_length": 512,
        "pretraining": PreferenceConfig(learning_rate=2e-3, batch_size=32, epochs=2).model_dump(),
        "training": PreferenceConfig(learning_rate=1e-3, batch_size=16, epochs=6).model_dump(),
    },
}


def run(config: PolarConfig, folder: RunFolder, resume: bool = False) -> dict[str, Any]:
    """Pre-train, fine-tune and grade in ``folder``; returns the summary, which is written there too."""
    started = time.monotonic()
    data = load_data(config, folder, _embedded)
    judge = _discriminator(config, data)
    closing = Closing()
    pool = _pool(config)
    if pool is not None:
        seen, unseen = _triples(config, pool, data, folder)
        settings = config.pretraining.model_copy(update={"seed": config.seed})
        ready = [judge.pair(triple.to_pair()) for triple in seen]
        RewardModelTrainer(judge.model, ready, settings, folder, stage=PRETRAINING).train(resume=resume)
        closing.tables.append(_discrimination(judge, unseen))
    ready_data = Data([judge.pair(pair) for pair in data.train], [judge.pair(pair) for pair in data.held])
    if pool is not None:
        closing.scores["pre-trained only"] = score_pairs(judge.model, ready_data.held)
    closing.scores["similarity to the reference"] = _similarity(data.held)
    train(judge.model, ready_data, config, folder, resume)
    return close("polar", TITLE, config, folder, judge.model, ready_data, started, closing)


def _embedded(seed: int) -> Data:
    """Few ranked answers: 200 to train on, 300 to grade by."""
    return Data(embedded_ranked(200, seed, asking=ASKING[:3]), embedded_ranked(300, seed + 1, asking=ASKING[3:]))


def _discriminator(config: PolarConfig, data: Data) -> PolicyDiscriminator:
    options: dict[str, Any] = dict(
        head=config.head, max_length=config.max_length, freeze=config.freeze, seed=config.seed, device=device()
    )
    if config.reward_token is not None:
        options["reward_token"] = config.reward_token
    if config.model is not None and config.has_head:
        return PolicyDiscriminator.from_pretrained(config.model, trust_remote_code=config.trust_remote_code)
    if config.model is not None:
        return PolicyDiscriminator.on_backbone(config.model, trust_remote_code=config.trust_remote_code, **options)
    texts = {text_of(pair.conversation(side)) for pair in data.train for side in ("chosen", "rejected")}  # type: ignore[arg-type]
    backbone, tokenizer = tiny_backbone(texts, hidden=64, layers=2, seed=config.seed)
    return PolicyDiscriminator.on_backbone(backbone, tokenizer=tokenizer, **options)


def _pool(config: PolarConfig) -> PolicyPool | None:
    if config.pool:
        return PolicyPool(config.pool)
    return PolicyPool(embedded_policies(24, config.seed)) if config.model is None and config.data is None else None


def _triples(config: PolarConfig, pool: PolicyPool, data: Data, folder: RunFolder) -> tuple[list[Triple], list[Triple]]:
    """Triples of the policies to learn from, and of those kept for testing; sampled once a run."""
    names = pool.names
    if len(names) < config.unseen + 2:
        raise GuerdonError(
            f"a pool of {len(names)} policies leaves fewer than 2 to learn from beside {config.unseen} unseen"
        )
    stage = "triples"
    if not folder.stage_done(stage):
        if config.prefixes is not None:
            prefixes = [text_of(prompt) for prompt in load_rows(config.prefixes, required=("prompt",))["prompt"]]
        elif config.data is None:
            prefixes = [asked.format(thing) for thing in USES for asked in ASKING[:3]]
        else:
            prefixes = list(dict.fromkeys(text_of(pair.prompt) for pair in data.train))
        found = []
        for part, count in ((names[config.unseen :], config.triples), (names[: config.unseen], 200)):
            some = PolicyPool({name: pool.policies[name] for name in part})
            found.append(PolicyTripleSampler(prefixes, some, seed=config.seed, tidy=bool(config.pool)).sample(count))
        folder.mark_done(stage, [[vars(triple) for triple in part] for part in found])
    seen, unseen = folder.stage_result(stage)
    return [_triple(row) for row in seen], [_triple(row) for row in unseen]


def _triple(row: dict[str, Any]) -> Triple:
    return Triple(**{**row, "policies": tuple(row["policies"])})


def _discrimination(judge: PolicyDiscriminator, triples: Sequence[Triple]) -> dict[str, Any]:
    better, worse = score_pairs(judge.model, [judge.pair(triple.to_pair()) for triple in triples])
    found = policy_discrimination(better, worse, [triple.policies for triple in triples])
    return {
        "title": "Policies that stage 1 has not seen",
        "note": f"{len(triples)} triples: does the answer of the reference's policy score above another policy's?",
        "columns": ["measure", "accuracy [95%]"],
        "rows": [["told apart", str(found.accuracy)]],
    }


def _similarity(pairs: Sequence[Pair]) -> tuple[Any, Any]:
    """The baseline that reads surfaces: cosine of hashed character n-grams with the reference."""
    judge = EmbeddingSimilarity(HashingEmbedder())
    prompts, references = [pair.prompt for pair in pairs], [pair.row["reference"] for pair in pairs]
    chosen = judge.score(prompts, references, [pair.chosen for pair in pairs])
    return chosen, judge.score(prompts, references, [pair.rejected for pair in pairs])
