"""IXC-2.5-Reward (arXiv 2501.12368): a length constraint on preference pairs takes length gaming out of the reward.

Three parts, as in the system's card. (1) A judge who likes long answers labels pairs of known quality; reward models
learn from all of them, from those that a cap on |chosen| / |rejected| keeps, and, as the control, from as many kept at
random. The capped one must agree better with true quality, and its best-of-16 must be shorter. The same sweep with an
honest judge and with a symmetric cap shows what the filter does: it selects. (2) Best-of-n in a pool in which an
adversary padded answers: the true quality of the pick must go on rising with n for the capped reward, as it does not
for the other. How much padding that takes is part of the result.
(3) Among rows of which a tenth got another row's answer, the lowest-scored tenth must hold more of these than chance,
and than a scorer that sees length alone finds.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from guerdon.claims.experiment import (
    Arm,
    ClaimResult,
    ProgressBar,
    above,
    arms_section,
    below,
    control_fails,
    difference,
    effect_of,
)
from guerdon.core.progress import progress as default_progress
from guerdon.curation.flagging import score_dataset
from guerdon.curation.length import Side, constrain_lengths, nearest_cap
from guerdon.metrics.pair_accuracy import pair_accuracy
from guerdon.objectives.preference import bradley_terry
from guerdon.policies.best_of_n import best_of_n

SLUG = "ixc-2.5-reward"
TITLE = "InternLM-XComposer2.5-Reward: A Simple Yet Effective Multi-Modal Reward Model"
CLAIM = (
    "dropping pairs whose chosen answer is much longer than the rejected one takes the length bias of the labels out "
    "of the reward model, where dropping as many at random does not"
)

Floats = NDArray[np.float64]
CAPS = (math.inf, 3.0, 2.0, 1.5, 1.0)
COUNTS = (1, 4, 16, 64)
PADDING = (1.0, 8.0, 32.0)
"""Factors of length, the last of which is judged: 32 is worth 5.2 logits to a bias of 1.5 a nat, 2.6 deviations of
quality; 8 only 1.6, which a best of 64 makes up for by other answers."""
MEDIAN, SPREAD, QUALITY = 150.0, 0.6, 2.0
"""Answers: log-normal lengths (mean 180 words) and normal qualities, independent of each other; quality in logits."""


@dataclass(frozen=True)
class Size:
    """How large the experiment is: pairs, bias and pools are the card's. The paper names no ratio: 2 is judged, all of
    ``CAPS`` are measured."""

    pairs: int = 6000
    tested: int = 20_000
    bias: float = 1.5
    cap: float = 2.0
    prompts: int = 500
    rows: int = 2000
    corrupted: float = 0.1
    features: int = 8


def answers(shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
    """(quality, log-length) of answers, float64 [..., 2]."""
    quality = rng.normal(0.0, QUALITY, shape)
    return np.stack([quality, rng.normal(math.log(MEDIAN), SPREAD, shape)], axis=-1)


def labelled(pairs: Floats, merit: Floats, rng: np.random.Generator) -> Floats:
    """Pairs [N, 2, ...] with the preferred answer first: the judge's choice by Bradley-Terry on ``merit`` [N, 2]."""
    first = rng.random(len(pairs)) < expit(merit[:, 0] - merit[:, 1])
    return np.where(first.reshape(-1, *[1] * (pairs.ndim - 1)), pairs, pairs[:, ::-1])


def linear_reward(pairs: Floats) -> Floats:
    """Weights [d] of the linear reward that fits pairs [N, 2, d], chosen first, by Bradley-Terry.

    A little decay keeps the weights finite where a cap has left labels that one feature decides.
    """
    chosen, rejected = torch.from_numpy(pairs).unbind(1)
    weight = torch.zeros(pairs.shape[2], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        value = bradley_terry(chosen @ weight, rejected @ weight) + 1e-5 * (weight**2).sum()
        value.backward()
        return value

    optimiser.step(loss)  # type: ignore[arg-type]
    return weight.detach().numpy()


def measured(weight: Floats, kept: NDArray[np.bool_], size: Size, rng: np.random.Generator) -> dict[str, float]:
    """What became of a reward: its length weight for a quality weight of 1, its accuracy against true quality, and the
    mean length of its best of 16, in words."""
    pairs = answers((size.tested, 2), rng)
    better = pairs[..., 0].argmax(1)[:, None, None]
    chosen, rejected = (np.take_along_axis(pairs, place, 1)[:, 0] @ weight for place in (better, 1 - better))
    pool = answers((2000, 16), rng)
    picked = (pool @ weight).argmax(1)
    return {
        "kept": float(kept.mean()),
        "length weight": float(weight[1] / weight[0]) if weight[0] > 0 else math.copysign(99.0, weight[1]),
        "accuracy": pair_accuracy(chosen, rejected),
        "best-of-16 length": float(np.exp(pool[np.arange(len(pool)), picked, 1]).mean()),
    }


def sweep(size: Size, seed: int, bias: float) -> tuple[dict[str, dict[str, float]], dict[str, Floats]]:
    """Measures and weights of every filter on the pairs of a judge of this ``bias``."""
    rng = np.random.default_rng([seed, int(10 * bias)])
    pairs = answers((size.pairs, 2), rng)
    pairs = labelled(pairs, pairs @ np.array([1.0, bias]), rng)
    lengths = np.maximum(np.exp(pairs[..., 1]), 1.0)
    masks: dict[str, NDArray[np.bool_]] = {}
    for cap in CAPS:
        sides: tuple[Side, ...] = ("chosen_longer", "symmetric") if 1 < cap < math.inf else ("chosen_longer",)
        for side in sides:
            masks[named(cap, side)] = constrain_lengths(lengths, cap, side).kept
    masks["random"] = rng.permutation(masks[named(size.cap)])
    # Chosen as a user can, who does not know the quality.
    masks["nearest zero"] = nearest_cap(lengths, CAPS).kept
    weights = {name: linear_reward(pairs[kept]) for name, kept in masks.items()}
    # All rewards meet the same test pairs and pools.
    return {
        name: measured(weight, masks[name], size, np.random.default_rng([seed, 99])) for name, weight in weights.items()
    }, weights


def named(cap: float, side: Side = "chosen_longer") -> str:
    """The arm of a cap."""
    return "none" if cap == math.inf else f"{'symmetric ' if side == 'symmetric' else ''}cap {cap:g}"


def best_quality(weight: Floats, factor: float, size: Size, seed: int) -> dict[str, float]:
    """Mean true quality of the best of n by a reward, in a pool in which one answer of ten is padded to ``factor``
    times its length and, if padded at all, worse by half a deviation for it."""
    rng = np.random.default_rng([seed, 5])
    pool = answers((size.prompts, max(COUNTS)), rng)
    padded = rng.random(pool.shape[:2]) < 0.1
    pool[padded] += [-0.5 * QUALITY * (factor > 1), math.log(factor)]

    def reward(prompts: Sequence[int], completions: Sequence[Floats], **columns: object) -> list[float]:
        return (np.stack(completions) @ weight).tolist()

    found = {}
    for count in COUNTS:
        # The k-th copy of a prompt is its k-th answer.
        sampler = lambda prompts, seed, n=count: [pool[p, k % n] for k, p in enumerate(prompts)]  # noqa: E731
        picks = best_of_n(sampler, reward, count)(range(size.prompts))
        found[f"n={count}"] = float(np.mean([pick[0] for pick in picks]))
    return found


def cleaned(size: Size, seed: int) -> dict[str, dict[str, float]]:
    """How well a reward, and length alone, find the rows whose answers were exchanged.

    A prompt is a direction, an answer the same direction and noise; the reward model is linear in the products of their
    coordinates and in length, trained on capped pairs of the biased judge.
    """
    rng = np.random.default_rng([seed, 6])
    d = size.features

    def matched(asked: Floats, said: Floats, log_length: Floats) -> Floats:
        return np.concatenate([asked * said, log_length[..., None]], axis=-1)

    def answered(asked: Floats) -> tuple[Floats, Floats]:
        noise = rng.uniform(0.2, 1.2, asked.shape[:-1])[..., None] * rng.normal(size=asked.shape)
        return asked + noise, rng.normal(math.log(MEDIAN), SPREAD, asked.shape[:-1])

    asked = np.repeat(rng.normal(size=(size.pairs, 1, d)), 2, axis=1)
    pairs = matched(asked, *answered(asked))
    merit = pairs[..., :d].mean(-1) * QUALITY + size.bias * pairs[..., d]
    pairs = labelled(pairs, merit, rng)
    kept = constrain_lengths(np.maximum(np.exp(pairs[..., d]), 1.0), size.cap).kept
    weight = linear_reward(pairs[kept])

    prompts = rng.normal(size=(size.rows, d))
    said, lengths = answered(prompts)
    wrong = rng.choice(size.rows, int(size.corrupted * size.rows), replace=False)
    truth = np.zeros(size.rows, dtype=bool)
    truth[wrong] = True
    said[wrong], lengths[wrong] = said[np.roll(wrong, 1)], lengths[np.roll(wrong, 1)]
    table = matched(prompts, said, lengths)
    rows = [{"prompt": f"prompt {row}", "completion": f"answer {row}", "row": row} for row in range(size.rows)]

    def judged_by(column: Callable[[Floats], Floats]) -> dict[str, float]:
        def reward(
            prompts: Sequence[str], completions: Sequence[str], row: Sequence[int], **rest: object
        ) -> list[float]:
            return column(table[list(row)]).tolist()

        found = score_dataset(reward, rows, q=size.corrupted)
        return {
            "AUC": float(roc_auc_score(truth, -found.scores)),
            "enrichment": float(truth[found.rows].mean() / truth.mean()),
        }

    return {
        "reward model": judged_by(lambda features: features @ weight),
        "short answers first": judged_by(lambda features: features[:, d]),
        "long answers first": judged_by(lambda features: -features[:, d]),
    }


def run(
    seeds: Sequence[int] = (11, 12, 13), progress: ProgressBar = default_progress, size: Size | None = None
) -> ClaimResult:
    """Run all three parts for each seed; a few seconds a seed on one slow core.

    The effect is the accuracy against true quality, capped at 2 less uncapped.
    """
    size, started = size or Size(), time.monotonic()
    biased: dict[str, Arm] = {}
    honest: dict[str, Arm] = {}
    picks = {
        (name, factor): Arm(f"{name}, padded {factor:g}x")
        for factor in PADDING
        for name in ("none", named(size.cap), "random")
    }
    clean: dict[str, Arm] = {}
    with progress(3 * len(seeds), "claim ixc-2.5-reward") as bar:
        for seed in seeds:
            for table, bias in ((biased, size.bias), (honest, 0.0)):
                rows, weights = sweep(size, seed, bias)
                for name, row in rows.items():
                    table.setdefault(name, Arm(name)).add(row)
                if bias:
                    for (name, factor), arm in picks.items():
                        arm.add(best_quality(weights[name], factor, size, seed))
                bar.advance(seed=seed, bias=bias)
            for name, row in cleaned(size, seed).items():
                clean.setdefault(name, Arm(name)).add(row)
            bar.advance(seed=seed, arm="cleaning")
    return _result(list(seeds), biased, honest, picks, clean, size, time.monotonic() - started)


def _result(
    seeds: list[int],
    biased: dict[str, Arm],
    honest: dict[str, Arm],
    picks: dict[tuple[str, float], Arm],
    clean: dict[str, Arm],
    size: Size,
    seconds: float,
) -> ClaimResult:
    none, capped, control = biased["none"], biased[named(size.cap)], biased["random"]
    gain, shown = difference(capped, none, "accuracy"), difference(control, none, "accuracy")
    last = f"n={COUNTS[-1]}"

    def rise(name: str, factor: float = PADDING[-1]) -> Floats:
        return picks[name, factor].values(last) - picks[name, factor].values("n=4")

    def slowed(factor: float) -> str:
        return f"{effect_of(rise('none', factor) / rise(named(size.cap), factor))} at a factor of {factor:g}"

    found = clean["reward model"]
    by_length = max(("short answers first", "long answers first"), key=lambda name: clean[name].mean("AUC"))
    checks = [
        above(f"a cap of {size.cap:g} brings the reward nearer to true quality", gain),
        control_fails("dropping as many at random does not", gain, shown, difference(capped, control, "accuracy")),
        below("its best of 16 is shorter", difference(capped, none, "best-of-16 length")),
        above("capped, true quality of the best of n rises from 4 to 64", effect_of(rise(named(size.cap)))),
        below("uncapped, by less than half as much", effect_of(rise("none") - 0.5 * rise(named(size.cap)))),
        above("exchanged answers are among the lowest scores more than twice as often as chance",
              effect_of(found.values("enrichment")), 2.0),
        control_fails("a scorer of length does not find them", effect_of(found.values("AUC") - 0.5),
                      effect_of(clean[by_length].values("AUC") - 0.5), difference(found, clean[by_length], "AUC")),
    ]  # fmt: skip
    names = ["kept", "length weight", "accuracy", "best-of-16 length"]
    sections = [
        arms_section(f"a judge with a length bias of {size.bias:g}", list(biased.values()), names),
        arms_section("an honest judge", list(honest.values()), names),
        arms_section("true quality of the best of n, one answer of ten padded (longer and worse)", list(picks.values()),
                     [f"n={count}" for count in COUNTS]),
        arms_section("finding exchanged answers", list(clean.values()), ["AUC", "enrichment"]),
    ]  # fmt: skip
    tight, mirrored = biased[named(1.5)], biased[named(1.5, "symmetric")]
    notes = [
        "the cap selects: at 1.5 the reward prefers short answers, length weight "
        f"{effect_of(tight.values('length weight'))}, accuracy less none {difference(tight, none, 'accuracy')}",
        f"a symmetric cap of 1.5 keeps the bias: length weight {effect_of(mirrored.values('length weight'))}",
        "an honest judge's labels are made worse by every cap: at "
        f"{size.cap:g} by {difference(honest[named(size.cap)], honest['none'], 'accuracy')}, at 1.5 by "
        f"{difference(honest[named(1.5)], honest['none'], 'accuracy')}",
        "uncapped, the best of n gains from 4 to 64 this share of what it gains capped: "
        + ", ".join(map(slowed, PADDING)),
        "the cap whose length weight is nearest zero, chosen without knowing quality: accuracy less none "
        f"{difference(biased['nearest zero'], none, 'accuracy')}, of an honest judge "
        f"{difference(honest['nearest zero'], honest['none'], 'accuracy')}",
    ]
    arms = [*biased.values(), *(Arm(f"{arm.name}, honest judge", arm.measures) for arm in honest.values())]
    arms += [*picks.values(), *clean.values()]
    return ClaimResult(
        SLUG, CLAIM, f"accuracy against true quality, cap {size.cap:g} less none", gain, shown.value, checks, arms,
        seeds, seconds, sections, notes,
    )  # fmt: skip


__all__ = ["CLAIM", "SLUG", "TITLE", "Size", "run"]
