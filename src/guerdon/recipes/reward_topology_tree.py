"""Reward Generalization in RLHF: A Topological Perspective (arXiv 2402.10184).

    for each prompt grow a tree of answers: a segment, ``branch`` continuations of it, and so on, ``depth`` times
    compare leaves of the same tree; the annotator reads the shared prefix once and the two endings
    train an ordinary Bradley-Terry reward model on the whole answers

``structure=both`` also samples independent answers (a chain), matches both sets by annotated tokens, and trains one
model on each. The gain is claimed for diverse tasks and few labels whose noise grows with how much differs; it is not
to be had everywhere.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

from guerdon.benchmarks.pairs import score_pairs
from guerdon.core.data import load_rows
from guerdon.core.dialogues import ASKING, COURTEOUS, PADDING, RUDE, USES, embedded_pairs, quality
from guerdon.core.errors import GuerdonError
from guerdon.core.outcome import Failed
from guerdon.core.preferences import Pair, as_messages, load_pairs, split_by_prompt, text_of
from guerdon.core.progress import progress
from guerdon.core.runs import RunFolder
from guerdon.curation.trees import (
    Compared,
    ModelContinuation,
    Prefix,
    PrefixTree,
    budget_match,
    chain_pairs,
    tree_pairs,
)
from guerdon.policies.continuation import CheckpointPolicy
from guerdon.policies.rewriter import sampling_key
from guerdon.recipes._judges import judge_of
from guerdon.recipes._reward_model import (
    Closing,
    Data,
    RewardModelConfig,
    close,
    make_model,
    preset_for,
    train,
    train_quietly,
)
from guerdon.trainers.preference import PreferenceConfig

TITLE = "Reward Generalization in RLHF: A Topological Perspective"
__all__ = ["CONFIG", "PRESETS", "TreeConfig", "preset_for", "run"]


class TreeConfig(RewardModelConfig):
    """depth, branch, pairs a tree and segment length are not in the public notes on the paper: UNVERIFIED, ours.

    data: prompts (column "prompt") to answer; None: embedded questions, answered by templates and annotated by their
    known quality with noise. generator: a causal language model's folder or hub id that answers ``data``. annotator: a
    judge (see `guerdon.recipes._judges.judge_of`). structure: what is compared; "both" trains a second model on the
    chain.
    """

    preset: Literal["tiny", "published"] = "published"
    generator: str | None = None
    annotator: str | None = None
    structure: Literal["tree", "chain", "both"] = "tree"
    depth: int = Field(3, ge=1)
    branch: int = Field(2, ge=2)
    pairs_a_tree: int = Field(8, ge=1)
    segment_tokens: int = Field(100, ge=1)
    max_new_tokens: int = Field(512, ge=2)
    training: PreferenceConfig = Field(default_factory=lambda: PreferenceConfig(learning_rate=1e-5, batch_size=32))


CONFIG = TreeConfig
PRESETS: dict[str, dict[str, Any]] = {
    "published": {},
    "tiny": {
        "structure": "both",
        "training": PreferenceConfig(learning_rate=2e-3, batch_size=32, epochs=6).model_dump(),
    },
}


def run(config: TreeConfig, folder: RunFolder, resume: bool = False) -> dict[str, Any]:
    """Sample, annotate, train and grade in ``folder``; returns the summary, which is written there too."""
    started = time.monotonic()
    sets, tables = _compared(config, folder)
    held = _held_out(config, sets)
    chosen = sets["chain" if config.structure == "chain" else "tree"]
    closing = Closing(tables=tables)
    everything = [pair for pairs in sets.values() for pair in pairs]
    if config.structure == "both":
        rival = train_quietly(make_model(config, everything), sets["chain"], config)
        closing.scores["trained on the chain"] = score_pairs(rival, held)
    model = make_model(config, everything)
    data = Data(chosen, held)
    train(model, data, config, folder, resume)
    return close("reward-topology-tree", TITLE, config, folder, model, data, started, closing)


def _compared(config: TreeConfig, folder: RunFolder) -> tuple[dict[str, list[Pair]], list[dict[str, Any]]]:
    """Pairs by structure, matched by annotated tokens where both are wanted; sampled and annotated once a run."""
    if not folder.stage_done("pairs"):
        prompts, continuation, sampler, annotate = _world(config)
        found = {name: Compared() for name in ("tree", "chain") if config.structure in (name, "both")}
        with progress(len(prompts), "answers and annotations") as bar:
            for prompt in prompts:
                if "tree" in found:
                    tree = PrefixTree(prompt).grow(config.depth, config.branch, continuation)
                    found["tree"].extend(tree_pairs(tree, config.pairs_a_tree, annotate=annotate, seed=config.seed))
                if "chain" in found:
                    found["chain"].extend(
                        chain_pairs(prompt, sampler, config.pairs_a_tree, annotate=annotate, seed=config.seed)
                    )
                bar.advance()
        rng = np.random.default_rng(config.seed)
        mixed = [[one.pairs[place] for place in rng.permutation(len(one.pairs))] for one in found.values()]
        if not all(mixed):
            raise GuerdonError("no pair came out: the answers are all equal, or the annotator tells none of them apart")
        matched = budget_match(*mixed, by="annotated_tokens")
        told = {
            name: {"rows": [pair.to_row() for pair in pairs], "shared": one.shared, "left": one.left_out}
            for (name, one), pairs in zip(found.items(), matched)
        }
        folder.mark_done("pairs", told)
    kept = folder.stage_result("pairs")
    sets = {name: [_pair(row) for row in one["rows"]] for name, one in kept.items()}
    rows = [
        [name, str(len(sets[name])), ", ".join(f"{k}: {n}" for k, n in sorted(one["shared"].items())),
         ", ".join(f"{why}: {n}" for why, n in one["left"].items()) or "none"]
        for name, one in kept.items()
    ]  # fmt: skip
    note = "Matched by annotated tokens: an annotator reads a shared prefix once."
    columns = ["structure", "pairs", "shared segments: pairs", "left out"]
    return sets, [{"title": "What was compared", "note": note, "columns": columns, "rows": rows}]


def _pair(row: dict[str, Any]) -> Pair:
    others = {key: value for key, value in row.items() if key not in ("prompt", "chosen", "rejected")}
    return Pair(row["prompt"], row["chosen"], row["rejected"], row=others)


def _held_out(config: TreeConfig, sets: dict[str, list[Pair]]) -> list[Pair]:
    """Pairs to grade by; those of held-out prompts leave ``sets``."""
    if config.validation is not None:
        return load_pairs(config.validation, columns=config.columns, skip_bad_rows=config.skip_bad_rows)
    if config.data is None:
        return embedded_pairs(300, config.seed + 1, asking=ASKING[3:])
    everything = [pair for pairs in sets.values() for pair in pairs]
    _, held = split_by_prompt(everything, config.held_out, seed=config.seed)
    trees = {pair.row["tree_id"] for pair in held}
    for name, pairs in sets.items():
        sets[name] = [pair for pair in pairs if pair.row["tree_id"] not in trees]
    return held


def _world(config: TreeConfig) -> tuple[list[str], Any, Any, Any]:
    """Prompts, what continues a prefix, what answers independently, and who annotates."""
    if config.data is None:
        prompts = [asked.format(thing) for thing in USES for asked in ASKING[:3]]
        return prompts, _continued, _answered, _embedded_annotator(config.seed)
    if config.generator is None or config.annotator is None:
        raise GuerdonError("own prompts need who answers and who judges: --set generator=MODEL --set annotator=JUDGE")
    rows = load_rows(config.data, required=("prompt",), skip_bad_rows=config.skip_bad_rows, limit=config.limit)
    policy = CheckpointPolicy.from_pretrained(config.generator, max_new_tokens=config.max_new_tokens)
    judge = judge_of(config.annotator)

    def annotate(prompt: str, shared: str, first: str, second: str) -> str | None:
        verdict = judge(as_messages(prompt), shared + first, shared + second)
        if isinstance(verdict, Failed):
            raise GuerdonError(f"annotator {config.annotator!r} failed: {verdict.cause}")
        return verdict

    continuation = ModelContinuation(policy, segment_tokens=config.segment_tokens, seed=config.seed)
    return list(dict.fromkeys(text_of(prompt) for prompt in rows["prompt"])), continuation, policy, annotate


# The embedded world: an answer is an opener, a statement and padding, which are the segments of its tree.


def _continued(prompt: str, prefixes: Sequence[Prefix], n: int, last: bool) -> list[list[Prefix]]:
    made = []
    for prefix in prefixes:
        level = len(prefix.ids)
        texts = [_segment(prompt, prefix, child, level) for child in range(n)]
        whole = [" ".join(part for part in (prefix.text, text) if part) for text in texts]
        made.append([Prefix(text, (*prefix.ids, child), last) for child, text in enumerate(whole)])
    return made


def _segment(prompt: str, prefix: Prefix, child: int, level: int) -> str:
    rng = np.random.default_rng(abs(sampling_key(0, f"{prompt}\n{prefix.ids}", child)))
    thing = next(name for name in USES if name in prompt)
    if level == 0:
        options = ("", COURTEOUS[rng.integers(len(COURTEOUS))], RUDE[rng.integers(len(RUDE))])
        return options[rng.integers(3)]
    if level == 1:
        uses = list(USES.values())
        return f"{thing.capitalize()} is for {USES[thing] if rng.random() < 0.5 else uses[rng.integers(len(uses))]}."
    return PADDING[rng.integers(len(PADDING))]


def _answered(prompts: Sequence[str], seed: int) -> list[str]:
    texts = []
    for number, prompt in enumerate(prompts):
        prefix = Prefix()
        for level in range(3):
            said = _segment(prompt, Prefix(prefix.text, (*prefix.ids, 1000 + number)), seed % 1000, level)
            prefix = Prefix(" ".join(part for part in (prefix.text, said) if part), (*prefix.ids, 1000 + number))
        texts.append(prefix.text)
    return texts


def _embedded_annotator(seed: int) -> Any:
    """Prefers the better answer with noise that grows with how many words differ: long comparisons are hard."""
    rng = np.random.default_rng([seed, 2])

    def annotate(prompt: str, shared: str, first: str, second: str) -> str | None:
        thing = next(name for name in USES if name in prompt)
        gap = quality(shared + first, thing) - quality(shared + second, thing)
        if gap == 0:
            return None
        read, common = len((first + " " + second).split()), 2 * len(shared.split())
        temperature = 2.0 * read / (read + common)
        return "a" if rng.random() < 1 / (1 + np.exp(-gap / temperature)) else "b"

    return annotate
